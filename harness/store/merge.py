"""Another store's cells and study runs, brought into this one: each cell once, and nothing overwritten.

A key says what a cell computes, so two results of one key are the same but for rounding, unless they come from kernels,
versions or hardware that differ by more. Such a one is kept beside the one that was here, in the cell's folder
`differing`; tables go on showing the one that was here. A cell that only failed here, and finished there, is shown with
what it finished with.

It can be cut off on any line and repeated: manifests come last, and what is here already is left alone.
"""

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import DamagedError, StoreError
from harness.files.atomic import remove, replace_synced, sync_folder, temporary_beside
from harness.plan.extension import with_edits
from harness.plan.manifest import Manifest
from harness.store.cells import CHECKPOINTS, DIFFERING, RECORD, Cells
from harness.store.lines import Lines
from harness.store.merge_lines import merge_line
from harness.store.result import Result, checksum
from harness.store.unpack import unpack

RELATIVE, ABSOLUTE = 1e-6, 1e-9  # rounding: a metric further apart than this is another number
_AT_ONCE = 1_000  # new cells, for which the disk is waited for together
_TRY_AGAIN = ("failed", "out-of-memory")  # says something of a machine, and nothing of the cell


@dataclass(slots=True)
class Merged:
    """What came of a merge: keys of cells, ids of study runs.

    Attributes:
        added: that were not here, or had not ended here. same: that were here. replaced: that had failed here.
        differing: of which there are two results now. busy: that a process trains now. unfinished: not ended there.
        refused: what cannot be believed there, a sentence each.
        runs, extended: study runs that were not here, and that hold more than before.
        renamed: lines of champions that went another way than the one of the same name here, by it: their name now.
    """

    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    extended: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


def merge(cells: Cells, source: Path) -> Merged:
    """Brings a pack's or another store's ended cells and study runs into this store. The source stays as it is.

    Raises:
        StoreError: the source is neither, is this store itself, or this store cannot be written.
    """
    if source.is_dir():
        if not (source / "studies").is_dir():
            raise StoreError(f"{source}: is no store, for it has no study runs. Name a pack, or a store's folder.")
        if source.resolve() == cells.root.resolve():
            raise StoreError(f"{source}: is this store itself. --store names the one to merge into.")
        return _merge(cells, Cells(source), take=shutil.copy2)
    cells.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".merging-", dir=cells.root) as folder:
        unpack(source, Path(folder))
        return _merge(cells, Cells(Path(folder)), take=os.replace)  # what was unpacked is ours


def differing_results(cells: Cells, key: str) -> list[Path]:
    """Files of the other results of a cell, by name."""
    return sorted((cells.folder(key) / DIFFERING).glob("*/result.json"))


def _merge(cells: Cells, there: Cells, *, take: Callable[[Path, Path], object]) -> Merged:
    merged = Merged()
    try:
        keys = there.all_keys()
        for first in range(0, len(keys), _AT_ONCE):
            with _adding(cells, merged) as coming:
                for key in keys[first : first + _AT_ONCE]:
                    with _refusing(merged):
                        _merge_cell(cells, there, key, merged, coming, take)
        for room in ("sources", "tracking/summaries"):
            _bring_missing(there.root / room, cells.root / room)
        for manifest in there.manifests().values():
            if name := _merge_line(cells, there, manifest.id, merged):
                _merge_manifest(cells, there, replace(manifest, id=name), merged, of=manifest.id)
    except OSError as error:
        raise StoreError(
            f"{error.filename or cells.root}: cannot be read or written ({error.strerror}). What was merged until now "
            "is whole; the same command continues."
        ) from error
    return merged


def _merge_cell(
    cells: Cells, there: Cells, key: str, merged: Merged, new: Cells, take: Callable[[Path, Path], object]
) -> None:
    """new: cells that are not here yet, which are put there."""
    try:
        coming = there.result(key)
    except StoreError as error:
        merged.refused.append(str(error))
        return
    if coming is None:
        merged.unfinished.append(key)
        return
    specification = there.specification(key)
    if specification.get("key") != key or specification["seed"] != coming.seed:
        raise DamagedError(f"{there.folder(key)}/spec.json: is of another cell; this one is left out.")
    if cells.folder(key).exists():
        _merge_known(cells, there, key, coming, merged)
        return
    new.folder(key).mkdir()
    for file in _files(there, key):
        take(file, new.folder(key) / file.name)


def _merge_known(cells: Cells, there: Cells, key: str, coming: Result, merged: Merged) -> None:
    """A cell that is here."""
    with cells.hold(key) as is_ours:
        if not is_ours:
            merged.busy.append(key)
            return
        here = cells.result(key)
        if here is None:
            _fill(cells, there, key)
            merged.added.append(key)
        elif is_same(here, coming):
            for file in there.kept_files(key):
                if not (cells.folder(key) / file.name).exists():
                    _copy(file, cells.folder(key) / file.name)
            merged.same.append(key)
        elif here.status in _TRY_AGAIN and coming.is_finished:
            _put_beside(cells, cells, key, here)
            _fill(cells, there, key)
            merged.replaced.append(key)
        else:
            _put_beside(cells, there, key, coming)
            merged.differing.append(key)


def is_same(one: Result, other: Result) -> bool:
    """Whether two results of one cell agree but for rounding; what they cost, and where, may differ."""
    if (one.status, one.num_steps, one.metrics.keys()) != (other.status, other.num_steps, other.metrics.keys()):
        return False
    pairs = ((value, other.metrics[name]) for name, value in one.metrics.items())
    return all(math.isclose(*pair, rel_tol=RELATIVE, abs_tol=ABSOLUTE) for pair in pairs)


@contextlib.contextmanager
def _refusing(merged: Merged) -> Iterator[None]:
    """What cannot be believed is noted, and the rest goes on."""
    try:
        yield
    except DamagedError as error:
        merged.refused.append(str(error))


@contextlib.contextmanager
def _adding(cells: Cells, merged: Merged) -> Iterator[Cells]:
    """A place for new cells: at the end of the block they are on the disk, and appear, each as a whole. One that
    another process has begun meanwhile is merged like any that is here.

    The disk is waited for once, not for each of their files: of 20,000 cells that makes minutes.
    """
    cells.folder("").mkdir(parents=True, exist_ok=True)
    new = Cells(Path(tempfile.mkdtemp(prefix=".coming-", dir=cells.folder(""))))
    try:
        new.folder("").mkdir()
        yield new
        keys = new.all_keys()
        if keys:
            os.sync()
        for key in keys:
            if _appears(new.folder(key), cells.folder(key)):
                merged.added.append(key)
            elif coming := new.result(key):
                with _refusing(merged):
                    _merge_known(cells, new, key, coming, merged)
        sync_folder(cells.folder(""))
    finally:
        shutil.rmtree(new.root, ignore_errors=True)


def _appears(path: Path, target: Path) -> bool:
    """Whether it does: False where another process was first."""
    try:
        path.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        return False
    return True


def _fill(cells: Cells, there: Cells, key: str) -> None:
    """Into a folder that has not ended, or failed: the result last."""
    folder = cells.folder(key)
    (folder / "result.json").unlink(missing_ok=True)
    for name in CHECKPOINTS:
        remove(folder / name)
    files = _files(there, key)
    for file in sorted(files, key=lambda it: it.name == "result.json"):
        _copy(file, folder / file.name)


def _put_beside(cells: Cells, there: Cells, key: str, result: Result) -> None:
    """Keeps a result with its journal in the cell's `differing`, under a name that its content gives."""
    name = checksum(result.to_json())[:16]
    folder = cells.folder(key) / DIFFERING / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in (there.folder(key) / it for it in RECORD):
        if file.exists():
            _copy(file, folder / file.name)


def _files(there: Cells, key: str) -> list[Path]:
    record = (there.folder(key) / name for name in RECORD)
    return [it for it in record if it.is_file()] + there.kept_files(key)


def _copy(source: Path, target: Path) -> None:
    temporary = temporary_beside(target)
    shutil.copy2(source, temporary)
    replace_synced(temporary, target)


def _bring_missing(source: Path, target: Path) -> None:
    """Folders that are not here: their names say what is in them."""
    for folder in sorted(it for it in source.glob("*") if it.is_dir() and not it.is_symlink()):
        if not (target / folder.name).exists():
            target.mkdir(parents=True, exist_ok=True)
            coming = Path(tempfile.mkdtemp(prefix=".coming-", dir=target))
            try:
                shutil.copytree(folder, coming / folder.name, symlinks=True)
                (coming / folder.name).replace(target / folder.name)
                sync_folder(target)
            finally:
                shutil.rmtree(coming, ignore_errors=True)


def _merge_line(cells: Cells, there: Cells, name: str, merged: Merged) -> str:
    """The name that a study run has here: its own, but for a line of champions that went another way than the one
    here; empty where it was refused."""
    here, others = Lines(cells.root), Lines(there.root)
    if not others.path(name).is_file():
        return name
    try:
        found = merge_line(here, others, name)
    except StoreError as error:
        merged.refused.append(str(error))
        return ""
    if found != name:
        merged.renamed[name] = found
    return found


def _merge_manifest(cells: Cells, there: Cells, coming: Manifest, merged: Merged, *, of: str) -> None:
    """of: its id there."""
    with cells.updating_manifest(coming.id):
        try:
            here = cells.manifest(coming.id)
        except StoreError as error:
            merged.refused.append(str(error))
            return
        if here is None:
            cells.write_manifest(coming)
            written = (there.root / "studies" / f"{of}.json").stat().st_mtime_ns
            os.utime(cells.root / "studies" / f"{coming.id}.json", ns=(written, written))  # the order of study runs
            merged.runs.append(coming.id)
        elif (both := _both(here, coming)) != here:
            cells.write_manifest(both)
            merged.extended.append(coming.id)


def _both(here: Manifest, coming: Manifest) -> Manifest:
    """All variants, seeds and comparisons of both; in whatever else they differ, what stands here, unless it is empty.

    A variant that was edited between the two is the one that stands here; what was looked at of the other one stays
    compared. Looks of both are looks.
    """
    coming = with_edits(coming, here)
    known = {it.name: it for it in here.variants}
    edited = {it.name for it in coming.variants if it.name in known and known[it.name].settings != it.settings}
    variants = dict(known)
    for it in coming.variants:
        if it.name not in edited:
            found = known.get(it.name, it)
            merged = dict(sorted({**it.cells, **found.cells}.items()))
            variants[it.name] = replace(found, cells=merged, tags={**it.tags, **found.tags})
    looks = sorted({*here.looks, *coming.looks}, key=lambda it: it.time)
    both = replace(
        here,
        looks=tuple(looks),
        variants=tuple(variants.values()),
        comparisons=tuple(dict.fromkeys((*here.comparisons, *coming.comparisons))),
        notes=tuple(dict.fromkeys((*here.notes, *coming.notes))),
    )
    unsaid = {name: getattr(coming, name) for name in ("headline", "outcome", "winner") if not getattr(here, name)}
    return replace(both, **unsaid)
