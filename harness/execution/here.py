"""Training in this process: one cell after another. Each worker process does the same with every cell that it gets."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from harness.execution.attempt import attempt
from harness.execution.executor import Progress, Tell
from harness.execution.record import STOPPED, Outcome, Record
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.store.result import Result
from harness.trainers.run import Event


def run_one(
    cell: Cell,
    cells: Cells,
    *,
    device: str,
    provenance: Mapping[str, Any],
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    is_alone: bool = True,
) -> Outcome:
    """Makes sure that one cell has a result: trains it, or leaves it to the process that trains it now.

    An exception in training is recorded as the cell's result (status `failed`), with its traceback in the journal.

    Args:
        is_alone: whether no other cell of this run trains meanwhile.

    Returns:
        The result that is in the store; `stopped`: training was asked to stop, and left without one; `crowded-out`: it
        ran out of memory and was not alone, which is journalled and no result; `elsewhere`: another process trains it.

    Raises:
        DeviceLostError: this process can use its device no more; the cell has no result.
        StoreError: the store cannot be written.
    """
    with cells.claim(cell) as is_mine:
        if not is_mine:
            return "elsewhere"
        if (ended := cells.settled_result(cell)) is not None:
            return ended
        sources = cells.root / "sources" / dict(cell.fingerprints).get("sources", "")
        with Record(cell, cells, provenance, on_event, is_alone=is_alone) as record:
            attempt(
                record.task,
                record.folder,
                device=device,
                tell=record.write,
                should_stop=should_stop,
                sources=sources if sources.is_dir() else None,
            )
        return record.outcome


class _Stopped(BaseException):
    """Leaves a cell that trains in this process; no Exception, for it is no failure of the cell."""


class Here:
    """An executor (`executor.py`) for debugging and tests; `advance` trains a cell to its end."""

    def __init__(self, device: str, cells: Cells, provenance: Mapping[str, Any]) -> None:
        self._device, self._cells, self._provenance = device, cells, provenance
        self._cell: Cell | None = None
        self._is_stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._cell = None

    is_single = True

    @property
    def num_free(self) -> int:
        return int(self._cell is None)

    def submit(self, cell: Cell, *, is_alone: bool = True) -> None:
        self._cell, self._is_stopped = cell, False

    def stop(self, cell: Cell) -> None:
        self._is_stopped = True

    def advance(self, tell: Tell) -> None:
        cell, self._cell = self._cell, None
        if cell is None:
            return

        def told(event: Event) -> None:
            tell(Progress("event", cell, event=event))
            if self._is_stopped:
                raise _Stopped

        try:
            outcome = run_one(cell, self._cells, device=self._device, provenance=self._provenance, on_event=told)
        except _Stopped:
            self._cells.append(cell.key, STOPPED)
            outcome = "stopped"
        tell(progress_of(cell, outcome))


def progress_of(cell: Cell, outcome: Outcome) -> Progress:
    return Progress("ended", cell, result=outcome) if isinstance(outcome, Result) else Progress(outcome, cell)
