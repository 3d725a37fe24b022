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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from tempfile import gettempdir
from typing import Any, Self

from harness.cuda import cuda_ids, seen_alone
from harness.errors import DeviceLostError, HarnessError
from harness.execution.executor import SECONDS_OF_GRACE, Died, Progress, Tell
from harness.execution.here import progress_of, run_one
from harness.execution.record import STOPPED
from harness.execution.room import Room
from harness.execution.todo import POLL_SECONDS
from harness.files.scratch import scratch
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.trainers.run import Event
from harness.trainers.trainer import DeviceMemory

_OF_THE_TERMINAL = (signal.SIGINT, signal.SIGHUP)  # Ctrl-C, and that it was closed
_HELD = (*_OF_THE_TERMINAL, signal.SIGTERM)  # which a scheduler sends to every process of a job
DEVICE_LOST = 70  # exit code of a worker whose CUDA context is lost
ORPHAN_SECONDS = 5.0  # that a worker on a CUDA device has for its step when the process that started it is killed
LIVES = 3  # workers that may die one after another as they start
_IS_GONE = (BrokenPipeError, ConnectionResetError, EOFError)  # what talking to a dead process gives
_IS_SILENT = (EOFError, OSError)  # what listening to one gives; it may have died within a message
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
    """An executor (`executor.py`): local processes, started when there is a cell for them. One that dies is replaced.

    Args:
        devices: one entry a worker.
        is_sized: whether on a CUDA device only as many of its workers train at a time as its memory has room for.
        seconds_of_grace: of workers that are asked to stop, and whose training looks at `run.should_stop`.
    """

    def __init__(
        self,
        devices: Sequence[str],
        cells: Cells,
        provenance: Mapping[str, Any],
        *,
        is_sized: bool = False,
        seconds_of_grace: float = SECONDS_OF_GRACE,
    ) -> None:
        self._cells, self._provenance = cells, dict(provenance)
        self._rooms = {it: Room(count) for it, count in Counter(devices).items() if is_sized and it.startswith("cuda")}
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
        self._end(self._workers)

    @staticmethod
    def _end(workers: Sequence[_Worker]) -> None:
        for worker in workers:
            worker.pipe.close()  # an idle worker ends when its pipe does
        for worker in workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _forget(self, worker: _Worker) -> None:
        if worker.device in self._rooms:
            self._rooms[worker.device].forget(worker.process.pid or 0)

    @property
    def num_free(self) -> int:
        there = Counter(self._free_devices) + Counter(it.device for it in self._workers if it.cell is None)
        return sum(min(count, self._room_on(device)) for device, count in there.items())

    def _room_on(self, device: str) -> int:
        """How many more cells a device has room for."""
        if device not in self._rooms:
            return len(self._workers) + len(self._free_devices)
        busy = sum(it.cell is not None for it in self._workers if it.device == device)
        return max(0, self._rooms[device].workers - busy)

    def submit(self, cell: Cell, *, is_alone: bool = True) -> None:
        idle = [it for it in self._workers if it.cell is None]
        for dead in [it for it in idle if not it.process.is_alive()]:  # it died while it had nothing to do
            self._dismiss(dead)
        worker = next((it for it in idle if it in self._workers and self._room_on(it.device)), None)
        if worker is None:
            place = max(at for at, device in enumerate(self._free_devices) if self._room_on(device))
            worker = self._start(self._free_devices.pop(place))
            self._workers.append(worker)
        if is_alone:  # the others hold memory, too, though they do nothing
            for other in [it for it in self._workers if it.cell is None and it is not worker]:
                self._dismiss(other)
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
        self._interrupt([worker])
        self._dismiss(worker)
        self._stopped.append(cell)

    def _dismiss(self, worker: _Worker) -> None:
        """Ends a worker that trains nothing (or has ended); another one may take its place when there is a cell."""
        self._workers.remove(worker)
        self._free_devices.append(worker.device)
        self._forget(worker)
        self._end([worker])

    def _ready(self) -> list[_Worker]:
        """Those that have something to say, or have died: a process that training has forked may hold the pipe open."""
        busy = [it for it in self._workers if it.cell]
        timeout = 0 if self._stopped or not busy else POLL_SECONDS
        heard = wait([it for worker in busy for it in (worker.pipe, worker.process.sentinel)], timeout)
        return [it for it in busy if it.pipe in heard or not it.process.is_alive()]

    def _receive(self, worker: _Worker, tell: Tell) -> None:
        """Handles one message."""
        cell = worker.cell
        assert cell is not None
        is_dead = not worker.process.is_alive()  # asked first: what it has said is in the pipe then
        try:
            if is_dead and not worker.pipe.poll():
                raise EOFError
            kind, payload = worker.pipe.recv()
        except _IS_SILENT:
            self._forget(worker)
            self._workers[self._workers.index(worker)] = self._start(worker.device)
            tell(Died(cell, _how_it_ended(worker.process)))
            return
        if kind == "event":
            tell(Progress("event", cell, event=payload))
            return
        if kind == "memory":
            self._note(worker, payload)
            return
        worker.cell = None
        if kind == "error":
            raise payload
        tell(progress_of(cell, payload))

    def _note(self, worker: _Worker, memory: DeviceMemory) -> None:
        if worker.device in self._rooms:
            ours = sum(it.device == worker.device for it in self._workers)
            self._rooms[worker.device].note(worker.process.pid or 0, memory, ours)

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
        ids = cuda_ids() if device.startswith("cuda") else ()
        for _ in range(LIVES):
            ours, theirs = self._context.Pipe()
            arguments = (theirs, self._cells, device, self._provenance, ids)
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


def _work(pipe: Connection, cells: Cells, device: str, provenance: Mapping[str, Any], ids: Sequence[str]) -> None:
    """The life of a worker: one cell after another, until the pipe closes."""
    # Before CUDA starts here. Without it a worker of `cuda:1` would open a context on the first device, too.
    device, variables = seen_alone(device, ids)
    os.environ |= variables
    for number in _OF_THE_TERMINAL:  # they reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    # For its parent it is a daemon, which ends with it; but daemons may start no process, and a loader of data does.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    # They start as in any program, not as this worker did: a loader's workers would take a server for their parent, and
    # wait for ever where this process is killed.
    multiprocessing.set_start_method(None, force=True)
    threading.Thread(target=_die_with_parent, args=(device,), daemon=True).start()
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

        try:
            told = _told(pipe, cell, device)
            outcome = run_one(
                cell, cells, device=device, provenance=provenance, on_event=told, should_stop=stop, is_alone=is_alone
            )
            if outcome == "stopped":
                return
            pipe.send(("done", outcome))
        except DeviceLostError:
            _end_children()
            os._exit(DEVICE_LOST)  # at once: unwinding would call into the lost context
        except HarnessError as error:  # not the cell's fault: the store cannot be written
            pipe.send(("error", error))
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            _end_children()


def _told(pipe: Connection, cell: Cell, device: str) -> Callable[[Event], None]:
    """Tells the parent of events, and with the first validation what training takes of the device."""
    is_measured = False

    def tell(event: Event) -> None:
        nonlocal is_measured
        try:
            pipe.send(("event", event))
            if event["event"] == "validation" and not is_measured:
                is_measured = True
                if memory := cell.trainer.device_memory(device):
                    pipe.send(("memory", memory))
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(1)  # the parent is gone; not a failure of the cell, which continues from its checkpoint

    return tell


class _Stop:
    """Whether this worker was asked to end, by SIGTERM.

    Training that looks is given time to save and return. Training that has never looked ends at once, as it would have
    without us: what it saved is what the next attempt continues from. So does a process that training has forked.
    """

    def __init__(self) -> None:
        self._worker = os.getpid()
        self.is_asked = False
        self.was_asked_for = False  # by the training of this cell
        signal.signal(signal.SIGTERM, self._on_terminate)

    def __call__(self) -> bool:
        self.was_asked_for = True
        return self.is_asked

    def _on_terminate(self, number: int, frame: object) -> None:
        is_worker = os.getpid() == self._worker
        if not self.was_asked_for or not is_worker:
            if is_worker:
                _end_children()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        self.is_asked = True


def _end_children() -> None:
    """What training has started ends with it: a forked process holds the cell's claim. Where a worker is killed, its
    children are on their own; those of a loader of data look whether it lives."""
    for child in multiprocessing.active_children():
        child.terminate()


def _die_with_parent(device: str) -> None:
    """Ends this process as soon as the one that asked for it is gone, so that no orphan goes on training.

    On a CUDA device after its step: under MPS a process that is killed while the device works for it can take the other
    ones along, and those may be anybody's.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    if device.startswith("cuda"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_SECONDS)
    _end_children()
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
