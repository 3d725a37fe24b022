"""Brings MLflow up to the folder of cells: study run > variant run > cell run, one experiment a study.

The folder is the truth and MLflow a projection of it. A delivery looks at the journals, makes the image of each run
(`run_image.py`, `outline.py`), subtracts what the ledger says was delivered (`ledger.py`) and sends the rest
(`sender.py`, `server.py`). It can be cut off on any line and repeated at any time. Where the ledger is in doubt, the
server is asked; a run that contradicts its journal (a cell that was trained again, with other numbers, or names of an
older version) goes to MLflow's trash and is made again. Training never waits for any of this: `follower.py`.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.files.locks import is_locked
from harness.plan.manifest import Manifest, RunVariant
from harness.store.cells import Cells
from harness.store.journal import writing
from harness.store.result import STATUSES
from harness.tracking.database import explained, tracking_failures
from harness.tracking.ledger import Entry, Known, Ledger, open_ledger
from harness.tracking.outline import Outline
from harness.tracking.places import STORE_TAG, kept_open, store_id, target
from harness.tracking.run_image import (
    FORMAT,
    Record,
    RunImage,
    cell_image,
    journal_bytes,
    milliseconds,
    read_record,
)
from harness.tracking.sender import Sender
from harness.tracking.server import Server
from harness.tracking.summary import record_summary, summary_artifacts, summary_folder, summary_points
from harness.urls import masked

CELLS_AT_ONCE, BYTES_AT_ONCE = 200, 2_000_000  # of journals, in one transaction: nobody else can write beside it


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of a delivery.

    Attributes:
        delivered, pending: journal events, counted once for each study run that shows them.
        problem: why the rest waits, a sentence; empty where nothing is wrong.
    """

    delivered: int
    pending: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RunLink:
    """Where to find a run: `url` in the browser, empty where tracking is a database and not a server."""

    run_id: str
    url: str


class Tracking:
    """The MLflow side of one store. Making it contacts nobody; the first delivery does, and makes the database ready.

    Args:
        uri: as `resolve_uri` gives it.
        root: the store's folder, that of `Cells`.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self.uri, self.root = uri, root
        self._folder = root / "tracking"
        self._server: Server | None = None
        self._last_outline: Outline | None = None  # of a study that is followed: identities are asked for at each look
        self._checked: set[str] = set()  # study runs of which ledger and server agree, as far as this process knows
        self._settled: set[str] = set()  # experiments without runs that say RUNNING for a dead process

    def project(self, manifest: Manifest, cells: Cells, keys: Collection[str] | None = None) -> Delivery:
        """Brings the runs of one study run up to their journals; a second call in a row sends nothing.

        Args:
            keys: only these cells; None for all.

        Raises:
            TrackingError: the database or server cannot be used; what was sent until then counts.
            StoreError: the folder of cells cannot be read.
        """
        return Delivery(sum(self.deliveries(manifest, cells, keys)))

    def deliveries(self, manifest: Manifest, cells: Cells, keys: Collection[str] | None = None) -> Iterator[int]:
        """`project`, run by run: gives the number of events delivered after each, and can be left at any of them.

        The first one of a process also tells the truth about the other study runs of this experiment that still say
        RUNNING although nobody works on them.
        """
        try:
            self._server = self._server or Server(self.uri, self.root)
            experiment = self._server.experiment(manifest.study)
            with self._open_ledger() as ledger:
                if experiment not in self._settled:
                    self._settled.add(experiment)
                    yield from self._settle_others(experiment, manifest.id, cells, ledger)
                yield from self._deliver(experiment, manifest, cells, ledger, keys)
        except tracking_failures() as error:
            self._checked.clear()
            self._settled.clear()
            raise explained(error, self.uri) from error
        except OSError as error:
            raise StoreError(f"{error.filename}: cannot be read or written ({error.strerror}).") from error

    def log_summary(
        self, manifest: Manifest, effects_rows: Iterable[Mapping[str, Any]], files: Mapping[str, Path]
    ) -> None:
        """Keeps effects and files on disk, for the next delivery: metrics of the variant runs, files of the study run.

        Args:
            effects_rows: at most one a variant: `variant`, its name, and numbers (n, mean, sd, effect, low, high ...;
                as logged). They become `<reported metric>:best/<name>`; texts and numbers that are not finite do not.
            files: by the name of the artifact, such as `report/report.html`.

        Raises:
            StoreError: the disk is full.
        """
        with writing(self.root):
            record_summary(self.root, manifest.id, effects_rows, files)

    def pending(self, manifest: Manifest, cells: Cells, keys: Collection[str] | None = None) -> int:
        """Events of this study run, or of these cells of it, that have not been delivered; from the disk alone."""
        outline = self._outline(manifest)
        with self._open_ledger() as ledger:
            runs = {entry.key: entry.known() for entry in ledger.of_study(outline.id)}
        waiting = 0
        for variant in manifest.variants:
            for key in variant.cells.values() if keys is None else {*keys}.intersection(variant.cells.values()):
                known = runs.get(outline.cell_key(variant, key))
                if known is None or known.journal_bytes != journal_bytes(cells, key):
                    waiting += max(0, len(cells.events(key)) - (known.num_events if known else 0))
        return waiting

    def run_link(self, manifest: Manifest, cell_key: str | None = None) -> RunLink | None:
        """The run of the study, or of one of its cells; None where it has not been delivered. From the disk alone."""
        outline = self._outline(manifest)
        with self._open_ledger() as ledger:
            wanted = (
                it
                for it in ledger.of_study(outline.id)
                if it.run_id and it.state and (it.cell_key == cell_key if cell_key else it.key == outline.study_key)
            )
            entry = next(wanted, None)
        if entry is None:
            return None
        address = f"{masked(self.uri).rstrip('/')}/#/experiments/{entry.experiment}/runs/{entry.run_id}"
        return RunLink(entry.run_id, address if self.uri.startswith("http") else "")

    def live_lock(self, study_id: str) -> Path:
        """The lock that a process holds (shared) while it works on a study run: what makes RUNNING true."""
        return self._folder / "live" / study_id

    @property
    def store_id(self) -> str:
        return store_id(self.root)

    def delivered(self) -> list[Entry]:
        """Every run that was delivered, as it was noted. From the disk alone."""
        with self._open_ledger() as ledger:
            return ledger.all()

    def num_settled(self, manifest: Manifest) -> int:
        """How many cells of a study run were delivered. From the disk alone."""
        with self._open_ledger() as ledger:
            return sum(bool(it.cell_key) and it.settled for it in ledger.of_study(manifest.id))

    def forget(self, manifest: Manifest) -> int:
        """Moves the runs of a study run to MLflow's trash, and removes their files where they lie below the store;
        for the holder of its live lock.

        Returns:
            How many runs.

        Raises:
            TrackingError: the database or server cannot be used.
        """
        try:
            self._server = self._server or Server(self.uri, self.root)
            experiment = self._server.experiment(manifest.study)
            found = self._server.find(experiment, {STORE_TAG: self.store_id, "harness.study_id": manifest.id})
            for run in found:
                self._server.delete_run(run.run_id)
                self._server.remove_files(experiment, run.run_id)
        except tracking_failures() as error:
            raise explained(error, self.uri) from error
        with self._open_ledger() as ledger:
            ledger.drop([it.key for it in ledger.of_study(manifest.id)])
        shutil.rmtree(summary_folder(self.root, manifest.id), ignore_errors=True)
        return len(found)

    def _deliver(
        self, experiment: str, manifest: Manifest, cells: Cells, ledger: Ledger, keys: Collection[str] | None = None
    ) -> Iterator[int]:
        assert self._server
        outline = self._outline(manifest)
        sender = Sender(self._server, experiment, ledger, outline.id, self._folder / "lock")
        if outline.id not in self._checked:
            sender.check(outline.study_key)
            self._checked.add(outline.id)
        this = _Pass(outline, sender, cells, is_live=is_locked(self.live_lock(outline.id)))
        yield from this.new_cells(keys)
        study_run = this.study()
        for variant in manifest.variants:
            if keys is None or any(key in keys for key in variant.cells.values()):
                yield from this.variant(variant, study_run, keys)
        this.study()

    def _settle_others(self, experiment: str, study_id: str, cells: Cells, ledger: Ledger) -> Iterator[int]:
        assert self._server
        stale = self._server.find(experiment, {STORE_TAG: self.store_id}, status="RUNNING")
        by_study = {run.tags["harness.study_id"] for run in stale} - {study_id}
        manifests = cells.manifests() if by_study else {}
        for other in sorted(by_study & manifests.keys()):
            with contextlib.suppress(StoreError):  # who asks for that study run is told; this one is not concerned
                yield from self._deliver(experiment, manifests[other], cells, ledger)
        dead = {other for other in by_study - manifests.keys() if not is_locked(self.live_lock(other))}
        for run in stale:  # of study runs whose manifest is gone
            if run.tags["harness.study_id"] in dead:
                self._server.set_status(run.run_id, "KILLED", time.time_ns() // 1_000_000)

    def _outline(self, manifest: Manifest) -> Outline:
        known = self._last_outline
        if known is None or known.manifest is not manifest:
            known = self._last_outline = Outline(manifest, self.store_id)
        return known

    def _open_ledger(self) -> AbstractContextManager[Ledger]:
        return open_ledger(self._folder / "ledger.db", target(self.uri, self.root), formerly=masked(self.uri))


class _Pass:
    """One pass over one study run. The runs of variants are made when the first of their cells starts."""

    def __init__(self, outline: Outline, sender: Sender, cells: Cells, *, is_live: bool) -> None:
        self._outline, self._sender, self._cells, self._is_live = outline, sender, cells, is_live
        self._points = summary_points(cells.root, outline.id, outline.manifest.metrics.report)
        self._artifacts = summary_artifacts(cells.root, outline.id)
        self._starts_ms: dict[str, int] = {}  # by cell, of those whose journals were read
        self._not_started: set[str] = set()  # cells, when `new_cells` looked: one that starts since is new next time

    def study(self) -> str:
        return self._sender.bring(self._study_image()).run_id

    def new_cells(self, keys: Collection[str] | None) -> Iterator[int]:
        """Delivers cells that no run shows yet, many at a time; variants and the study with their first cells."""
        if not self._sender.takes_whole_runs:
            return
        waiting = [
            (variant, cell_key)
            for variant in self._outline.manifest.variants
            for cell_key in variant.cells.values()
            if (keys is None or cell_key in keys) and self._outline.cell_key(variant, cell_key) not in self._known
        ]
        found, size = list[tuple[RunVariant, Record]](), 0
        for variant, key in waiting:
            with contextlib.suppress(StoreError):  # one that cannot be read is named when its variant is delivered
                record = read_record(self._cells, key)
                if record is None:
                    self._not_started.add(key)
                    continue
                found.append((variant, record))
                self._starts_ms[key] = milliseconds(record.events[0]["time"])
                size += record.journal_bytes
            if len(found) == CELLS_AT_ONCE or size > BYTES_AT_ONCE:
                yield from self._make(found)
                found, size = [], 0
        if found:
            yield from self._make(found)

    def _make(self, found: Sequence[tuple[RunVariant, Record]]) -> Iterator[int]:
        study_key, variants = self._outline.study_key, {self._outline.variant_key(it): it for it, _ in found}
        cells = {self._outline.cell_key(variant, record.key): (variant, record) for variant, record in found}

        def images(ids: Mapping[str, str]) -> Iterator[RunImage]:
            study = self._group_id(study_key, ids)
            groups = {key: self._group_id(key, ids) if study else "" for key in variants}
            for key, (variant, record) in cells.items():
                parent = groups[self._outline.variant_key(variant)]
                if parent and key in ids:
                    yield self._cell_image(variant, record, parent)
            if study:
                yield from (self._variant_image(it, study) for key, it in variants.items() if key in ids)
            if study_key in ids:
                yield self._study_image()

        new_groups = [key for key in (study_key, *variants) if key not in self._known]
        self._sender.bring_new([*new_groups, *cells], images)
        yield from (self._known[key].num_events for key in cells if key in self._known)

    def _group_id(self, key: str, ids: Mapping[str, str]) -> str:
        """Of a variant's or the study's run, made now or before; empty where it has to be looked at first."""
        known = self._known.get(key)
        return ids.get(key, "") if known is None else known.run_id if known.format == FORMAT else ""

    def variant(self, variant: RunVariant, parent: str, keys: Collection[str] | None) -> Iterator[int]:
        """Delivers the cells, and the variant before them (its run is their parent) and after them (its state)."""
        variant_key = self._outline.variant_key(variant)
        for cell_key in variant.cells.values():
            key = self._outline.cell_key(variant, cell_key)
            is_wanted = cell_key not in self._not_started and (keys is None or cell_key in keys)
            record = read_record(self._cells, cell_key) if is_wanted and not self._is_done(variant, cell_key) else None
            if record is None:
                continue
            if variant_key not in self._known or self._known[variant_key].format != FORMAT:
                self._bring_variant(variant, parent)
            num_before = self._known[key].num_events if key in self._known else 0
            entry = self._sender.bring(self._cell_image(variant, record, self._known[variant_key].run_id))
            yield max(0, entry.num_events - num_before)
        if variant_key in self._known:
            self._bring_variant(variant, parent)

    @property
    def _known(self) -> Mapping[str, Known]:
        return self._sender.known

    def _study_image(self) -> RunImage:
        keys = [key for variant in self._outline.manifest.variants for key in variant.cells.values()]
        return self._outline.study_image(
            self._known,
            is_live=self._is_live,
            first_ms=None if self._outline.study_key in self._known else self._first_ms(keys),
            artifacts=self._artifacts,
        )

    def _first_ms(self, keys: Collection[str]) -> int | None:
        """When the first of these cells started, or None where none has."""
        for key in keys:
            if key not in self._starts_ms and (event := self._cells.first_event(key)):
                self._starts_ms[key] = milliseconds(event["time"])
        return min((self._starts_ms[key] for key in keys if key in self._starts_ms), default=None)

    def _cell_image(self, variant: RunVariant, record: Record, parent: str) -> RunImage:
        return cell_image(
            record,
            key=self._outline.cell_key(variant, record.key),
            study_id=self._outline.id,
            name=f"{variant.name} seed {record.spec['seed']}",
            tags=self._outline.cell_tags(variant, parent),
            kept=self._cells.kept_files(record.key) if record.result else (),
        )

    def _bring_variant(self, variant: RunVariant, parent: str) -> None:
        self._sender.bring(self._variant_image(variant, parent))

    def _variant_image(self, variant: RunVariant, parent: str) -> RunImage:
        known = self._known.get(self._outline.variant_key(variant))
        has_settings = known is not None and known.has_params and known.format == FORMAT
        return self._outline.variant_image(
            variant,
            self._known,
            parent=parent,
            is_live=self._is_live,
            first_ms=None if known else self._first_ms(variant.cells.values()),
            points=self._points.get(variant.name, ()),
            settings=None if has_settings else self._settings(variant),
        )

    def _is_done(self, variant: RunVariant, cell_key: str) -> bool:
        """Whether the cell has ended, was delivered, and neither it nor its tags changed since (a search adds its trial
        to a variant that was there before); costs one look at the disk."""
        key = self._outline.cell_key(variant, cell_key)
        cell, parent = self._known.get(key), self._known.get(self._outline.variant_key(variant))
        return (
            cell is not None
            and parent is not None
            and cell.settled
            and cell.format == FORMAT
            and cell.state in STATUSES
            and cell.journal_bytes == journal_bytes(self._cells, cell_key)
            and (entry := self._sender.entry(key)) is not None
            and self._outline.cell_tags(variant, parent.run_id).items() <= entry.tags.items()
        )

    def _settings(self, variant: RunVariant) -> Mapping[str, Any]:
        """Of the variant: those of any of its cells that has started."""
        paths = (self._cells.folder(key) / "spec.json" for key in variant.cells.values())
        settings: Mapping[str, Any] = next((json.loads(it.read_text())["settings"] for it in paths if it.exists()), {})
        return settings


def sync(uri: str, root: Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Delivery:
    """Delivers whatever waits in a store, of every study run. Cut off anywhere, the same call continues.

    Args:
        on_progress: gets how many cells are delivered, of how many; a cell counts in each study run that shows it.

    Raises:
        TrackingError: the database or server cannot be used.
        StoreError: cells that cannot be read, after all other study runs have been delivered.
    """
    tracking, cells = Tracking(uri, root), Cells(root)
    manifests = cells.manifests().values()
    totals = {it.id: sum(len(variant.cells) for variant in it.variants) for it in manifests}
    delivered, before, problems = 0, 0, list[str]()
    with kept_open(uri):
        for manifest in manifests:
            try:
                settled = tracking.num_settled(manifest)
                for number, events in enumerate(tracking.deliveries(manifest, cells), start=settled + 1):
                    delivered += events
                    on_progress(before + min(number, totals[manifest.id]), sum(totals.values()))
            except StoreError as error:
                problems.append(str(error))
            before += totals[manifest.id]
            on_progress(before, sum(totals.values()))
    if problems:
        raise StoreError("\n".join(dict.fromkeys(problems)))
    return Delivery(delivered)
