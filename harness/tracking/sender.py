"""Brings runs up to their images: creates what is missing, sends what they have not got, and notes that."""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.files.locks import locked
from harness.tracking.database import tracking_failures
from harness.tracking.ledger import Entry, Known, Ledger
from harness.tracking.run_image import FORMAT, Point, RunImage
from harness.tracking.server import KEY_TAG, Run, Server


class Sender:
    """The runs of one study run in one experiment. `lock` keeps the processes of this store from creating a run twice.

    Attributes:
        known: in short what the ledger says about each run, by identity; kept up to date.
    """

    def __init__(self, server: Server, experiment: str, ledger: Ledger, study_id: str, lock: Path) -> None:
        self._server, self._experiment, self._ledger, self._lock = server, experiment, ledger, lock
        self.known = {entry.key: entry.known() for entry in ledger.of_study(study_id)}

    def check(self, study_key: str) -> None:
        """Forgets the study's entries where its own run is gone: the database is another one, or someone deleted it."""
        with locked(self._lock):
            known = self._ledger.get(study_key)
            if known and not self._is_active(known.run_id):
                for it in self.known.values():
                    if not it.settled:
                        self._remove_files_without_run(it.run_id)
                self._ledger.drop(self.known)
                self.known = {}

    def bring(self, image: RunImage) -> Entry:
        """Makes the run as the image says, and returns its entry."""
        entry, known = self.entry(image.key), self.known.get(image.key)
        if entry is None or not _agrees(image, entry) or _noted(image, entry) != entry:
            with locked(self._lock):
                entry = self.entry(image.key)
                if entry is None or not _is_overtaken(image, entry, known):
                    entry = self._brought(image, entry)
        self.known[image.key] = entry.known()
        return entry

    def entry(self, key: str) -> Entry | None:
        return self._ledger.get(key)

    @property
    def takes_whole_runs(self) -> bool:
        return self._server.takes_whole_runs

    def bring_new(self, keys: Sequence[str], images: Callable[[Mapping[str, str]], Iterable[RunImage]]) -> None:
        """Makes runs that exist nowhere, all of them in one transaction. Those that turn out to exist are left to
        `bring`.

        Args:
            keys: of runs that `known` lacks.
            images: gets the ids of the runs that are to be made now, by key, and gives their images; while it does,
                `known` has those before.
        """
        with locked(self._lock):
            there = {key: entry for key in keys if (entry := self._ledger.get(key))}
            self.known |= {key: entry.known() for key, entry in there.items()}
            asked = [key for key in keys if key not in there]
            known = self._server.keys_there(self._experiment, asked)
            ids = {key: _new_id() for key in asked if key not in known}
            drafts, noted = list[tuple[Entry, RunImage]](), list[Entry]()
            if not ids:
                return
            try:
                for image in images(ids):
                    drafts.append((self._draft(image, ids[image.key]), image))
                    noted.append(_noted(image, drafts[-1][0]))
                    self.known[image.key] = noted[-1].known()
                self._ledger.put_all(entry for entry, _ in drafts)  # not settled: a death leaves files, and no run
                self._server.create_whole(self._experiment, drafts)
            except BaseException:
                for key in ids:
                    self.known.pop(key, None)
                raise
            self._ledger.put_all(noted)

    def _draft(self, image: RunImage, run_id: str) -> Entry:
        return Entry(
            key=image.key,
            study_id=image.study_id,
            cell_key=image.cell_key,
            run_id=run_id,
            experiment=self._experiment,
            artifact_uri=self._server.artifact_uri(self._experiment, run_id),
            tags={**image.tags, **self._own_tags(image)},
        )

    def _own_tags(self, image: RunImage) -> dict[str, str]:
        """Those that an image does not know: its identity, and the run that showed the same cell first."""
        shown = self._ledger.of_cell(image.cell_key) if image.cell_key else []
        origins = [it.run_id for it in shown if it.key != image.key and it.state]  # a draft without one may be no run
        return {KEY_TAG: image.key} | ({"harness.copied_from": origins[0]} if origins else {})

    def _brought(self, image: RunImage, entry: Entry | None) -> Entry:
        entry = entry or self._look_up(image)
        if entry is None:
            return self._create(image)
        try:
            return self._add(image, entry) if _agrees(image, entry) else self._compare(image, entry)
        except tracking_failures():
            if self._is_active(entry.run_id):
                raise
            return self._create(image)  # someone deleted it there

    def _look_up(self, image: RunImage) -> Entry | None:
        """The run, where a process died between creating it and noting that. Of twins the older stays."""
        found = self._server.find(self._experiment, {KEY_TAG: image.key})
        for twin in found[1:]:
            self._server.delete_run(twin.run_id)
        return self._entry(image, found[0]) if found else None

    def _create(self, image: RunImage) -> Entry:
        tags = {**image.tags, **self._own_tags(image)}
        run = self._server.create_run(self._experiment, image.name, image.start_ms, tags)
        return self._add(image, replace(self._entry(image, run), digest=image.digest(0)))

    def _compare(self, image: RunImage, entry: Entry) -> Entry:
        """Asks the server what the run has got, and adds the rest; makes it again where it contradicts the image.

        Points that the image has not got (yet) are no contradiction while the cell has not ended: an attempt that
        starts from the beginning passes them again. Those of an older projection it never passes.
        """
        run = self._server.run(entry.run_id)
        if run is None or not run.is_active:
            self._remove_files_without_run(entry.run_id)
            return self._create(image)
        points = self._server.points(run)
        there = {(point.key, point.step): point.value for point in points}
        wanted = {(point.key, point.step): point.value for point in image.points}
        extras = there.keys() - wanted.keys()
        is_contradicted = (
            len(there) < len(points)
            or any(wanted.get(place, value) != value for place, value in there.items())
            or any(run.params.get(name, text) != text for name, text in image.params.items())
            or (len(extras) > 0 and (image.has_ended or entry.format != FORMAT))
        )
        if is_contradicted:
            self._server.delete_run(run.run_id)
            return self._create(image)
        missing = [point for point in image.points if (point.key, point.step) not in there]
        entry = replace(self._entry(image, run), artifacts=entry.artifacts)
        return self._add(image, entry, points=missing, is_settled=not extras)

    def _add(
        self, image: RunImage, entry: Entry, *, points: Sequence[Point] | None = None, is_settled: bool = True
    ) -> Entry:
        """Sends what the entry lacks, the status last: a run that says FINISHED has got everything."""
        points = image.points[entry.num_points :] if points is None else points
        tags = {name: text for name, text in image.tags.items() if entry.tags.get(name) != text}
        params = {} if entry.has_params else image.params
        artifacts = [it for it in image.artifacts if entry.artifacts.get(it.name) != it.version]
        dataset = None if entry.has_dataset else image.dataset
        has_status = (entry.status, entry.end_ms) == (image.status, image.end_ms or 0)
        if points or tags or params or artifacts or dataset or not has_status:
            self._ledger.unsettle(entry)
            self._server.send(entry.run_id, points, params, tags)
            if dataset:
                self._server.log_dataset(entry.run_id, dataset)
            for artifact in artifacts:
                self._server.put(entry.run_id, self._experiment, entry.artifact_uri, artifact)
            if not has_status:
                self._server.set_status(entry.run_id, image.status, image.end_ms)
        return self._ledger.put(_noted(image, entry, is_settled=is_settled))

    def _remove_files_without_run(self, run_id: str) -> None:
        """Those of a process that died after it had placed them and before it made their run."""
        if self._server.run(run_id) is None:
            self._server.remove_files(self._experiment, run_id)

    def _is_active(self, run_id: str) -> bool:
        run = self._server.run(run_id)
        return run is not None and run.is_active

    def _entry(self, image: RunImage, run: Run) -> Entry:
        """What the server says of the run; its points are not known yet."""
        return Entry(
            key=image.key,
            study_id=image.study_id,
            cell_key=image.cell_key,
            run_id=run.run_id,
            experiment=self._experiment,
            artifact_uri=run.artifact_uri,
            format=FORMAT,
            status=run.status,
            tags=dict(run.tags),
            has_params=image.params.keys() <= run.params.keys(),
            has_dataset=run.has_dataset,
        )


def _new_id() -> str:
    """Of a run, as MLflow's look. It begins with the time: new rows stand together in an index, and few pages alter."""
    return f"{time.time_ns() // 1_000_000:012x}{uuid.uuid4().hex[12:]}"


def _is_overtaken(image: RunImage, entry: Entry, known: Known | None) -> bool:
    """Whether another process has delivered more of the cell's journal since this image of it was made."""
    was = known.num_events if known else 0
    return entry.settled and entry.num_events > image.num_events >= max(was, 1)


def _agrees(image: RunImage, entry: Entry) -> bool:
    """Whether the entry is a true account of the run, and the run a beginning of the image."""
    return entry.settled and entry.format == FORMAT and image.digest(entry.num_points) == entry.digest


def _noted(image: RunImage, entry: Entry, *, is_settled: bool = True) -> Entry:
    """The entry of the run once it is as the image says."""
    return replace(
        entry,
        settled=is_settled,
        format=FORMAT,
        state=image.state,
        status=image.status,
        start_ms=image.start_ms if image.cell_key else 0,  # a group has the time of the first cell that is known now
        end_ms=image.end_ms or 0,
        journal_bytes=image.journal_bytes,
        num_events=image.num_events,
        num_points=len(image.points),
        digest=image.digest(len(image.points)),
        has_params=entry.has_params or bool(image.params),
        has_dataset=entry.has_dataset or image.dataset is not None,
        tags={**entry.tags, **image.tags},
        artifacts={**entry.artifacts, **{artifact.name: artifact.version for artifact in image.artifacts}},
    )
