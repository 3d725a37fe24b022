"""A driver of many cells whose workers are simulated: each answers at once, so that what is measured is the driver.

What the driver does is real, and what it does for a cluster: it plans, claims each cell, journals what it hears (a
start, a validation, an end), writes the result, judges placebos, and has MLflow follow where that is asked for.
Messages of a cluster have a cost of their own, which `cluster_overhead` measures.
"""

import platform
import resource
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from benchmarks.core_overhead import leave_the_user_alone, write_study
from benchmarks.processes import Facts, Ready
from harness.execution.attempt import Ended, Logged, Message
from harness.execution.executor import Progress, Tell
from harness.execution.here import progress_of
from harness.execution.record import Record
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.store.result import Result


@dataclass
class _Slot:
    cell: Cell
    record: Record
    holding: ExitStack
    heard: int = 0


class Simulated:
    """An executor whose every slot says its next message whenever it is asked."""

    is_single = False

    def __init__(self, slots: int, cells: Cells, provenance: Mapping[str, Any]) -> None:
        self._most, self._cells, self._provenance = slots, cells, provenance
        self._slots: dict[str, _Slot] = {}
        self._told: list[Progress] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for slot in self._slots.values():
            slot.holding.close()

    @property
    def num_free(self) -> int:
        return self._most - len(self._slots)

    def submit(self, cell: Cell, *, is_alone: bool = True) -> None:
        holding = ExitStack()
        assert holding.enter_context(self._cells.claim(cell))
        assert self._cells.settled_result(cell) is None

        def hear(event: Mapping[str, Any]) -> None:
            self._told.append(Progress("event", cell, event=event))

        record = holding.enter_context(Record(cell, self._cells, self._provenance, hear, is_alone=is_alone))
        self._slots[cell.key] = _Slot(cell, record, holding)

    def stop(self, cell: Cell) -> None:
        raise AssertionError("nothing stops a simulation")

    def advance(self, tell: Tell) -> None:
        for slot in list(self._slots.values()):
            message = _message(slot.cell, slot.heard)
            slot.heard += 1
            slot.record.write(message)
            if isinstance(message, Ended):
                slot.holding.close()
                del self._slots[slot.cell.key]
                self._told.append(progress_of(slot.cell, slot.record.outcome))
        while self._told:
            tell(self._told.pop(0))


def _message(cell: Cell, number: int) -> Message:
    score = int(cell.key, 16) % 1000 / 1000
    if number == 0:
        return Logged({"event": "started", "step": 0})
    if number == 1:
        return Logged({"event": "validation", "step": 1, "metrics": {"val/score": score}, "seconds": 0.0})
    result = Result(
        key=cell.key,
        seed=cell.seed,
        status="finished",
        metrics={"test/score": score},
        facts={"settings_unread": ""},
        num_steps=1,
        device="cpu: simulated",
        versions=f"python {platform.python_version()}",
    )
    return Ended(result)


def drive(ready: Ready, folder: Path, num_cells: int, slots: int, is_tracked: bool) -> Facts:
    """A study of so many cells of no seconds.

    Args:
        is_tracked: MLflow follows, until everything is delivered.
    """
    from harness.api.training import Watch, train_work
    from harness.api.work import plan_work, save_manifest, unfinished
    from harness.execution import runner
    from harness.tracking import init, resolve_uri

    leave_the_user_alone()
    store = folder / "mlruns"
    store.mkdir()
    if is_tracked:
        init(resolve_uri(None, store), store)
    study = write_study(folder, num_cells)
    ready()
    began = _now()
    work = plan_work(study, device="cpu", jobs=slots, store=store)
    todo, expected = unfinished(work)
    assert len(todo) == num_cells
    planned = _now()

    def simulated(asked: str, cells: Cells, *, provenance: Mapping[str, Any], **options: Any) -> Simulated:
        return Simulated(slots, cells, provenance)

    ended: list[_Moment] = []
    seen = 0

    def note(progress: Progress) -> None:
        nonlocal seen
        seen += progress.kind == "ended"
        if seen == num_cells and not ended:
            ended.append(_now())

    with patch.object(runner, "make_executor", simulated), ExitStack() as stack:
        stack.enter_context(patch("harness.api.training.check_disk", _nothing))  # it allows a megabyte a cell
        if not is_tracked:
            stack.enter_context(patch("harness.api.training.open_tracking", _nothing))
            stack.enter_context(patch("harness.api.training.followed", _nobody))
            stack.enter_context(patch("harness.api.training.track_summary", _nothing))
        train_work(work, todo, lambda: save_manifest(work), expected, watch=Watch(note))
    done = _now()
    (trained,) = ended
    return {
        "cells": num_cells,
        "plan_seconds": planned.wall - began.wall,
        "trained_seconds": trained.wall - planned.wall,
        "trained_cpu_seconds": trained.cpu - planned.cpu,
        "delivered_seconds": done.wall - planned.wall,
        "delivered_cpu_seconds": done.cpu - planned.cpu,
    }


@dataclass(frozen=True)
class _Moment:
    wall: float
    cpu: float


def _now() -> _Moment:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return _Moment(time.monotonic(), used.ru_utime + used.ru_stime)


def _nobody(*arguments: object, **more: object) -> ExitStack:
    return ExitStack()


def _nothing(*arguments: object) -> None:
    """In place of what is not simulated."""
