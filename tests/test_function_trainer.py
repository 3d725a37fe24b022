"""Training by the user's function: imported from its snapshot, called with a run, and what becomes of its errors."""

import gc
import multiprocessing
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from own import STUDY, results_of, train_study, write_study

from harness.api.work import plan_work, prepare
from harness.errors import HarnessError, StudyError
from harness.execution.runner import run
from harness.store.said import said as told
from harness.study.load import load_study
from harness.trainers.function import _kept_output
from harness.trainers.importing import importing
from harness.trainers.run import CHECKPOINT, SAVING

pytestmark = pytest.mark.slow

FINISH = "    run.finish(**{'test/score': 1, 'val/score': 1})\n"
START = "import harness\ndef train(run):\n    s = run.settings\n"
BAD_FUNCTIONS = {
    "raises": (
        "    1 / (run.seed - 1)\n    run.finish(**{'test/score': 1, 'val/score': 1})",
        "ZeroDivisionError: division by zero",
    ),
    "no finish": ("    run.seed or run.finish(**{'test/score': 1, 'val/score': 1})", "without calling run.finish"),
    "undeclared": (
        "    run.log(1, loss=run.seed)",
        "unknown metric 'loss'; this study declares val/score, test/score.",
    ),
    "backwards": (
        "    run.log(2, **{'val/score': 1}); run.log(2, **{'val/score': 1})",
        "step 2 after step 2; steps must grow",
    ),
    "no number": ("    run.log(1, **{'val/score': 'good'})", "run.log: val/score must be a number, not 'good'."),
    "report forgotten": (
        "    run.finish(**{'val/score': 1})",
        "without test/score, which the study reports",
    ),
    "select forgotten": ("    run.finish(**{'test/score': 1})", "training never reported val/score"),
    "finished twice": (FINISH * 2, "run.finish was called twice"),
    "unknown setting": ("    s.raet", "there is no setting raet. Did you mean 'rate'?"),
    "settings are frozen": ("    s.rate = 3", "settings are frozen; rate cannot be set in training."),
    "nothing saved": ("    with run.saving(): pass", "nothing was written to the path that it gave"),
}


@pytest.mark.parametrize(("code", "said"), BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS)
def test_a_function_that_goes_wrong_is_one_failed_cell_with_a_sentence(tmp_path, code, said):
    path = write_study(tmp_path / "study", function=START + code, changes=[], designs=["add-one"])
    path.write_text(
        path.read_text().replace('"changes": []', '"changes": [{"name": "a", "overrides": {"flag": true}}]')
    )

    _, results = train_study(path, tmp_path / "store")

    assert len(results) == 4  # the others ran
    assert {result.status for result in results.values()} <= {"failed", "finished"}
    failed = [result for result in results.values() if result.status == "failed"]
    assert failed
    assert all(said in result.reason for result in failed)


def test_a_traceback_shows_the_users_code_or_nothing(tmp_path):
    path = write_study(tmp_path / "study", function=START + "    if run.seed: run.log(1, wrong=1)\n")
    work, _ = train_study(path, tmp_path / "store")

    never_finished, wrong_name = (work.cells.events(it.key)[-2] for it in work.plan.variants[0].cells)
    assert (never_finished["event"], never_finished["traceback"]) == ("failed", "")
    assert "training.py" in wrong_name["traceback"]


def test_what_a_lightning_module_logs_with_an_underscore_is_the_metric_with_a_slash():
    pytest.importorskip("lightning")
    from harness.integrations.lightning import declared

    run = SimpleNamespace(metrics=SimpleNamespace(names=["val/loss", "val/acc", "test/acc"]))
    assert declared(run, {"val_loss": 1, "val/acc": 2, "val_acc": 3}) == {"val/loss": 1.0, "val/acc": 2.0}


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')", "1e160"])
def test_a_reported_metric_that_is_not_finite_or_beyond_measure_is_a_diverged_cell(tmp_path, value):
    path = write_study(
        tmp_path / "study", function=START + f"    run.finish(**{{'val/score': 1, 'test/score': {value}}})"
    )

    _, results = train_study(path, tmp_path / "store")

    assert {result.status for result in results.values()} == {"diverged"}
    assert "test/score not finite" in results["baseline", 0].reason


def test_a_training_that_is_never_finite_has_diverged(tmp_path):
    code = START + "    run.log(1, **{'val/score': float('nan')})\n    run.finish(**{'test/score': 1})"
    _, results = train_study(write_study(tmp_path / "study", function=code), tmp_path / "store")

    assert {(result.status, result.reason) for result in results.values()} == {
        ("diverged", "val/score never finite, or beyond 1e+100")
    }


BAD_MODULES = {
    "does not import": ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
    "no such function": ("def trian(run): ...\n", "has no 'train'. Did you mean 'trian'?"),
    "no function at all": ("train = 3\n", "training:train is no function, but 3."),
    "wrong signature": (
        "def train(settings, seed): ...\n",
        "the run: def train(run), not train(settings, seed)",
    ),
    "ends Python": ("import os\nos._exit(4)\n", "ends Python with exit code 4"),
}


@pytest.mark.parametrize(("code", "said"), BAD_MODULES.values(), ids=BAD_MODULES)
def test_a_function_that_cannot_be_called_is_found_before_any_cell_starts(tmp_path, code, said):
    path = write_study(tmp_path / "study", function=code)
    work = plan_work(path, store=tmp_path / "store", device="cpu")

    with pytest.raises(StudyError) as error:
        prepare(work, work.plan.cells)

    assert said in str(error.value)
    assert not (tmp_path / "store" / "cells").exists()


def test_settings_by_a_model_of_the_user_arrive_as_that_model_and_its_reads_are_noted(tmp_path):
    code = """
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Model:
    width: int = 8

@dataclass(frozen=True)
class Settings:
    rate: float = 0.5
    model: Model = field(default_factory=Model)
    never: int = 1

def train(run):
    assert isinstance(run.settings, Settings) and isinstance(run.settings.model, Model)
    run.finish(**{"val/score": run.settings.model.width, "test/score": run.settings.rate * run.settings.model.width})
"""
    changes = [{"name": "wide", "overrides": {"model.width": 16}}, {"name": "ignored", "overrides": {"never": 2}}]
    path = write_study(
        tmp_path / "study", function=code, settings="training:Settings", baseline={"rate": 1}, changes=changes
    )

    work, results = train_study(path, tmp_path / "store")

    assert results["baseline", 0].metrics == {"val/score": 8.0, "test/score": 8.0}
    assert results["wide", 0].metrics == {"val/score": 16.0, "test/score": 16.0}
    assert results["wide", 0].facts["settings_unread"] == "never"
    assert work.plan.variants[0].settings.tree() == {"rate": 1.0, "model": {"width": 8}, "never": 1}
    wrong = write_study(
        tmp_path / "wrong", function=code, settings="training:Settings", baseline={"rate": "x", "mdl": 1}
    )
    with pytest.raises(StudyError, match=r"baseline.rate: input should be a valid number"):
        load_study(wrong)


def test_modules_of_one_name_in_two_studies_are_two_modules(tmp_path):
    results = []
    for number in (1, 2):
        code = START + f"    run.finish(**{{'val/score': {number}, 'test/score': {number}}})"
        path = write_study(tmp_path / f"study{number}", function=code)
        results.append(train_study(path, tmp_path / "store")[1]["baseline", 0].metrics["test/score"])

    assert results == [1.0, 2.0]


def test_what_a_function_writes_is_kept_with_its_cell_and_not_in_the_commands_output(tmp_path, capfd):
    code = (
        "import os\n"
        + START
        + ("    print('hello'); os.system('echo below >&2')\n    run.finish(**{'val/score': 1, 'test/score': 1})")
    )
    path = write_study(tmp_path / "study", function=code, changes=STUDY["changes"][1:2])
    work = plan_work(path, store=tmp_path / "store", device="cpu", seeds=1)
    prepare(work, work.plan.cells)
    run(work.plan.cells, work.cells, devices=["cpu"], provenance={}, executor="processes")

    folder = work.cells.folder(work.plan.cells[0].key)
    assert (folder / "stdout.log").read_text() == "hello\n"
    assert (folder / "stderr.log").read_text() == "below\n"
    assert capfd.readouterr() == ("", "")


def test_a_worker_asked_to_stop_lets_training_that_looks_save_and_return(tmp_path):
    code = """
import time
def train(run):
    done = int(run.saved().read_text()) if run.saved() else 0
    for step in range(done + 1, 200):
        run.log(step, **{"val/score": step})
        time.sleep(0.02)
        if run.should_stop:
            with run.saving() as path:
                path.write_text(str(step))
            return
    run.finish(**{"test/score": 1})
"""
    path = write_study(tmp_path / "study", function=code)
    work = plan_work(path, store=tmp_path / "store", device="cpu", seeds=1)
    prepare(work, work.plan.cells)
    seen = []

    def should_stop(cell):
        return len(seen) > 5

    run(
        work.plan.cells[:1],
        work.cells,
        devices=["cpu"],
        provenance={},
        on_progress=lambda it: seen.append(it) if it.kind == "event" else None,
        should_stop=should_stop,
    )

    folder = work.cells.folder(work.plan.cells[0].key)
    assert int((folder / CHECKPOINT).read_text()) == work.cells.validations(work.plan.cells[0].key)[-1].step
    assert [it["event"] for it in work.cells.events(work.plan.cells[0].key)].count("interrupted") == 1


def test_there_is_no_current_run_where_nothing_is_trained():
    import harness

    with pytest.raises(HarnessError, match="nothing is being trained here"):
        harness.current_run()


def test_a_worker_asked_to_stop_as_its_cell_ends_goes_at_once(tmp_path):
    """Training looked before it was asked, and not again: the cell ends, and nobody waits for a worker that idles."""
    code = """
import time
def train(run):
    run.should_stop
    run.log(1, **{"val/score": 1})
    time.sleep(3)
    run.finish(**{"test/score": 1})
"""
    path = write_study(tmp_path / "study", function=code)
    work = plan_work(path, store=tmp_path / "store", device="cpu", seeds=1)
    prepare(work, work.plan.cells)
    seen = []
    started = time.monotonic()

    run(
        work.plan.cells[:1],
        work.cells,
        devices=["cpu"],
        provenance={},
        on_progress=lambda it: seen.append(it.event["event"]) if it.event else None,
        should_stop=lambda cell: "validation" in seen,
    )

    assert time.monotonic() - started < 20  # the grace that a worker is given is 40 s
    assert results_of(work)["baseline", 0].status == "finished"


def test_a_loop_over_the_path_of_imports_goes_on_undisturbed(tmp_path):
    """Another thread may be within one while this one begins or ends to import."""
    before, seen = sys.path, list(sys.path)
    with importing(tmp_path, ["training"]):
        assert sys.path[0] == str(tmp_path.resolve())
        assert before == seen
        within, of_training = sys.path, list(sys.path)
    assert within == of_training
    assert sys.path == seen


def test_data_beside_the_code_hides_no_library(tmp_path):
    path = write_study(tmp_path, "function", trainer={"function": "training:train", "sources": ["logging.yaml"]})
    (tmp_path / "logging.yaml").write_text("level: INFO")
    trainer = load_study(path).trainer
    trainer.prepare([], store=tmp_path / "store")
    (snapshot,) = (tmp_path / "store" / "sources").iterdir()
    assert (snapshot / "logging.yaml").is_file()
    assert "logging" not in trainer.code_names(snapshot)


def test_a_function_that_leaves_another_output_behind_spoils_no_later_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a worker has one")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with _kept_output(tmp_path / name), (tmp_path / "own.txt").open("w") as file:
            sys.stdout = file
    assert not sys.stdout.closed


def test_a_death_while_a_folder_is_saved_again_costs_what_came_after_it_alone(tmp_path, monkeypatch):
    code = """
def train(run):
    saved = run.saved()
    done = int((saved / "step").read_text()) if saved else 0
    for step in range(done + 1, 4):
        run.log(step, **{"val/score": step})
        with run.saving() as path:
            path.mkdir()
            (path / "step").write_text(str(step))
    run.finish(**{"test/score": 1})
"""
    work = plan_work(write_study(tmp_path / "study", function=code), store=tmp_path / "store", device="cpu", seeds=1)
    prepare(work, work.plan.cells)
    cell, cells, real = work.plan.cells[0], work.cells, Path.rename

    def dying(path, target):
        if path.name == SAVING and (cells.folder(cell.key) / ".checkpoint.before").exists():
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        run([cell], cells, devices=["cpu"], provenance={}, executor="here")
    monkeypatch.undo()
    run([cell], cells, devices=["cpu"], provenance={}, executor="here")

    events = [it["event"] for it in cells.events(cell.key)]
    assert (events.count("started"), events.count("resumed")) == (1, 1)
    assert [it.step for it in cells.validations(cell.key)] == [1, 2, 3]
    assert not (cells.folder(cell.key) / ".checkpoint.before").exists()


def test_code_is_imported_while_another_thread_imports(tmp_path, monkeypatch):
    """As the thread that delivers does: before Python 3.12 the collector may let it run within any allocation."""
    made = []

    def import_one(phase, info):
        made.append(f"imported_meanwhile_{len(made)}")
        sys.modules[made[-1]] = sys
        sys.path_importer_cache[f"/no/{made[-1]}"] = None

    before = gc.get_threshold()
    gc.callbacks.append(import_one)
    gc.set_threshold(1)
    try:
        with importing(tmp_path, ["training"]):
            pass
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(import_one)
        for name in made:
            sys.modules.pop(name)
            sys.path_importer_cache.pop(f"/no/{name}")
    assert made


def test_a_reason_of_several_lines_that_is_no_output_stands_in_the_log_once_in_full(tmp_path):
    code = START + "    raise ValueError('one thing\\nand another')"
    work, _ = train_study(write_study(tmp_path / "study", function=code), tmp_path / "store")
    above, _, trace = told(work.cells, work.plan.cells[0].key).partition("== ")

    assert above.count("ValueError: one thing") == 3  # state, failure, end
    assert above.count("\nand another\n") == 1
    assert trace.endswith("ValueError: one thing\nand another")
