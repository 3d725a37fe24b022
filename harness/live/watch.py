"""What the studies of a store do now, read again and again at little cost. Reads files, writes none, imports no tables.

A result is read once, and again only where its file has changed; a journal when it has grown. One reading takes no
longer than it is allowed to: of a store with thousands of results that nobody has read yet, the next one goes on.
"""

import contextlib
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from harness.errors import StoreError
from harness.plan.manifest import Manifest
from harness.store.cells import Cells, validations_of

State = Literal[
    "waiting", "training", "interrupted", "finished", "diverged", "out-of-memory", "failed", "refused", "unread"
]
FAILED: frozenset[State] = frozenset({"diverged", "out-of-memory", "failed", "refused"})
READING_SECONDS = 0.05  # of one reading, by default
CHECKED_AGAIN = 300  # of the cells that finished, a reading: a result can be forgotten, to be trained again
MOST_POINTS = 200  # of one curve


@dataclass(frozen=True, slots=True)
class CellNow:
    """One cell. `unread`: it has ended, and how is not known yet. `reason` says why it failed, `seconds` how long it
    took, once it has ended."""

    state: State
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Started:
    """A cell that has begun and not ended.

    Attributes:
        points: (epoch or step, value of the metric that selects), in order; at most MOST_POINTS, the last among them.
        clock: `epoch` or `step`: what `points` are counted in.
        seconds: of training, as far as was written down. heard: POSIX time of its last event.
    """

    key: str
    variant: str
    seed: int
    step: int
    clock: str
    points: tuple[tuple[float, float], ...]
    seconds: float
    heard: float


@dataclass(frozen=True)
class RunNow:
    """One study run, and how each of its cells is; `started` holds those that train or were interrupted."""

    manifest: Manifest
    states: Mapping[str, CellNow]
    started: Mapping[str, Started] = field(default_factory=dict)

    @cached_property
    def _counts(self) -> Mapping[State, int]:
        return Counter(it.state for it in self.states.values())

    def count(self, *states: State) -> int:
        return sum(self._counts.get(state, 0) for state in states)

    def ended_seeds(self) -> tuple[int, ...]:
        """The seeds for which both sides of some comparison have ended: what a look now would see."""
        ended = {
            it.name: {seed for seed, key in it.cells.items() if self._has_ended(key)} for it in self.manifest.variants
        }
        return self.manifest.comparable_seeds(ended)

    def _has_ended(self, key: str) -> bool:
        return self.states[key].state not in ("waiting", "training", "interrupted", "refused")

    def seen_seeds(self) -> frozenset[int]:
        """Of the looks that were taken."""
        return frozenset(seed for look in self.manifest.looks for seed in look.seeds)


class StoreWatch:
    """Follows a store. One object serves every reader; its methods may be called from any thread."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self._lock = threading.Lock()
        self._manifests: dict[str, tuple[tuple[int, int], Manifest]] = {}  # with time and size of the file
        self._ended: dict[str, tuple[int, CellNow]] = {}  # with the time of the file
        self._begun: dict[str, tuple[int, Mapping[str, Any]]] = {}  # with the size of the journal
        self._next_checked = 0

    def ids(self) -> list[str]:
        """Of every study run, the one that was worked on last first."""
        with self._lock:
            self._read_manifests()
            return [name for name, _ in sorted(self._manifests.items(), key=lambda it: it[1][0], reverse=True)]

    def run(self, name: str, *, seconds: float = READING_SECONDS) -> RunNow | None:
        """How a study run is now, or None where there is none of this name."""
        with self._lock:
            self._read_manifests()
            if name not in self._manifests:
                return None
            return self._run_now(self._manifests[name][1], time.monotonic() + seconds)

    def all(self, *, seconds: float = READING_SECONDS) -> list[RunNow]:
        """Every study run, the one that was worked on last first."""
        names, deadline = self.ids(), time.monotonic() + seconds
        with self._lock:
            found = [self._manifests[name][1] for name in names if name in self._manifests]
            return [self._run_now(it, deadline) for it in found]

    def read_ahead(self) -> None:
        """Reads the study run that was worked on last, a little at a time, before anybody asks for it."""
        names = self.ids()[:1]
        while any(now and now.count("unread") for now in map(self.run, names)):
            time.sleep(READING_SECONDS)

    def _read_manifests(self) -> None:
        files: dict[str, os.stat_result] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.cells.root / "studies") as entries:
            files = {it.name[:-5]: it.stat() for it in entries if it.name.endswith(".json")}
        for name in self._manifests.keys() - files.keys():
            del self._manifests[name]
        for name, file in files.items():
            stamp = (file.st_mtime_ns, file.st_size)  # a look keeps the time, and alters the size
            if self._manifests.get(name, (None,))[0] != stamp:
                with contextlib.suppress(StoreError):
                    manifest = self.cells.manifest(name)
                    if manifest:
                        self._manifests[name] = (stamp, manifest)

    def _run_now(self, manifest: Manifest, deadline: float) -> RunNow:
        where = {key: (it.name, seed) for it in manifest.variants for seed, key in it.cells.items()}
        self._check_again(where)
        folders = self._folders() if any(key not in self._ended for key in where) else set()
        states, started = {}, {}
        for key, (variant, seed) in where.items():
            if known := self._ended.get(key):
                states[key] = known[1]
            elif key not in folders:
                states[key] = CellNow("waiting")
            elif (found := self._result(key, deadline)) is not None:
                states[key] = found
            else:
                begun = self._journal(key, manifest)
                if begun is None:
                    states[key] = CellNow("waiting")
                else:
                    states[key] = CellNow("training" if self.cells.is_claimed(key) else "interrupted")
                    started[key] = Started(key=key, variant=variant, seed=seed, **begun)
        return RunNow(manifest, states, started)

    def _folders(self) -> set[str]:
        try:
            return set(os.listdir(self.cells.root / "cells"))
        except FileNotFoundError:
            return set()

    def _check_again(self, keys: Iterable[str]) -> None:
        """Forgets what was known of results that are gone or have changed: of all that failed, of some others."""
        known = [key for key in keys if key in self._ended]
        failed = [key for key in known if self._ended[key][1].state in FAILED]
        place = self._next_checked % max(len(known), 1)
        self._next_checked = place + CHECKED_AGAIN
        for key in (*failed, *(known[place:] + known[:place])[:CHECKED_AGAIN]):
            if key in self._ended and self._changed(key, "result.json", "st_mtime_ns") != self._ended[key][0]:
                del self._ended[key]

    def _result(self, key: str, deadline: float) -> CellNow | None:
        """What an ended cell says; None where it has not ended."""
        changed = self._changed(key, "result.json", "st_mtime_ns")
        if changed is None:
            return None
        if time.monotonic() > deadline:
            return CellNow("unread")
        try:
            result = self.cells.result(key)
            if result is None:
                return None
            now = CellNow(result.status, result.reason, result.seconds)
        except StoreError as error:
            now = CellNow("refused", str(error))
        self._ended[key] = (changed, now)
        self._begun.pop(key, None)
        return now

    def _journal(self, key: str, manifest: Manifest) -> Mapping[str, Any] | None:
        """The fields of `Started` that a journal gives; None where training has not begun."""
        size = self._changed(key, "journal.jsonl", "st_size")
        if size is None:
            return None
        if self._begun.get(key, (-1,))[0] != size:
            try:
                events = self.cells.events(key)
            except StoreError:
                return None
            if not events:
                return None
            self._begun[key] = (size, _begun(events, manifest))
        return self._begun[key][1]

    def _changed(self, key: str, file: str, what: str) -> int | None:
        try:
            return int(getattr(os.stat(f"{self.cells.root}/cells/{key}/{file}"), what))
        except OSError:
            return None


def _begun(events: list[dict[str, Any]], manifest: Manifest) -> dict[str, Any]:
    metric = manifest.metrics.selecting.name
    logged = validations_of(events)
    clock = "epoch" if logged and all(it.epoch == it.epoch for it in logged) else "step"
    points = [(float(getattr(it, clock)), it.metrics[metric]) for it in logged if metric in it.metrics]
    apart = -(-len(points) // MOST_POINTS) or 1
    return {
        "step": logged[-1].step if logged else 0,
        "clock": clock,
        "points": tuple(points[::-1][::apart][::-1]),  # the last one stays
        "seconds": logged[-1].seconds if logged and logged[-1].seconds == logged[-1].seconds else 0.0,
        "heard": datetime.fromisoformat(events[-1]["time"]).timestamp(),
    }


def measured(run: RunNow) -> Mapping[str, list[float]]:
    """Variant to the seconds of its cells that have ended, however."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for variant in run.manifest.variants:
        for key in variant.cells.values():
            if run.states[key].seconds > 0:
                found[variant.name].append(run.states[key].seconds)
    return found
