"""What a node of a cluster does for a study that runs elsewhere: trains a cell in a folder of its own, and tells of it.

Nothing here knows which cluster it is; `ray.py` makes an actor of `Slot`.
"""

import os
import queue
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import DeviceLostError, HarnessError, StudyError
from harness.execution.attempt import Logged, Message, Saved, Task, attempt
from harness.execution.parcels import Followed, Parcel, parcels_of, put_down
from harness.execution.provenance import COMPUTING, library_versions
from harness.files.atomic import remove
from harness.plan.cell import Cell
from harness.store.cells import BOOKKEEPING
from harness.trainers.run import CHECKPOINT, LINES, SAVING
from harness.trainers.sources import ROLE, Sources

POLL_SECONDS = 1.0
SECONDS_BETWEEN_LOGS = 5.0  # files beside a checkpoint, such as output, follow so often
DEVICE_LOST = 70  # exit code
STAYS = (*BOOKKEEPING, SAVING, "__pycache__")  # of a cell's folder; the checkpoint travels by itself


@dataclass(frozen=True, slots=True)
class Told:
    """One message of an attempt, as it travels.

    Attributes:
        message: a checkpoint's path means nothing elsewhere: its content is in `checkpoint`.
        files: of the cell's folder, new or altered; they come before the message.
    """

    message: Message | HarnessError | None
    files: Sequence[Parcel] = ()
    checkpoint: Sequence[Parcel] = ()


@dataclass(frozen=True, slots=True)
class Errand:
    """An attempt that is to be made on another machine: `Task`, and what it needs that is not there.

    Attributes:
        supply: a folder's name, as `Trainer.supply` has it; supplied: its files, each something to `fetch`.
    """

    spec: Mapping[str, Any]
    last_step: int
    seconds: float
    device: str
    folder: Sequence[Parcel]
    fingerprint: str
    sources: Sequence[Parcel]
    supply: str = ""
    supplied: Mapping[str, Any] = field(default_factory=dict)


class Slot:
    """The life of a worker on a node: one cell after another, each in a thread, so that it can be told to stop."""

    def __init__(self) -> None:
        threading.Thread(target=_end_with_the_node, args=(os.getppid(),), daemon=True).start()
        _clear_away()
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))
        self._acknowledged = threading.Semaphore(0)
        self._is_asked_to_stop = self._has_looked = False

    def about(self) -> dict[str, Any]:
        """Where it is, and what would train there."""
        return {"versions": dict(library_versions(COMPUTING)), "host": socket.gethostname()}

    def acknowledge(self) -> None:
        """What was told last is recorded: training goes on."""
        self._acknowledged.release()

    def halt(self) -> bool:
        """Asks training to stop; whether it has ever looked."""
        self._is_asked_to_stop = True
        return self._has_looked

    def lacks(self, spec: Mapping[str, Any], supply: str) -> bool:
        """Whether this node has to be sent a folder before it can train such a cell."""
        return not Cell.from_json(spec).trainer.has_supply(supply)

    def fetch(self, told: Any) -> memoryview:
        """The content of a file that was announced."""
        raise NotImplementedError

    def run(self, errand: Errand) -> Iterator[Told]:
        """Trains a cell; each message is yielded, and waits to be acknowledged."""
        outbox: queue.Queue[Told] = queue.Queue()
        self._is_asked_to_stop = self._has_looked = False
        threading.Thread(target=self._train, args=(errand, outbox), daemon=True, name="training").start()
        while True:
            told = outbox.get()
            yield told
            if not isinstance(told.message, Logged | Saved):
                return

    def _train(self, errand: Errand, outbox: "queue.Queue[Told]") -> None:
        folder = Path(tempfile.mkdtemp(dir=self._scratch))

        def send(told: Told) -> None:
            outbox.put(told)
            if isinstance(told.message, Logged | Saved):
                self._acknowledged.acquire()

        try:
            put_down(folder, errand.folder)
            cell = Cell.from_json(errand.spec)
            if errand.supplied:
                files = {name: partial(self.fetch, told) for name, told in errand.supplied.items()}
                cell.trainer.receive_supply(errand.supply, files)
            attempt(
                Task(cell, errand.last_step, errand.seconds),
                folder,
                device=errand.device,
                tell=_Sender(folder, send).tell,
                should_stop=self._should_stop,
                sources=self._sources(errand),
            )
        except DeviceLostError:
            os._exit(DEVICE_LOST)  # at once: unwinding would call into the lost context
        except HarnessError as error:
            outbox.put(Told(error))
        except BaseException as error:
            outbox.put(Told(HarnessError(f"cell {errand.spec['key']}: its worker: {type(error).__name__}: {error}")))
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _should_stop(self) -> bool:
        self._has_looked = True
        return self._is_asked_to_stop

    def _sources(self, errand: Errand) -> Path | None:
        """The snapshot of the user's sources on this node.

        Raises:
            StudyError: what arrived is not what the cell's key says.
        """
        if not errand.sources:
            return None
        folder = self._scratch / ROLE / errand.fingerprint
        if not folder.is_dir():
            files = {it.name: it.content for it in errand.sources if it.content is not None}
            if (arrived := Sources(files).fingerprint) != errand.fingerprint:
                raise StudyError(
                    f"{socket.gethostname()}: the sources that arrived are {arrived}, not {errand.fingerprint}; is its "
                    f"Python another one? Here it is {sys.version.split()[0]}."
                )
            put_down(folder, errand.sources)
        return folder


class _Sender:
    """Makes of what an attempt tells what travels: paths become contents."""

    def __init__(self, folder: Path, send: Callable[[Told], None]) -> None:
        self._folder, self._send = folder, send
        self._followed = Followed(folder, leave=STAYS)
        self._followed_at = time.monotonic()

    def tell(self, message: Message) -> None:
        match message:
            case Saved(path):
                self._send(self._saved(path))
            case Logged() if time.monotonic() < self._followed_at + SECONDS_BETWEEN_LOGS:
                self._send(Told(message))
            case _:
                self._send(Told(message, self._news()))

    def _news(self, last: Iterable[str] = ()) -> list[Parcel]:
        self._followed_at = time.monotonic()
        return self._followed.news(first=[LINES], last=last)

    def _saved(self, path: Path) -> Told:
        kept = self._folder / CHECKPOINT
        if path == kept and kept.is_symlink():  # a file of a script's that keeps its name
            target = os.readlink(kept)
            below = [f"{target}/{it.name}" if it.name else target for it in parcels_of(self._folder / target)]
            return Told(Saved(Path(CHECKPOINT)), [*self._news(below), Parcel(CHECKPOINT, link=target)])
        checkpoint = parcels_of(path)
        if path != kept:
            remove(kept)
            path.rename(kept)
        return Told(Saved(Path(SAVING)), self._news(), checkpoint)


_SCRATCH = "harness-slot-"


def _clear_away() -> None:
    """Removes what killed workers have left on this node."""
    for path in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        pid = path.name.removeprefix(_SCRATCH).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(path, ignore_errors=True)


def _end_with_the_node(parent: int) -> None:
    """A worker outlives its node's daemon by minutes, out of anyone's reach; it is to go on training for nobody."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)
