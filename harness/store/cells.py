"""The folder of cells: what has been trained, on disk, whichever study asked for it.

    mlruns/cells/<key>/spec.json          the cell: settings, seed, fingerprints
                       journal.jsonl      its events, appended and synced as they happen
                       checkpoint         the last position, while it trains: a file or a folder
                       examples.bits      which test examples were right, where training says so (`files.bits`)
                       ...                what the trainer keeps, such as best.safetensors
                       result.json        written last: a cell with a result has ended
                       lock               held (flock) by the process that trains it; free again when that one dies
                       differing/         other results of this very cell, which `harness merge` brought
    mlruns/workers/<host>-<number>        of each living `harness worker`: locked, and written to now and then
    mlruns/studies/<id>.json              manifests: which study uses which cells, in which variants
    mlruns/tries/, mlruns/probes/         what `harness try` found of a study; how long cells take until one ended

This folder is the truth; MLflow (`harness.tracking`) is a projection of it that can be made again at any time.
"""

import contextlib
import functools
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DamagedError, StoreError
from harness.files.atomic import aside_of, remove, replace_synced, write_atomically
from harness.files.bits import EXAMPLES_FILE, unpacked
from harness.files.locks import is_locked, locked, trying
from harness.plan.cell import KEY_LENGTH, Cell
from harness.plan.manifest import Manifest
from harness.store.journal import Journal, writing
from harness.store.result import Result, Validation, sealed
from harness.trainers.run import CHECKPOINT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# What a cell's folder holds that is the harness's own; everything else was kept by the trainer.
_FIRST_CHECKPOINT = "checkpoint.pt"  # of 0.1; the cell of which it is starts again
CHECKPOINTS = frozenset({CHECKPOINT, _FIRST_CHECKPOINT})
DIFFERING = "differing"
RECORD = ("spec.json", "journal.jsonl", "result.json")  # in the order of writing: what a cell says of itself
BOOKKEEPING = frozenset({*RECORD, "lock", DIFFERING, *CHECKPOINTS})
_SPECIFIED: Mapping[str, type] = {"settings": dict, "seed": int, "fingerprints": dict}
_NUMBERS = frozenset({int, float, bool})  # of JSON
_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells under one root folder (by default `mlruns`). Cheap to make; holds no state of its own."""

    root: Path

    def folder(self, key: str) -> Path:
        return self.root.joinpath("cells", key)

    def all_keys(self) -> list[str]:
        """Of every cell that has a folder, whichever study run names it, sorted."""
        try:
            with os.scandir(self.root / "cells") as entries:
                return sorted(it.name for it in entries if is_key(it.name) and it.is_dir())
        except FileNotFoundError:
            return []

    def open(self, cell: Cell) -> Path:
        """The cell's folder, made if need be, with its specification in it; one that is damaged is written again."""
        folder = self.folder(cell.key)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path, content = folder / "spec.json", cell.to_json()
            if not _is_specification(path, content):
                remove(path)
                write_atomically(path, json.dumps(content, indent=1), syncs_folder=False)  # the result will
        return folder

    @contextlib.contextmanager
    def claim(self, cell: Cell) -> Iterator[bool]:
        """Holds the cell for this process: True, or False where another living process holds it."""
        with contextlib.ExitStack() as holding:
            while True:
                path = self.open(cell) / "lock"
                with writing(path), contextlib.suppress(FileNotFoundError):  # `gc` removed the folder: once more
                    is_ours = holding.enter_context(trying(path))
                    break
            yield is_ours

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[bool]:
        """`claim`, of a cell whose folder is there."""
        path = self.folder(key) / "lock"
        with contextlib.ExitStack() as holding:
            with writing(path):
                is_ours = holding.enter_context(trying(path))
            yield is_ours

    def is_claimed(self, key: str) -> bool:
        """Whether a living process trains this cell now."""
        return is_locked(self.folder(key) / "lock")

    def spec(self, key: str) -> Cell:
        """Raises StoreError as `specification`, and where this version would train something else from it."""
        return Cell.from_json(self.specification(key))

    def specification(self, key: str) -> dict[str, Any]:
        """What `Cell.to_json` wrote.

        Raises:
            DamagedError: the file holds something else.
        """
        path = self.folder(key) / "spec.json"
        try:
            content = json.loads(path.read_bytes())
            if isinstance(content, dict) and all(isinstance(content.get(it), kind) for it, kind in _SPECIFIED.items()):
                return content
            problem: object = "settings, seed or fingerprints are missing, or are something else"
        except (OSError, ValueError, RecursionError) as error:
            problem = error
        raise DamagedError(
            f"{path}: is no specification of a cell ({problem}). The cell's result is not concerned; to have both made "
            "again, move the cell's folder out of the store and run the study's command."
        )

    def seeds(self) -> set[int]:
        """Of every cell in the store, whichever study run names it."""
        keys = (path.parent.name for path in (self.root / "cells").glob("*/spec.json"))
        found = set()
        for key in keys:
            with contextlib.suppress(DamagedError):
                found.add(self.specification(key)["seed"])
        return {it for it in found if isinstance(it, int)}

    def examples(self, key: str) -> "dict[str, NDArray[np.bool_]]":
        """Which examples an ended cell got right, bool (N,) by metric; empty where it kept none.

        Raises:
            DamagedError: the file holds something else.
        """
        path = f"{self.root}/cells/{key}/{EXAMPLES_FILE}"
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _refused(path, error.strerror) from None
        try:
            return unpacked(content)
        except ValueError as error:
            raise DamagedError(
                f"{path}: does not say which examples were right ({error}). The cell's result is not concerned; move "
                "the file away to go on without it."
            ) from None

    def result(self, key: str, *, seed: int | None = None) -> Result | None:
        """The result of an ended cell, or None.

        Args:
            seed: of the cell, where the caller knows it.

        Raises:
            StoreError: what stands there is not what the harness wrote for this cell: damaged, edited, or another
                cell's. No number of it is used.
        """
        path = f"{self.root}/cells/{key}/result.json"  # a plan asks for 100,000: a Path takes longer than the file
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused(path, error.strerror) from None
        try:
            result = Result.from_json(json.loads(content))
        except (ValueError, TypeError, RecursionError) as error:
            raise _refused(path, error) from None
        if result.key != key:
            raise _refused(path, f"it is the result of cell {result.key}")
        if seed is not None and result.seed != seed:
            raise _refused(path, f"its seed is {result.seed}, that of the cell is {seed}")
        return result

    def settled_result(self, cell: Cell) -> Result | None:
        """`result`, for the holder of the cell's claim: where a death came between its journal and its result, the
        result is written now.

        A checkpoint must be there, which goes after the result: a result that was taken away left none behind.
        """
        result = self.result(cell.key, seed=cell.seed)
        if result is not None or not (self.folder(cell.key) / CHECKPOINT).exists():
            return result
        result = _journalled_result(self.events(cell.key))
        if result is None or (result.key, result.seed) != (cell.key, cell.seed):
            return None
        self._write_result(result)
        return result

    def write_result(self, result: Result, journal: Journal | None = None) -> None:
        """Ends a cell: journals the result, writes it, and only then drops the checkpoint.

        Args:
            journal: the cell's, where the caller has it open.
        """
        with contextlib.nullcontext(journal) if journal else self.journal(result.key) as journal:
            journal.append({"event": "ended", **result.to_json()})
        self._write_result(result)

    def _write_result(self, result: Result) -> None:
        folder = self.folder(result.key)
        with writing(folder):
            write_atomically(folder / "result.json", json.dumps(sealed(result), indent=1))
            drop_checkpoint(folder)
            remove(folder / _FIRST_CHECKPOINT)

    def keep_checkpoint(self, key: str, path: Path) -> None:
        """Makes what stands at `path` (in the cell's folder) its checkpoint, in place of the last one, synced."""
        folder = self.folder(key)
        with writing(folder):
            replace_synced(path, folder / CHECKPOINT)

    def forget_result(self, key: str) -> None:
        """Makes an ended cell trainable again, from the start; its journal stays."""
        folder = self.folder(key)
        (folder / "result.json").unlink(missing_ok=True)  # first: without it the cell has not ended
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in BOOKKEEPING - CHECKPOINTS:
                remove(path)

    def forget_failure(self, key: str) -> None:
        """`forget_result`, of a cell that ended without a number; not where another process trains it now, or did since
        we looked."""
        with self.hold(key) as is_ours:
            result = self.result(key) if is_ours else None
            if result and not result.is_finished:
                self.forget_result(key)

    def kept_files(self, key: str) -> list[Path]:
        """Files that the trainer keeps, by name: weights, logs, whatever is not the harness's own."""
        folder = self.folder(key)
        names = sorted(folder.iterdir()) if folder.is_dir() else []
        return [it for it in names if it.name not in BOOKKEEPING and not it.name.startswith(".") and it.is_file()]

    def append(self, key: str, event: dict[str, Any]) -> None:
        """Adds one event (with the time, UTC, ISO 8601) to the cell's journal and syncs it to the disk."""
        with self.journal(key) as journal:
            journal.append(event)

    def journal(self, key: str) -> Journal:
        """The cell's journal, opened to add several events; for the holder of its claim."""
        return Journal(self.folder(key) / "journal.jsonl")

    def events(self, key: str) -> list[dict[str, Any]]:
        """Every whole event, in the order of writing; half a line that a dying process left, and whatever else is no
        event, is passed over.

        Raises:
            DamagedError: there is no file to read, but something else.
        """
        path = self.folder(key) / "journal.jsonl"
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DamagedError(
                f"{path}: cannot be read ({error.strerror}). Move it away and run the study's command again."
            ) from None
        events = []
        for line in lines:
            try:
                event = json.loads(line.decode())
            except (ValueError, RecursionError):
                continue
            if _is_event(event):
                events.append(event)
        return events

    def first_event(self, key: str) -> dict[str, Any] | None:
        """The first of `events`, or None where there is none; of a whole journal only its first line is read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            with open(self.folder(key) / "journal.jsonl", "rb") as journal:
                event = json.loads(journal.readline())
            if _is_event(event):
                return dict(event)
        return next(iter(self.events(key)), None)

    def validations(self, key: str) -> list[Validation]:
        """The validations of the cell's last attempt, one a step, in the order of steps."""
        return validations_of(self.events(key))

    @contextlib.contextmanager
    def updating_manifest(self, name: str) -> Iterator[None]:
        """Waits until no other process reads and writes this manifest; none must write it from an older one."""
        folder = self.root / "studies"
        with contextlib.ExitStack() as holding:
            with writing(folder):
                holding.enter_context(locked(folder / f".{name}.lock"))
            yield

    def write_manifest(self, manifest: Manifest) -> None:
        path = self.root / "studies" / f"{manifest.id}.json"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(manifest.to_json(), indent=1))

    def manifests(self) -> dict[str, Manifest]:
        """Every manifest by id, the oldest first, but those that cannot be read: a warning names each once."""
        paths = sorted((self.root / "studies").glob("*.json"), key=lambda path: (_written_at(path), path.name))
        found = {}
        for path in paths:
            try:
                if manifest := self.manifest(path.stem):
                    found[path.stem] = manifest
            except StoreError as error:
                _warn_once(f"warning: {error}")
        return found

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of one study run, or None.

        Raises:
            DamagedError: it is none. StoreError: it is of a newer version.
        """
        path = self.root / "studies" / f"{name}.json"
        try:
            return _read_manifest(path) if path.exists() else None
        except DamagedError:
            if path.exists():
                raise
            return None  # deleted at this moment

    def known_manifest(self, name: str) -> Manifest:
        """The manifest of a study run that was there.

        Raises:
            StoreError: it is there no more, or cannot be read.
        """
        found = self.manifest(name)
        if found is None:
            raise StoreError(
                f"{self.root}: the study run {name} was deleted meanwhile; the same command makes it again from the "
                "cells that are there."
            )
        return found

    def remove_manifest(self, name: str) -> None:
        """Forgets a study run; its cells stay."""
        path = self.root / "studies" / f"{name}.json"
        with self.updating_manifest(name), writing(path):
            path.unlink(missing_ok=True)
            (path.parent / f".{name}.lock").unlink(missing_ok=True)

    def set_manifest_aside(self, name: str) -> None:
        """Renames a damaged manifest, for it is to be made again; says so."""
        path = self.root / "studies" / f"{name}.json"
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        with writing(path):
            path.rename(aside)
        log.warning(
            f"warning: {path}: was damaged. It stays as {aside.name}; a new one holds what this command asks for. What "
            "other commands asked for is trained, and comes back with them: no cell is trained twice."
        )

    def free_bytes(self) -> int:
        """Free space of the disk that holds (or will hold) the cells."""
        existing = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        return shutil.disk_usage(existing).free


def is_key(name: str) -> bool:
    """Whether this could be the key of a cell."""
    return _KEY.fullmatch(name) is not None


def _journalled_result(events: Sequence[Mapping[str, Any]]) -> Result | None:
    """What the last event says, where it is a cell's end. What was noted of its worker's death since is none of the
    cell's own."""
    last = next((it for it in reversed(events) if it["event"] not in ("failed", "interrupted")), None)
    if last is None or last["event"] != "ended":
        return None
    content = {name: it for name, it in last.items() if name not in ("time", "event")}
    with contextlib.suppress(ValueError, TypeError):
        return Result.from_json(content)
    return None


def _written_at(path: Path) -> int:
    """In ns; 0 of a file that was deleted meanwhile."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def drop_checkpoint(folder: Path) -> None:
    """Removes a cell's checkpoint; where it is a link, as of a script that names its own, what it points to as well."""
    link = folder / CHECKPOINT
    target = link.resolve() if link.is_symlink() else None
    remove(link)
    remove(aside_of(link))
    if target and folder.resolve() in target.parents:
        remove(target)


def validations_of(events: list[dict[str, Any]]) -> list[Validation]:
    """The validations in a journal: of the last attempt, the last one of each step, in the order of steps."""
    by_step: dict[int, Validation] = {}
    for event in events:
        note_validation(by_step, event)
    return [by_step[step] for step in sorted(by_step)]


def note_validation(by_step: dict[int, Validation], event: Mapping[str, Any]) -> None:
    """Follows a journal: what is known of the last attempt after one more event."""
    if event["event"] in ("started", "restarted"):
        by_step.clear()
    elif event["event"] == "validation" and isinstance(event.get("step"), int):
        by_step[event["step"]] = Validation.from_event(event)


def _refused(path: str, problem: object) -> StoreError:
    return StoreError(
        f"{path}: is no result that can be believed ({problem}). Put the file back from a backup, or move it out of "
        "the store: the same command then trains this cell again. The other cells are not concerned."
    )


def _is_event(event: Any) -> bool:
    """Whether a line of a journal is one that the harness wrote: everything else of it can be missing."""
    if not (isinstance(event, dict) and isinstance(event.get("event"), str) and isinstance(event.get("time"), str)):
        return False
    metrics = event.get("metrics", {})
    try:
        datetime.fromisoformat(event["time"])
    except ValueError:
        return False
    return isinstance(metrics, dict) and _NUMBERS.issuperset(map(type, metrics.values()))


def _is_specification(path: Path, content: dict[str, Any]) -> bool:
    """Whether the file specifies the cell with this content; an older format has other words for the same."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or found.get("key") != content["key"]:
        return False
    same = ("settings", "seed", "fingerprints")
    wanted = json.loads(json.dumps([content[name] for name in same]))
    return bool(found.get("format") != content["format"] or [found.get(name) for name in same] == wanted)


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"{path}: is no manifest that this harness can read ({type(error).__name__}: {error}). Move it away; the "
            "cells that it names are not lost, the same command of the study finds them again."
        ) from None
