"""A study whose training takes half a second and says what it does; its commands; and what is looked at afterwards."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

from benchmarks.commands import HARNESS
from harness.store.cells import Cells
from harness.store.load import results_table

PHASES = ("training", "validation", "checkpoint", "result")  # that a training says; around them are others' matter
VOLATILE = ["seconds", "finished_at", "peak_memory_bytes"]  # when and how long, not what
LONGEST = 300.0  # seconds, of a command

STUDY = """
name: chaos
trainer: {function: "training:train"}
metrics: {val/score: {goal: maximize}, test/score: {goal: maximize}}
select: val/score
report: test/score
baseline: {rate: 0.5, width: 8, flag: false}
changes:
  - {name: wide, overrides: {width: 16}}
  - {name: fast, overrides: {rate: 0.9}}
  - {name: flagged, overrides: {flag: true}}
profiles: {standard: {seeds: 2}}
"""

TRAINING = '''
import json, os, random, time
import harness

def say(run, phase):
    """For those who kill; no part of training."""
    if folder := os.environ.get("CHAOS_PHASES"):
        with open(f"{folder}/{os.getpid()}", "w") as file:
            file.write(f"{phase} {run.key}")
        time.sleep(float(os.environ["CHAOS_PAUSE"]))

def count_end(run):
    """Every training that came to its end, whoever heard of it."""
    if path := os.environ.get("CHAOS_ENDS"):
        with open(path, "a") as file:
            file.write(run.key + "\\n")

def train(run: harness.Run) -> None:
    s = run.settings
    state = json.loads(run.saved().read_text()) if run.saved() else {"step": 0, "score": 0.0}
    for step in range(state["step"] + 1, 5):
        say(run, "training")
        draw = random.Random(run.seed_for("draw", step)).random()
        state = {"step": step, "score": state["score"] * 0.9 + s.rate * draw * s.width / 8 + (0.25 if s.flag else 0)}
        say(run, "validation")
        run.log(step, **{"val/score": state["score"]})
        with run.saving() as path:
            path.write_text("half of ")
            say(run, "checkpoint")
            path.write_text(json.dumps(state))
    say(run, "result")
    count_end(run)
    run.finish(**{"test/score": state["score"] / 10})
'''

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "ablate": ("ablate", "--study", "study.yaml", "--jobs", "2"),
    "search": ("search", "--study", "study.yaml", "--jobs", "2", "--trials", "8", "--sampler", "brute-force"),
    "confirm": ("confirm", "--study", "study.yaml", "--jobs", "2", "--variant", "wide", "--seeds", "8"),
}
BEFORE = {"confirm": ("ablate", "--study", "study.yaml", "--jobs", "2", "--seeds", "8")}  # what it goes on from
T = TypeVar("T")
PAUSE = 0.03  # seconds of each phase of a training


@dataclass(frozen=True)
class Tried:
    """What came of one trouble.

    Attributes:
        what: `kill`, `damage`, ...; how: which of them.
        is_same: whether the table was that of an untroubled run, to the bit.
        twice: results that had been written, and were written again.
        running: runs that MLflow holds for running, or twice. tracebacks: of whatever command.
        said: what the command said, where something is wrong.
    """

    what: str
    how: str
    is_same: bool = True
    twice: int = 0
    running: int = 0
    tracebacks: int = 0
    said: str = ""

    @property
    def is_right(self) -> bool:
        return self.is_same and not (self.twice or self.running or self.tracebacks)


@dataclass
class Trial:
    """A folder in which one command is troubled again and again, until it is left to end.

    Attributes:
        said: whatever the commands printed. ended: results seen so far, by key; they must stay as they are.
    """

    folder: Path
    command: str = "ablate"
    variables: Mapping[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    ended: dict[str, bytes] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "mlruns"

    @property
    def phases(self) -> Path:
        return self.folder / "phases"

    def start(self, *arguments: str, pause: float = PAUSE, **variables: str) -> subprocess.Popen[str]:
        """The command, or another one, as a process; what training says is of this life alone."""
        shutil.rmtree(self.phases, ignore_errors=True)
        self.phases.mkdir()
        usual = {name: it for name, it in os.environ.items() if not name.startswith(("MLFLOW_", "HARNESS_"))}
        ours = {"CHAOS_PHASES": str(self.phases), "CHAOS_PAUSE": str(pause)}
        return subprocess.Popen(
            [*HARNESS, *(arguments or COMMANDS[self.command])],
            cwd=self.folder,
            env=usual | ours | dict(self.variables) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait(self, process: "subprocess.Popen[str]") -> int:
        said, _ = process.communicate(timeout=LONGEST)
        self.said.append(said)
        for path in self.store.glob("cells/*/result.json"):
            if path.is_file():
                self.ended.setdefault(path.parent.name, path.read_bytes())
        return process.returncode

    def run(self, *arguments: str, **variables: str) -> int:
        return self.wait(self.start(*arguments, pause=0.0, **variables))

    def said_by(self, pid: int) -> tuple[str, str]:
        """The phase that a training said last, and its cell; empty for a process that has not said any."""
        try:
            phase, _, key = (self.phases / str(pid)).read_text().partition(" ")
        except FileNotFoundError:
            return "", ""
        return phase, key

    def judged(self, what: str, how: str, untroubled: "Trial", *, is_same: bool = True) -> Tried:
        """Args:
        untroubled: whose tables these must be. is_same: False where it is known that they are not.
        """
        again = sum(_content(self.store / "cells" / key / "result.json") != it for key, it in self.ended.items())
        tracebacks = sum("Traceback (most recent call last)" in it for it in self.said)
        is_same = is_same and tables(self.store) == tables(untroubled.store)
        running = left_running(self.store)
        tried = Tried(what, how, is_same, again, running, tracebacks)
        return tried if tried.is_right else Tried(what, how, is_same, again, running, tracebacks, "\n".join(self.said))


def new_trial(folder: Path, command: str = "ablate", **variables: str) -> Trial:
    """A folder with the study, and with the store that the command goes on from."""
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "training.py").write_text(TRAINING)
    trial = Trial(folder, command, variables)
    if command in BEFORE:
        assert trial.run(*BEFORE[command]) == 0, trial.said
    return trial


class References:
    """The tables of untroubled runs, made once a command."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self._lock = scratch, threading.Lock()
        self._made = cache(self._make)

    def __call__(self, command: str = "ablate") -> Trial:
        with self._lock:
            return self._made(command)

    def _make(self, command: str) -> Trial:
        trial = new_trial(self.scratch / f"untroubled-{command}", command)
        code = trial.run()
        assert code == 0, trial.said
        return trial


def tables(store: Path) -> str:
    """Every study run's cells, sorted, and what was decided of it; as text, in which a NaN equals itself."""
    cells = Cells(store)
    found = {}
    for name, manifest in cells.manifests().items():
        rows = results_table(cells, manifest).drop(columns=VOLATILE).to_dict("records")
        found[name] = [manifest.headline, *sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)]
    return json.dumps(found, sort_keys=True, indent=1)


def left_running(store: Path) -> int:
    """Runs that MLflow's database holds for running, and those that it holds twice."""
    path = store / "mlflow.db"
    if not path.is_file():
        return 0
    with closing(sqlite3.connect(path)) as database:
        active = "FROM runs WHERE lifecycle_stage = 'active'"
        (running,) = database.execute(f"SELECT count(*) {active} AND status = 'RUNNING'").fetchone()
        keys = (
            f"SELECT t.value FROM tags t WHERE t.key = 'harness.run_key' AND t.run_uuid IN (SELECT run_uuid {active})"
        )
        (twins,) = database.execute(f"SELECT count(*) - count(DISTINCT value) FROM ({keys})").fetchone()
    return int(running + twins)


def until(look: Callable[[], T], *, seconds: float = 30.0) -> T:
    """Looks again and again until there is something, or the time is over; gives the last look."""
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return found


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
