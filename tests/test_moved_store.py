"""A store that was moved or copied: MLflow complete in the new place, the old one untouched."""

import hashlib
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from tracked import a_manifest, a_store, cells_of, mlflow_runs, start, train, validate

from harness.store.cells import Cells
from harness.tracking import Tracking, init, resolve_uri
from harness.tracking.ledger import open_ledger
from harness.tracking.server import Server
from harness.tracking.tracking import sync

pytestmark = pytest.mark.slow

BASELINE, NORMED = cells_of(), cells_of({"model.batch_norm": True})
MANIFEST = a_manifest({"baseline": BASELINE, "batch-norm": NORMED})


def contents(folder: Path) -> dict[str, str]:
    """Path to checksum and time of writing of every file."""
    files = sorted(it for it in folder.rglob("*") if it.is_file())
    return {
        str(it.relative_to(folder)): f"{hashlib.sha256(it.read_bytes()).hexdigest()} {it.stat().st_mtime_ns}"
        for it in files
    }


def deliver(root: Path, uri: str = "") -> None:
    Tracking(uri or resolve_uri(None, root), root).project(MANIFEST, Cells(root))


def artifacts(root: Path, uri: str = "") -> dict[str, set[str]]:
    """Run to the files that MLflow shows of it, all of which lie below the store."""
    uri = uri or resolve_uri(None, root)
    client, found = MlflowClient(tracking_uri=uri), dict[str, set[str]]()
    for run in (it for several in mlflow_runs(uri, root).values() for it in several):
        files = {it.path for it in client.list_artifacts(run.info.run_id)}
        place = Path(unquote(urlsplit(run.info.artifact_uri).path))
        assert place.is_relative_to(root), f"the artifacts of {run.info.run_name} lie in {place}"
        assert all((place / name).exists() for name in files)
        found[run.info.run_name] = files
    return found


CELL = {"settings.json", "uncommitted.diff", "best.safetensors"}


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A store in which three of four cells have ended and were delivered."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, cells = a_store(tmp_path / "old place")
    cells.write_manifest(MANIFEST)
    for cell in (*BASELINE, NORMED[0]):
        train(cells, cell)
    deliver(cells.root)
    return cells.root


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
@pytest.mark.parametrize("has_notes", [True, False])
def test_a_store_in_a_new_place_is_complete_and_leaves_the_old_one_alone(old, tmp_path, how, has_notes):
    if not has_notes:  # as an earlier version left it
        (old / "tracking" / "places.json").unlink()
        with open_ledger(old / "tracking" / "ledger.db", "sqlite:///./mlflow.db") as ledger:
            ledger._connection.execute("UPDATE runs SET target = ?", (resolve_uri(None, old),))
    before, new = contents(old), tmp_path / "elsewhere" / "new place"
    new.parent.mkdir()
    how(old, new)

    train(Cells(new), NORMED[1])
    deliver(new)

    assert {name: files for name, files in artifacts(new).items() if "seed" in name} == {
        f"{variant} seed {seed}": CELL for variant in ("baseline", "batch-norm") for seed in (0, 1)
    }
    assert (contents(old) if old.exists() else before) == before


def test_a_moved_store_sends_nothing_again(old, tmp_path):
    new = tmp_path / "new"
    shutil.move(old, new)

    sent: list[str] = []

    class Watched(Server):
        def create_run(self, *arguments: Any) -> Any:
            sent.append("run")
            return super().create_run(*arguments)

        def put(self, *arguments: Any) -> None:
            sent.append("artifact")
            super().put(*arguments)

    tracking = Tracking(resolve_uri(None, new), new)
    tracking._server = Watched(tracking.uri, new)
    assert tracking.project(MANIFEST, Cells(new)).delivered == 0
    assert sent == []


def test_sync_goes_on_where_it_was_cut_off_and_says_so(old):
    cells = Cells(old)
    train(cells, NORMED[1])
    seen: list[tuple[int, int]] = []
    sync(resolve_uri(None, old), old, on_progress=lambda *it: seen.append(it))
    assert seen == [(4, 4), (4, 4)]  # three were delivered before


def test_a_model_that_was_registered_is_found_in_the_new_place(old, tmp_path):
    uri = resolve_uri(None, old)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (run, *_) = mlflow_runs(uri, old)["cell"]
    client.create_registered_model("task3")
    client.create_model_version("task3", f"{run.info.artifact_uri}/best.safetensors", run_id=run.info.run_id)
    new = tmp_path / "new"
    shutil.move(old, new)

    uri = resolve_uri(None, new)
    init(uri, new)
    version = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("task3", "1")
    assert version.source.startswith(new.as_uri())


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_a_database_outside_the_store_learns_where_its_runs_are_now(tmp_path, monkeypatch, how):
    shared, _ = a_store(tmp_path / "shared")
    old, new = tmp_path / "old", tmp_path / "new"
    cells = Cells(old)
    for cell in (*BASELINE, NORMED[0]):
        train(cells, cell)
    deliver(old, shared)
    before = contents(old)
    how(old, new)

    start(Cells(new), NORMED[1])
    validate(Cells(new), NORMED[1], 100)
    deliver(new, shared)

    found = artifacts(new, shared)
    assert [found[f"baseline seed {seed}"] for seed in (0, 1)] == [CELL, CELL]
    assert found["batch-norm seed 1"] == {"settings.json", "uncommitted.diff"}
    assert (contents(old) if old.exists() else before) == before


def test_artifacts_that_were_being_brought_when_a_process_died_are_brought_whole(tmp_path, monkeypatch):
    shared, _ = a_store(tmp_path / "shared")
    old, new = tmp_path / "old", tmp_path / "new"
    train(Cells(old), BASELINE[0])
    deliver(old, shared)
    shutil.copytree(old, new, ignore=shutil.ignore_patterns("artifacts"))

    def dies(source: str, destination: str) -> None:
        Path(destination).write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("harness.tracking.places._link", dies)
        with pytest.raises(KeyboardInterrupt):
            deliver(new, shared)
    deliver(new, shared)
    assert artifacts(new, shared)["baseline seed 0"] == CELL
    assert "half" not in {it.read_text(errors="replace") for it in new.glob("artifacts/**/*") if it.is_file()}


def test_two_stores_in_one_database_keep_their_artifacts_each_to_itself(tmp_path):
    uri, first = a_store(tmp_path / "first")
    second = Cells(tmp_path / "second")
    for cells in (first, second):
        train(cells, BASELINE[0])
    deliver(first.root, uri)
    before = contents(first.root / "artifacts")
    deliver(second.root, uri)

    assert contents(first.root / "artifacts") == before
    assert list(second.root.glob("artifacts/task3/*/artifacts/best.safetensors"))
