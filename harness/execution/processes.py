"""Local worker processes, each training one cell at a time and recording it in the store by itself.

Workers are forked from one server process that has imported what they need (`warm_up`): PyTorch is imported once for
all of them, and while the command still opens its tracking database. The command itself is never forked: that would
copy its threads and databases. Where there can be no such server, each worker starts as a new interpreter.
"""

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from tempfile import gettempdir
from typing import Any, Self

from harness.errors import DeviceLostError, HarnessError
from harness.execution.executor import SECONDS_OF_GRACE, Died, Progress, Tell
from harness.execution.here import progress_of, run_one
from harness.execution.record import STOPPED
from harness.execution.todo import POLL_SECONDS
from harness.files.scratch import scratch
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.trainers.run import Event

_OF_THE_TERMINAL = (signal.SIGINT, signal.SIGHUP)  # Ctrl-C, and that it was closed
_HELD = (*_OF_THE_TERMINAL, signal.SIGTERM)  # which a scheduler sends to every process of a job
DEVICE_LOST = 70  # exit code of a worker whose CUDA context is lost
LIVES = 3  # workers that may die one after another as they start
_IS_GONE = (BrokenPipeError, ConnectionResetError, EOFError)  # what talking to a dead process gives
HINTS = {
    -signal.SIGKILL: "; the machine may be out of memory",
    DEVICE_LOST: "; its CUDA context was lost, as the cell's journal says",
}
LONGEST_TEMPORARY_FOLDER = 60  # characters; the server's socket is in it, with 43 more, and may have 103 (macOS) or 107


def warm_up(*modules: str) -> None:
    """Start, in the background, the process that workers are forked from, with these modules imported.

    Called before the first worker starts; later it changes nothing. Without it each worker imports for itself.
    """
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        context.set_forkserver_preload(list(modules))
        _socket_in_scratch()
        with _deaf_to_interrupts():
            forkserver.ensure_running()


@functools.cache
def _socket_in_scratch() -> None:
    """The server's socket in a folder that is cleared away where this process is killed: multiprocessing's stays."""
    holding = contextlib.ExitStack()
    atexit.register(holding.close)
    multiprocessing.current_process()._config["tempdir"] = str(holding.enter_context(scratch()))  # type: ignore[attr-defined]


def _context() -> BaseContext:
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # workers: large pages, 2 to 3% faster, same bits
    is_known = "forkserver" in multiprocessing.get_all_start_methods()
    has_server = is_known and len(gettempdir()) <= LONGEST_TEMPORARY_FOLDER
    return multiprocessing.get_context("forkserver" if has_server else "spawn")


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    device: str
    cell: Cell | None = None


class Processes:
    """An executor (`executor.py`): local processes, one a device, started when there is a cell for them. One that dies
    is replaced.

    Args:
        seconds_of_grace: of workers that are asked to stop, and whose training looks at `run.should_stop`.
    """

    def __init__(
        self,
        devices: Sequence[str],
        cells: Cells,
        provenance: Mapping[str, Any],
        *,
        seconds_of_grace: float = SECONDS_OF_GRACE,
    ) -> None:
        self._cells, self._provenance = cells, dict(provenance)
        self._seconds_of_grace = seconds_of_grace
        self.is_single = len(devices) == 1
        self._context = _context()
        self._free_devices = list(devices)[::-1]  # of workers that are not started: there was nothing to do
        self._workers: list[_Worker] = []
        self._stopped: list[Cell] = []  # of which nobody was told yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._interrupt(self._workers)
        for worker in self._workers:
            worker.pipe.close()  # an idle worker ends when its pipe does
        for worker in self._workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    @property
    def num_free(self) -> int:
        return len(self._free_devices) + sum(worker.cell is None for worker in self._workers)

    def submit(self, cell: Cell, *, is_alone: bool = True) -> None:
        worker = next((it for it in self._workers if it.cell is None), None)
        if worker is not None and not worker.process.is_alive():  # it died while it had nothing to do
            self._workers.remove(worker)
            self._free_devices.append(worker.device)
            worker = None
        if worker is None:
            worker = self._start(self._free_devices.pop())
            self._workers.append(worker)
        worker.cell = cell
        with contextlib.suppress(*_IS_GONE):  # it dies just now: that is heard as the cell's first death
            worker.pipe.send((cell.to_json(), is_alone))

    def advance(self, tell: Tell) -> None:
        for worker in self._ready():
            if worker in self._workers:  # not stopped meanwhile
                self._receive(worker, tell)
        while self._stopped:
            tell(Progress("stopped", self._stopped.pop()))

    def stop(self, cell: Cell) -> None:
        """The process goes with its cell, as in any interruption."""
        worker = next((it for it in self._workers if it.cell and it.cell.key == cell.key), None)
        if worker is None:
            return
        self._workers.remove(worker)
        self._free_devices.append(worker.device)
        self._interrupt([worker])
        worker.pipe.close()
        self._stopped.append(cell)

    def _ready(self) -> list[_Worker]:
        busy = {worker.pipe: worker for worker in self._workers if worker.cell}
        timeout = 0 if self._stopped or not busy else POLL_SECONDS
        return [busy[pipe] for pipe in wait(list(busy), timeout) if isinstance(pipe, Connection)]

    def _receive(self, worker: _Worker, tell: Tell) -> None:
        """Handles one message."""
        cell = worker.cell
        assert cell is not None
        try:
            kind, payload = worker.pipe.recv()
        except _IS_GONE:
            self._workers[self._workers.index(worker)] = self._start(worker.device)
            tell(Died(cell, _how_it_ended(worker.process)))
            return
        if kind == "event":
            tell(Progress("event", cell, event=payload))
            return
        worker.cell = None
        if kind == "error":
            raise payload
        tell(progress_of(cell, payload))

    def _interrupt(self, workers: Sequence[_Worker]) -> None:
        """Asks them to end, all at once; kills those that have not when their time is over."""
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + self._seconds_of_grace
        for worker in workers:
            worker.process.join(timeout=max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            self._note_stop(worker.cell)

    def _note_stop(self, cell: Cell | None) -> None:
        if cell is None or self._cells.result(cell.key) or self._cells.is_claimed(cell.key):
            return
        events = self._cells.events(cell.key)  # none of a worker that was still starting: there is no folder yet
        if events and events[-1]["event"] != STOPPED["event"]:
            self._cells.append(cell.key, STOPPED)

    def _start(self, device: str) -> _Worker:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        for _ in range(LIVES):
            ours, theirs = self._context.Pipe()
            arguments = (theirs, self._cells, device, self._provenance, listed)
            process = self._context.Process(  # type: ignore[attr-defined]
                target=_work, args=arguments, daemon=True, name=f"harness-{device}"
            )
            try:
                with _deaf_to_interrupts():
                    process.start()
                return _Worker(process, ours, device)
            except _IS_GONE:  # killed before it had read what it is to do
                ours.close()
            finally:
                theirs.close()
        raise HarnessError(
            f"{LIVES} worker processes on {device} died one after another as they started; the machine may be out of "
            "memory. What has ended is saved, and the same command continues."
        )


def _how_it_ended(process: BaseProcess) -> str:
    process.join()
    code = process.exitcode or 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"the worker process ended {how}{HINTS.get(code, '')}"


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process that is started in here is deaf to Ctrl-C, a closed terminal and SIGTERM from its first instruction on,
    and is started whole: for us, they wait until the end of the block. Both hold for the main thread, which gets them.

    The server that workers are forked from stays so: where it died of a SIGTERM that a scheduler sends to everyone, its
    workers would be taken for ended while they save.
    """
    resource_tracker.ensure_running()  # else it would be with the first process, and would unblock the signal
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []  # not ignored here: another thread of ours may get what this one blocks
    handlers = {number: signal.getsignal(number) for number in _HELD}
    handlers = {number: it for number, it in handlers.items() if it != signal.SIG_IGN}  # `nohup` is left alone
    for number in handlers:
        signal.signal(number, lambda number, frame: waiting.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)  # which the new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if waiting:
            signal.raise_signal(waiting[0])


def _work(pipe: Connection, cells: Cells, device: str, provenance: Mapping[str, Any], listed: str) -> None:
    """The life of a worker: one cell after another, until the pipe closes."""
    device = _see_only(device, listed)
    for number in _OF_THE_TERMINAL:  # they reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    stop = _Stop()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    while True:
        stop.was_asked_for = False
        if stop.is_asked:  # while the cell before was ending
            return
        try:
            content, is_alone = pipe.recv()
            cell = Cell.from_json(content)
        except (EOFError, ConnectionResetError):
            return
        except HarnessError as error:  # its trainer cannot be imported here, or has changed meanwhile
            pipe.send(("error", error))
            continue

        def tell(event: Event) -> None:
            try:
                pipe.send(("event", event))
            except (BrokenPipeError, ConnectionResetError):
                sys.exit(1)  # the parent is gone; not a failure of the cell, which continues from its checkpoint

        try:
            outcome = run_one(
                cell, cells, device=device, provenance=provenance, on_event=tell, should_stop=stop, is_alone=is_alone
            )
            if outcome == "stopped":
                return
            pipe.send(("done", outcome))
        except DeviceLostError:
            os._exit(DEVICE_LOST)  # at once: unwinding would call into the lost context
        except HarnessError as error:  # not the cell's fault: the store cannot be written
            pipe.send(("error", error))
        except (BrokenPipeError, ConnectionResetError):
            return


class _Stop:
    """Whether this worker was asked to end, by SIGTERM.

    Training that looks is given time to save and return. Training that has never looked ends at once, as it would have
    without us: what it saved is what the next attempt continues from.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.was_asked_for = False  # by the training of this cell
        signal.signal(signal.SIGTERM, self._on_terminate)

    def __call__(self) -> bool:
        self.was_asked_for = True
        return self.is_asked

    def _on_terminate(self, number: int, frame: object) -> None:
        if not self.was_asked_for:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        self.is_asked = True


def _see_only(device: str, listed: str) -> str:
    """Hides every CUDA device but the worker's own, before CUDA starts in this process; gives its name from then on.

    Without it a worker of `cuda:1` would open a context on the first device, too.

    Args:
        listed: $CUDA_VISIBLE_DEVICES of the command. Where it names devices (or MIG instances), the number counts among
            those. The server that workers are forked from may have started with another one.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index:
        return device
    visible = [it.strip() for it in listed.split(",") if it.strip()]
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(index)] if int(index) < len(visible) else index
    return "cuda:0"


def _die_with_parent() -> None:
    """Kills this process as soon as the one that asked for it is gone, so that no orphan goes on training."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
