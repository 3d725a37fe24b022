"""The folder of cells: what has been trained, on disk, whichever study asked for it.

    mlruns/cells/<key>/spec.json          the cell: settings, seed, fingerprints
                       journal.jsonl      its events, appended and synced as they happen
                       checkpoint.pt      the last position, while it trains
                       best.safetensors   the weights with the lowest validation loss
                       result.json        written last: a cell with a result has ended
                       lock               held (flock) by the process that trains it; free again when that one dies
    mlruns/studies/<id>.json              manifests: which study uses which cells, in which variants

This folder is the truth; MLflow (`harness.tracking`) is a projection of it that can be made again at any time.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.plan.cell import Cell
from harness.store.result import Epoch, Result

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "best.safetensors"


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells under one root folder (by default `mlruns`). Cheap to make; holds no state of its own."""

    root: Path

    def folder(self, key: str) -> Path:
        return self.root / "cells" / key

    def open(self, cell: Cell) -> Path:
        """The cell's folder, made if need be, with its specification in it."""
        folder = self.folder(cell.key)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "spec.json").exists():
                write_atomically(folder / "spec.json", json.dumps(cell.to_json(), indent=1))
        return folder

    @contextlib.contextmanager
    def claim(self, cell: Cell) -> Iterator[bool]:
        """Holds the cell for this process: True, or False where another living process holds it."""
        with (self.open(cell) / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def is_claimed(self, key: str) -> bool:
        """Whether a living process trains this cell now."""
        try:
            with (self.folder(key) / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def spec(self, key: str) -> Cell:
        return Cell.from_json(json.loads((self.folder(key) / "spec.json").read_text()))

    def result(self, key: str) -> Result | None:
        """The result of an ended cell, or None."""
        path = f"{self.root}/cells/{key}/result.json"  # a plan asks for 100,000: a Path takes longer than the file
        try:
            with open(path) as file:
                text = file.read()
        except FileNotFoundError:
            return None
        try:
            return Result.from_json(json.loads(text))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path}: damaged ({error}). Delete it to train this cell again.") from None

    def write_result(self, result: Result) -> None:
        """Ends a cell: journals the result, writes it, and only then drops the checkpoint."""
        folder = self.folder(result.key)
        self.append(result.key, {"event": "ended", **result.to_json()})
        with _writing(folder):
            write_atomically(folder / "result.json", json.dumps(result.to_json(), indent=1))
            (folder / CHECKPOINT).unlink(missing_ok=True)

    def forget_result(self, key: str) -> None:
        """Makes an ended cell trainable again, from the start; its journal stays."""
        for name in ("result.json", CHECKPOINT, WEIGHTS):
            (self.folder(key) / name).unlink(missing_ok=True)

    def append(self, key: str, event: dict[str, Any]) -> None:
        """Adds one event (with the time, UTC, ISO 8601) to the cell's journal and syncs it to the disk."""
        path = self.folder(key) / "journal.jsonl"
        line = json.dumps({"time": now(), **event}) + "\n"
        with _writing(path), path.open("ab+") as journal:
            if journal.tell() and not _ends_with_newline(journal):
                line = "\n" + line  # the last writer died within a line
            journal.write(line.encode())
            journal.flush()
            os.fsync(journal.fileno())

    def events(self, key: str) -> list[dict[str, Any]]:
        """Every whole event, in the order of writing; half a line that a dying process left is passed over."""
        try:
            lines = (self.folder(key) / "journal.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        events = []
        for line in lines:
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return events

    def epochs(self, key: str) -> list[Epoch]:
        """The validations of the cell's last attempt, one a step, in the order of steps."""
        return epochs_of(self.events(key))

    @contextlib.contextmanager
    def updating_manifest(self, name: str) -> Iterator[None]:
        """Waits until no other process reads and writes this manifest; none must write it from an older one."""
        folder = self.root / "studies"
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / f".{name}.lock").open("a")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write_manifest(self, name: str, manifest: dict[str, Any]) -> None:
        path = self.root / "studies" / f"{name}.json"
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(manifest, indent=1))

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Every manifest by name, the oldest first."""
        paths = sorted((self.root / "studies").glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return {path.stem: json.loads(path.read_text()) for path in paths}

    def free_bytes(self) -> int:
        """Free space of the disk that holds (or will hold) the cells."""
        existing = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        return shutil.disk_usage(existing).free


def epochs_of(events: list[dict[str, Any]]) -> list[Epoch]:
    """The validations in a journal: of the last attempt, the last one of each step, in the order of steps."""
    names = [field.name for field in fields(Epoch)]
    by_step: dict[int, Epoch] = {}
    for event in events:
        if event["event"] in ("started", "restarted"):
            by_step.clear()
        elif event["event"] == "validation":
            by_step[event["step"]] = Epoch(**{name: event[name] for name in names})
    return [by_step[step] for step in sorted(by_step)]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_atomically(path: Path, text: str) -> None:
    """Replaces the file as a whole, synced: a reader sees the old text or the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror}). Make room or give rights there, or choose another folder "
            "with --store; nothing that was saved is lost."
        ) from error
