"""A study on a Ray cluster of three nodes, while a node is killed, one hangs, one is added and the command is killed.

Afterwards the table must be that of an uninterrupted run on this machine, to the bit. Moments and victims are drawn
from the storm's number.
"""

import difflib
import json
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from benchmarks.chaos.nodes import Nodes, ray_nodes
from benchmarks.chaos.trial import STUDY, TRAINING, Trial, left_running, tables, until

EXAMPLES = Path(__file__).parents[2] / "examples"
PAUSE = 0.05  # seconds of each of the 13 phases of a training of `own`
LONGEST_WAIT = 240.0  # seconds until so many cells have ended
NOISE = ("raylet", "core_worker", "gcs_", "(pid=", "RayTaskError", "ActorDiedError")
TROUBLES = ("kill", "hang", "add", "driver")


@dataclass(frozen=True)
class Studied:
    """A study that is stormed.

    Attributes:
        file: of the study, in `folder`; empty: the study of the reliability trial, whose training counts its ends.
        variants: how many it has. share: of the cells that the others have.
        edited: a file of its code, and what an edit replaces in it by what.
    """

    name: str
    file: str
    variants: int
    folder: str = ""
    share: float = 1.0
    edited: tuple[str, str, str] = ("training.py", 'score"] / 10', 'score"] / 11')

    def write(self, folder: Path) -> None:
        if self.folder:
            shutil.copytree(EXAMPLES / self.folder, folder, ignore=shutil.ignore_patterns("mlruns", "__pycache__"))
            return
        folder.mkdir(parents=True)
        (folder / "study.yaml").write_text(STUDY)
        (folder / "training.py").write_text(TRAINING)

    def command(self, num_cells: int) -> list[str]:
        seeds = max(2, round(num_cells * self.share / self.variants))
        return ["ablate", "--study", self.file, "--device", "cpu", "--seeds", str(seeds)]


STUDIES = {
    it.name: it
    for it in (
        Studied("own", "study.yaml", 4),
        Studied("digits", "digits.yaml", 5, "digits", edited=("digits.py", "images / 16.0", "images / 15.0")),
        # Each cell imports PyTorch.
        Studied("script", "script.yaml", 5, "script", 1 / 3, ("train.py", "9.0 * radius", "8.0 * radius")),
    )
}


@dataclass(frozen=True)
class Stormed:
    """What came of a storm.

    Attributes:
        is_same: whether the command ended well, with the table of an uninterrupted run, to the bit.
        twice: cells with two ends in the journal. lost: cells that came to their end a second time, because nobody had
            heard of the first; None where the training does not count its ends.
        running: runs that MLflow holds for running, or twice. tracebacks, noise: lines of Ray's own: printed.
        failed: cells that did not finish.
        resumed: attempts that went on from a checkpoint.
        seconds: from the first start of the command to its end.
    """

    study: str
    number: int
    order: str
    is_same: bool
    twice: int
    lost: int | None
    running: int
    tracebacks: int
    noise: int
    failed: int
    resumed: int
    seconds: float
    said: str = ""

    @property
    def is_right(self) -> bool:
        return self.is_same and not (self.twice or self.running or self.tracebacks or self.noise or self.failed)


class Untroubled:
    """Uninterrupted runs of the studies by worker processes of this machine, each made once."""

    def __init__(self, scratch: Path, num_cells: int) -> None:
        self._scratch, self._num_cells = scratch, num_cells
        self.store = cache(self._store)

    def _store(self, study: Studied) -> Path:
        trial = Trial(self._scratch / f"untroubled-{study.name}")
        study.write(trial.folder)
        assert trial.run(*study.command(self._num_cells), "--jobs", "2") == 0, trial.said
        return trial.store


def storm(study: Studied, number: int, num_cells: int, scratch: Path, untroubled: Untroubled) -> Stormed:
    """One study under the four troubles, in an order and at moments of its own."""
    wanted = untroubled.store(study)
    draw = random.Random(f"{study.name} {number}")
    trial = Trial(scratch / f"storm-{study.name}-{number}")
    study.write(trial.folder)
    ends = trial.folder / "ends"
    phases = trial.folder / "phases-there"
    phases.mkdir()
    there = {"CHAOS_ENDS": str(ends), "CHAOS_PHASES": str(phases), "CHAOS_PAUSE": str(PAUSE)}
    order = draw.sample(TROUBLES, len(TROUBLES))
    with ray_nodes(there) as nodes:
        command = [*study.command(num_cells), "--executor", f"ray:{nodes.address}"]
        began = time.monotonic()
        driver = _Driver(trial, command, study)
        moments = sorted(draw.uniform(0.03, 0.85) for _ in order)
        for trouble, moment in zip(order, moments, strict=True):
            most = round(moment * len(list(wanted.glob("cells/*/result.json"))))
            until(partial(_is_time, trial, most, driver), seconds=LONGEST_WAIT)
            time.sleep(draw.uniform(0, 1))
            _trouble(trouble, nodes, driver, draw)
        code = driver.wait()
        seconds = time.monotonic() - began
    return _judged(trial, wanted, study, number, " ".join(order), code, ends, seconds)


class _Driver:
    """The command, which may be killed and started again; the user's code is edited as soon as it trains."""

    def __init__(self, trial: Trial, command: list[str], study: Studied) -> None:
        self._trial, self._command, self._study = trial, command, study
        name, old, new = study.edited
        self._path = trial.folder / name
        self._code = self._path.read_text()
        assert old in self._code
        self._edited = self._code.replace(old, new)
        self._start()

    def _start(self) -> None:
        self._path.write_text(self._code)
        began = _starts(self._trial.store)
        self.process = self._trial.start(*self._command)
        until(lambda: _starts(self._trial.store) > began or self.has_ended, seconds=LONGEST_WAIT)
        self._path.write_text(self._edited)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def kill_and_start_again(self, pause: float) -> None:
        if self.has_ended:
            return
        self.process.kill()
        self._trial.wait(self.process)
        time.sleep(pause)
        self._start()

    def wait(self) -> int:
        try:
            return self._trial.wait(self.process)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._trial.wait(self.process)
            return -1
        finally:
            self._path.write_text(self._code)


def _trouble(name: str, nodes: Nodes, driver: _Driver, draw: random.Random) -> None:
    match name:
        case "kill":
            nodes.kill(draw.choice(nodes.victims), workers_too=draw.random() < 0.5)
        case "hang":
            nodes.hang(draw.choice(nodes.victims))
            if draw.random() < 0.5:
                timer = threading.Timer(draw.uniform(1, 20), nodes.wake)
                timer.daemon = True
                timer.start()
        case "add":
            nodes.add()
        case "driver":
            driver.kill_and_start_again(draw.uniform(0, 1))


def _is_time(trial: Trial, most: int, driver: _Driver) -> bool:
    return len(list(trial.store.glob("cells/*/result.json"))) >= most or driver.has_ended


def _starts(store: Path) -> int:
    return sum(it["event"] in ("started", "resumed") for events in _journals(store).values() for it in events)


def _journals(store: Path) -> Mapping[str, list[Mapping[str, object]]]:
    def events(path: Path) -> list[Mapping[str, object]]:
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    return {it.parent.name: events(it) for it in sorted(store.glob("cells/*/journal.jsonl"))}


def _judged(
    trial: Trial, wanted: Path, study: Studied, number: int, order: str, code: int, ends: Path, seconds: float
) -> Stormed:
    journals = _journals(trial.store)
    kinds = {key: Counter(it["event"] for it in events) for key, events in journals.items()}
    results = [json.loads(it.read_text()) for it in trial.store.glob("cells/*/result.json")]
    said = "\n".join(trial.said)
    lost = None
    if ends.exists():
        counted = Counter(ends.read_text().split())
        lost = sum(counted[key] - kinds[key]["ended"] for key in counted)
    stormed = Stormed(
        study.name,
        number,
        order,
        is_same=code == 0 and tables(trial.store) == tables(wanted),
        twice=sum(it["ended"] > 1 for it in kinds.values()),
        lost=lost,
        running=left_running(trial.store),
        tracebacks=said.count("Traceback (most recent call last)"),
        noise=sum(any(word in line for word in NOISE) for line in said.splitlines()),
        failed=sum(it["status"] != "finished" for it in results),
        resumed=sum(it["resumed"] for it in kinds.values()),
        seconds=seconds,
    )
    if stormed.is_right:
        return stormed
    return replace(stormed, said=f"exit code {code}\n{said}\n{_difference(wanted, trial.store)}")


def _difference(wanted: Path, found: Path) -> str:
    """The lines of the tables that differ."""
    before, after = tables(wanted).splitlines(), tables(found).splitlines()
    return "\n".join(difflib.unified_diff(before, after, "uninterrupted", "stormed", lineterm="", n=0))
