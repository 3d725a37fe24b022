"""Training of the user's own, as a function and as a script: one contract, and what is each one's own."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from own import STUDY, TRAINERS, results_of, train_study, write_study
from processes import wait_until_dead

from harness import guard
from harness.api.work import plan_work, prepare
from harness.errors import HarnessError, StudyError
from harness.execution.runner import run
from harness.store.said import said
from harness.study.load import load_study
from harness.trainers import sources
from harness.trainers.code import Folder
from harness.trainers.importing import importing
from harness.trainers.run import CHECKPOINT
from harness.trainers.sources import read_sources

pytestmark = pytest.mark.slow  # scripts are started

KINDS = list(TRAINERS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_cell_is_trained_with_its_settings_and_seed(tmp_path, kind):
    work, results = train_study(write_study(tmp_path / "study", kind), tmp_path / "store")

    assert {result.status for result in results.values()} == {"finished"}
    baseline, wide, flagged = (results[name, 0] for name in ("baseline", "wide", "flagged"))
    assert wide.metrics["test/score"] == pytest.approx(2 * baseline.metrics["test/score"])  # twice the width
    # Each of four steps adds 0.25 and keeps nine tenths: 0.25 * (1 + 0.9 + 0.81 + 0.729), a tenth of it reported.
    assert flagged.metrics["test/score"] - baseline.metrics["test/score"] == pytest.approx(0.085975)
    assert baseline.metrics != results["baseline", 1].metrics
    assert baseline.metrics["val/score"] == pytest.approx(10 * baseline.metrics["test/score"])
    first = work.plan.variants[0].cells[0].key
    assert [it.step for it in work.cells.validations(first)] == [1, 2, 3, 4]
    assert not (work.cells.folder(first) / CHECKPOINT).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_on_any_step_it_goes_on_and_ends_with_the_same_numbers(tmp_path, kind):
    path = write_study(tmp_path / "study", kind, pause=0.03)
    _, straight = train_study(path, tmp_path / "straight")
    work = plan_work(path, store=tmp_path / "killed", device="cpu")

    def num_validations():
        events = (event for cell in work.plan.cells for event in work.cells.events(cell.key))
        return sum(event["event"] == "validation" for event in events)

    for _ in range(3):  # each within a cell, whose first step is in a checkpoint, or a step later
        enough, process = num_validations() + 2, start(path, work.cells.root)
        while process.poll() is None and num_validations() < enough:
            time.sleep(0.002)
        process.kill()
        process.wait()
    finish(path, work.cells.root)

    assert {place: dict(it.metrics) for place, it in results_of(work).items()} == {
        place: dict(it.metrics) for place, it in straight.items()
    }
    starts = [event["event"] for cell in work.plan.cells for event in work.cells.events(cell.key)]
    assert "resumed" in starts  # it was killed within a cell, after a checkpoint
    facts = {result.facts.get("settings_unread", result.facts.get("settings_unseen")) for result in straight.values()}
    assert facts == {"never"}


def start(path: Path, store: Path) -> "subprocess.Popen[bytes]":
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); from own import train_study; "
        "train_study(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", code, str(path), str(store), str(Path(__file__).parent)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


def finish(path: Path, store: Path) -> None:
    process = start(path, store)
    assert process.wait(60) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_code_that_is_edited_while_a_study_trains_does_not_run_before_it_is_planned(tmp_path, kind):
    path = write_study(tmp_path / "study", kind)
    work = plan_work(path, store=tmp_path / "store", device="cpu")
    prepare(work, work.plan.cells)
    helper = tmp_path / "study" / "mathematics.py"
    helper.write_text(helper.read_text().replace("0.9", "0.0"))

    run(work.plan.cells, work.cells, devices=["cpu"], provenance={}, executor="here")
    _, straight = train_study(write_study(tmp_path / "copy", kind), tmp_path / "other")

    found = {place: dict(result.metrics) for place, result in results_of(work).items()}
    assert found == {place: dict(result.metrics) for place, result in straight.items()}
    edited = plan_work(path, store=tmp_path / "store", device="cpu")
    assert not {cell.key for cell in edited.plan.cells} & {cell.key for cell in work.plan.cells}
    _, after = train_study(path, tmp_path / "store")
    assert after["baseline", 0].metrics != found["baseline", 0]


def test_a_comment_costs_nothing_and_a_pinned_version_hides_edits(tmp_path):
    path = write_study(tmp_path / "study")
    before = plan_work(path, store=tmp_path, device="cpu").plan.cells
    helper = tmp_path / "study" / "mathematics.py"

    helper.write_text("# a comment\n\n" + helper.read_text().replace("score * 0.9", "(score*0.9)"))
    assert plan_work(path, store=tmp_path, device="cpu").plan.cells == before
    helper.write_text(helper.read_text().replace("0.9", "0.8"))
    assert plan_work(path, store=tmp_path, device="cpu").plan.cells != before

    pinned = {**TRAINERS["function"], "sources": {"pinned": "v3"}}
    path = write_study(tmp_path / "study", trainer=pinned)
    before = plan_work(path, store=tmp_path, device="cpu").plan.cells
    helper.write_text(helper.read_text().replace("0.9", "0.8"))
    assert plan_work(path, store=tmp_path, device="cpu").plan.cells == before
    assert dict(before[0].fingerprints) == {"sources": "pinned:v3"}
    assert "pinned as 'v3'" in load_study(path).trainer.notes[0]


def test_the_same_values_have_one_key_however_they_are_written(tmp_path):
    one = write_study(tmp_path / "one", baseline=STUDY["baseline"] | {"rate": 1.0})
    two = write_study(tmp_path / "two", baseline=STUDY["baseline"] | {"rate": {"default": 1, "max": 2.0}})

    keys = [plan_work(path, store=tmp_path, device="cpu").plan.variants[0].cells[0].key for path in (one, two)]

    assert keys[0] == keys[1]


BAD_STUDIES = {
    "select and report are missing": ({"select": None, "report": None}, ["select: required", "report: required"]),
    "no metrics": ({"metrics": None}, ["metrics: required"]),
    "unknown metric": ({"select": "val/scor"}, ["select: unknown metric 'val/scor'. Did you mean 'val/score'?"]),
    "no module": ({"trainer": {"function": "trainin:train"}}, ["no module trainin in", "expected trainin.py there"]),
    "no function": ({"trainer": {"function": "training"}}, ["trainer.function: expected 'module:function'"]),
    "unknown key": ({"trainer": {"function": "training:train", "source": []}}, ["Did you mean 'sources'?"]),
    "glob that matches nothing": (
        {"trainer": {"function": "training:train", "sources": ["conf/*.yaml"]}},
        ["trainer.sources: 'conf/*.yaml' matches no file in"],
    ),
    "sources outside": (
        {"trainer": {"function": "training:train", "sources": ["../*.py"]}},
        ["reaches outside the study's folder"],
    ),
    "type changes": (
        {"changes": [{"name": "a", "overrides": {"rate": "fast"}}]},
        ["change 'a': rate: expected a number, as the baseline's 0.5 is, not 'fast'."],
    ),
    "a truth value is no number": (
        {"changes": [{"name": "a", "overrides": {"steps": True}}]},
        ["steps: expected a whole number, as the baseline's 4 is, not True."],
    ),
    "a part where a whole number stands": (
        {"changes": [{"name": "a", "overrides": {"steps": 0.5}}]},
        ["as the baseline's 4 is, not 0.5. For any number write 4.0 in the baseline."],
    ),
    "nothing where something stands": (
        {"changes": [{"name": "a", "overrides": {"steps": None}}]},
        ["not None. To allow it write {default: 4, choices: [4, null]} in the baseline, with all others."],
    ),
    "unknown setting": (
        {"changes": [{"name": "a", "overrides": {"model.widht": 3}}]},
        ["unknown setting 'model.widht'. Did you mean 'model.width'?"],
    ),
    "out of bounds": (
        {"baseline": STUDY["baseline"] | {"steps": {"default": 0, "min": 1}}},
        ["baseline.steps: expected at least 1, not 0."],
    ),
    "no choice": (
        {
            "baseline": STUDY["baseline"] | {"opt": {"default": "sgd", "choices": ["sgd", "adam"]}},
            "changes": [{"name": "a", "overrides": {"opt": "adm"}}],
        },
        ["opt: 'adm' is none of 'sgd', 'adam'."],
    ),
    "settings that are no model": (
        {"settings": "training:train"},
        ["is no pydantic model or dataclass"],
    ),
    "command that is no list": ({"trainer": {"command": "python script.py"}}, ["trainer.command: expected a list"]),
    "unknown placeholder": (
        {"trainer": {"command": ["python", "script.py", "{rat}"]}},
        ["the command's placeholder {rat} is no setting. Did you mean 'rate'?"],
    ),
    "no program": ({"trainer": {"command": ["./train.sh"], "sources": ["*.py"]}}, ["./train.sh is no program"]),
    "code that nobody can see": ({"trainer": {"command": ["true"]}}, ["an edit of its code would go unnoticed"]),
    "two kinds": ({"trainer": {"command": ["true"], "function": "training:train"}}, ["trainer: expected images"]),
    "seconds that are none": (
        {"trainer": {"command": ["python", "script.py"], "timeout_seconds": "1h"}},
        ["trainer.timeout_seconds: expected a number above 0, not '1h'."],
    ),
}


@pytest.mark.parametrize(("study", "said"), BAD_STUDIES.values(), ids=BAD_STUDIES)
def test_what_is_wrong_with_a_study_is_said_before_anything_runs(tmp_path, study, said):
    path = write_study(tmp_path / "study", **study)

    with pytest.raises(StudyError) as error:
        plan_work(path, store=tmp_path / "store", device="cpu")

    for sentence in said:
        assert sentence in str(error.value)
    assert not (tmp_path / "store").exists()


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


# -- scripts ----------------------------------------------------------------------------------------------------------

TELL = """
import json, os, sys, time, signal, subprocess
from pathlib import Path
folder = Path(os.environ["HARNESS_FOLDER"])
def tell(line):
    with open(os.environ["HARNESS_METRICS"], "a") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\\n")
"""
GOOD = "tell({'step': 1, 'val/score': 1}); tell({'final': True, 'test/score': 0.5})\n"


def script_study(folder, code, *words, **limits):
    trainer = {"command": ["python", "script.py", *words], **limits}
    return write_study(folder, script=TELL + code, trainer=trainer, changes=STUDY["changes"][1:2])


BAD_SCRIPTS = {
    "no final line": ("tell({'step': 1, 'val/score': 1})", "failed", "the command ended well, but told no result"),
    "exit code": ("sys.exit('out of beans')", "failed", "the command ended with exit code 1: out of beans"),
    "signal": ("os.kill(os.getpid(), signal.SIGABRT)", "failed", "the command was ended by SIGABRT"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "out-of-memory", "the machine may be out of memory"),
    "no JSON": ("tell('val/score = 0.7')", "failed", "metrics.jsonl: a line is no JSON: val/score = 0.7"),
    "no object": ("tell('[1, 2]')", "failed", "expected an object a line"),
    "nothing known": ("tell({'score': 1})", "failed", "expected a key step, checkpoint, final or note in each line"),
    "undeclared": ("tell({'step': 1, 'val/scor': 1})", "failed", "unknown metric 'val/scor'"),
    "backwards": ("tell({'step': 2, 'val/score': 1}); tell({'step': 1, 'val/score': 1})", "failed", "steps must grow"),
    "no such checkpoint": ("tell({'checkpoint': 'x.pt'})", "failed", "'x.pt' is not in $HARNESS_FOLDER"),
    "not finite": (
        "tell({'step': 1, 'val/score': 1}); tell('{\"final\": true, \"test/score\": NaN}')",
        "diverged",
        "test/score",
    ),
    "always put back": ("sys.exit(75)", "failed", "asked 3 times to be started again (exit code 75)"),
}


@pytest.mark.parametrize(("code", "status", "said"), BAD_SCRIPTS.values(), ids=BAD_SCRIPTS)
def test_how_a_script_ends_is_the_cells_outcome_in_a_sentence(tmp_path, code, status, said):
    _, results = train_study(script_study(tmp_path / "study", code + "\n"), tmp_path / "store", seeds=1)

    assert {result.status for result in results.values()} == {status}
    assert said in results["baseline", 0].reason


@pytest.mark.parametrize(
    "end", ["sys.exit(1)", "os.environ.clear()"], ids=["an exit code after it", "no end of its line"]
)
def test_a_final_line_is_the_result_whatever_follows_it(tmp_path, end):
    line = "json.dumps({'final': True, 'test/score': 0.5})"
    code = f"tell({{'step': 1, 'val/score': 1}}); open(os.environ['HARNESS_METRICS'], 'a').write({line}"
    code += f" + ('\\n' if {end!r} == 'sys.exit(1)' else ''))\n{end}\n"
    _, results = train_study(script_study(tmp_path / "study", code), tmp_path / "store", seeds=1)

    assert results["baseline", 0].metrics == {"val/score": 1.0, "test/score": 0.5}


@pytest.mark.parametrize("depth", [0, 9], ids=["all of it is quoted", "the end of it is quoted"])
def test_the_log_of_a_failed_script_says_its_traceback_once(tmp_path, depth):
    code = f"def fail(left): fail(left - 1) if left else {{}}['nothing there']\nfail({depth})\n"
    work, _ = train_study(script_study(tmp_path / "study", code), tmp_path / "store", seeds=1)
    text = said(work.cells, work.plan.cells[0].key)

    above, _, output = text.partition("== ")
    assert above.count("the command ended with exit code 1: KeyError: 'nothing there'\n") == 3  # state, failure, end
    assert "Traceback" not in above
    assert "File" not in above
    assert output.count("Traceback") == output.count("KeyError: 'nothing there'") == 1


def test_a_reason_of_several_lines_that_is_no_output_stands_in_the_log_once_in_full(tmp_path):
    code = START + "    raise ValueError('one thing\\nand another')"
    work, _ = train_study(write_study(tmp_path / "study", function=code), tmp_path / "store")
    above, _, trace = said(work.cells, work.plan.cells[0].key).partition("== ")

    assert above.count("ValueError: one thing") == 3  # state, failure, end
    assert above.count("\nand another\n") == 1
    assert trace.endswith("ValueError: one thing\nand another")


def test_a_script_that_asks_to_be_put_back_goes_on_from_its_checkpoint(tmp_path):
    code = """
if not (folder / "state").exists():
    tell({"step": 1, "val/score": 1})
    (folder / "state").write_text("1")
    tell({"checkpoint": "state"})
    sys.exit(75)
tell({"step": 2, "val/score": 2}); tell({"final": True, "test/score": 0.5})
"""
    work, results = train_study(script_study(tmp_path / "study", code), tmp_path / "store", seeds=1)

    assert results["baseline", 0].metrics == {"val/score": 2.0, "test/score": 0.5}
    assert [it.step for it in work.cells.validations(work.plan.cells[0].key)] == [1, 2]


@pytest.mark.parametrize("end", ["sys.exit(75)", "os.kill(os.getpid(), signal.SIGKILL)"])
@pytest.mark.parametrize("saves", [True, False])
def test_a_script_that_is_started_again_may_log_what_came_after_its_checkpoint_once_more(tmp_path, end, saves):
    code = f"""
first = not (folder / "seen").exists()
(folder / "seen").write_text("1")
step = int((folder / "state").read_text()) if (folder / "state").exists() else 0
while step < 4:
    step += 1
    tell({{"step": step, "val/score": step + 10 * first}})
    if step == 1 and {saves}:
        (folder / "state").write_text("1")
        tell({{"checkpoint": "state"}})
    if step == 3 and first:
        {end}
tell({{"final": True, "test/score": 0.5}})
"""
    work, results = train_study(script_study(tmp_path / "study", code), tmp_path / "store", seeds=1, only=["flagged"])

    assert results["baseline", 0].status == "finished", results["baseline", 0].reason
    logged = {it.step: it.metrics["val/score"] for it in work.cells.validations(work.plan.cells[0].key)}
    assert logged == {1: 11 if saves else 1, 2: 2, 3: 3, 4: 4}


@pytest.mark.parametrize(
    ("code", "limits", "said"),
    [
        ("time.sleep(30)\n", {"silence_seconds": 0.3}, "told nothing for 0.3 s (silence_seconds)"),
        (
            "for step in range(1000):\n    tell({'step': step, 'val/score': 1}); time.sleep(0.02)\n",
            {"timeout_seconds": 0.5, "silence_seconds": 30},
            "did not end within 0.5 s (timeout_seconds)",
        ),
    ],
)
def test_a_script_that_hangs_is_ended(tmp_path, code, limits, said):
    _, results = train_study(
        script_study(tmp_path / "study", code, **limits), tmp_path / "store", seeds=1, only=["flagged"]
    )

    assert said in results["baseline", 0].reason


def test_a_script_and_its_children_are_asked_to_end_before_they_are_killed(tmp_path):
    code = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(folder / "child").write_text(str(child.pid))
def save(number, frame):
    (folder / "asked").write_text("yes")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
tell({'step': 1, 'val/score': 1})
time.sleep(60)
"""
    path = script_study(tmp_path / "study", code, silence_seconds=0.5)
    work, results = train_study(path, tmp_path / "store", seeds=1)

    folder = work.cells.folder(work.plan.cells[0].key)
    assert (folder / "asked").read_text() == "yes"
    wait_until_dead([int((folder / "child").read_text())], seconds=5)
    assert results["baseline", 0].status == "failed"


def test_no_script_outlives_a_killed_worker(tmp_path):
    path = script_study(tmp_path / "study", "(folder / 'pid').write_text(str(os.getpid()))\ntime.sleep(60)\n")
    process = start(path, tmp_path / "store")
    pids: list[Path] = []
    for _ in range(400):
        pids = [it for it in (tmp_path / "store").glob("cells/*/pid") if it.read_text()]
        if pids:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()

    wait_until_dead([int(pids[0].read_text())], seconds=5)


def test_what_a_script_has_started_does_not_outlive_a_killed_worker(tmp_path):
    path = script_study(tmp_path / "study", "")
    (path.parent / "run.sh").write_text(
        'sleep 60 &\necho $! > "$HARNESS_FOLDER/new"\nmv "$HARNESS_FOLDER/new" "$HARNESS_FOLDER/pid"\nwait\n'
    )
    write_study(path.parent, trainer={"command": ["bash", "run.sh"]}, changes=STUDY["changes"][1:2])
    process = start(path, tmp_path / "store")
    deadline = time.monotonic() + 30
    while not (pids := list((tmp_path / "store").glob("cells/*/pid"))):
        assert time.monotonic() < deadline, "no script has started"
        time.sleep(0.02)
    (child,) = (int(it.read_text()) for it in pids)
    beside = guards(process.pid)
    assert len(beside) == 1
    process.kill()
    process.wait()

    wait_until_dead([child, *beside], seconds=5)


def guards(process: int) -> list[int]:
    return [it.pid for it in psutil.Process(process).children() if guard.__file__ in it.cmdline()]


def test_one_guard_watches_the_scripts_of_a_process_one_after_another(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(guard.Guard, "watch", lambda self, group: said.append(group))
    monkeypatch.setattr(guard.Guard, "forget", lambda self, group: said.append(-group))
    train_study(script_study(tmp_path / "study", GOOD), tmp_path / "store", seeds=2)

    assert len(said) == 2 * 4
    assert said[1::2] == [-it for it in said[::2]]
    assert len(guards(os.getpid())) == 1


WITHOUT_A_WORKER = """
import os, signal, sys, time
from pathlib import Path
from harness.trainers import command

die_with_parent, worker = command._die_with_parent, os.getpid()

def late(*arguments):
    Path(sys.argv[2], "pid").write_text(str(os.getpid()))
    os.kill(worker, signal.SIGKILL)
    while os.getppid() == worker:
        time.sleep(0.01)
    die_with_parent(*arguments)

command._die_with_parent = late
from own import train_study
train_study(Path(sys.argv[1]), Path(sys.argv[2], "store"), seeds=1)
"""


def test_a_script_whose_worker_dies_as_it_starts_never_begins(tmp_path):
    """Between the fork and the call that makes it die with its worker."""
    path = script_study(tmp_path / "study", f"Path({str(tmp_path / 'began')!r}).touch(); time.sleep(5)\n")
    places = os.pathsep.join(map(str, [Path(__file__).parent, Path(__file__).parents[1]]))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_WORKER, str(path), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": places},
        check=False,
    )

    assert done.returncode == -signal.SIGKILL
    wait_until_dead([int((tmp_path / "pid").read_text())], seconds=10)
    assert not (tmp_path / "began").exists()


def test_placeholders_keep_their_types_and_the_file_holds_all_settings(tmp_path):
    code = "tell({'note': {'said': json.dumps([sys.argv[1:], json.load(open(os.environ['HARNESS_SETTINGS']))])}})\n"
    words = ["--rate={rate}", "{flag}", "{{braces}}", "{seed}", "{model.width}x{steps}"]
    _, results = train_study(script_study(tmp_path / "study", code + GOOD, *words), tmp_path / "store", seeds="7,")

    baseline, flagged = (results[name, 7].facts for name in ("baseline", "flagged"))
    settings = {"rate": 0.5, "steps": 4, "model": {"width": 8}, "flag": False, "never": 1}
    assert baseline["said"] == json.dumps([["--rate=0.5", "false", "{braces}", "7", "8x4"], settings])
    assert '"true"' in flagged["said"]
    assert "settings_unseen" not in baseline  # the file was opened, so all may have been seen


def test_a_flag_is_a_word_or_none(tmp_path):
    code = "tell({'note': {'said': ' '.join(sys.argv[1:])}})\n"
    words = ["--rate={rate}", "{flag?--flag}", "x{flag?y}", "{never}"]
    _, results = train_study(script_study(tmp_path / "study", code + GOOD, *words), tmp_path / "store", seeds=1)

    assert results["baseline", 0].facts["said"] == "--rate=0.5 x 1"
    assert results["flagged", 0].facts["said"] == "--rate=0.5 --flag xy 1"
    with pytest.raises(StudyError, match=r"\{rate\?...\} stands for a flag; rate must be true or false, not 0.5"):
        load_study(script_study(tmp_path / "wrong", GOOD, "{rate?--rate}"))


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


def test_output_is_kept_and_the_scripts_memory_is_its_own(tmp_path):
    code = "print('hello'); print('careful', file=sys.stderr); block = b'x' * 200_000_000; time.sleep(0.2)\n" + GOOD
    work, results = train_study(script_study(tmp_path / "study", code), tmp_path / "store", seeds=1)

    folder = work.cells.folder(work.plan.cells[0].key)
    assert (folder / "stdout.log").read_text() == "hello\n"
    assert (folder / "stderr.log").read_text() == "careful\n"
    assert 200e6 < results["baseline", 0].peak_memory_bytes < 400e6


def test_a_module_that_is_started_by_name_runs_from_the_snapshot(tmp_path):
    path = write_study(
        tmp_path / "study",
        script=TELL + GOOD,
        trainer={"command": ["python", "-m", "script"]},
        changes=STUDY["changes"][1:2],
    )
    work = plan_work(path, store=tmp_path / "store", device="cpu", seeds=1)
    prepare(work, work.plan.cells)
    (tmp_path / "study" / "script.py").write_text("raise SystemExit('edited')")

    run(work.plan.cells, work.cells, devices=["cpu"], provenance={}, executor="here")

    assert results_of(work)["baseline", 0].status == "finished", results_of(work)["baseline", 0].reason


def test_a_snapshot_that_another_process_wrote_at_this_moment_stays(tmp_path, monkeypatch):
    """It may train from it already."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("x = 1")
    found, folder = read_sources(Folder(tmp_path / "code"), globs=["*.py"]), tmp_path / "snapshot"

    first = []

    def beside(path, real=sources.temporary_beside):
        monkeypatch.undo()
        found.write_snapshot(folder)
        first.append(folder.stat().st_ino)
        return real(path)

    monkeypatch.setattr(sources, "temporary_beside", beside)
    found.write_snapshot(folder)

    assert [folder.stat().st_ino] == first
    assert [it.name for it in tmp_path.iterdir() if it.name.startswith(".")] == []


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


def test_a_script_that_never_opened_its_settings_is_still_doubted_after_an_interruption(tmp_path):
    path = write_study(tmp_path / "study", "script", pause=0.1)
    work = plan_work(path, store=tmp_path / "store", device="cpu", only=["wide"])
    prepare(work, work.plan.cells)
    cell, cells = work.plan.cells[0], work.cells
    options = {"devices": ["cpu"], "provenance": {}, "executor": "here"}

    run([cell], cells, should_stop=lambda cell: len(cells.validations(cell.key)) >= 2, **options)
    assert cells.result(cell.key) is None
    run([cell], cells, **options)

    assert cells.result(cell.key).facts["settings_unseen"] == "never"


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
