"""What MLflow should hold: for a cell, a variant, a study run, as plain values made from journals; no MLflow here.

The same journals give the same images, timestamps included. That is what makes delivery repeatable: whatever MLflow has
got so far, the rest is the difference between the image and that.
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.store.cells import Cells, validations_of
from harness.store.result import STATUSES, Result
from harness.trees import flatten

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Event = Mapping[str, Any]

FORMAT = 2  # of the projection: runs of another one are looked at, and made again where they differ
BEST = ":best"  # behind a metric of the result: it stands at the best step. MLflow takes no "@" in a name
LONGEST_PARAM = 6000  # MLflow cuts longer ones
LONGEST_TAG = 5000
LONGEST_DIGEST = 36


class Point(NamedTuple):
    key: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file (`source` is its path, its last part that of `name`) or a text. Another version is uploaded again."""

    name: str
    source: Path | str
    version: str


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    digest: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunImage:
    """One run as it should be.

    Attributes:
        key: identity: two images with one key are the same run at two times.
        state: what `harness.status` says; finer than `status`.
        points: in the order in which they became known; each (key, step) once, all finite.
        end_ms: None while it runs, and for a study that died before its first cell.
        num_events, journal_bytes: how much of a cell's journal is in here; 0 for variants and studies.
    """

    key: str
    study_id: str
    name: str
    state: str
    status: RunStatus
    start_ms: int
    end_ms: int | None
    cell_key: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    dataset: Dataset | None = None
    num_events: int = 0
    journal_bytes: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether no more points are to come unless it is taken up again."""
        return self.status in ("FINISHED", "FAILED")

    def digest(self, count: int) -> str:
        """A hash over the first `count` points, times left out: a repeated validation has another time."""
        seen = [(point.key, point.step, point.value) for point in self.points[:count]]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """A cell on disk at one moment."""

    key: str
    folder: Path
    spec: Mapping[str, Any]
    events: list[dict[str, Any]]
    journal_bytes: int
    result: Result | None
    is_claimed: bool

    @property
    def state(self) -> str:
        """`running`, `interrupted` (by a signal, or dead without a word), `failed`, or the result's status."""
        if self.result:
            return self.result.status
        if self.is_claimed:
            return "running"
        return "failed" if self.events[-1]["event"] == "failed" else "interrupted"


def read_record(cells: Cells, key: str) -> Record | None:
    """What is on disk, or None for a cell that has not started.

    Read in the reverse order of writing (claim, result, journal): a cell that ends meanwhile reads as running, never as
    dead, and a result never lacks its last event.
    """
    is_claimed = cells.is_claimed(key)
    result = cells.result(key)
    size = journal_bytes(cells, key)
    events = cells.events(key)
    if not events:
        return None
    folder = cells.folder(key)
    return Record(key, folder, cells.specification(key), events, size, result, is_claimed)


def journal_bytes(cells: Cells, key: str) -> int:
    try:
        return (cells.folder(key) / "journal.jsonl").stat().st_size
    except FileNotFoundError:
        return 0


def cell_image(
    record: Record, *, key: str, study_id: str, name: str, tags: Mapping[str, str], kept: Iterable[Path] = ()
) -> RunImage:
    """The run of one cell in one study run.

    Args:
        kept: files that the trainer keeps; they become artifacts when the cell has ended.
        tags: of the study and the variant that it is shown in; the cell adds its own.
    """
    state = record.state
    status: RunStatus = {"running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED"}.get(state, "FAILED")  # type: ignore[assignment]
    settings, fingerprints = record.spec["settings"], record.spec["fingerprints"]
    provenance = _provenance(record.events)
    end = None if status == "RUNNING" else milliseconds(record.events[-1]["time"])
    return RunImage(
        key=key,
        study_id=study_id,
        cell_key=record.key,
        name=name,
        state=state,
        status=status,
        start_ms=milliseconds(record.events[0]["time"]),
        end_ms=end,
        tags={**tags, **_cell_tags(record, provenance)},
        params={**_settings_params(json.dumps([settings, fingerprints])), "seed": str(record.spec["seed"])},
        points=tuple(_points(record)),
        artifacts=tuple(_artifacts(record, provenance, kept)),
        dataset=_dataset(settings.get("data"), fingerprints.get("data")),
        num_events=len(record.events),
        journal_bytes=record.journal_bytes,
    )


def _dataset(declared: Any, fingerprint: str | None) -> Dataset | None:
    """The data that settings name, where they name any and the trainer takes a fingerprint of it."""
    if fingerprint is None:
        return None
    kind = declared.get("kind", "data") if isinstance(declared, Mapping) else "data"
    return Dataset(str(kind), fingerprint[:LONGEST_DIGEST], json.dumps(declared))


def group_status(states: Iterable[str], *, is_live: bool) -> RunStatus:
    """Of a variant or a study run, from the states of its cells (`waiting`: not started).

    Once every cell has an outcome: FINISHED if all finished, else FAILED, as the command's exit code says. Before that:
    RUNNING while a cell trains or a process works on the study (`is_live`), and KILLED when nobody does.
    """
    states = set(states)
    if states <= set(STATUSES):
        return "FINISHED" if states <= {"finished"} else "FAILED"
    return "RUNNING" if is_live or "running" in states else "KILLED"


def fingerprint_tree(fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """Fingerprints as a part of the params; nothing where there are none."""
    return {"fingerprint": fingerprints} if fingerprints else {}


def params(tree: Mapping[str, Any]) -> dict[str, str]:
    """Dotted paths to texts that MLflow takes."""
    texts = {
        allowed(path): value if isinstance(value, str) else json.dumps(value) for path, value in flatten(tree).items()
    }
    return {path: shortened(text, LONGEST_PARAM) for path, text in texts.items()}


@functools.lru_cache(maxsize=256)  # the same in every cell of a variant
def _settings_params(text: str) -> Mapping[str, str]:
    settings, fingerprints = json.loads(text)
    return params({**settings, **fingerprint_tree(fingerprints)})


@functools.cache  # the same few names in every run
def allowed(name: str) -> str:
    """A name of a param or metric with the characters that MLflow refuses replaced."""
    return "".join(c if c.isalnum() or c in "_-.:/ " else "_" for c in name)[:250]


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and a note that it is longer."""
    note = f" ... ({len(text)} characters)"
    return text if len(text) <= limit else text[: limit - len(note)] + note


def milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def file_artifact(path: Path, name: str = "") -> Artifact:
    status = path.stat()
    return Artifact(name or path.name, path, f"{status.st_size}-{status.st_mtime_ns}")


def _text_artifact(name: str, text: str) -> Artifact:
    return Artifact(name, text, hashlib.sha256(text.encode()).hexdigest()[:16])


def _provenance(events: list[dict[str, Any]]) -> Event:
    """Of the last attempt."""
    return next((event["provenance"] for event in reversed(events) if "provenance" in event), {})


def _cell_tags(record: Record, provenance: Event) -> dict[str, str]:
    result = record.result
    failure: Event = next((event for event in reversed(record.events) if event["event"] == "failed"), {})
    reason = result.reason if result else failure.get("reason", "") if record.state == "failed" else ""
    tags = {
        "harness.cell_key": record.key,
        "harness.seed": str(record.spec["seed"]),
        "harness.status": record.state,
        "harness.reason": shortened(reason, LONGEST_TAG),
        "harness.device": result.device if result else provenance.get("device", ""),
        "harness.host": provenance.get("host", ""),
        "harness.dirty": json.dumps(bool(provenance.get("dirty", False))),
        "mlflow.source.git.commit": provenance.get("commit", ""),
        "mlflow.source.name": shortened(provenance.get("command", ""), LONGEST_TAG),
        "mlflow.source.type": "LOCAL",
    }
    facts = {f"harness.fact.{name}": it for name, it in (result.facts if result else {}).items() if isinstance(it, str)}
    tags |= {allowed(name): shortened(text, LONGEST_TAG) for name, text in facts.items()}
    versions = {f"harness.version.{name}": str(it) for name, it in provenance.get("versions", {}).items()}
    return {name: text for name, text in (tags | versions).items() if text}


def _points(record: Record) -> Iterator[Point]:
    """Curves, then what is known at the end. Where a value is not finite: `diverged` = 1 instead, once."""
    is_flagged = False
    times = {event["step"]: event["time"] for event in record.events if event["event"] == "validation"}
    for validation in validations_of(record.events):
        time, values = milliseconds(times[validation.step]), validation.metrics
        finite = {allowed(name): it for name, it in values.items() if math.isfinite(it)}
        yield from (Point(name, it, time, validation.step) for name, it in finite.items())
        if not is_flagged and not all(map(math.isfinite, values.values())):
            is_flagged = True
            yield Point("diverged", 1.0, time, validation.step)
    if record.result:
        ended = [event["time"] for event in record.events if event["event"] == "ended"]
        time = milliseconds(ended[-1] if ended else record.events[-1]["time"])
        yield from _end_points(record.result, time)
        if record.result.status == "diverged" and not is_flagged:
            yield Point("diverged", 1.0, time, record.result.num_steps)


def _end_points(result: Result, time: int) -> Iterator[Point]:
    """Metrics of the result, at its best step where one is known; costs and numbers that training noted."""
    known = {"seconds": result.seconds, "peak_memory_bytes": result.peak_memory_bytes, **result.facts}
    numbers = {name: it for name, it in known.items() if isinstance(it, int | float) and math.isfinite(it)}
    best_step, best_epoch = int(numbers.pop("best_step", result.num_steps)), numbers.pop("best_epoch", None)
    at_best = {f"{name}{BEST}": it for name, it in result.metrics.items() if math.isfinite(it)}
    at_best |= {} if best_epoch is None else {"epoch/best": best_epoch}
    at_the_end = {allowed(name): it for name, it in numbers.items()}
    yield from (Point(allowed(name), float(it), time, best_step) for name, it in at_best.items())
    yield from (Point(name, float(it), time, result.num_steps) for name, it in at_the_end.items())


def _artifacts(record: Record, provenance: Event, kept: Iterable[Path]) -> Iterator[Artifact]:
    yield _text_artifact("settings.json", (record.folder / "spec.json").read_text(encoding="utf-8"))
    if provenance.get("diff"):
        yield _text_artifact("uncommitted.diff", provenance["diff"])
    if record.state == "failed":
        traces = [event["traceback"] for event in record.events if event.get("traceback")]
        yield from (_text_artifact("traceback.txt", text) for text in traces[-1:])
    if record.result:
        yield from map(file_artifact, kept)
