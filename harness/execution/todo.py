"""What is left to do: between whoever decides which cells to train and whoever trains them."""

import time
from collections import deque
from collections.abc import Callable, Iterable

from harness.execution.executor import Progress
from harness.plan.cell import Cell
from harness.store.cells import Cells

POLL_SECONDS = 1.0  # how often what is not to be trained now is looked at again


class Todo:
    """The cells that are still to be taken, without those that have ended."""

    def __init__(
        self,
        todo: Iterable[Cell | None],
        cells: Cells,
        should_stop: Callable[[Cell], bool],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._todo, self._cells = iter(todo), cells
        self._should_stop, self._on_progress = should_stop, on_progress
        self._again: deque[tuple[float, Cell]] = deque()  # when to look at a cell again
        self._asked_at = -POLL_SECONDS
        self._is_exhausted = False

    @property
    def is_over(self) -> bool:
        return self._is_exhausted and not self._again

    def take(self) -> Cell | None:
        """A cell to train now, or None."""
        while self._again and self._again[0][0] <= time.monotonic():
            again = self._again.popleft()[1]
            if not self._should_stop(again):
                return again
            self._on_progress(Progress("stopped", again))
        if self._is_exhausted or time.monotonic() < self._asked_at + POLL_SECONDS:
            return None
        for cell in self._todo:
            if cell is None:
                self._asked_at = time.monotonic()
                return None
            if self._cells.result(cell.key) is None:
                return cell
        self._is_exhausted = True
        return None

    def put_back(self, cell: Cell) -> None:
        """To be looked at again, after a while."""
        self._again.append((time.monotonic() + POLL_SECONDS, cell))

    def wake(self) -> None:
        """Something has happened: what was "nothing at the moment" may be a cell now."""
        self._asked_at = -POLL_SECONDS
