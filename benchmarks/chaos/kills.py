"""SIGKILL of commands and of their workers, in each phase of their lives."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.chaos.trial import COMMANDS, PHASES, References, Trial, Tried, new_trial, until

START_UP, DELIVERY = "start-up", "delivery"
PHASES_OF = {"command": (START_UP, *PHASES, DELIVERY), "worker": (START_UP, *PHASES)}
LONGEST_START_UP = 1.5  # seconds after which a command is killed that has not begun to train, at most
LONGEST_DELIVERY = 0.5  # seconds after the last result


@dataclass(frozen=True)
class Chain:
    """One folder in which a command, or workers of it, are killed in each phase."""

    command: str
    victim: str
    number: int

    def __str__(self) -> str:
        return f"{self.command}-{self.victim}-{self.number}"


def chains(num_kills: int) -> Iterator[Chain]:
    """As many as give so many kills, every command and victim in turn."""
    number = 0
    while num_kills > 0:
        for command in COMMANDS:
            for victim, phases in PHASES_OF.items():
                if num_kills > 0:
                    yield Chain(command, victim, number)
                    num_kills -= len(phases)
        number += 1


def kill_again_and_again(chain: Chain, scratch: Path, references: References) -> list[Tried]:
    """A kill in each phase, then the command to its end; what is wrong then is put down to each of these kills."""
    wanted = references(chain.command)
    trial, draw = new_trial(scratch / str(chain), chain.command), random.Random(str(chain))
    if chain.victim == "command":
        hits = [_kill_command(trial, phase, draw, len(_results(wanted))) for phase in PHASES_OF["command"]]
    else:
        hits = _kill_workers(trial)
    has_ended_well = trial.run() == 0
    judged = trial.judged("kill", "", wanted, is_same=has_ended_well)
    return [replace(judged, how=f"{chain.command}, {chain.victim}: {hit}") for hit in hits if hit]


def _results(trial: Trial) -> list[Path]:
    return list(trial.store.glob("cells/*/result.json"))


def _kill_command(trial: Trial, phase: str, draw: random.Random, most: int) -> str:
    """Kills the command when one of its trainings says this phase; gives where it was hit, empty where it had ended."""
    process = trial.start()
    if phase == START_UP:
        time.sleep(draw.uniform(0.05, LONGEST_START_UP))
    elif phase == DELIVERY:
        until(lambda: len(_results(trial)) == most or process.poll() is not None)
        time.sleep(draw.uniform(0.0, LONGEST_DELIVERY))
    else:
        until(lambda: phase in _said(trial) or process.poll() is not None)
        time.sleep(draw.uniform(0.0, 0.01))
    has_ended, said = process.poll() is not None, _said(trial)
    process.kill()
    trial.wait(process)  # its pipe closes when the last of its workers is dead
    if has_ended:
        return ""
    return said[0] if phase == START_UP and said else phase


def _kill_workers(trial: Trial) -> list[str]:
    """Kills a worker in each phase of one life of the command, each with another cell: the second death of a cell's
    worker is an outcome of the cell."""
    process, hits, spared = trial.start(pause=0.06), list[str](), set[str]()
    born = until(lambda: _workers(process) or process.poll() is not None)
    if isinstance(born, list):
        _kill(born[0])
        hits.append(trial.said_by(born[0])[0] or START_UP)
        spared |= until(lambda: _buried(trial), seconds=1)
    for phase in PHASES:
        found = until(lambda: _one_in(trial, process, phase, spared) or process.poll() is not None)  # noqa: B023
        if not isinstance(found, tuple):
            break
        pid, key = found
        _kill(pid)
        hits.append(trial.said_by(pid)[0])
        spared.add(key)
    trial.wait(process)
    return hits


def _one_in(trial: Trial, process: "subprocess.Popen[str]", phase: str, spared: set[str]) -> tuple[int, str] | None:
    for pid in _workers(process):
        said, key = trial.said_by(pid)
        if said == phase and key not in spared:
            return pid, key
    return None


def _buried(trial: Trial) -> set[str]:
    """Cells of which a worker has died: a second death would be an outcome."""
    journals = trial.store.glob("cells/*/journal.jsonl")
    return {it.parent.name for it in journals if "ended by SIGKILL" in it.read_text(errors="replace")}


def _workers(process: "subprocess.Popen[str]") -> list[int]:
    """Those of a command: the children of the process that they are forked from."""
    return [worker for it in _children(process.pid) if _is_server(it) for worker in _children(it)]


def _is_server(pid: int) -> bool:
    try:
        return b"multiprocessing.forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _children(pid: int) -> Sequence[int]:
    try:
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _said(trial: Trial) -> list[str]:
    """The phases of all trainings of this life."""
    return [said for it in list(trial.phases.iterdir()) if (said := trial.said_by(int(it.name))[0])]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
