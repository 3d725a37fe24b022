"""Training on a Ray cluster: no disk is shared, and the process that runs the study alone writes the store.

Each slot is an actor (`node.py`) that trains one cell at a time in a folder of its own node. It is handed the cell's
specification, its last checkpoint and the user's sources; what training tells streams back, is recorded (`record.py`)
and then acknowledged, and only then training goes on: so a metric is durable when `run.log` returns, as everywhere. The
claim is this process's. A worker or node that is lost costs what came after the last checkpoint; a worker that nobody
hears any more cannot write anything.

Ray's own retries are off: a resumed cell is another attempt, with another stream. `docs/scaling.md` is for users.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from harness.errors import HarnessError, StudyError
from harness.execution.attempt import Ended, Left, Saved
from harness.execution.executor import SECONDS_OF_GRACE, Demand, Died, Progress, Tell
from harness.execution.here import progress_of
from harness.execution.node import STAYS, Errand, Slot, Told
from harness.execution.parcels import Parcel, parcels_of, put_down
from harness.execution.provenance import COMPUTING, library_versions
from harness.execution.record import Record
from harness.files.atomic import remove, sync_folder
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.store.journal import writing
from harness.trainers.run import CHECKPOINT, SAVING, Event
from harness.trainers.sources import ROLE

POLL_SECONDS = 1.0
SECONDS_BETWEEN_LOOKS = 2.0  # at which nodes there are
SECONDS_TO_CONNECT = 10.0
SECONDS_FOR_A_SLOT = 300.0  # until the first worker of a cluster that is busy must have started
SECONDS_FOR_A_NODE = 60.0  # the first one, where a cluster has just been started
SECONDS_FOR_AN_ANSWER = 30.0  # of a worker that is free
SECONDS_FOR_A_SUPPLY = 3600.0  # of a file that cells read, which may be many GB
SECONDS_FOR_A_MESSAGE = 300.0  # of a checkpoint on its way; Ray itself may wait for ever


@dataclass
class _Slot:
    """One actor, seen from here.

    Attributes:
        about: its first answer, until it has come. stream: of the cell that it trains.
        holding: the cell's claim and record, to be closed with the attempt.
    """

    actor: Any
    about: Any
    node: str = ""
    host: str = ""
    cell: Cell | None = None
    stream: Any = None
    record: Record | None = None
    holding: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    stops_by: float | None = None


class Ray:
    """An executor (`executor.py`): one slot for each cell that the cluster's nodes can train at a time.

    Args:
        address: of a cluster's head, `auto`, or empty for $RAY_ADDRESS, or else a cluster of this machine alone.
        device: `cpu` or `cuda`.

    Raises:
        StudyError: Ray is not installed, cannot be reached, or no node can train a cell.
    """

    def __init__(
        self,
        address: str,
        cells: Cells,
        provenance: Mapping[str, Any],
        *,
        device: str = "cpu",
        demand: Demand = Demand(),  # noqa: B008
    ) -> None:
        self._address, self._cells, self._provenance = address, cells, dict(provenance)
        self._device = "cuda:0" if device.startswith("cuda") else "cpu"
        gpus = {} if self._device == "cpu" else {"GPU": demand.gpus}
        self._demand = {"CPU": float(demand.cpus), **gpus}
        self._most = demand.most
        self._slots: list[_Slot] = []
        self._told: list[Progress | Died] = []
        self._sources: dict[str, Any] = {}
        self._supplies: dict[Path, dict[str, Any]] = {}  # in the cluster's object store, by folder
        self._supplied: set[tuple[str, Path]] = set()  # nodes that have one
        self._looked_at = 0.0
        self._is_ours = False

    def __enter__(self) -> Self:
        self._is_ours = _connect(self._address)
        try:
            self._check_demand()
            self._wait_for_a_slot()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            with contextlib.suppress(Exception):
                self._leave_all()
        for slot in self._slots:
            slot.holding.close()
            _kill(slot.actor)
        self._slots.clear()
        if self._is_ours:
            _ray().shutdown()

    @property
    def is_single(self) -> bool:
        return self._most == 1

    @property
    def num_free(self) -> int:
        return sum(slot.about is None and slot.cell is None for slot in self._slots)

    def submit(self, cell: Cell, *, is_alone: bool = True) -> None:
        slot = next(it for it in self._slots if it.about is None and it.cell is None)
        holding = contextlib.ExitStack()
        with contextlib.ExitStack() as unless_given:
            unless_given.push(holding)
            if not holding.enter_context(self._cells.claim(cell)):
                self._told.append(Progress("elsewhere", cell))
                return
            if (ended := self._cells.settled_result(cell)) is not None:
                self._told.append(Progress("ended", cell, result=ended))
                return
            record = holding.enter_context(
                Record(cell, self._cells, self._provenance, partial(self._hear, cell), is_alone=is_alone)
            )
            fingerprint = dict(cell.fingerprints).get(ROLE, "")
            errand = Errand(
                cell.to_json(),
                record.task.last_step,
                record.task.seconds,
                self._device,
                _folder_of(record.folder),
                fingerprint,
                self._sources_of(fingerprint),
                *self._supply_of(cell, slot),
            )
            slot.stream = slot.actor.run.remote(errand)
            slot.cell, slot.record, slot.holding, slot.stops_by = cell, record, holding, None
            unless_given.pop_all()

    def _hear(self, cell: Cell, event: Event) -> None:
        self._told.append(Progress("event", cell, event=event))

    def advance(self, tell: Tell) -> None:
        self._follow_the_cluster()
        self._end_the_slow()
        waits = {slot.about if slot.about is not None else slot.stream: slot for slot in self._slots if _busy(slot)}
        if waits and not self._told:
            _ray().wait(list(waits), num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
        if waits:
            ready, _ = _ray().wait(list(waits), num_returns=len(waits), timeout=0, fetch_local=False)
            for it in ready:
                self._receive(waits[it])
                self._tell_all(tell)
        self._tell_all(tell)

    def stop(self, cell: Cell) -> None:
        slot = next((it for it in self._slots if it.cell and it.cell.key == cell.key), None)
        if slot is None or slot.stops_by is not None:
            return
        looks = False
        with contextlib.suppress(*_errors()):
            looks = _ray().get(slot.actor.halt.remote(), timeout=5)
        slot.stops_by = time.monotonic() + (SECONDS_OF_GRACE if looks else 0.0)
        if not looks:
            self._end_the_slow()

    def _tell_all(self, tell: Tell) -> None:
        while self._told:
            tell(self._told.pop(0))

    def _receive(self, slot: _Slot) -> None:
        try:
            if slot.about is not None:
                self._welcome(slot, _ray().get(slot.about, timeout=SECONDS_FOR_A_MESSAGE))
                return
            told: Told = _ray().get(next(slot.stream), timeout=SECONDS_FOR_A_MESSAGE)
        except StopIteration:
            self._lose(slot, "its stream ended without a result")
        except _errors() as error:
            self._lose(slot, _cause(error))
        else:
            self._record(slot, told)

    def _record(self, slot: _Slot, told: Told) -> None:
        assert slot.record is not None
        assert slot.cell is not None
        cell, record = slot.cell, slot.record
        with writing(record.folder):
            put_down(record.folder, told.files)
        if isinstance(told.message, HarnessError):
            self._free(slot)
            raise told.message
        if told.checkpoint:
            with writing(record.folder):
                remove(record.folder / SAVING)
                put_down(record.folder / SAVING, told.checkpoint)
            record.write(Saved(record.folder / SAVING))
        elif isinstance(told.message, Saved):
            sync_folder(record.folder)
        elif told.message is not None:
            record.write(told.message)
        if not isinstance(told.message, Ended | Left):
            slot.actor.acknowledge.remote()
            return
        self._free(slot)
        self._told.append(progress_of(cell, record.outcome))

    def _free(self, slot: _Slot) -> None:
        slot.holding.close()
        slot.cell = slot.stream = slot.record = slot.stops_by = None

    def _lose(self, slot: _Slot, cause: str) -> None:
        """The actor is gone; so is its node, perhaps."""
        self._slots.remove(slot)
        _kill(slot.actor)
        cell = slot.cell
        if cell is None:
            return
        is_stopped, is_node = slot.stops_by is not None, not _answers(slot.node)
        if is_stopped and slot.record is not None:
            slot.record.write(Left())
        self._free(slot)
        where = f"node {slot.host} is gone" if is_node else f"the worker on {slot.host} ended: {cause}"
        self._told.append(Progress("stopped", cell) if is_stopped else Died(cell, where, is_of_cell=not is_node))
        self._looked_at = 0.0

    def _end_the_slow(self) -> None:
        for slot in [it for it in self._slots if it.stops_by is not None and time.monotonic() >= it.stops_by]:
            self._lose(slot, "it was asked to stop")

    def _leave_all(self) -> None:
        """Asks every training to stop, and waits for those that look."""
        for cell in [slot.cell for slot in self._slots if slot.cell]:
            self.stop(cell)
        while any(slot.cell for slot in self._slots):
            self.advance(lambda told: None)

    def _follow_the_cluster(self) -> None:
        """A slot for each cell that there is room for, as nodes come and go."""
        if time.monotonic() < self._looked_at + SECONDS_BETWEEN_LOOKS:
            return
        self._looked_at = time.monotonic()
        room = sum(_room(node, self._demand) for node in _nodes())
        wanted = min(room, self._most) if self._most else room
        while len(self._slots) < wanted:
            actor = _actor().options(num_cpus=self._demand["CPU"], num_gpus=self._demand.get("GPU", 0)).remote()
            self._slots.append(_Slot(actor, actor.about.remote()))
        waiting = [it for it in self._slots if it.about is not None]
        for slot in waiting[: max(0, len(self._slots) - wanted)]:  # of nodes that have gone meanwhile
            self._slots.remove(slot)
            _kill(slot.actor)

    def _welcome(self, slot: _Slot, about: Mapping[str, Any]) -> None:
        """Raises StudyError where a node would train with other versions."""
        here = library_versions(COMPUTING)
        other = [f"{it} {about['versions'].get(it, '-')}" for it in here if about["versions"].get(it) != here[it]]
        if other:
            raise StudyError(
                f"node {about['host']} has {', '.join(other)}, but here it is "
                f"{', '.join(f'{it} {here[it]}' for it in here)}; results would depend on where a cell is trained. "
                "Install the same versions on every node, for example by one container for all."
            )
        slot.about, slot.host, slot.node = None, about["host"], about["node"]

    def _check_demand(self) -> None:
        nodes, deadline = _nodes(), time.monotonic() + SECONDS_FOR_A_NODE
        while not any(it["Resources"].get("CPU") for it in nodes) and time.monotonic() < deadline:
            time.sleep(0.5)  # a head that trains nothing, whose workers are about to join
            nodes = _nodes()
        if not any(_room(node, self._demand) for node in nodes):
            asked = " and ".join(f"{count:g} {kind}" for kind, count in self._demand.items())
            have = "; ".join(
                f"{it['NodeName']}: {it['Resources'].get('CPU', 0):g} CPU, {it['Resources'].get('GPU', 0):g} GPU"
                for it in nodes
            )
            raise StudyError(f"--executor ray: a cell asks for {asked}, and no node has that. There are {have}.")

    def _wait_for_a_slot(self) -> None:
        deadline = time.monotonic() + SECONDS_FOR_A_SLOT
        while not self.num_free:
            self.advance(lambda told: None)
            if time.monotonic() > deadline:
                raise StudyError(
                    f"--executor ray: no worker has started within {SECONDS_FOR_A_SLOT:g} s; others use the cluster, "
                    "or its nodes cannot import harness. `ray status` says what it waits for."
                )
            time.sleep(0.01)

    def _sources_of(self, fingerprint: str) -> Sequence[Parcel]:
        folder = self._cells.root / ROLE / fingerprint
        if not fingerprint or not folder.is_dir():
            return ()
        if fingerprint not in self._sources:
            self._sources[fingerprint] = [
                it for it in parcels_of(folder) if "__pycache__" not in it.name.split("/") and it.content is not None
            ]
        found: Sequence[Parcel] = self._sources[fingerprint]
        return found

    def _supply_of(self, cell: Cell, slot: _Slot) -> tuple[str, Mapping[str, Any]]:
        """What a cell needs that its node lacks: announced, so that one worker of a node fetches it, into its cache."""
        folder = cell.trainer.supply(cell.settings, dict(cell.fingerprints))
        if folder is None or (slot.node, folder) in self._supplied:
            return "", {}
        lacks = True  # also where there is no answer: who has it fetches nothing
        with contextlib.suppress(*_errors()):
            lacks = _ray().get(slot.actor.lacks.remote(cell.to_json(), folder.name), timeout=SECONDS_FOR_AN_ANSWER)
        if not lacks:
            self._supplied.add((slot.node, folder))
            return "", {}
        if folder not in self._supplies:
            files = [it for it in sorted(folder.iterdir()) if it.is_file()]
            self._supplies[folder] = {it.name: _ray().put(np.fromfile(it, np.uint8)) for it in files}
        return folder.name, self._supplies[folder]


def _folder_of(folder: Path) -> list[Parcel]:
    """What an attempt on another machine needs of a cell's folder: all that is the trainer's, and the checkpoint."""
    return parcels_of(folder, leave=[it for it in STAYS if it != CHECKPOINT])


def _busy(slot: _Slot) -> bool:
    return slot.about is not None or slot.cell is not None


@cache
def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # else it prints dead nodes among the tables; we say them
    try:
        import ray
    except ImportError:
        raise StudyError("--executor ray: Ray is not installed; pip install 'harness[ray]'.") from None
    return ray


def _errors() -> tuple[type[BaseException], ...]:
    return (_ray().exceptions.RayError,)


@cache
def _actor() -> Any:
    ray = _ray()
    beside = ray.method(concurrency_group="control")  # of a `run` that is under way

    class SlotActor(Slot):
        """What Ray's actors need besides."""

        acknowledge, halt = beside(Slot.acknowledge), beside(Slot.halt)

        def fetch(self, told: Any) -> memoryview:
            try:
                found: memoryview = ray.get(told, timeout=SECONDS_FOR_A_SUPPLY).data
            except ray.exceptions.GetTimeoutError:
                raise HarnessError(
                    f"{socket.gethostname()}: what cells read did not arrive here within "
                    f"{SECONDS_FOR_A_SUPPLY / 60:.0f} min. Look at the network between the nodes."
                ) from None
            return found

        def about(self) -> dict[str, Any]:
            return {**super().about(), "node": ray.get_runtime_context().get_node_id()}

    return ray.remote(concurrency_groups={"control": 1}, max_restarts=0, max_task_retries=0)(SlotActor)


def _connect(address: str) -> bool:
    """Whether this call connected; False where the process was connected already."""
    address = address or os.environ.get("RAY_ADDRESS", "") or "local"
    if address.startswith("ray://"):
        raise StudyError(
            f"--executor ray:{address}: Ray Client cannot stream what cells tell. Run the command on a machine of the "
            "cluster with --executor ray:auto, or submit it: `ray job submit -- harness ...`."
        )
    ray = _ray()
    if ray.is_initialized():
        return False
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {it: signal.getsignal(it) for it in (signal.SIGTERM, signal.SIGINT)} if is_main else {}
    options = {"log_to_driver": False, "logging_level": logging.CRITICAL, "include_dashboard": False}
    if address != "local":
        del options["include_dashboard"]
    try:
        _check_that_someone_listens(address)
        ray.init(address=address, **options)
    except Exception as error:  # of several libraries
        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise StudyError(
            f"--executor ray:{address}: cannot be reached ({first}). Is a head running there (`ray start --head`), is "
            f"its Ray {ray.__version__}, on Python {sys.version.split()[0]}, and if it asks for a token, is "
            "RAY_AUTH_MODE=token set here, too?"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray takes SIGTERM for itself
    return True


def _check_that_someone_listens(address: str) -> None:
    """Raises OSError where nobody does, at once: Ray itself would try again for ever."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_CONNECT).close()


def _nodes() -> list[dict[str, Any]]:
    return [it for it in _ray().nodes() if it["Alive"]]


def _room(node: Mapping[str, Any], demand: Mapping[str, float]) -> int:
    return int(min(node["Resources"].get(kind, 0.0) // count for kind, count in demand.items()))


def _answers(node: str) -> bool:
    """Whether a node's daemon lives. Ray finds out late, and a worker whose daemon died ends at once."""
    found = next((it for it in _nodes() if it["NodeID"] == node), None)
    if found is None:
        return False
    try:
        with socket.create_connection((found["NodeManagerAddress"], found["NodeManagerPort"]), timeout=2):
            return True
    except OSError:
        return False


def _kill(actor: Any) -> None:
    with contextlib.suppress(Exception):
        _ray().kill(actor)


def _cause(error: BaseException) -> str:
    kind = type(error).__name__
    if kind == "OutOfMemoryError":
        return "the node was out of memory"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{kind}: {first}"[:300].rstrip(".")
