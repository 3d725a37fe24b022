"""`harness worker`: many of them on one store, killed and stopped, beside `harness ablate`."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from commands import harness
from optuna.trial import TrialState
from own import FUNCTION, train_study, write_study
from postgresql import postgresql_url
from processes import environment_of
from test_kill import MAIN, VOLATILE, environment

from harness.api.worker import check_locks
from harness.cli.worker import _Duration, _Moment
from harness.errors import StoreError
from harness.files.locks import lock_problem
from harness.files.presence import present, unseen_by_locks
from harness.search.storage import open_storage
from harness.store.cells import Cells
from harness.store.load import load_results

PLAN = ("--study", "own.yaml", "--device", "cpu", "--store", "store")
LOOKS = FUNCTION.replace(
    "        time.sleep(PAUSE)\n", "        time.sleep(PAUSE)\n        if run.should_stop:\n            return\n"
)


def start(folder: Path, command: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, command, *PLAN, *arguments],
        cwd=folder,
        env=environment(folder) | variables,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finished(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def journals(folder: Path) -> dict[str, list[dict[str, object]]]:
    found = sorted(folder.glob("store/cells/*/journal.jsonl"))
    return {it.parent.name: [json.loads(line) for line in it.read_text().splitlines()] for it in found}


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def counts(folder: Path, kind: str) -> int:
    return sum(event["event"] == kind for events in journals(folder).values() for event in events)


def rows(store: Path) -> list[dict[str, object]]:
    return load_results("own", store=store).drop(columns=[*VOLATILE]).to_dict("records")


@pytest.mark.ordeal
@pytest.mark.slow
def test_workers_that_are_killed_and_stopped_beside_an_ablate_end_like_an_uninterrupted_run(tmp_path):
    path = write_study(
        tmp_path,
        function=LOOKS,
        pause=0.1,
        baseline={"rate": 0.5, "steps": 12, "model": {"width": 8}, "flag": False},
        changes=[{"name": "wide", "overrides": {"model.width": 16}}, {"name": "flagged", "overrides": {"flag": True}}],
        profiles={"standard": {"seeds": 4}},
    )
    first, second, stopped, whole = (start(tmp_path, "worker", "--jobs", "1") for _ in range(4))
    wait_for(lambda: counts(tmp_path, "validation") > 12)

    beside = start(tmp_path, "ablate", "--jobs", "1")
    for killed in (first, second):
        os.kill(killed.pid, signal.SIGKILL)
    os.killpg(stopped.pid, signal.SIGTERM)  # a scheduler tells every process of a job

    assert "Stopped by SIGTERM" in finished(stopped)
    assert "Nothing is left: 12 cells have ended." in finished(whole)
    finished(beside)
    for killed in (first, second):
        killed.communicate()

    events = journals(tmp_path)
    assert {Counter(it["event"] for it in of)["ended"] for of in events.values()} == {1}
    begun = counts(tmp_path, "started") + counts(tmp_path, "resumed")
    assert 12 <= begun <= 12 + 3, "again only what one of the three had left"
    assert counts(tmp_path, "failed") == 0
    with sqlite3.connect(tmp_path / "store" / "mlflow.db") as database:
        runs = database.execute("select name, status from runs where lifecycle_stage = 'active'").fetchall()
    assert len(runs) == 1 + 3 + 12
    assert {status for _, status in runs} == {"FINISHED"}
    train_study(path, tmp_path / "whole")
    finished(start(tmp_path, "ablate", "--store", "whole"))
    assert rows(tmp_path / "store") == rows(tmp_path / "whole")


SEARCH = ("--trials", "8", "--sampler", "brute-force")


@pytest.mark.slow
@pytest.mark.parametrize("option", [("--prune", "halving"), ("--sampler", "gp"), ("--storage", "sqlite:///a.db")])
def test_what_is_of_a_search_is_refused_without_trials(tmp_path, option):
    write_study(tmp_path, pause=0)
    done = harness("worker", "--study", "own.yaml", "--store", "store", *option, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{option[0]} is of a search: say with --trials" in " ".join(done.stderr.split())
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_a_search_in_another_store_is_named_by_its_worker(tmp_path):
    write_study(tmp_path, pause=0)
    asked = ["worker", "--study", "own.yaml", "--trials", "50", "--sampler", "brute-force", "--jobs", "1"]
    asked += ["--only", "wide,flagged", "--storage", f"sqlite:///{tmp_path}/optuna.db", "--store"]
    first, other = (harness(*asked, store, cwd=tmp_path) for store in ("store", "elsewhere"))
    assert (first.returncode, other.returncode) == (0, 2)
    assert "Nothing is left to be tried." in first.stdout
    assert "made with another --store" in " ".join(other.stderr.split())


@pytest.mark.ordeal
@pytest.mark.slow
def test_workers_of_a_search_that_are_killed_and_stopped_try_each_combination_once(tmp_path):
    """On PostgreSQL: four workers, of which two are killed, and one is stopped with five seconds of grace."""
    write_study(
        tmp_path,
        function=LOOKS,
        pause=0.1,
        baseline={"rate": 0.5, "steps": 12, "model": {"width": 8}, "flag": False},
        changes=[
            {"name": "wide", "overrides": {"model.width": 16}},
            {"name": "flagged", "overrides": {"flag": True}},
            {"name": "fast", "overrides": {"rate": 0.9}},
        ],
    )
    with postgresql_url() as url:
        searches = partial(start, tmp_path, HARNESS_OPTUNA_STORAGE=url)
        first, second, stopped, whole = (searches("worker", *SEARCH, "--jobs", "1", "--grace", "5s") for _ in range(4))
        wait_for(lambda: counts(tmp_path, "validation") > 16)
        for killed in (first, second):
            os.kill(killed.pid, signal.SIGKILL)
        began = time.monotonic()
        os.killpg(stopped.pid, signal.SIGTERM)  # a scheduler tells every process of a job
        assert "Stopped by SIGTERM" in finished(stopped)
        assert time.monotonic() - began < 5
        assert "Nothing is left to be tried." in finished(whole)
        for killed in (first, second):
            killed.communicate()
        begun = counts(tmp_path, "started") + counts(tmp_path, "resumed")
        said = finished(searches("search", *SEARCH))
        with open_storage(url) as (storage, _):
            (study,) = storage.get_all_studies()
            trials = storage.get_all_trials(study._study_id)

    assert {Counter(it["event"] for it in of)["ended"] for of in journals(tmp_path).values()} == {1}
    assert len(journals(tmp_path)) == 16
    assert 16 <= begun <= 16 + 3, "again only what one of the three had left"
    assert counts(tmp_path, "failed") == 0
    assert Counter(it.state for it in trials) == {TrialState.COMPLETE: 8, TrialState.FAIL: len(trials) - 8}
    assert len(trials) <= 8 + 3 * 2, "again only those that one of the three had begun"
    assert "8 combinations" in said
    with sqlite3.connect(tmp_path / "store" / "mlflow.db") as database:
        runs = database.execute("select name, status from runs where lifecycle_stage = 'active'").fetchall()
    assert len(runs) == 1 + 8 + 16
    assert {status for _, status in runs} == {"FINISHED"}


# Saves only when it is asked to stop, and takes its time.
SAVES_LATE = """
import time
import harness

def train(run: harness.Run) -> None:
    step = int(run.saved().read_text()) if run.saved() else 0
    while step < run.settings.steps:
        step += 1
        run.log(step, **{"val/score": float(step)})
        time.sleep(0.1)
        if run.should_stop:
            time.sleep(SECONDS_TO_SAVE)
            with run.saving() as path:
                path.write_text(str(step))
            return
    run.finish(**{"test/score": 1.0})
"""
LONG = {"baseline": {"rate": 0.5, "steps": 600, "model": {"width": 8}, "flag": False}, "changes": []}


def last(folder: Path) -> dict[str, object]:
    ((*_, event),) = journals(folder).values()
    return event


@pytest.fixture
def one_long_cell(tmp_path):
    """A folder with a study of one cell of a minute, which takes a second to save when it is asked to stop."""
    write_study(
        tmp_path,
        function=SAVES_LATE.replace("SECONDS_TO_SAVE", "1"),
        **LONG,
        profiles={"standard": {"seeds": 1}},
    )
    return tmp_path


@pytest.mark.slow
def test_training_is_given_time_to_save_when_every_process_of_the_job_gets_sigterm(one_long_cell):
    process = start(one_long_cell, "worker", "--jobs", "1")
    wait_for(lambda: counts(one_long_cell, "validation") > 1)

    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)  # some repeat themselves

    assert "given back" in finished(process)
    (key,) = journals(one_long_cell)
    assert last(one_long_cell)["event"] == "interrupted"
    assert (one_long_cell / "store" / "cells" / key / "checkpoint").exists()
    assert not Cells(one_long_cell / "store").is_claimed(key)


@pytest.mark.ordeal
@pytest.mark.slow
def test_a_worker_has_ended_when_its_time_is_up_and_has_saved_before(one_long_cell):
    began = time.monotonic()
    output = finished(start(one_long_cell, "worker", "--jobs", "1", "--for", "20s", "--grace", "8s"))

    assert time.monotonic() - began < 25
    assert "The time is up. 1 cells have not ended" in output
    assert last(one_long_cell)["event"] == "interrupted"
    assert list(one_long_cell.glob("store/cells/*/checkpoint"))


@pytest.mark.slow
def test_a_script_that_the_scheduler_ended_has_not_failed(tmp_path):
    """It hears SIGTERM first: schedulers tell process after process."""
    write_study(tmp_path, "script", pause=0.1, **LONG, profiles={"standard": {"seeds": 1}})
    process = start(tmp_path, "worker", "--jobs", "1")
    wait_for(lambda: counts(tmp_path, "validation") > 1)
    found = subprocess.run(["pgrep", "-f", "script.py.*--steps 600"], capture_output=True, text=True, check=False)
    mine = [int(it) for it in found.stdout.split() if str(tmp_path) in environment_of(int(it))]

    for pid in mine:
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)

    finished(process)
    assert mine
    assert last(tmp_path)["event"] == "interrupted"
    assert counts(tmp_path, "failed") == 0


NO_LOCKS = """
#include <errno.h>
int flock(int file, int how) { ANSWER }
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "why"),
    [("return 0;", "two processes got the same lock"), ("errno = ENOLCK; return -1;", "No locks available")],
    ids=["granted to all", "none"],
)
def test_a_disk_on_which_locks_do_not_hold_is_refused_with_the_alternatives(tmp_path, answer, why):
    """As the C library would answer there: in front of it, in every process."""
    (tmp_path / "locks.c").write_text(NO_LOCKS.replace("ANSWER", answer))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "locks.so", "locks.c"], cwd=tmp_path, check=True)
    write_study(tmp_path)

    process = start(tmp_path, "worker", LD_PRELOAD=str(tmp_path / "locks.so"))
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 2
    for words in (why, "--executor ray", "harness pack", "harness merge"):
        assert words in output.replace("\nerror: ", " ")
    assert not (tmp_path / "store" / "cells").exists(), "nothing was started"


def test_locks_hold_on_an_ordinary_disk_and_leave_nothing(tmp_path):
    assert lock_problem(tmp_path / "store") == ""
    assert os.listdir(tmp_path / "store") == []


BEAT = 0.1


def test_a_worker_that_lives_is_seen_by_its_lock_and_leaves_nothing(tmp_path):
    with present(tmp_path, beat_seconds=BEAT):
        (path,) = tmp_path.iterdir()
        assert unseen_by_locks(tmp_path, beat_seconds=BEAT) == ""
        assert path.exists()

    assert not path.exists()


def test_a_worker_that_died_is_cleared_away(tmp_path):
    (tmp_path / "node7-1234").write_text("1795766400.000")

    assert unseen_by_locks(tmp_path, beat_seconds=BEAT) == ""
    assert os.listdir(tmp_path) == []


def test_a_worker_that_lives_although_its_lock_is_free_is_on_a_machine_whose_locks_are_its_own(tmp_path, monkeypatch):
    """A process of this machine that beats without a lock: what it looks like from another one."""
    monkeypatch.setattr("harness.api.worker.unseen_by_locks", partial(unseen_by_locks, beat_seconds=BEAT))
    folder = tmp_path / "workers"
    folder.mkdir()
    beats = "import sys, time\nwhile True:\n    open(sys.argv[1], 'w').write(str(time.time()))\n    time.sleep(0.05)"
    with subprocess.Popen([sys.executable, "-c", beats, str(folder / "node7-1234")]) as process:
        wait_for((folder / "node7-1234").exists)
        with pytest.raises(StoreError, match="the worker node7-1234 lives, but its lock is free here"):
            check_locks(Cells(tmp_path))
        process.kill()


@pytest.mark.parametrize(("text", "seconds"), [("3h50m", 13_800), ("30s", 30), ("1d", 86_400), ("90m", 5_400)])
def test_durations_are_read(text, seconds):
    assert _Duration().convert(text, None, None) == seconds


def test_a_moment_without_a_zone_is_by_this_machines_clock():
    moment = datetime(2026, 11, 27, 8)

    assert _Moment().convert("2026-11-27T08:00", None, None) == moment.timestamp()
    assert _Moment().convert("2026-11-27T08:00+00:00", None, None) == 1795766400.0
