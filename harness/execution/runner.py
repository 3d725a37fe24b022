"""Runs cells: skips what has ended, continues what is partial, isolates what fails.

`run` takes cells as workers get free, so that a search can decide late which one is next, and has an executor train
them: in this process (`here.py`), in worker processes (`processes.py`), on a cluster (`ray.py`). A cell carries its
trainer; nothing here imports anything heavy or prints: who wants to see progress passes a function.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.execution.executor import EXECUTORS, SECONDS_OF_GRACE, Demand, Died, Executor, Progress, check_executor
from harness.execution.here import Here
from harness.execution.processes import Processes
from harness.execution.record import STOPPED, failed, stamped
from harness.execution.todo import POLL_SECONDS, Todo
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.trainers.run import Event

__all__ = ["Event", "Progress", "make_executor", "run"]

MOST_DEATHS = 2  # of workers, of one cell; then it is recorded as failed


def make_executor(
    asked: str,
    cells: Cells,
    *,
    devices: Sequence[str],
    provenance: Mapping[str, Any],
    demand: Demand = Demand(),  # noqa: B008
    seconds_of_grace: float = SECONDS_OF_GRACE,
) -> Executor:
    """The executor that a request names, one of `EXECUTORS`.

    Args:
        devices: one entry a worker, such as `["cpu", "cpu"]` or `["cuda:0", "cuda:0", "cuda:1"]`.
        provenance: commit, versions and the like; goes into the journal of each cell.
        demand: of each cell, on a cluster, whose nodes and not `devices` say how many train at a time. Without `most`,
            worker processes on a CUDA device are as many as fit into its memory, and no more than `devices` has.
        seconds_of_grace: that worker processes get to save when they are interrupted.

    Raises:
        StudyError: there is no such executor.
    """
    assert devices, "at least one worker"
    check_executor(asked)
    if asked == "here":
        return Here(devices[0], cells, provenance)
    if asked == "processes":
        is_sized = demand.most is None
        return Processes(devices, cells, provenance, is_sized=is_sized, seconds_of_grace=seconds_of_grace)
    from harness.execution.ray import Ray

    return Ray(asked.partition(":")[2], cells, provenance, device=devices[0], demand=demand)


def run(
    todo: Iterable[Cell | None],
    cells: Cells,
    *,
    devices: Sequence[str],
    provenance: Mapping[str, Any],
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[Cell], bool] = lambda cell: False,
    executor: str = EXECUTORS[0],
    demand: Demand = Demand(),  # noqa: B008
    seconds_of_grace: float = SECONDS_OF_GRACE,
) -> None:
    """Trains every cell of `todo` that has not ended; afterwards each one has a result in `cells`, or was stopped.

    Args:
        todo: taken one by one, when a worker is free. None means that there is nothing at the moment: it is asked again
            when a cell has ended, and every second.
        should_stop: whether to leave a cell that trains where it is, to be continued by another run; asked at each of
            its events, and about every second.
        devices, provenance, executor, demand, seconds_of_grace: as for `make_executor`.

    Raises:
        StoreError: a result or journal cannot be written. KeyboardInterrupt passes through, workers stopped first.
    """
    source = Todo(todo, cells, should_stop, on_progress)
    with make_executor(
        executor, cells, devices=devices, provenance=provenance, demand=demand, seconds_of_grace=seconds_of_grace
    ) as chosen:
        _Runner(source, cells, chosen, provenance, on_progress, should_stop).drain()


class _Runner:
    def __init__(
        self,
        source: Todo,
        cells: Cells,
        executor: Executor,
        provenance: Mapping[str, Any],
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[Cell], bool],
    ) -> None:
        self._source, self._cells, self._executor, self._provenance = source, cells, executor, provenance
        self._on_progress, self._should_stop = on_progress, should_stop
        self._training: dict[str, Cell] = {}  # by key
        self._deaths: Counter[str] = Counter()  # of workers, by key
        self._unburied: dict[str, tuple[Died, int]] = {}  # by key; with the events that the journal had
        self._crowded_out: deque[Cell] = deque()  # ran out of memory beside others; each is tried once more, alone
        self._alone: str | None = None  # key of the cell that nothing else may train beside

    def drain(self) -> None:
        source, executor = self._source, self._executor
        while not source.is_over or self._training or self._crowded_out:
            while executor.num_free and (cell := self._take()) is not None:
                self._training[cell.key] = cell
                executor.submit(cell, is_alone=executor.is_single or cell.key == self._alone)
            if not self._training:
                time.sleep(0 if source.is_over else POLL_SECONDS / 5)
            executor.advance(self._see)
            for cell in [it for it in self._training.values() if self._should_stop(it)]:
                executor.stop(cell)

    def _take(self) -> Cell | None:
        """The next cell; none beside one that is to be alone."""
        if self._alone in self._training:
            return None
        if not self._crowded_out:
            cell = self._source.take()
            return None if cell is not None and self._is_buried(cell) else cell
        if self._training:
            return None
        cell = self._crowded_out.popleft()
        self._alone = cell.key
        return cell

    def _see(self, told: Progress | Died) -> None:
        cell = told.cell
        if isinstance(told, Progress) and told.kind == "event":
            self._on_progress(told)
            if self._should_stop(cell):
                self._executor.stop(cell)
            return
        del self._training[cell.key]
        if isinstance(told, Died) or told.kind == "stopped":  # perhaps just after it had ended
            result = self._cells.result(cell.key)
            told = Progress("ended", cell, result=result) if result and result.is_finished else told
        if isinstance(told, Died):
            if self._was_to_stop(cell):
                self._on_progress(Progress("stopped", cell))
            else:
                self._deaths[cell.key] += told.is_of_cell
                self._bury(told)
            return
        if told.kind == "elsewhere":
            self._source.put_back(cell)
        if told.kind == "crowded-out":
            self._crowded_out.append(cell)
            return
        self._on_progress(told)
        self._source.wake()

    def _was_to_stop(self, cell: Cell) -> bool:
        """Of a cell whose worker is no more. A scheduler tells every process of a job to end: workers may be first."""
        is_left = True  # also where the answer is an exception
        try:
            is_left = self._should_stop(cell)
        finally:
            if is_left and self._cells.events(cell.key):
                with self._cells.claim(cell) as is_ours:
                    if is_ours:  # else another process goes on with it
                        self._cells.append(cell.key, STOPPED)
        return is_left

    def _bury(self, told: Died) -> None:
        """Notes what a worker died of; its cell goes on once more, then it is recorded as failed.

        Where somebody holds the cell, it is put back: another process may have claimed it since, and then nothing of it
        is ours to write.
        """
        cell = told.cell
        with self._cells.claim(cell) as is_ours:  # a worker that died as it started has not even made the folder
            result = self._cells.result(cell.key)
            if not is_ours:
                self._unburied[cell.key] = told, len(self._cells.events(cell.key))
            elif result is None:
                self._cells.append(cell.key, {"event": "failed", "reason": told.reason, "traceback": ""})
                if self._deaths[cell.key] >= MOST_DEATHS:
                    result = stamped(failed(cell, told.reason), self._provenance)
                    self._cells.write_result(result)
        if result is not None:
            self._on_progress(Progress("ended", cell, result=result))
        else:
            self._source.put_back(cell)
            if not is_ours:
                self._on_progress(Progress("elsewhere", cell))
        self._source.wake()

    def _is_buried(self, cell: Cell) -> bool:
        """Buries a cell that nobody has trained since its worker died: what held it then was a process that the worker
        had forked, and which had its lock. Else such a cell would be tried for ever."""
        told, num_events = self._unburied.pop(cell.key, (None, 0))
        if told is None or len(self._cells.events(cell.key)) > num_events:
            return False
        self._bury(told)
        return True
