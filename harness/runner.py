"""Runs cells: skips what has ended, continues what is partial, isolates what fails.

`run_one` is the idempotent unit: claim, train, record. `run` feeds it with cells, in this process or in local worker
processes that each train one cell at a time; cells are taken as workers get free, so that a search can decide late
which one is next. How to train arrives as an argument; this module imports nothing heavy and prints nothing: who wants
to see progress passes a function.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.cell import Cell
from harness.cells import Cells, now
from harness.errors import HarnessError
from harness.results import Result

Event = dict[str, Any]
Outcome = Literal["done", "elsewhere"]
POLL_SECONDS = 1.0  # how often a cell that another process trains is looked at again
STOPPED: Event = {"event": "interrupted", "signal": "SIGTERM"}
log = logging.getLogger(__name__)


class Train(Protocol):
    """Trains one cell in this process and gives its result; continues from what it finds in the folder.

    A function at the top of a module (or a partial of one): worker processes import it by name.
    """

    def __call__(self, cell: Cell, folder: Path, *, device: str, on_event: Callable[[Event], None]) -> Result: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """One thing that happened, for whoever watches.

    Attributes:
        kind: `event` (of a cell that trains; `event` holds it), `ended` (`result` holds it), `elsewhere` (another
            process trains the cell; it is looked at again later), or `stopped` (left where it was, on request).
    """

    kind: Literal["event", "ended", "elsewhere", "stopped"]
    cell: Cell
    event: Event = field(default_factory=dict)
    result: Result | None = None


def run(
    todo: Iterable[Cell | None],
    cells: Cells,
    train: Train,
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
    source = _Source(todo, cells, should_stop, on_progress)
    if in_process:
        _run_here(source, cells, train, devices[0], provenance, on_progress, should_stop)
    else:
        with _Workers(devices, cells, train, provenance, on_progress, should_stop) as workers:
            workers.drain(source)


def run_one(
    cell: Cell,
    cells: Cells,
    train: Train,
    *,
    device: str,
    provenance: Mapping[str, Any],
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Makes sure that one cell has a result: trains it, or leaves it to the process that trains it now.

    An exception in training is recorded as the cell's result (status `failed`), with its traceback in the journal.
    """

    def journal(event: Event) -> None:
        if event["event"] in ("started", "resumed", "restarted"):
            event = event | {"provenance": dict(provenance)}
        cells.append(cell.key, event)
        on_event(event)

    with cells.claim(cell) as is_mine:
        if not is_mine:
            return "elsewhere"
        if cells.result(cell.key) is None:
            result = _train_isolated(cell, cells.folder(cell.key), train, device, journal)
            cells.write_result(stamped(result, provenance))
    return "done"


def stamped(result: Result, provenance: Mapping[str, Any]) -> Result:
    commit, dirty = str(provenance.get("commit", "")), bool(provenance.get("dirty", False))
    return replace(result, commit=commit, dirty=dirty, finished_at=now())


def _train_isolated(cell: Cell, folder: Path, train: Train, device: str, journal: Callable[[Event], None]) -> Result:
    try:
        return train(cell, folder, device=device, on_event=journal)
    except Exception as error:  # a cell is the unit of isolation: the others go on
        trace = traceback.format_exc()
        log.debug("cell %s failed\n%s", cell.key, trace)
        reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        journal({"event": "failed", "reason": reason, "traceback": trace})
        return failed(cell, reason)


def failed(cell: Cell, reason: str) -> Result:
    return Result(key=cell.key, seed=cell.seed, status="failed", reason=reason, **_identity(cell))


def _identity(cell: Cell) -> dict[str, Any]:
    training = cell.settings.training
    fingerprint = dict(cell.fingerprints)["data"]
    return {"precision": training.precision, "threads": training.threads, "data_fingerprint": fingerprint}


class _Source:
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


class _Stopped(BaseException):
    """Leaves a cell that trains in this process; no Exception, for it is no failure of the cell."""


def _run_here(
    source: _Source,
    cells: Cells,
    train: Train,
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
            outcome = run_one(cell, cells, train, device=device, provenance=provenance, on_event=tell)
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


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    device: str
    cell: Cell | None = None


class _Workers:
    """Local worker processes. One that dies is replaced; its cell goes on once more, then it is recorded as failed."""

    def __init__(
        self,
        devices: Sequence[str],
        cells: Cells,
        train: Train,
        provenance: Mapping[str, Any],
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[Cell], bool],
    ) -> None:
        self._cells, self._train, self._provenance = cells, train, dict(provenance)
        self._on_progress, self._should_stop = on_progress, should_stop
        self._deaths: Counter[str] = Counter()  # by cell key
        self._context = multiprocessing.get_context("spawn")  # fork would copy the parent's threads and databases
        self._free_devices = list(devices)[::-1]  # of workers that have not been started: there was nothing to do
        self._workers: list[_Worker] = []

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            if error[0] is not None:
                self._interrupt(worker)
            else:
                worker.pipe.close()  # an idle worker ends when its pipe does
        for worker in self._workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def drain(self, source: "_Source") -> None:
        while not source.is_over or any(worker.cell for worker in self._workers):
            self._hand_out(source)
            if not any(worker.cell for worker in self._workers):
                time.sleep(0 if source.is_over else POLL_SECONDS / 5)
            for worker in self._ready():
                self._receive(worker, source)
            for worker in [it for it in self._workers if it.cell and self._should_stop(it.cell)]:
                self._stop(worker)
                source.wake()

    def _hand_out(self, source: "_Source") -> None:
        while self._free_devices or any(worker.cell is None for worker in self._workers):
            cell = source.take()
            if cell is None:
                return
            worker = next((it for it in self._workers if it.cell is None), None)
            if worker is None:
                worker = self._start(self._free_devices.pop())
                self._workers.append(worker)
            worker.cell = cell
            worker.pipe.send(cell.to_json())

    def _ready(self) -> list[_Worker]:
        busy = {worker.pipe: worker for worker in self._workers if worker.cell}
        return [busy[pipe] for pipe in wait(list(busy), timeout=POLL_SECONDS) if isinstance(pipe, Connection)]

    def _receive(self, worker: _Worker, source: "_Source") -> None:
        """Handles one message."""
        cell = worker.cell
        assert cell is not None
        try:
            kind, payload = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker, cell, source)
            return
        if kind == "event":
            self._on_progress(Progress("event", cell, event=payload))
            return
        worker.cell = None
        if kind == "error":
            raise payload
        if payload == "elsewhere":
            source.put_back(cell)
            self._on_progress(Progress("elsewhere", cell))
        else:
            self._on_progress(Progress("ended", cell, result=self._cells.result(cell.key)))
        source.wake()

    def _bury(self, worker: _Worker, cell: Cell, source: "_Source") -> None:
        worker.process.join()
        self._workers[self._workers.index(worker)] = self._start(worker.device)
        code = worker.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        hint = "; the machine may be out of memory" if code == -signal.SIGKILL else ""
        reason = f"the worker process ended {how}{hint}"
        self._cells.append(cell.key, {"event": "failed", "reason": reason, "traceback": ""})
        self._deaths[cell.key] += 1
        if self._deaths[cell.key] < 2:
            source.put_back(cell)
            return
        self._cells.write_result(stamped(failed(cell, reason), self._provenance))
        self._on_progress(Progress("ended", cell, result=self._cells.result(cell.key)))
        source.wake()

    def _stop(self, worker: _Worker) -> None:
        """Leaves the worker's cell where it is; the process goes with it, as in any interruption."""
        cell = worker.cell
        assert cell is not None
        self._workers.remove(worker)
        self._free_devices.append(worker.device)
        self._interrupt(worker)
        worker.pipe.close()
        self._on_progress(Progress("stopped", cell))

    def _interrupt(self, worker: _Worker) -> None:
        worker.process.terminate()
        worker.process.join(timeout=10)
        if worker.cell is None or self._cells.result(worker.cell.key) or self._cells.is_claimed(worker.cell.key):
            return
        if self._cells.events(worker.cell.key):  # a worker that was still starting has not even made the folder
            self._cells.append(worker.cell.key, STOPPED)

    def _start(self, device: str) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._cells, self._train, device, self._provenance, os.getpid())
        process = self._context.Process(target=_work, args=arguments, daemon=True, name=f"harness-{device}")
        process.start()
        theirs.close()
        return _Worker(process, ours, device)


def _work(
    pipe: Connection, cells: Cells, train: Train, device: str, provenance: Mapping[str, Any], parent: int
) -> None:
    """The life of a worker: one cell after another, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _die_with(parent)
    while True:
        try:
            cell = Cell.from_json(pipe.recv())
        except (EOFError, ConnectionResetError):
            return

        def tell(event: Event) -> None:
            try:
                pipe.send(("event", event))
            except (BrokenPipeError, ConnectionResetError):
                sys.exit(1)  # the parent is gone; not a failure of the cell, which continues from its checkpoint

        try:
            pipe.send(("done", run_one(cell, cells, train, device=device, provenance=provenance, on_event=tell)))
        except HarnessError as error:  # not the cell's fault: the store cannot be written
            pipe.send(("error", error))
        except (BrokenPipeError, ConnectionResetError):
            return


def _die_with(parent: int) -> None:
    """Asks Linux to kill this process when its parent dies, so that no orphan goes on training."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before the request
        sys.exit(1)
