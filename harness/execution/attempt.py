"""One attempt at a cell: has its trainer train it in a folder, and tells what comes of it.

Nothing here knows the store: what is told is recorded by whoever holds the cell's claim (`record.py`), in this process
or in another one, before `tell` returns. So a metric that is logged is durable when `run.log` returns, and what a
checkpoint contains is journalled before it.
"""

import logging
import platform
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DeviceLostError, DivergedError, HarnessError, OutOfMemoryError, StoreError
from harness.hardware import cpu_name, peak_memory_bytes
from harness.plan.cell import Cell
from harness.store.journal import NO_ROOM, writing
from harness.store.result import RESULT_COLUMNS, Result, Status
from harness.trainers.run import Event, Run, RunError
from harness.urls import masked

_NOTED = frozenset({"device", "versions", "peak_memory_bytes"})  # of the envelope, what a trainer knows better
PACKAGE = Path(__file__).parents[1]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """An attempt that is to be made.

    Attributes:
        last_step: the last that attempts up to the checkpoint have logged, or -1; seconds: what they took.
    """

    cell: Cell
    last_step: int = -1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Logged:
    """An event for the journal."""

    event: Event


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint was written to `path`, in the folder of the attempt; it takes the place of the last one."""

    path: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """The last thing that an attempt tells.

    Attributes:
        result: as far as training knows it: its metrics are those that `run.finish` got.
    """

    result: Result


@dataclass(frozen=True, slots=True)
class Left:
    """Instead: training was asked to stop, and did."""


Message = Logged | Saved | Ended | Left


def attempt(
    task: Task,
    folder: Path,
    *,
    device: str,
    tell: Callable[[Message], None],
    should_stop: Callable[[], bool] = lambda: False,
    sources: Path | None = None,
) -> None:
    """Trains a cell, or goes on with it, where `folder` holds a checkpoint.

    An exception in training is told as the cell's result (status `failed`), its traceback as an event.

    Args:
        tell: gets each message, in order, `Ended` or `Left` last.
        sources: the snapshot of the user's sources, or None.

    Raises:
        DeviceLostError: this process can use its device no more; the cell has no result.
        StoreError: something could not be written, as on a full disk; the cell has no result.
        Whatever `tell` raises that is no Exception passes through.
    """
    cell = task.cell

    def emit(event: Event) -> None:
        tell(Saved(Path(event["path"])) if event["event"] == "saved" else Logged(event))

    run = Run(
        key=cell.key,
        settings=cell.settings,
        seed=cell.seed,
        metrics=cell.trainer.metrics,
        device=device,
        folder=folder,
        emit=emit,
        fingerprints=dict(cell.fingerprints),
        seconds_before=task.seconds,
        last_step_before=task.last_step,
        should_stop=should_stop,
        sources=sources,
    )
    emit({"event": "resumed" if run.saved() else "started", "step": max(0, task.last_step)})
    tell(_train(cell, run, emit))


def _train(cell: Cell, run: Run, emit: Callable[[Event], None]) -> Ended | Left:
    def ended(status: Status, reason: str = "", metrics: Mapping[str, float] = {}) -> Ended:
        return Ended(_outcome(cell, run, status, reason, metrics))

    try:
        cell.trainer.train(run)
        if clashing := sorted(_clashing(cell, run)):
            raise RunError(f"run.note: {', '.join(clashing)}: every result has that already; give another name.")
        if run.final is not None:
            return ended("finished", metrics=run.final)
        if run.should_stop:
            return Left()
        raise RunError("training returned without calling run.finish(...), so the cell has no result.")
    except DivergedError as error:
        return ended("diverged", str(error))
    except OutOfMemoryError as error:
        return ended("out-of-memory", str(error))
    except DeviceLostError as error:
        emit({"event": "failed", "reason": masked(str(error)), "traceback": masked(traceback.format_exc())})
        raise
    except StoreError:  # whoever trains it next may have the room that was missing here
        raise
    except Exception as error:  # a cell is the unit of isolation: the others go on
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            with writing(run.folder):
                raise
        trace = masked(_traceback(error))  # an error often tells the address that it could not reach
        log.debug("cell %s failed\n%s", cell.key, trace)
        reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        emit({"event": "failed", "reason": masked(reason), "traceback": trace})
        return ended("failed", reason)


def _traceback(error: Exception) -> str:
    """Where it happened; empty where that is the harness alone and the sentence is for the user."""
    files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    if isinstance(error, HarnessError) and all(Path(it).is_relative_to(PACKAGE) for it in files):
        return ""
    return "".join(traceback.format_exception(error))


def _clashing(cell: Cell, run: Run) -> set[str]:
    """Noted facts that would hide a column of the results."""
    taken = {*RESULT_COLUMNS, *cell.trainer.metrics.names} - _NOTED
    return taken & run.facts.keys()


def _outcome(cell: Cell, run: Run, status: Status, reason: str, metrics: Mapping[str, float]) -> Result:
    noted = {name: fact for name, fact in run.facts.items() if name not in _clashing(cell, run)}
    facts: dict[str, Any] = {name: masked(fact) if isinstance(fact, str) else fact for name, fact in noted.items()}
    device = str(facts.pop("device", f"cpu: {cpu_name()}"))
    versions = str(facts.pop("versions", f"python {platform.python_version()}"))
    peak = int(facts.pop("peak_memory_bytes", 0)) or peak_memory_bytes()
    return Result(
        key=cell.key,
        seed=cell.seed,
        status=status,
        reason=masked(reason),
        metrics=metrics,
        facts=facts,
        num_steps=run.num_steps,
        seconds=run.seconds,
        peak_memory_bytes=peak,
        device=device,
        versions=versions,
    )
