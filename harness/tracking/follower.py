"""Delivers while cells train: a thread beside the study that never holds it up and never raises into it.

Looking for changes costs at most a hundredth of the time. A database or server that is down is tried again after 1, 2,
4 ... 30 s, and reported once. What was not delivered in the end waits in the journals for `harness sync`.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager

from harness.errors import HarnessError
from harness.files.locks import locked
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.tracking.tracking import Delivery, Tracking

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0

Look = tuple[int, int]  # sizes of a cell's journal and result: what is new has altered one of them


@contextmanager
def follow(
    tracking: Tracking,
    cells: Cells,
    manifest: Manifest,
    *,
    keys: Collection[str] | None = None,
    on_problem: Callable[[str], None] = log.warning,
    patience_seconds: float = 30.0,
) -> Iterator["Follower"]:
    """Delivers in the background while the block runs, and the rest at its end; then `follower.delivery` is final.

    Args:
        keys: of the cells that are looked at, where the study run has many others that nobody trains now; None for all.
        on_problem: gets one sentence when deliveries begin to fail, once an outage; called in another thread.
        patience_seconds: at the end of the block, how long to wait without any progress before the rest is left.
    """
    follower = Follower(tracking, cells, manifest, on_problem, keys)
    with ExitStack() as live:
        live.enter_context(locked(tracking.live_lock(manifest.id), shared=True))
        follower.start()
        try:
            yield follower
        finally:
            live.close()  # from here on nobody works on the study: the last delivery says how it ended
            follower.finish(patience_seconds)


class Follower:
    """The thread of `follow`.

    Attributes:
        delivery: what has been delivered and what waits; final once the block of `follow` has been left.
    """

    def __init__(
        self,
        tracking: Tracking,
        cells: Cells,
        manifest: Manifest,
        on_problem: Callable[[str], None],
        keys: Collection[str] | None = None,
    ) -> None:
        self._tracking, self._cells, self._on_problem = tracking, cells, on_problem
        self._keys = None if keys is None else {*keys}
        self.extend(manifest)
        self._thread = threading.Thread(target=self._work, name="harness-follow", daemon=True)
        self._is_over = threading.Event()
        self._is_abandoned = False
        self._progress_at = time.monotonic()
        self._delivered, self._problem = 0, ""
        self.delivery = Delivery(0)

    def start(self) -> None:
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why deliveries fail at the moment, a sentence; empty where they do not."""
        return self._problem

    def extend(self, manifest: Manifest) -> None:
        """From now on follows this manifest, which holds all of the one before: a search adds variants as it goes."""
        keys = {key for variant in manifest.variants for key in variant.cells.values()}
        self._manifest = manifest
        self._watched = keys if self._keys is None else keys & self._keys

    def finish(self, patience_seconds: float) -> None:
        """The last delivery, for as long as it makes progress."""
        self._progress_at = time.monotonic()
        self._is_over.set()
        while self._thread.is_alive():
            self._thread.join(0.05)
            if time.monotonic() - self._progress_at > patience_seconds:
                self._is_abandoned = True
                self._problem = self._problem or "the tracking server does not answer."
                break
        pending = 0
        try:
            pending = self._tracking.pending(self._manifest, self._cells, self._keys)
        except HarnessError as error:
            self._on_problem(f"{error} What has been trained is saved.")
        self.delivery = Delivery(self._delivered, pending, self._problem)

    def _work(self) -> None:
        seen: dict[str, Look] | None = None  # when everything was delivered last
        backoff = 0.0
        is_last = False
        while not is_last:
            is_last = self._is_over.is_set()
            began = time.monotonic()
            now = self._look()
            looked_for = time.monotonic() - began
            if is_last or now != seen:
                changed = {key for key in now if now[key] != seen.get(key)} if seen and not is_last else None
                if self._deliver(self._keys if changed is None else changed):
                    seen, backoff = now, 0.0
                else:
                    backoff = min(max(1.0, 2 * backoff), LONGEST_BACKOFF_SECONDS)
            if not is_last:
                self._is_over.wait(max(SECONDS_BETWEEN_LOOKS, 100 * looked_for, backoff))

    def _look(self) -> dict[str, Look]:
        folder = str(self._cells.folder(""))
        return {
            key: (_size(f"{folder}/{key}/journal.jsonl"), _size(f"{folder}/{key}/result.json")) for key in self._watched
        }

    def _deliver(self, changed: set[str] | None) -> bool:
        try:
            for num_events in self._tracking.deliveries(self._manifest, self._cells, changed):
                self._delivered += num_events
                self._progress_at = time.monotonic()
                if self._is_abandoned:
                    return False
        except Exception as error:  # tracking must not stop training, whatever goes wrong in it
            if self._is_abandoned:
                return False
            if not isinstance(error, HarnessError):
                log.exception("a delivery to MLflow failed")
            if not self._problem:
                self._on_problem(f"{error} Training goes on; what happens meanwhile is delivered later.")
            self._problem = str(error)
            return False
        self._problem = ""
        return True


def _size(path: str) -> int:
    """In bytes; 0 for a file that does not exist. Much faster than pathlib, and a look is nothing else."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
