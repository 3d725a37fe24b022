"""Runs cells: skips what has ended, continues what is partial, isolates what fails.

`run` takes cells as workers get free, so that a search can decide late which one is next, and has each trained by
`attempt.run_one`, in this process or in local worker processes (`processes.py`). A cell carries its trainer;
nothing here imports anything heavy or prints: who wants to see progress passes a function.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.execution.attempt import STOPPED, run_one
from harness.execution.processes import Workers
from harness.execution.todo import POLL_SECONDS, Progress, Todo
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.trainers.run import Event

__all__ = ["Event", "Progress", "run", "run_one"]


def run(
    todo: Iterable[Cell | None],
    cells: Cells,
    *,
    devices: Sequence[str],
    provenance: Mapping[str, Any],
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[Cell], bool] = lambda cell: False,
    in_process: bool = False,
) -> None:
    """Trains every cell of `todo` that has not ended; afterwards each one has a result in `cells`, or was stopped.

    Args:
        todo: taken one by one, when a worker is free. None means that there is nothing at the moment: it is asked again
            when a cell has ended, and every second.
        devices: one entry a worker, such as `["cpu", "cpu"]` or `["cuda:0", "cuda:0", "cuda:1"]`.
        provenance: commit, versions and the like; goes into the journal of each cell.
        should_stop: whether to leave a cell that trains where it is, to be continued by another run; asked about every
            second (in this process, at each event).
        in_process: train in this process, one cell after another; for debugging and tests.

    Raises:
        StoreError: a result or journal cannot be written. KeyboardInterrupt passes through, workers stopped first.
    """
    assert devices, "at least one worker"
    source = Todo(todo, cells, should_stop, on_progress)
    if in_process:
        _run_here(source, cells, devices[0], provenance, on_progress, should_stop)
    else:
        with Workers(devices, cells, provenance, on_progress, should_stop) as workers:
            workers.drain(source)


class _Stopped(BaseException):
    """Leaves a cell that trains in this process; no Exception, for it is no failure of the cell."""


def _run_here(
    source: Todo,
    cells: Cells,
    device: str,
    provenance: Mapping[str, Any],
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[Cell], bool],
) -> None:
    while not source.is_over:
        cell = source.take()
        if cell is None:
            time.sleep(0 if source.is_over else POLL_SECONDS / 5)
            continue

        def tell(event: Event, cell: Cell = cell) -> None:
            on_progress(Progress("event", cell, event=event))
            if should_stop(cell):
                raise _Stopped

        try:
            outcome = run_one(cell, cells, device=device, provenance=provenance, on_event=tell)
        except _Stopped:
            cells.append(cell.key, STOPPED)
            on_progress(Progress("stopped", cell))
        else:
            if outcome == "elsewhere":
                source.put_back(cell)
                on_progress(Progress("elsewhere", cell))
            else:
                on_progress(Progress("ended", cell, result=cells.result(cell.key)))
        source.wake()
