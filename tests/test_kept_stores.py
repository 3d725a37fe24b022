"""Stores that are kept: packed, merged, checked, freed; the same table everywhere, and nothing overwritten."""

import contextlib
import errno
import gzip
import io
import json
import os
import tarfile
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from click.testing import CliRunner
from own import train_study, write_study
from schemas import fitting
from test_moved_store import contents
from tracked import a_manifest, a_result, a_store, cells_of, mlflow_runs, start, train, validate

from harness.api.stores import check_store, delete, deletion, merge_into, pack
from harness.api.work import save_manifest
from harness.api.worker import PRESENT
from harness.cli import cli
from harness.errors import DamagedError, ResultsError, StoreError
from harness.files.locks import is_locked, locked
from harness.files.presence import present
from harness.plan.manifest import Look, RunComparison
from harness.store.cells import Cells
from harness.store.load import curves_table, results_table
from harness.store.merge import differing_results, merge
from harness.store.pack import INDEX, write_pack
from harness.store.unpack import unpack
from harness.store.unused import ASIDE, ENDED, LEFT, SOURCES, UNUSED, WEIGHTS, free, garbage
from harness.tracking import Tracking
from harness.tracking.server import Server
from harness.tracking.tracking import sync

pytestmark = pytest.mark.slow

BASELINE, NORMED, WIDE = cells_of(), cells_of({"model.batch_norm": True}), cells_of({"model.kernel_size": 3})
MANIFEST = a_manifest({"baseline": BASELINE, "batch-norm": NORMED})
FIRST, SECOND = (BASELINE[0], NORMED[1]), (BASELINE[1], NORMED[0])
DAY = 86_400


def call(*arguments):
    return CliRunner().invoke(cli, [str(it) for it in arguments])


def filled(root: Path, cells, manifest=MANIFEST) -> Cells:
    store = Cells(root)
    for cell in cells:
        train(store, cell)
    store.write_manifest(manifest)
    return store


def table(cells: Cells):
    """Results and curves, without when they were made."""
    results = results_table(cells, MANIFEST).drop(columns="finished_at")
    return results.to_csv(), curves_table(cells, MANIFEST).to_csv()


def aged(root: Path, seconds: float) -> None:
    for path in [root, *root.rglob("*")]:
        os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def kinds(cells: Cells, **options) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for it in garbage(cells, **options):
        found.setdefault(it.kind, []).append(it.path.name)
    return found


@pytest.fixture(autouse=True)
def _no_databases_from_outside(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "HARNESS_OPTUNA_STORAGE", "HARNESS_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def whole(tmp_path) -> Cells:
    return filled(tmp_path / "whole", (*BASELINE, *NORMED))


# --- packs


def test_a_harness_that_runs_from_its_sources_alone_packs_too(whole, tmp_path, monkeypatch):
    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("harness.version.version", unknown)
    packed = pack("task3", tmp_path / "study.tar.gz", store=whole.root)
    with tarfile.open(packed.path) as file:
        assert json.load(file.extractfile(INDEX))["harness"] == "not installed"


@pytest.mark.parametrize("with_weights", [False, True])
def test_a_pack_gives_the_same_table_and_all_of_mlflow_on_a_fresh_machine(whole, tmp_path, with_weights):
    before = contents(whole.root)
    packed = pack("task3", tmp_path / "study.tar.gz", store=whole.root, with_weights=with_weights)
    assert (packed.runs, packed.num_cells, packed.num_left_out) == ((MANIFEST.id,), 4, 0)
    assert contents(whole.root) == before

    uri, fresh = a_store(tmp_path / "fresh")
    found = merge_into(packed.path, store=fresh.root)
    assert (len(found.added), found.runs, found.refused) == (4, [MANIFEST.id], [])
    assert table(fresh) == table(whole)
    assert fresh.manifest(MANIFEST.id) == MANIFEST
    sync(uri, fresh.root)
    runs = mlflow_runs(uri, fresh.root)
    assert [len(runs[kind]) for kind in ("study", "variant", "cell")] == [1, 2, 4]
    weights = list((fresh.root / "artifacts").rglob("best.safetensors"))
    assert len(weights) == (4 if with_weights else 0)
    assert not list(fresh.root.glob(".merging-*"))


def test_a_pack_is_plain_files_and_the_same_store_gives_the_same_bytes(whole, tmp_path):
    for name in ("one.tar.gz", "two.tar.gz"):
        pack("task3", tmp_path / name, store=whole.root)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        names = tar.getnames()
        record = [f"cells/{BASELINE[0].key}/{name}" for name in ("spec.json", "journal.jsonl", "result.json")]
        assert names[:2] == [INDEX, f"studies/{MANIFEST.id}.json"]
        assert set(record) < set(names)
        content = tar.extractfile(record[2])
        assert content
        assert content.read() == (whole.folder(BASELINE[0].key) / "result.json").read_bytes()


def test_a_pack_leaves_out_what_has_not_ended_and_says_so(tmp_path):
    cells = filled(tmp_path / "store", FIRST)
    start(cells, SECOND[0])
    answer = call("pack", "task3", "-o", tmp_path / "half.tar.gz", "--store", cells.root)
    assert answer.exit_code == 0, answer.output
    assert "2 cells have not ended and were left out." in answer.output
    assert merge_into(tmp_path / "half.tar.gz", store=tmp_path / "new").unfinished == []


def test_a_study_that_there_is_not_is_named_with_what_there_is(whole, tmp_path):
    with pytest.raises(ResultsError, match=r"no study run of 'tusk3'\. Did you mean 'task3'"):
        pack("tusk3", tmp_path / "study.tar.gz", store=whole.root)


def test_a_pack_holds_a_confirmation_of_its_winner(whole, tmp_path):
    confirmation = replace(a_manifest({"wide": WIDE}, study="confirmed"), confirms=MANIFEST.id)
    train(whole, WIDE[0])
    whole.write_manifest(confirmation)
    assert set(pack("task3", tmp_path / "a.tar.gz", store=whole.root).runs) == {MANIFEST.id, confirmation.id}


# --- packs that somebody else made


def tar_of(path: Path, members, index=None) -> Path:
    """A pack of (TarInfo or name, content); its index describes the plain ones unless it is given."""
    described = {}
    for member, content in members:
        name = member if isinstance(member, str) else member.name
        described[name] = {"size": len(content), "sha256": sha256(content)}
    index = {"format": 1, "runs": [], "files": described} if index is None else index
    with tarfile.open(path, "w:gz") as tar:
        for member, content in [(INDEX, json.dumps(index).encode()), *members]:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))
    return path


def sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def linked(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


KEY = BASELINE[0].key
OUTSIDE = ("../evil.json", "/tmp/evil.json", "studies/../../evil.json", "cells/../spec.json", f"cells/{KEY}/../../e")
ODD = ("evil.json", "store-id", "mlflow.db", "studies/a/b.json", f"cells/{KEY}/a/b", "cells/nokey/spec.json")
ODD += ("tracking/ledger.db", "studies/.hidden.json", "sources/a", f"cells/{KEY}/a\nb", f"cells/{KEY}/a\\b")


@pytest.mark.parametrize("name", [*OUTSIDE, *ODD])
def test_a_file_that_no_pack_holds_is_refused_before_anything_is_written(tmp_path, name):
    path = tar_of(tmp_path / "evil.tar.gz", [(name, b"x")])
    with pytest.raises(StoreError, match="no store has"):
        merge_into(path, store=tmp_path / "store" / "inner")
    assert not [it for it in tmp_path.rglob("*") if it.is_file() and it != path]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    members = [(linked(f"cells/{KEY}/spec.json", "/etc/passwd", kind), b"")]
    with pytest.raises(StoreError, match="is refused"):
        merge_into(tar_of(tmp_path / "evil.tar.gz", members), store=tmp_path / "store")


def test_a_member_that_comes_twice_or_is_not_declared_is_refused(tmp_path):
    twice = tar_of(tmp_path / "twice.tar.gz", [("studies/a.json", b"{}"), ("studies/a.json", b"{}")])
    with pytest.raises(StoreError, match="is refused"):
        merge_into(twice, store=tmp_path / "store")


def test_a_file_that_grows_beyond_its_index_is_not_unpacked(tmp_path):
    """A tar's header of a gigabyte, a megabyte when compressed: read as a whole, it would fill the memory."""
    path = tmp_path / "bomb.tar.gz"
    index = json.dumps({"format": 1, "runs": [], "files": {"studies/a.json": {"size": 2, "sha256": "0"}}}).encode()
    info, giant = tarfile.TarInfo(INDEX), tarfile.TarInfo("bomb")
    info.size, giant.type, giant.size = len(index), tarfile.XHDTYPE, 1 << 30
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf() + index + b"\0" * (-len(index) % 512) + giant.tobuf())
        for _ in range(64):
            file.write(b"\0" * (1 << 20))
    with pytest.raises(StoreError, match="grows beyond"):
        merge_into(path, store=tmp_path / "store")


def damaged(path: Path, how: str) -> Path:
    content = path.read_bytes()
    middle = len(content) // 2
    changed = {
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "text": b"results,please\n",
        "zipped text": gzip.compress(b"results,please\n"),
    }
    path.write_bytes(changed[how])
    return path


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "text", "zipped text"])
def test_a_damaged_pack_is_a_sentence_and_changes_nothing(whole, tmp_path, how):
    path = damaged(pack("task3", tmp_path / "study.tar.gz", store=whole.root).path, how)
    answer = call("merge", path, "--store", tmp_path / "new")
    assert (answer.exit_code, answer.output.count("\n")) == (2, 1), answer.output
    assert answer.output.startswith(f"error: {path}: ")
    assert not [it for it in (tmp_path / "new").rglob("*") if it.is_file()]


def test_a_pack_of_a_newer_version_is_not_called_damaged(tmp_path):
    index = {"format": 99, "harness": "9.0", "files": {}}
    with pytest.raises(StoreError, match=r"has format 99, .* reads up to 2\. Install .* \(9\.0\)"):
        unpack(tar_of(tmp_path / "new.tar.gz", [], index), tmp_path)


# --- merging


def test_two_halves_of_a_study_give_the_table_of_the_whole(whole, tmp_path):
    first, second = filled(tmp_path / "first", FIRST), filled(tmp_path / "second", SECOND)
    before = contents(second.root)
    found = merge(first, second.root)
    assert sorted(found.added) == sorted(it.key for it in SECOND)
    assert table(first) == table(whole)
    assert contents(second.root) == before
    again = merge(first, second.root)
    assert (again.added, sorted(again.same)) == ([], sorted(it.key for it in SECOND))


def test_a_study_run_that_grew_elsewhere_has_the_variants_of_both(tmp_path):
    here = filled(tmp_path / "here", BASELINE, a_manifest({"baseline": BASELINE, "batch-norm": NORMED[:1]}))
    there = filled(tmp_path / "there", WIDE, a_manifest({"batch-norm": NORMED[1:], "wide": WIDE}))
    assert merge(here, there.root).extended == [MANIFEST.id]
    manifest = here.manifest(MANIFEST.id)
    assert manifest
    assert [it.name for it in manifest.variants] == ["baseline", "batch-norm", "wide"]
    assert manifest.variants[1].cells == {0: NORMED[0].key, 1: NORMED[1].key}


def test_looks_that_were_taken_elsewhere_and_what_was_edited_since_are_kept(tmp_path):
    def a_look(seed, time):
        return Look((seed,), time, "harness results")

    def with_settings(settings, *looks):
        variants = [replace(it, settings=settings) if it.changes else it for it in MANIFEST.variants]
        compared = RunComparison("add-one", "batch-norm", "batch-norm", "baseline")
        return replace(MANIFEST, variants=tuple(variants), comparisons=(compared,), looks=looks)

    here = filled(tmp_path / "here", BASELINE, with_settings("now", a_look(0, "2026-11-02T00:00:00+00:00")))
    there = filled(tmp_path / "there", BASELINE, with_settings("before", a_look(1, "2026-11-01T00:00:00+00:00")))
    merge(here, there.root)
    both = here.manifest(MANIFEST.id)

    assert both
    assert [it.seeds for it in both.looks] == [(1,), (0,)]
    settings = {it.name: it.settings for it in both.variants}
    assert settings == {"baseline": "", "batch-norm": "now", "batch-norm~1": "before"}
    assert [it.variant for it in both.comparisons] == ["batch-norm", "batch-norm~1"]


def test_another_result_of_a_cell_stands_beside_the_one_that_was_here(whole, tmp_path):
    there = Cells(tmp_path / "there")
    start(there, BASELINE[0])
    there.write_result(a_result(BASELINE[0], metrics={**a_result(BASELINE[0]).metrics, "test/accuracy": 0.77}))
    (there.root / "studies").mkdir()
    before = table(whole)

    assert merge(whole, there.root).differing == [BASELINE[0].key]
    assert table(whole) == before
    (kept,) = differing_results(whole, BASELINE[0].key)
    assert json.loads(kept.read_text())["metrics"]["test/accuracy"] == 0.77
    merge(whole, there.root)
    assert len(differing_results(whole, BASELINE[0].key)) == 1
    (note,) = [it for it in check_store(whole.root) if "1 result more" in it.what]
    assert not note.is_wrong
    whole.forget_result(BASELINE[0].key)
    assert differing_results(whole, BASELINE[0].key) == [kept]


@pytest.mark.parametrize(("there", "is_same"), [(0.4 + 1e-8, True), (0.4 + 1e-4, False)])
def test_rounding_makes_no_other_result(whole, tmp_path, there, is_same):
    other = Cells(tmp_path / "there")
    start(other, BASELINE[0])
    metrics = {**a_result(BASELINE[0]).metrics, "test/accuracy": there}
    other.write_result(a_result(BASELINE[0], metrics=metrics, seconds=99.0, device="cuda: other"))
    (other.root / "studies").mkdir()
    found = merge(whole, other.root)
    assert (found.same == [BASELINE[0].key], found.differing == []) == (is_same, is_same)


def test_what_failed_here_and_finished_there_is_shown_finished_and_the_failure_kept(tmp_path):
    here, there = filled(tmp_path / "here", ()), filled(tmp_path / "there", (BASELINE[0],))
    start(here, BASELINE[0])
    here.write_result(a_result(BASELINE[0], status="out-of-memory", reason="too small"))
    assert merge(here, there.root).replaced == [BASELINE[0].key]
    result = here.result(BASELINE[0].key)
    assert result
    assert result.is_finished
    (kept,) = differing_results(here, BASELINE[0].key)
    assert json.loads(kept.read_text())["reason"] == "too small"


def test_a_cell_that_was_interrupted_here_takes_what_it_ended_with_there(tmp_path):
    here, there = filled(tmp_path / "here", ()), filled(tmp_path / "there", (BASELINE[0],))
    start(here, BASELINE[0])
    validate(here, BASELINE[0], 100, test_loss=9.0)
    (here.folder(BASELINE[0].key) / "checkpoint").write_text("half")
    merge(here, there.root)
    assert here.validations(BASELINE[0].key) == there.validations(BASELINE[0].key)
    assert not (here.folder(BASELINE[0].key) / "checkpoint").exists()


def test_a_cell_that_trains_here_is_left_alone(tmp_path):
    here, there = filled(tmp_path / "here", ()), filled(tmp_path / "there", (BASELINE[0],))
    with here.claim(BASELINE[0]):
        assert merge(here, there.root).busy == [BASELINE[0].key]
    assert here.result(BASELINE[0].key) is None


def test_a_cell_that_begins_here_while_it_is_merged_takes_what_it_ended_with_there(whole, tmp_path, monkeypatch):
    here = filled(tmp_path / "here", ())
    monkeypatch.setattr("os.sync", lambda: start(here, BASELINE[0]))
    assert sorted(merge(here, whole.root).added) == whole.all_keys()
    assert here.result(BASELINE[0].key) == whole.result(BASELINE[0].key)


def test_a_cell_that_is_trained_here_while_it_is_merged_is_left_alone(whole, tmp_path, monkeypatch):
    here = filled(tmp_path / "here", ())
    with contextlib.ExitStack() as training:
        monkeypatch.setattr("os.sync", lambda: training.enter_context(here.claim(BASELINE[0])))
        found = merge(here, whole.root)
    assert (found.busy, len(found.added)) == ([BASELINE[0].key], 3)
    assert here.result(BASELINE[0].key) is None


def test_a_full_disk_is_not_called_a_damaged_pack(whole, tmp_path, monkeypatch):
    path = pack("task3", tmp_path / "study.tar.gz", store=whole.root).path

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("harness.store.unpack._extract", full)
    with pytest.raises(StoreError, match=r"has no room for what .* Make room there") as error:
        merge_into(path, store=tmp_path / "new")
    assert "no pack" not in str(error.value)


def test_what_cannot_be_believed_there_is_refused_and_the_rest_merged(whole, tmp_path):
    path = whole.folder(BASELINE[0].key) / "result.json"
    path.write_text(path.read_text().replace('"test/accuracy": 0.4', '"test/accuracy": 0.9'))
    answer = call("merge", whole.root, "--store", tmp_path / "new")
    assert answer.exit_code == 1, answer.output
    assert "3 cells added" in answer.output
    assert f"refused: {path}: is no result that can be believed" in answer.output


def test_a_store_is_not_merged_into_itself_nor_a_folder_that_is_none(whole, tmp_path):
    with pytest.raises(StoreError, match="is this store itself"):
        merge(whole, whole.root)
    with pytest.raises(StoreError, match="is no store"):
        merge(whole, tmp_path)


# --- freeing


def test_gc_frees_what_nobody_needs_and_no_table_changes(whole):
    before = table(whole)
    train(whole, WIDE[0])
    (whole.folder(BASELINE[0].key) / "checkpoint").write_text("of an ended cell")
    (whole.folder(BASELINE[1].key) / ".result.json.4242").write_text("half")
    (whole.folder(BASELINE[1].key) / "result.json.damaged-12").write_text("garbage")
    aged(whole.root, DAY)
    start(whole, WIDE[1])  # just now: its study run may be about to be written

    found = {
        UNUSED: [WIDE[0].key],
        ENDED: ["checkpoint"],
        LEFT: [".result.json.4242"],
        ASIDE: ["result.json.damaged-12"],
    }
    assert kinds(whole) == found
    assert "Nothing was done. --yes does it." in call("gc", "--store", whole.root).output
    assert kinds(whole) == found
    answer = call("gc", "--yes", "--store", whole.root)
    assert answer.exit_code == 0, answer.output
    assert kinds(whole) == {}
    assert table(whole) == before
    assert whole.folder(WIDE[1].key).exists()


def test_gc_touches_nothing_that_a_process_holds(whole):
    train(whole, WIDE[0])
    (whole.folder(BASELINE[0].key) / "checkpoint").write_text("of an ended cell")
    aged(whole.root, DAY)
    with whole.hold(WIDE[0].key), whole.hold(BASELINE[0].key):
        assert kinds(whole) == {}
    found = list(garbage(whole))
    with whole.hold(WIDE[0].key):
        free(whole, found)
    assert whole.result(WIDE[0].key)


WIDE_TOO = a_manifest({"baseline": BASELINE, "batch-norm": NORMED, "wide": WIDE})


@pytest.fixture
def unnamed(whole) -> Cells:
    """A store with two cells that no study run names, an hour after they ended."""
    for cell in WIDE:
        train(whole, cell)
    aged(whole.root, DAY)
    return whole


def named_by_now(cells: Cells) -> None:
    cells.write_manifest(WIDE_TOO)


def named_perhaps(cells: Cells) -> None:
    cells.write_manifest(WIDE_TOO)
    cells.set_manifest_aside(WIDE_TOO.id)


def written_to_by_now(cells: Cells) -> None:
    for cell in WIDE:
        cells.append(cell.key, {"event": "restarted"})


@pytest.mark.parametrize("taken_up", [named_by_now, named_perhaps, written_to_by_now])
def test_gc_keeps_a_cell_that_was_taken_up_while_it_asked(unnamed, taken_up):
    found = list(garbage(unnamed))
    assert [it.key for it in found] == sorted(it.key for it in WIDE)
    taken_up(unnamed)
    assert free(unnamed, found) == 0
    assert len(unnamed.all_keys()) == 6


def test_gc_keeps_a_cell_that_is_named_while_it_frees_another(unnamed):
    first, second = garbage(unnamed)

    def one_after_the_other():
        yield first
        unnamed.write_manifest(WIDE_TOO)
        yield second

    assert free(unnamed, one_after_the_other()) == first.num_bytes
    assert (first.path.exists(), second.path.exists()) == (False, True)


def test_gc_keeps_what_a_cell_saves_under_the_name_that_a_dead_process_left(whole):
    path = whole.folder(KEY) / ".saving.checkpoint"
    path.write_text("half")
    aged(whole.root, DAY)
    found = list(garbage(whole))
    assert [(it.kind, it.key) for it in found] == [(LEFT, KEY)]
    with whole.hold(KEY):
        free(whole, found)
        path.write_text("the first half of another one")
    free(whole, found)
    assert path.exists()
    aged(whole.root, DAY)
    free(whole, found)
    assert not path.exists()


def test_a_gc_that_is_killed_leaves_no_part_that_looks_like_a_cell(unnamed, monkeypatch):
    (one, *_) = garbage(unnamed)

    def killed(folder):
        (folder / "spec.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            free(unnamed, [one])
    assert not one.path.exists()
    aged(unnamed.root, DAY)
    assert kinds(unnamed)[LEFT] == [it.name for it in unnamed.folder("").glob(f".{one.key}.*")]


def test_what_another_gc_has_freed_is_no_error_and_is_not_counted(unnamed):
    (unnamed.folder(KEY) / "checkpoint").write_text("of an ended cell")
    found = list(garbage(unnamed))
    assert {it.kind for it in found} == {UNUSED, ENDED}
    assert free(unnamed, found) > 0
    assert free(unnamed, found) == 0


def working(cells: Cells):
    return locked(Tracking("", cells.root).live_lock("another-standard-1a2b3c4d"), shared=True)


def working_along(cells: Cells):
    return present(cells.root / PRESENT)


@pytest.mark.parametrize("at_work", [working, working_along])
def test_gc_keeps_code_while_a_process_works_on_any_study_run(whole, at_work):
    """Its other variants have not begun, so that no cell says yet which code they run."""
    snapshot = whole.root / "sources" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    aged(whole.root, DAY)
    found = list(garbage(whole))
    assert [(it.kind, it.path) for it in found] == [(SOURCES, snapshot)]
    with at_work(whole):
        assert kinds(whole) == {}
        free(whole, found)
        assert snapshot.is_dir()
    free(whole, found)
    assert not snapshot.exists()


def test_gc_keeps_code_that_a_cell_ran_while_it_asked(whole):
    snapshot = whole.root / "sources" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    aged(whole.root, DAY)
    found = list(garbage(whole))
    edit(whole.folder(KEY) / "spec.json", fingerprints={"sources": snapshot.name})
    free(whole, found)
    assert snapshot.is_dir()


def test_a_gc_that_is_killed_leaves_no_half_of_the_code(whole, monkeypatch):
    snapshot = whole.root / "sources" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    for name in ("main.py", "more.py"):
        (snapshot / name).write_text("x = 1")
    aged(whole.root, DAY)
    found = [it for it in garbage(whole) if it.path == snapshot]

    def dying(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.store.unused.remove", dying)
    with pytest.raises(KeyboardInterrupt):
        free(whole, found)
    assert not snapshot.exists()
    monkeypatch.undo()
    aged(whole.root, DAY)
    free(whole, garbage(whole))
    assert list((whole.root / "sources").iterdir()) == []


def test_gc_frees_old_weights_on_the_disk_and_in_mlflow(tmp_path):
    uri, cells = a_store(tmp_path / "store")
    filled(cells.root, BASELINE, a_manifest({"baseline": BASELINE}))
    sync(uri, cells.root)
    os.utime(cells.folder(BASELINE[0].key) / "result.json", (time.time() - 3 * DAY,) * 2)
    assert kinds(cells, weights_older_than_seconds=2 * DAY) == {WEIGHTS: ["best.safetensors"]}
    free(cells, garbage(cells, weights_older_than_seconds=2 * DAY))
    assert len(list(cells.root.rglob("best.safetensors"))) == 2  # of the other cell: here, and in MLflow
    assert [it for it in check_store(cells.root) if it.is_wrong] == []


def test_gc_does_not_guess_which_cells_a_damaged_manifest_names(whole):
    (whole.root / "studies" / "broken.json").write_text("{")
    with pytest.raises(DamagedError, match=r"broken\.json"):
        list(garbage(whole))


def test_gc_keeps_the_cells_that_a_manifest_set_aside_may_name(whole):
    name = MANIFEST.id
    whole.set_manifest_aside(name)
    aged(whole.root, DAY)
    answer = call("gc", "--yes", "--store", whole.root)
    assert (answer.exit_code, "may have named cells" in answer.output) == (0, True)
    assert len(whole.all_keys()) == 4
    other = a_manifest({"baseline": BASELINE}, study="other")
    whole.write_manifest(other)
    assert deletion("other", store=whole.root).keys == []
    whole.remove_manifest(other.id)
    next(whole.root.glob("studies/*.damaged-*")).unlink()
    assert kinds(whole) == {UNUSED: whole.all_keys()}


def test_a_study_is_deleted_everywhere_and_the_others_keep_their_cells(tmp_path):
    uri, cells = a_store(tmp_path / "store")
    filled(cells.root, (*BASELINE, *NORMED))
    other = a_manifest({"baseline": BASELINE}, study="other")
    cells.write_manifest(other)
    sync(uri, cells.root)

    what = deletion("task3", store=cells.root)
    assert sorted(what.keys) == sorted(it.key for it in NORMED)
    delete(what)

    assert set(cells.manifests()) == {other.id}
    assert cells.all_keys() == sorted(it.key for it in BASELINE)
    assert mlflow_runs(uri, cells.root) == {"study": [], "variant": [], "cell": []}
    assert len(mlflow_runs(uri, cells.root, "other")["cell"]) == 2
    assert not list((cells.root / "artifacts" / "task3").glob("*"))
    assert [str(it) for it in check_store(cells.root)] == []


def test_a_study_that_trains_is_not_deleted(whole):
    what = deletion("task3", store=whole.root)
    with whole.hold(BASELINE[0].key), pytest.raises(StoreError, match="is being trained now"):
        delete(what)
    assert set(whole.manifests()) == {MANIFEST.id}


def test_a_cell_that_another_study_run_names_by_now_is_not_deleted(whole):
    what = deletion("task3", store=whole.root)
    whole.write_manifest(a_manifest({"batch-norm": NORMED}, study="other"))
    delete(what)
    assert whole.all_keys() == sorted(it.key for it in NORMED)


def test_a_study_is_deleted_whole_or_not_at_all_where_a_process_works_on_one_of_its_runs(delivered):
    confirmation = replace(a_manifest({"wide": WIDE}, study="zz-confirmed"), confirms=MANIFEST.id)
    delivered.write_manifest(confirmation)
    uri = f"sqlite:///{delivered.root}/mlflow.db"
    with (
        locked(Tracking(uri, delivered.root).live_lock(confirmation.id), shared=True),
        pytest.raises(StoreError, match=r"zz-confirmed-quick-1a2b3c4d: a process works on it now\. .* nothing was"),
    ):
        delete(deletion("task3", store=delivered.root))
    assert len(mlflow_runs(uri, delivered.root)["cell"]) == 4


def test_nobody_begins_to_work_on_a_study_while_it_is_deleted(delivered, monkeypatch):
    lock = Tracking("", delivered.root).live_lock(MANIFEST.id)
    held = []

    def watched(real):
        def step(*arguments, **more):
            held.append(is_locked(lock))
            return real(*arguments, **more)

        return step

    for owner, name in ((Server, "find"), (Cells, "remove_manifest")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    monkeypatch.setattr("harness.api.stores.free", watched(free))
    delete(deletion("task3", store=delivered.root))
    assert held == [True, True, True]
    assert not lock.exists()


# --- checking


@pytest.fixture
def delivered(tmp_path) -> Cells:
    uri, cells = a_store(tmp_path / "store")
    filled(cells.root, (*BASELINE, *NORMED))
    sync(uri, cells.root)
    return cells


def edit(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def reseal(path: Path) -> None:
    """An edit by somebody who knows of the checksum."""
    from harness.store.result import checksum

    content = json.loads(path.read_text())
    content.pop("checksum")
    content["metrics"]["test/accuracy"] = 0.99
    path.write_text(json.dumps(content | {"checksum": checksum(content)}))


def lose_a_run(cells: Cells) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{cells.root}/mlflow.db"
    MlflowClient(tracking_uri=uri).delete_run(mlflow_runs(uri, cells.root)["cell"][0].info.run_id)


def lose_a_file(cells: Cells) -> None:
    next((cells.root / "artifacts").rglob("settings.json")).unlink()


def swap_seeds(cells: Cells) -> None:
    path = cells.root / "studies" / f"{MANIFEST.id}.json"
    content = json.loads(path.read_text())
    content["variants"][0]["cells"] = {"0": BASELINE[1].key, "1": BASELINE[0].key}
    path.write_text(json.dumps(content))


GARBAGE = b"garbage" * 1000
DAMAGE = {
    "an edited number": (lambda it: edit(it.folder(KEY) / "result.json", metrics={}), f"{KEY}/result.json"),
    "an edited number with its checksum": (
        lambda it: reseal(it.folder(KEY) / "result.json"),
        "than the cell's journal",
    ),
    "another seed": (lambda it: edit(it.folder(KEY) / "spec.json", seed=7), "than its key"),
    "another setting": (lambda it: edit(it.folder(KEY) / "spec.json", settings={"a": 1}), "than its key"),
    "another cell": (lambda it: edit(it.folder(KEY) / "spec.json", key="0" * 16), "specification of cell 000"),
    "odd fingerprints": (lambda it: edit(it.folder(KEY) / "spec.json", fingerprints=[1]), "no specification of a cell"),
    "a cut specification": (lambda it: (it.folder(KEY) / "spec.json").write_text("{"), f"{KEY}/spec.json"),
    "a folder as journal": (
        lambda it: ((it.folder(KEY) / "journal.jsonl").unlink(), (it.folder(KEY) / "journal.jsonl").mkdir()),
        f"{KEY}/journal.jsonl",
    ),
    "a cut manifest": (lambda it: (it.root / "studies" / f"{MANIFEST.id}.json").write_text("{"), f"{MANIFEST.id}.json"),
    "swapped seeds": (swap_seeds, "whose seed is 1"),
    "garbage as mlflow.db": (
        lambda it: (it.root / "mlflow.db").write_bytes(b"garbage" * 1000),
        "mlflow.db: is damaged",
    ),
    "garbage as optuna.db": (
        lambda it: (it.root / "optuna.db").write_bytes(b"garbage" * 1000),
        "optuna.db: is damaged",
    ),
    "a run that is gone": (lose_a_run, "1 run of task3-quick-1a2b3c4d is gone"),
    "a file that is gone": (lose_a_file, "files of 1 run of"),
}


def test_nothing_is_wrong_in_a_sound_store_and_checking_alters_nothing(delivered):
    before = {name: it for name, it in contents(delivered.root).items() if not name.endswith(("-shm", "-wal"))}
    answer = call("check", "--store", delivered.root)
    assert answer.exit_code == 0, answer.output
    assert "nothing is wrong." in answer.output
    after = {name: it for name, it in contents(delivered.root).items() if not name.endswith(("-shm", "-wal"))}
    assert after == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_check_names_what_is_wrong_and_what_mends_it(delivered, damage):
    spoil, said = DAMAGE[damage]
    spoil(delivered)
    answer = call("check", "--store", delivered.root)
    assert answer.exit_code == 1, answer.output
    assert said in answer.output
    assert "Traceback" not in answer.output
    assert "1 things" not in answer.output


def test_a_cell_whose_process_was_killed_as_it_began_is_nothing_wrong(delivered):
    folder = delivered.folder("0123456789abcdef")
    folder.mkdir()
    (folder / ".spec.json.212b5a577b5d").write_text("{}")  # half of what `Cells.open` does
    answer = call("check", "--store", delivered.root)
    assert answer.exit_code == 0, answer.output
    assert "0123456789abcdef: holds nothing yet" in answer.output


def test_check_says_what_waits_for_mlflow(delivered):
    train(delivered, WIDE[0])
    delivered.write_manifest(a_manifest({"baseline": BASELINE, "batch-norm": NORMED, "wide": WIDE}))
    answer = call("check", "--store", delivered.root)
    assert (answer.exit_code, "4 events of task3-quick-1a2b3c4d wait. `harness sync`" in answer.output) == (0, True)
    told = fitting("check", call("check", "--json", "--store", delivered.root).stdout)
    assert told["findings"][0]["is_wrong"] is False


def test_a_pack_has_the_code_as_it_ran_without_what_an_interpreter_left_or_none_of_it(tmp_path):
    work, _ = train_study(write_study(tmp_path / "own"), tmp_path / "mlruns")
    save_manifest(work)
    (snapshot,) = (tmp_path / "mlruns" / "sources").iterdir()
    (snapshot / "__pycache__").mkdir(exist_ok=True)
    (snapshot / "__pycache__" / "training.pyc").write_bytes(b"bytecode")

    def rooms(**more):
        packed = pack("own", tmp_path / "own.tar.gz", store=tmp_path / "mlruns", **more)
        with tarfile.open(packed.path) as file:
            return [name for name in file.getnames() if name.startswith("sources/")]

    code = rooms()
    assert {name.rpartition("/")[2] for name in code} == {"training.py", "mathematics.py"}
    assert rooms(with_code=False) == []


def test_a_pack_cannot_hold_a_name_that_no_pack_may_hold(whole, tmp_path):
    (whole.folder(KEY) / "odd\nname").write_text("kept")
    with pytest.raises(StoreError, match="no pack takes such a name"):
        write_pack(whole, [MANIFEST], tmp_path / "a.tar.gz", with_weights=True)
