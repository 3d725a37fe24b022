"""What of a store can be freed without altering any table, and how."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DamagedError, StoreError
from harness.files.atomic import remove
from harness.files.bits import EXAMPLES_FILE
from harness.store.cells import CHECKPOINTS, Cells, drop_checkpoint
from harness.store.lines import Lines
from harness.store.usage import cell_usage, tree_bytes

SETTLING_SECONDS = 3_600  # what a process wrote less than this ago may be about to be renamed, or named by a manifest
_TEMPORARY = re.compile(r"\.(coming|merging)-.*|\..+\.(\d+|[0-9a-f]{12})|\.saving.*")
_ASIDE = re.compile(r".+\.damaged-\d+")


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing that a store does not need.

    Attributes:
        kind: for people, in the plural.
        num_bytes: that freeing it gives back, other names of its files included.
        key: of the cell that it belongs to; empty where it belongs to none.
    """

    kind: str
    path: Path
    num_bytes: int
    key: str = ""


UNUSED = "cells that no study run names"
ENDED = "checkpoints of cells that have ended"
LEFT = "files that a process left when it died"
ASIDE = "damaged files that were set aside"
PATCHES = "patches that no line of champions holds"
SOURCES = "snapshots of code that no cell ran"
WEIGHTS = "old files that training kept, such as weights"


def garbage(cells: Cells, *, weights_older_than_seconds: float | None = None) -> Iterator[Garbage]:
    """What can be freed without altering any table: cells that no study run names, checkpoints of ended cells, and what
    deaths and damage left behind. Nothing that a living process holds or that was written within the last hour; and no
    cell while a damaged manifest is set aside, which may have named it.

    Args:
        weights_older_than_seconds: also the files that training kept of cells that ended longer ago than this.

    Raises:
        DamagedError: a manifest cannot be read, so it is not known which cells it names. StoreError: it is of a newer
            version.
    """
    named, may_be_named = named_keys(cells), bool(manifests_set_aside(cells))
    used_sources = set[str]()
    for key in cells.all_keys():
        folder = cells.folder(key)
        if key not in named and not may_be_named and _is_settled(folder) and not cells.is_claimed(key):
            yield Garbage(UNUSED, folder, cell_usage(cells, key).total, key)
            continue
        used_sources.add(_sources_of(cells, key))
        yield from _of_cell(cells, key, folder, weights_older_than_seconds)
    rooms = ("cells", "studies", "sources", "lines", "lines/patches")
    for place in (cells.root, *(cells.root / room for room in rooms)):
        yield from (it for it in _left_in(place) if it.kind != ASIDE or place.name != "studies")
    yield from _patches(cells)
    for folder in sorted((cells.root / "sources").glob("[!.]*")):
        if folder.name not in used_sources and _is_settled(folder):
            yield Garbage(SOURCES, folder, tree_bytes(folder))


def _patches(cells: Cells) -> Iterator[Garbage]:
    """Of requests that were refused and lines that were deleted; none while a line cannot be read, or is judged in."""
    lines = Lines(cells.root)
    with contextlib.suppress(DamagedError):
        named = set[str]().union(*map(lines.patches, lines.names()))
        for path in sorted((lines.folder / "patches").glob("[!.]*.diff")):
            if path.name not in named and _is_settled(path):
                yield Garbage(PATCHES, path, tree_bytes(path))


def free(cells: Cells, several: Iterable[Garbage], on_freed: Callable[[Garbage], None] = lambda it: None) -> int:
    """Removes it, and gives the number of bytes. What a process has taken up meanwhile stays.

    Raises:
        StoreError: something cannot be removed; what was removed until then is gone.
    """
    freed, links = 0, dict[tuple[int, int], Path]()
    several = list(several)
    if any(it.kind in (UNUSED, WEIGHTS) for it in several):
        links = _links(cells.root / "artifacts")
    try:
        for it in several:
            if it.kind in (UNUSED, ENDED, WEIGHTS):
                with cells.hold(it.key) as is_ours:
                    if is_ours and it.kind == ENDED:
                        drop_checkpoint(it.path.parent)
                    elif is_ours:
                        _remove(it.path, links)
                    if is_ours:
                        freed += it.num_bytes
            else:
                remove(it.path)
                freed += it.num_bytes
            on_freed(it)
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be removed ({error.strerror}).") from error
    return freed


def manifests_set_aside(cells: Cells) -> list[Path]:
    """Damaged ones, which may have named cells: as long as they are here, no cell is unused."""
    return sorted(it for it in (cells.root / "studies").glob("*.damaged-*"))


def named_keys(cells: Cells) -> set[str]:
    """Of every cell that a study run names.

    Raises:
        DamagedError: a manifest cannot be read. StoreError: it is of a newer version.
    """
    named = set[str]()
    for path in sorted((cells.root / "studies").glob("*.json")):
        manifest = cells.manifest(path.stem)
        if manifest:
            named |= {key for variant in manifest.variants for key in variant.cells.values()}
    return named


def _of_cell(cells: Cells, key: str, folder: Path, weights_older_than_seconds: float | None) -> Iterator[Garbage]:
    ended = folder / "result.json"
    if cells.is_claimed(key):
        return
    if ended.is_file():
        for name in sorted(CHECKPOINTS):
            if (folder / name).exists() or (folder / name).is_symlink():
                yield Garbage(ENDED, folder / name, tree_bytes(folder / name), key)
        if weights_older_than_seconds is not None and _age(ended) > weights_older_than_seconds:
            kept = (it for it in cells.kept_files(key) if it.name != EXAMPLES_FILE)
            yield from (Garbage(WEIGHTS, it, tree_bytes(it), key) for it in kept)
    yield from _left_in(folder)


def _left_in(folder: Path) -> Iterator[Garbage]:
    try:
        names = sorted(it.name for it in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        kind = LEFT if _TEMPORARY.fullmatch(name) else ASIDE if _ASIDE.fullmatch(name) else ""
        if kind and _is_settled(folder / name):
            yield Garbage(kind, folder / name, tree_bytes(folder / name))


def _sources_of(cells: Cells, key: str) -> str:
    try:
        return str(cells.specification(key)["fingerprints"].get("sources", ""))
    except DamagedError:
        return ""


def _is_settled(path: Path) -> bool:
    """Whether nothing in it was written within the last hour."""
    newest = max((_age_of(it) for it in (path, *path.glob("*"))), default=0.0)
    return time.time() - newest > SETTLING_SECONDS


def _age_of(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _links(artifacts: Path) -> dict[tuple[int, int], Path]:
    """Files below MLflow's artifacts that have another name, by what they are on the disk."""
    found = dict[tuple[int, int], Path]()
    for folder, _, names in os.walk(artifacts):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            if status.st_nlink > 1:
                found[status.st_dev, status.st_ino] = path
    return found


def _remove(path: Path, links: dict[tuple[int, int], Path]) -> None:
    """With the other names that its files have among MLflow's artifacts: else nothing would be freed."""
    for file in path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]:
        status = file.lstat()
        if other := links.get((status.st_dev, status.st_ino)):
            other.unlink(missing_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
