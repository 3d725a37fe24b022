"""Training by a command: how a script begins, what it is told and tells, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from own import STUDY, results_of, start_study, train_study, write_study
from processes import wait_until_dead

from harness import guard
from harness.api.work import plan_work, prepare
from harness.errors import StudyError
from harness.execution.runner import run
from harness.store.said import said
from harness.study.load import load_study

pytestmark = pytest.mark.slow

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
    "put back to its first step": (
        "tell({'step': 1, 'val/score': 1}); tell({'step': 2, 'val/score': 1}); sys.exit(75)",
        "failed",
        "asked 3 times to be started again (exit code 75), and got no further: no new step, no checkpoint",
    ),
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
    process = start_study(path, tmp_path / "store")
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
    process = start_study(path, tmp_path / "store")
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
from own import start_study, train_study
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
