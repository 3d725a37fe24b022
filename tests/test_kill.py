"""Kill -9 at any moment: the same command continues, and ends with the table of an uninterrupted run."""

import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STUDY = """
name: killed
title: A study for tests that kill it
baseline:
  data: {kind: shapes, train_images: 1000, test_images: 200}
  model: {filters: [4, 8, 8]}
  training: {max_epochs: 3, precision: float32}
changes:
  - {name: dropout, summary: a stream of its own, overrides: {model.dropout: 0.3}}
  - {name: adamax, summary: state in the optimizer, overrides: {optimizer: {name: adamax, learning_rate: 1e-3}}}
  - name: augment
    summary: draws for each image
    overrides: {augmentation: {crop_padding: 4, horizontal_flip: 0.5}}
profiles: {standard: {seeds: 2}}
"""
NUM_KILLS = 6
# What may differ between two runs of the same study: when and how long, not what.
VOLATILE = {"seconds", "finished_at", "peak_memory_bytes"}


MAIN = "from harness.cli import main; main()"
# As in a terminal, whatever started the tests: a process in the background, or under nohup, inherits deaf signals.
LISTENING = (
    "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    f"signal.signal(signal.SIGINT, signal.default_int_handler); {MAIN}"
)


def environment(folder: Path) -> dict[str, str]:
    usual = os.environ | {"HARNESS_CACHE": str(folder.parent / "cache")}
    usual.pop("MLFLOW_TRACKING_URI", None)
    return usual


def harness(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LISTENING, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=environment(folder), text=True, start_new_session=True, **pipes)


def ablate(folder: Path) -> subprocess.Popen[str]:
    return harness(folder, "ablate", "--study", "study.yaml", "--jobs", "2", "--device", "cpu")


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def rows(folder: Path) -> list[dict[str, object]]:
    from harness.store.load import load_results

    table = load_results("killed", store=folder / "mlruns")
    return table.drop(columns=list(VOLATILE)).to_dict("records")


@pytest.fixture
def new_store(tmp_path):
    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "study.yaml").write_text(STUDY)
        return folder

    return make


@pytest.mark.ordeal
def test_a_study_killed_again_and_again_ends_like_an_uninterrupted_one(new_store):
    whole, killed = new_store("whole"), new_store("killed")
    started = time.monotonic()
    finish(ablate(whole))
    seconds = time.monotonic() - started
    dice = random.Random(0)

    for _ in range(NUM_KILLS):
        process = ablate(killed)
        try:
            process.wait(timeout=dice.uniform(0.15, 0.6) * seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)  # the parent alone: its workers must follow
        process.communicate()
    finish(ablate(killed))

    assert rows(killed) == rows(whole)
    assert all(row["status"] == "finished" for row in rows(killed))
    with sqlite3.connect(killed / "mlruns" / "mlflow.db") as database:
        runs = database.execute("select name, status from runs where lifecycle_stage = 'active'").fetchall()
        points = database.execute("select run_uuid, key, step, count(*) from metrics group by 1, 2, 3").fetchall()
    assert {status for _, status in runs} == {"FINISHED"}
    assert max(Counter(name for name, _ in runs).values()) == 1
    assert len(runs) == 1 + 4 + 8  # study, variants, cells
    assert {count for *_, count in points} == {1}


@pytest.mark.ordeal
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_is_clean_and_says_how_to_continue(new_store, stop):
    folder = new_store("stopped")
    process = ablate(folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/"):
            break

    if stop == signal.SIGTERM:
        os.kill(process.pid, stop)
    else:
        os.killpg(process.pid, stop)  # a terminal tells the whole group
    rest, _ = process.communicate(timeout=60)

    assert process.returncode == 130, rest
    assert "Run the same command to continue" in rest
    assert "Traceback" not in rest
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        statuses = {status for (status,) in database.execute("select status from runs")}
    assert "RUNNING" not in statuses
    assert "KILLED" in statuses
    journals = "".join(path.read_text() for path in folder.glob("mlruns/cells/*/journal.jsonl"))
    assert '"event": "failed"' not in journals, "no worker died of it"


@pytest.mark.ordeal
@pytest.mark.parametrize("command", [["ablate"], ["search", "--trials", "4"]])
def test_a_closed_terminal_is_a_clean_stop(new_store, command):
    """With a real terminal, to which nothing can be written any more once it is closed."""
    folder = new_store("closed")
    ours, theirs = os.openpty()
    arguments = [*command, "--study", "study.yaml", "--jobs", "2", "--device", "cpu"]
    code = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {LISTENING}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment(folder),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    deadline = time.monotonic() + 60
    while not any(folder.glob("mlruns/cells/*/result.json")) and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            os.read(ours, 65536)

    os.close(ours)  # the kernel tells the foreground group

    assert process.wait(timeout=60) == 130
    journals = "".join(path.read_text() for path in folder.glob("mlruns/cells/*/journal.jsonl"))
    assert '"event": "failed"' not in journals, "no worker died of it"
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        assert "RUNNING" not in {status for (status,) in database.execute("select status from runs")}


@pytest.mark.ordeal
def test_nohup_goes_on_without_the_terminal(new_store):
    folder = new_store("nohup")
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", MAIN, "ablate", "--study", "study.yaml", "--jobs", "2", "--device", "cpu"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/"):
            break

    os.killpg(process.pid, signal.SIGHUP)

    finish(process)
