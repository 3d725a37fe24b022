"""MLflow as a projection of the folder of cells: complete, repeatable, true after any death."""

import multiprocessing
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracked import (
    a_manifest,
    a_store,
    cells_of,
    finish,
    history,
    mlflow_runs,
    start,
    train,
    validate,
)

from harness.errors import StoreError, TrackingError
from harness.files.locks import locked
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.tracking import Delivery, Tracking, sync, whole_runs
from harness.tracking.sender import Sender
from harness.tracking.server import Server
from harness.tracking.tracking import _Pass
from harness.tracking.whole_runs import COLUMNS

pytestmark = pytest.mark.slow

BASELINE, NORMED = cells_of(), cells_of({"model.batch_norm": True})
MANIFEST = a_manifest({"baseline": BASELINE, "batch-norm": NORMED})
CURVES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


@pytest.fixture
def way(request, monkeypatch) -> str:
    """How new runs get into the database; a server behind HTTP leaves only the second one."""
    if request.param == "by the client":
        monkeypatch.setattr(Server, "takes_whole_runs", False)
    return str(request.param)


both_ways = pytest.mark.parametrize("way", ["whole runs", "by the client"], indirect=True)


@pytest.fixture
def store(tmp_path) -> tuple[str, Cells]:
    uri, cells = a_store(tmp_path)
    cells.write_manifest(MANIFEST)
    return uri, cells


def project(store: tuple[str, Cells], manifest: Manifest = MANIFEST) -> int:
    """As a new process would."""
    uri, cells = store
    return Tracking(uri, cells.root).project(manifest, cells).delivered


def runs(store: tuple[str, Cells], kind: str = "cell", study: str = "task3") -> list[Any]:
    uri, cells = store
    return mlflow_runs(uri, cells.root, study)[kind]


def everything(store: tuple[str, Cells]) -> list[Any]:
    """What MLflow holds, without ids and times: equal for two projections that say the same."""
    uri, cells = store
    found = []
    tree = mlflow_runs(uri, cells.root)
    names = {run.info.run_id: run.info.run_name for of_kind in tree.values() for run in of_kind}
    for kind, of_kind in tree.items():
        for run in of_kind:
            histories = {key: history(uri, run.info.run_id, key) for key in run.data.metrics}
            tags = {**run.data.tags, "mlflow.parentRunId": names.get(run.data.tags.get("mlflow.parentRunId"))}
            files = sorted(file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id))
            inputs = [it.dataset.digest for it in run.inputs.dataset_inputs]
            found.append((kind, run.info.run_name, run.info.status, run.data.params, tags, histories, files, inputs))
    return found


class Dying(Server):
    """A server whose client dies just after (or just before) its n-th call that alters something; it counts them."""

    calls, dies_at, dies_before = 0, 0, False

    def _die(self, method: str, *arguments: Any) -> Any:
        self.calls += 1
        number = self.calls  # a call may hold others
        if number == self.dies_at and self.dies_before:
            raise KeyboardInterrupt
        answer = getattr(super(), method)(*arguments)
        if number == self.dies_at:
            raise KeyboardInterrupt
        return answer

    def create_run(self, *arguments):
        return self._die("create_run", *arguments)

    def create_whole(self, *arguments):
        return self._die("create_whole", *arguments)

    def send(self, *arguments):
        return self._die("send", *arguments)

    def log_dataset(self, *arguments):
        return self._die("log_dataset", *arguments)

    def put(self, *arguments):
        return self._die("put", *arguments)

    def set_status(self, *arguments):
        return self._die("set_status", *arguments)


@both_ways
def test_a_study_is_a_tree_of_study_variants_and_cells(store, way):
    train(store[1], BASELINE[0])
    train(store[1], NORMED[1])
    project(store)
    tree = mlflow_runs(store[0], store[1].root)
    (study,) = tree["study"]
    assert [run.info.run_name for run in tree["variant"]] == ["baseline", "batch-norm"]
    assert [run.info.run_name for run in tree["cell"]] == ["baseline seed 0", "batch-norm seed 1"]
    assert {run.data.tags["mlflow.parentRunId"] for run in tree["variant"]} == {study.info.run_id}
    for run in (study, *tree["variant"], *tree["cell"]):
        assert study.info.start_time <= run.info.start_time <= run.info.end_time <= study.info.end_time
    parents = [run.data.tags["mlflow.parentRunId"] for run in tree["cell"]]
    assert parents == [run.info.run_id for run in tree["variant"]]


def test_tags_find_a_cell_without_the_tree(store):
    train(store[1], BASELINE[0])
    train(store[1], NORMED[1])
    project(store)
    client = MlflowClient(tracking_uri=store[0])
    experiment = client.get_experiment_by_name("task3").experiment_id
    found = client.search_runs(
        [experiment],
        "tags.`harness.kind` = 'cell' and tags.`harness.changes` = 'batch-norm' and tags.`harness.seed` = '1' and "
        "tags.`harness.profile` = 'quick' and metrics.`test/accuracy:best` > 0.4",
    )
    assert [run.data.tags["harness.cell_key"] for run in found] == [NORMED[1].key]


@both_ways
def test_a_run_holds_settings_data_weights_and_where_it_came_from(store, way):
    uri, cells = store
    train(cells, BASELINE[0])
    project(store)
    (run,) = runs(store)
    assert run.data.params["optimizer.learning_rate"] == "0.05"
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert [(it.dataset.name, it.dataset.digest) for it in run.inputs.dataset_inputs] == [("shapes", "abc" * 12)]
    files = {file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id)}
    assert files == {"settings.json", "uncommitted.diff", "best.safetensors"}
    assert (run.info.start_time, run.info.end_time) < (run.info.end_time + 1, run.info.end_time + 1)


def test_artifacts_lie_below_the_store_wherever_we_run_and_weights_once_on_the_disk(store, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    train(store[1], BASELINE[0])
    project(store)
    (linked,) = (store[1].root / "artifacts").rglob("best.safetensors")
    assert linked.stat().st_ino == (store[1].folder(BASELINE[0].key) / "best.safetensors").stat().st_ino
    assert not list(elsewhere.iterdir())


@both_ways
def test_a_second_projection_sends_nothing(store, way):
    train(store[1], BASELINE[0])
    start(store[1], BASELINE[1])
    assert project(store) == 5
    before = everything(store)
    again = Tracking(store[0], store[1].root)
    again._server = counting = Dying(store[0], store[1].root)
    assert again.project(MANIFEST, store[1]).delivered == 0
    assert counting.calls == 0
    assert everything(store) == before


def test_a_cell_that_goes_on_adds_its_new_points_in_order(store):
    uri, cells = store
    start(cells, BASELINE[0])
    for step in (100, 200, 300):
        validate(cells, BASELINE[0], step)
        project(store)
    start(cells, BASELINE[0], "resumed")
    validate(cells, BASELINE[0], 300)
    validate(cells, BASELINE[0], 400)
    finish(cells, BASELINE[0], num_steps=400)
    project(store)
    (run,) = runs(store)
    for key in CURVES:
        assert [step for step, _ in history(uri, run.info.run_id, key)] == [100, 200, 300, 400]
    assert run.info.status == "FINISHED"


@both_ways
@pytest.mark.parametrize("dies_before", [False, True])
def test_a_death_at_any_call_leaves_nothing_twice_and_nothing_out(store, tmp_path, way, dies_before):
    uri, cells = store
    train(cells, BASELINE[0])
    start(cells, BASELINE[1])
    validate(cells, BASELINE[1], 100)
    deaths = 0
    for dies_at in range(1, 100):  # each process comes a call further than the one before it
        tracking = Tracking(uri, cells.root)
        tracking._server = dying = Dying(uri, cells.root)
        dying.dies_at, dying.dies_before = dies_at, dies_before
        try:
            tracking.project(MANIFEST, cells)
        except KeyboardInterrupt:
            deaths += 1
            continue
        break
    assert (3 if way == "whole runs" else 5) < deaths < 99
    undisturbed = a_store(tmp_path / "undisturbed")
    shutil.copytree(cells.root / "cells", undisturbed[1].root / "cells")
    shutil.copy(cells.root / "store-id", undisturbed[1].root / "store-id")
    project(undisturbed)
    assert everything(store) == everything(undisturbed)
    shown = {run.info.run_id for of_kind in mlflow_runs(uri, cells.root).values() for run in of_kind}
    assert {it.name for it in (cells.root / "artifacts" / "task3").iterdir()} <= shown


def test_a_validation_that_was_sent_by_a_dying_process_and_is_repeated_later_is_there_once(store):
    uri, cells = store
    start(cells, BASELINE[0])
    project(store)
    validate(cells, BASELINE[0], 100)
    tracking = Tracking(uri, cells.root)
    tracking._server = dying = Dying(uri, cells.root)
    dying.dies_at = 1
    with pytest.raises(KeyboardInterrupt):
        tracking.project(MANIFEST, cells)
    start(cells, BASELINE[0], "resumed")
    validate(cells, BASELINE[0], 100)  # at another time: MLflow itself takes it for another point
    project(store)
    (run,) = runs(store)
    assert [step for step, _ in history(uri, run.info.run_id, "val/loss")] == [100]


@both_ways
@pytest.mark.parametrize("damage", ["lost", "damaged", "of an older day"])
def test_a_ledger_that_is_lost_or_wrong_costs_nothing(store, way, damage):
    _, cells = store
    ledger = cells.root / "tracking" / "ledger.db"
    start(cells, BASELINE[1])
    project(store)
    shutil.copy(ledger, cells.root / "older.db")
    train(cells, BASELINE[0])
    validate(cells, BASELINE[1], 100)
    project(store)
    before = everything(store)
    for file in ledger.parent.glob("ledger.db*"):
        file.unlink()
    if damage == "damaged":
        ledger.write_bytes(b"no database at all" * 1000)
    if damage == "of an older day":
        shutil.copy(cells.root / "older.db", ledger)
    project(store)
    assert [run.info.run_name for run in runs(store)] == ["baseline seed 0", "baseline seed 1"]
    assert everything(store) == before


def test_a_validation_that_is_repeated_later_is_not_sent_again_even_without_a_ledger(store):
    uri, cells = store
    start(cells, BASELINE[0])
    validate(cells, BASELINE[0], 100)
    project(store)
    shutil.rmtree(cells.root / "tracking")
    start(cells, BASELINE[0], "resumed")
    validate(cells, BASELINE[0], 100)
    project(store)
    (run,) = runs(store)
    assert [step for step, _ in history(uri, run.info.run_id, "val/loss")] == [100]


def test_a_database_that_is_gone_is_made_again_from_the_cells(store):
    _, cells = store
    train(cells, BASELINE[0])
    project(store)
    before = everything(store)
    for file in cells.root.glob("mlflow.db*"):
        file.unlink()
    a_store(cells.root)  # another, empty one in its place
    project(store)
    assert everything(store) == before


def test_twins_that_a_repeated_request_made_are_noticed(store):
    uri, cells = store
    train(cells, BASELINE[0])
    project(store)
    (run,) = runs(store)
    client = MlflowClient(tracking_uri=uri)
    client.create_run(
        run.info.experiment_id, tags=run.data.tags, run_name=run.info.run_name, start_time=run.info.start_time + 1
    )
    shutil.rmtree(cells.root / "tracking")  # the process died before it noted which run it had made
    project(store)
    assert [it.info.run_id for it in runs(store)] == [run.info.run_id]


@both_ways
def test_a_run_that_someone_deleted_comes_back_whole_when_its_cell_goes_on(store, way):
    uri, cells = store
    start(cells, BASELINE[0])
    validate(cells, BASELINE[0], 100)
    project(store)
    (run,) = runs(store)
    MlflowClient(tracking_uri=uri).delete_run(run.info.run_id)
    validate(cells, BASELINE[0], 200)
    project(store)
    (again,) = runs(store)
    assert again.info.run_id != run.info.run_id
    assert [step for step, _ in history(uri, again.info.run_id, "val/loss")] == [100, 200]


def test_cells_follow_their_variant_when_someone_deleted_its_run(store):
    uri, cells = store
    train(cells, BASELINE[0])
    project(store)
    MlflowClient(tracking_uri=uri).delete_run(runs(store, "variant")[0].info.run_id)
    train(cells, BASELINE[1])
    project(store)
    project(store)
    (variant,) = runs(store, "variant")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs(store)} == {variant.info.run_id}


def test_a_cell_that_is_trained_again_with_the_same_numbers_keeps_its_run(store):
    uri, cells = store
    start(cells, BASELINE[0])
    validate(cells, BASELINE[0], 100)
    validate(cells, BASELINE[0], 200)
    project(store)
    (first,) = runs(store)
    start(cells, BASELINE[0], "restarted")
    project(store)
    validate(cells, BASELINE[0], 100)
    project(store)
    validate(cells, BASELINE[0], 200)
    finish(cells, BASELINE[0])
    project(store)
    (second,) = runs(store)
    assert second.info.run_id == first.info.run_id
    assert [step for step, _ in history(uri, second.info.run_id, "val/loss")] == [100, 200]
    assert second.info.status == "FINISHED"


def test_a_cell_that_is_trained_again_and_ends_earlier_leaves_no_points_behind(store):
    uri, cells = store
    start(cells, BASELINE[0])
    validate(cells, BASELINE[0], 100)
    validate(cells, BASELINE[0], 200)
    project(store)
    start(cells, BASELINE[0], "restarted")
    validate(cells, BASELINE[0], 100)
    finish(cells, BASELINE[0], num_steps=100)
    project(store)
    (run,) = runs(store)
    assert [step for step, _ in history(uri, run.info.run_id, "val/loss")] == [100]


def test_a_cell_that_is_trained_again_with_other_numbers_gets_another_run(store):
    uri, cells = store
    train(cells, BASELINE[0], status="failed", reason="lost the disk")
    project(store)
    cells.forget_result(BASELINE[0].key)
    start(cells, BASELINE[0])
    validate(cells, BASELINE[0], 100, val_loss=7.0)
    finish(cells, BASELINE[0], seconds=33.0, num_steps=100)
    project(store)
    (run,) = runs(store)
    assert history(uri, run.info.run_id, "val/loss") == [(100, 7.0)]
    assert history(uri, run.info.run_id, "seconds") == [(100, 33.0)]
    assert run.info.status == "FINISHED"
    assert "harness.reason" not in run.data.tags


@both_ways
def test_a_cell_of_another_study_is_shown_as_a_copy_that_names_its_origin(store, way):
    other = a_manifest({"baseline": BASELINE}, study="task4")
    train(store[1], BASELINE[0])
    project(store)
    project(store, other)
    (origin,), (copy,) = runs(store), runs(store, study="task4")
    assert copy.data.tags["harness.copied_from"] == origin.info.run_id
    assert "harness.copied_from" not in origin.data.tags
    assert copy.data.metrics == origin.data.metrics
    assert runs(store, "study", "task4")[0].info.status == "KILLED"  # its other seed has not been trained


def test_a_run_that_was_never_made_is_nobodys_origin(store):
    """Its process died before the transaction, having noted the id that it was to have."""
    uri, cells = store
    train(cells, BASELINE[0])
    tracking = Tracking(uri, cells.root)
    tracking._server = dying = Dying(uri, cells.root)
    dying.dies_at, dying.dies_before = 2, True  # before the first artifact, within `create_whole`
    with pytest.raises(KeyboardInterrupt):
        tracking.project(MANIFEST, cells)
    assert tracking.run_link(MANIFEST) is None
    project(store, a_manifest({"baseline": BASELINE}, study="task4"))
    project(store)
    (first,), (second,) = runs(store, study="task4"), runs(store)
    assert "harness.copied_from" not in first.data.tags
    assert second.data.tags["harness.copied_from"] == first.info.run_id


def test_a_run_is_running_only_while_a_process_lives(store):
    _, cells = store
    with cells.claim(BASELINE[0]):
        start(cells, BASELINE[0])
        project(store)
        assert [runs(store, kind)[0].info.status for kind in ("study", "variant", "cell")] == ["RUNNING"] * 3
    project(store)  # the process died: nothing was written
    assert [runs(store, kind)[0].info.status for kind in ("study", "variant", "cell")] == ["KILLED"] * 3


def test_a_study_is_running_between_its_cells_while_a_process_works_on_it(store):
    uri, cells = store
    train(cells, BASELINE[0])
    with locked(Tracking(uri, cells.root).live_lock(MANIFEST.id), shared=True):
        project(store)
        assert [runs(store, kind)[0].info.status for kind in ("study", "variant")] == ["RUNNING"] * 2
    project(store)
    assert [runs(store, kind)[0].info.status for kind in ("study", "variant")] == ["KILLED"] * 2


def test_a_study_ends_as_its_command_does(store):
    for cell in (*BASELINE, *NORMED[:1]):
        train(store[1], cell)
    train(store[1], NORMED[1], status="diverged", reason="loss is not finite")
    project(store)
    assert runs(store, "study")[0].info.status == "FAILED"
    assert [run.info.status for run in runs(store, "variant")] == ["FINISHED", "FAILED"]


def test_the_first_delivery_tells_the_truth_about_dead_study_runs_of_the_experiment(store):
    uri, cells = store
    dead = a_manifest({"baseline": cells_of(seeds=[7])}, profile="standard")
    lost = a_manifest({"baseline": cells_of(seeds=[8])}, profile="lost")
    cells.write_manifest(dead)
    seven, eight = cells_of(seeds=[7, 8])
    with cells.claim(seven), cells.claim(eight):
        start(cells, seven)
        start(cells, eight)
        project(store, dead)
        project(store, lost)  # which never wrote its manifest
        assert {run.info.status for run in runs(store)} == {"RUNNING"}
    with locked(Tracking(uri, cells.root).live_lock(lost.id), shared=True):
        project(store)
        assert [run.info.status for run in runs(store)] == ["KILLED", "RUNNING"]
    project(store)
    assert {run.info.status for run in runs(store)} == {"KILLED"}
    assert {run.info.status for run in runs(store, "study")} == {"KILLED"}


def test_more_seeds_extend_the_same_study_run(store):
    train(store[1], BASELINE[0])
    project(store)
    (extra,) = cells_of(seeds=[2])
    train(store[1], extra)
    project(store, a_manifest({"baseline": [*BASELINE, extra]}))
    assert len(runs(store, "study")) == 1
    assert [run.info.run_name for run in runs(store)] == ["baseline seed 0", "baseline seed 2"]


def test_only_the_cells_that_are_asked_for_are_delivered(store):
    uri, cells = store
    train(cells, BASELINE[0])
    train(cells, BASELINE[1])
    tracking = Tracking(uri, cells.root)
    assert tracking.project(MANIFEST, cells, {BASELINE[1].key}).delivered == 4
    assert [run.info.run_name for run in runs(store)] == ["baseline seed 1"]
    assert tracking.pending(MANIFEST, cells) == 4


def test_pending_counts_what_has_not_been_delivered(store):
    uri, cells = store
    tracking = Tracking(uri, cells.root)
    assert tracking.pending(MANIFEST, cells) == 0
    train(cells, BASELINE[0])
    assert tracking.pending(MANIFEST, cells) == 4
    tracking.project(MANIFEST, cells)
    start(cells, BASELINE[1])
    assert tracking.pending(MANIFEST, cells) == 1


def test_effects_become_metrics_of_the_variants_and_files_artifacts_of_the_study(store, tmp_path):
    uri, cells = store
    train(cells, BASELINE[0])
    train(cells, NORMED[0])
    report = tmp_path / "table.md"
    report.write_text("| change | effect |")
    tracking = Tracking(uri, cells.root)
    rows = [{"variant": "batch-norm", "n": 1, "mean": 0.41, "effect": 0.01, "low": float("nan")}]
    tracking.log_summary(MANIFEST, rows, {"table.md": report})
    tracking.project(MANIFEST, cells)
    tracking.log_summary(MANIFEST, [{**rows[0], "effect": 0.02}], {"report/table.md": report})
    tracking.project(MANIFEST, cells)
    run = runs(store, "variant")[1]
    assert history(uri, run.info.run_id, "test/accuracy:best/effect") == [(0, 0.01), (1, 0.02)]
    assert "test/accuracy:best/low" not in run.data.metrics
    assert run.data.params["model.batch_norm"] == "true"
    (study,) = runs(store, "study")
    client = MlflowClient(tracking_uri=uri)
    assert {file.path for file in client.list_artifacts(study.info.run_id)} == {"manifest.json", "table.md", "report"}
    inside = client.download_artifacts(study.info.run_id, "report/table.md", str(tmp_path))
    assert Path(inside).read_text() == report.read_text()


def as_0_1_left_it(store):
    """What 0.1 delivered: other names for numbers of the end, and a ledger that says nothing of formats."""
    _, cells = store
    with closing(sqlite3.connect(cells.root / "mlflow.db")) as database, database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"UPDATE {table} SET key = replace(key, ':best', ':best-val')")
            database.execute(f"DELETE FROM {table} WHERE key IN ('num_epochs', 'threads')")
        database.execute("DELETE FROM tags WHERE key LIKE 'harness.fact.%'")
    with closing(sqlite3.connect(cells.root / "tracking" / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET entry = json_remove(entry, '$.format')")


def test_what_0_1_delivered_under_other_names_is_made_again(store):
    uri, cells = store
    train(cells, BASELINE[0])
    train(cells, NORMED[0])
    start(cells, NORMED[1])
    validate(cells, NORMED[1], 100)
    tracking = Tracking(uri, cells.root)
    tracking.log_summary(MANIFEST, [{"variant": "batch-norm", "n": 1, "mean": 0.41}], {})
    tracking.project(MANIFEST, cells)
    before = everything(store)
    as_0_1_left_it(store)
    assert "test/accuracy:best-val" in runs(store)[0].data.metrics
    assert sync(uri, cells.root) == Delivery(0)
    assert everything(store) == before
    assert sync(uri, cells.root) == Delivery(0)
    assert everything(store) == before


def test_a_projection_of_0_1_without_its_ledger_is_made_again_too(store):
    uri, cells = store
    train(cells, BASELINE[0])
    project(store)
    before = everything(store)
    as_0_1_left_it(store)
    shutil.rmtree(cells.root / "tracking")
    sync(uri, cells.root)
    assert everything(store) == before


def test_sync_delivers_every_study_of_a_store(store):
    uri, cells = store
    other = a_manifest({"baseline": BASELINE}, study="task4")
    cells.write_manifest(other)
    train(cells, BASELINE[0])
    assert sync(uri, cells.root).delivered == 8
    assert len(runs(store)) == len(runs(store, study="task4")) == 1
    assert sync(uri, cells.root).delivered == 0


def test_a_run_can_be_found_from_the_command_line(store):
    uri, cells = store
    tracking = Tracking(uri, cells.root)
    assert tracking.run_link(MANIFEST) is None
    train(cells, BASELINE[0])
    tracking.project(MANIFEST, cells)
    (study,), (cell,) = runs(store, "study"), runs(store)
    link, cell_link = tracking.run_link(MANIFEST), tracking.run_link(MANIFEST, BASELINE[0].key)
    assert (link.run_id, link.url) == (study.info.run_id, "")
    assert cell_link.run_id == cell.info.run_id


def test_an_experiment_that_was_deleted_says_how_to_restore_it(store):
    uri, cells = store
    train(cells, BASELINE[0])
    project(store)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("task3").experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"mlflow experiments restore --experiment-id {experiment}"):
        project(store)


def test_an_experiment_that_another_process_made_since_we_looked_is_used(store, monkeypatch):
    uri, cells = store
    server, looked = Server(uri, cells.root), MlflowClient.get_experiment_by_name

    def look_just_before_another_makes_it(client: MlflowClient, name: str) -> Any:
        found = looked(client, name)
        if found is None:
            client.create_experiment(name)
        return found

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", look_just_before_another_makes_it)
    assert server.experiment("task3") == looked(MlflowClient(uri), "task3").experiment_id


def _project_at_once(uri: str, root: Path, start: Any) -> None:
    start.wait()
    Tracking(uri, root).project(MANIFEST, Cells(root))


def test_two_processes_that_deliver_the_same_study_make_each_run_once(store):
    uri, cells = store
    for cell in (*BASELINE, *NORMED):
        train(cells, cell)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store"])
    start_both = context.Barrier(2)
    workers = [context.Process(target=_project_at_once, args=(uri, cells.root, start_both)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    tree = mlflow_runs(uri, cells.root)
    assert [len(tree[kind]) for kind in ("study", "variant", "cell")] == [1, 2, 4]
    for run in tree["cell"]:
        assert [step for step, _ in history(uri, run.info.run_id, "val/loss")] == [100, 200]


def test_a_store_that_cannot_be_written_is_named(store):
    _, cells = store
    train(cells, BASELINE[0])
    (cells.root / "tracking").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=f"^{cells.root}/tracking: cannot be"):
        project(store)


def rows(store: tuple[str, Cells]) -> dict[str, list[Any]]:
    """Every row of the tables of runs, with the names of runs, inputs and data sets for their random ids."""
    (folder, path) = (store[1].root.as_uri(), store[1].root / "mlflow.db")
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        found = {name: [dict(it) for it in database.execute(f"SELECT * FROM {name}")] for name in COLUMNS}
    names = {it["run_uuid"]: it["name"] for it in found["runs"]} | {folder: "STORE"}
    names |= {it["dataset_uuid"]: it["digest"] for it in found["datasets"]}
    names |= {it["input_uuid"]: f"input of {names[it['destination_id']]}" for it in found["inputs"]}

    def named(value: Any) -> Any:
        text = value if isinstance(value, str) else ""
        return names.get(text, re.sub("|".join(map(re.escape, names)), lambda it: names[it[0]], text)) or value

    ordered = {name: sorted(([*map(named, it.values())] for it in some), key=str) for name, some in found.items()}
    assert ordered.keys() == COLUMNS.keys()
    assert all(ordered.values())
    return ordered


@pytest.mark.parametrize("values_at_once", [whole_runs.VALUES_AT_ONCE, 16])  # a statement has all rows, or two or so
def test_whole_runs_are_the_rows_that_the_client_writes(store, tmp_path, monkeypatch, values_at_once):
    monkeypatch.setattr(whole_runs, "VALUES_AT_ONCE", values_at_once)
    train(store[1], BASELINE[0])
    train(store[1], BASELINE[1], status="diverged", reason="loss is not finite")
    start(store[1], NORMED[0])
    validate(store[1], NORMED[0], 100, val_loss=float("nan"))
    effects = {"variant": "baseline", "n": 2, "effect": 0.25}
    tracking = Tracking(store[0], store[1].root)
    assert tracking.store_id  # made by whoever asks first
    tracking.log_summary(MANIFEST, [effects], {"page.html": store[1].root / "store-id"})
    other = a_store(tmp_path / "other")
    for name in ("cells", "tracking"):
        shutil.copytree(store[1].root / name, other[1].root / name)
    shutil.copy(store[1].root / "store-id", other[1].root / "store-id")
    project(store)
    monkeypatch.setattr(Server, "takes_whole_runs", False)
    project(other)

    assert rows(store) == rows(other)


def test_cells_that_start_while_others_are_delivered_go_whole_with_the_next_look(store, monkeypatch):
    train(store[1], BASELINE[0])
    late = [BASELINE[1], *NORMED]
    study, create_run = _Pass.study, Server.create_run
    one_by_one = list[str]()

    def with_more(this: _Pass) -> str:
        while late:  # ends while the pass is on its way
            train(store[1], late.pop())
        return study(this)

    def counted(server: Server, experiment: str, name: str, *arguments: Any) -> Any:
        one_by_one.append(name)
        return create_run(server, experiment, name, *arguments)

    monkeypatch.setattr(_Pass, "study", with_more)
    monkeypatch.setattr(Server, "create_run", counted)
    assert [project(store), project(store), project(store)] == [4, 4 * (len(BASELINE) + len(NORMED) - 1), 0]
    assert one_by_one == []


def test_tables_that_mlflow_has_altered_are_left_to_its_client(store, monkeypatch):
    monkeypatch.setitem(COLUMNS, "runs", f"{COLUMNS['runs']} score")
    assert not Server(store[0], store[1].root).takes_whole_runs
    train(store[1], BASELINE[0])
    assert project(store) == 4


def test_what_another_process_delivered_meanwhile_is_not_undone(tmp_path, monkeypatch):
    uri, cells = a_store(tmp_path)
    cell = cells_of()[0]
    with cells.claim(cell):
        start(cells, cell)
        cells.write_manifest(a_manifest({"baseline": [cell]}))
        validate(cells, cell, 100)
        sync(uri, tmp_path)
        validate(cells, cell, 200)
    real = Sender.bring

    def late(sender, image):
        """Between the image and its delivery the cell ends, and another process delivers that."""
        if image.cell_key:
            monkeypatch.setattr(Sender, "bring", real)
            finish(cells, cell)
            sync(uri, tmp_path)
        return real(sender, image)

    monkeypatch.setattr(Sender, "bring", late)
    sync(uri, tmp_path)

    (run,) = mlflow_runs(uri, tmp_path)["cell"]
    assert run.info.status == "FINISHED"
    assert sync(uri, tmp_path).delivered == 0
