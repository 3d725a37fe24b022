"""What of a store can be freed without altering any table, and how."""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import DamagedError, StoreError
from harness.files.atomic import remove, temporary_beside
from harness.files.bits import EXAMPLES_FILE
from harness.files.locks import is_locked
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
    deaths and damage left behind. Nothing that a living process holds or that was written within the last hour; no cell
    while a damaged manifest is set aside, which may have named it; no code while a process works on a study run.

    Args:
        weights_older_than_seconds: also the files that training kept of cells that ended longer ago than this.

    Raises:
        DamagedError: a manifest cannot be read, so it is not known which cells it names. StoreError: it is of a newer
            version.
    """
    named, may_be_named = named_keys(cells), bool(manifests_set_aside(cells))
    used_sources = set[str]()
    for key in cells.all_keys():
        with contextlib.suppress(FileNotFoundError):  # another `gc` was first
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
    yield from _sources(cells, used_sources)


def _patches(cells: Cells) -> Iterator[Garbage]:
    """Of requests that were refused and lines that were deleted; none while a line cannot be read, or is judged in."""
    lines = Lines(cells.root)
    with contextlib.suppress(DamagedError):
        named = set[str]().union(*map(lines.patches, lines.names()))
        for path in sorted((lines.folder / "patches").glob("[!.]*.diff")):
            if path.name not in named and _is_settled(path):
                yield Garbage(PATCHES, path, tree_bytes(path))


def _sources(cells: Cells, used: set[str]) -> Iterator[Garbage]:
    """None while a process works on a study run: cells of it that have not begun need code that is here already."""
    if _is_worked_on(cells.root):
        return
    for folder in sorted((cells.root / "sources").glob("[!.]*")):
        with contextlib.suppress(FileNotFoundError):
            if folder.name not in used and _is_settled(folder):
                yield Garbage(SOURCES, folder, tree_bytes(folder))


def _is_worked_on(root: Path) -> bool:
    """Whether any process, such as a `harness worker`, works on any study run of a store."""
    rooms = (root / "tracking" / "live", root / "workers")
    return any(is_locked(path) for room in rooms for path in room.glob("*"))


def free(cells: Cells, several: Iterable[Garbage], *, only_settled: bool = True) -> int:
    """Removes it, and gives the number of bytes. What has been taken up since it was found stays, such as a cell that
    a study run names by now; what is gone already is not counted.

    Args:
        only_settled: no cell in which something was written within the last hour.

    Raises:
        DamagedError: a manifest cannot be read, so it is not known which cells it names.
        StoreError: something cannot be removed; what was removed until then is gone.
    """
    freeing, freed = _Freeing(cells, only_settled), 0
    try:
        for it in several:
            with contextlib.suppress(FileNotFoundError):  # another `gc` was first
                freed += freeing.free(it)
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be removed ({error.strerror}).") from error
    return freed


class _Freeing:
    """What `free` knows of a store, looked at when it is needed first; study runs again when one was written since."""

    def __init__(self, cells: Cells, only_settled: bool) -> None:
        self._cells, self._only_settled = cells, only_settled
        self._studies = _contents(cells.root / "studies")  # first: what is written from now on is read again
        self._named, self._may_be_named = named_keys(cells), bool(manifests_set_aside(cells))

    def free(self, it: Garbage) -> int:
        """The bytes that this gave back."""
        if it.kind == UNUSED:
            return self._free_cell(it)
        links = self._links if it.kind == WEIGHTS else {}
        with _held(self._cells, it.key) as is_ours:
            if not is_ours or not self._is_still_free(it):
                return 0
            if it.kind == ENDED:
                drop_checkpoint(it.path.parent)
            else:
                whole = it.path
                if it.kind == SOURCES:  # at once: a death leaves no part that looks like all of it
                    whole = whole.rename(temporary_beside(whole))
                _remove(whole, links)
        return it.num_bytes

    def _free_cell(self, it: Garbage) -> int:
        seen = _contents(it.path)
        if self._only_settled and not _is_settled(it.path):  # before its lock, which may be new, is made in it
            return 0
        with _held(self._cells, it.key) as is_ours:
            if not is_ours or self._is_named(it.key) or _contents(it.path) != seen:
                return 0
            gone = it.path.rename(temporary_beside(it.path))  # at once: a death leaves no part that looks like a cell
        _remove(gone, self._links)  # its lock is closed: the name of an open file would stay on an NFS
        return it.num_bytes

    def _is_still_free(self, it: Garbage) -> bool:
        if not os.path.lexists(it.path):
            return False
        if it.kind in (ENDED, WEIGHTS):
            return (self._cells.folder(it.key) / "result.json").is_file()
        if it.kind == SOURCES and (_is_worked_on(self._cells.root) or not _is_settled(it.path)):
            return False  # taken up since it was found
        if it.kind in (PATCHES, SOURCES):
            return it.path in self._without_cells
        return _is_settled(it.path)

    def _is_named(self, key: str) -> bool:
        """Whether a study run names this cell now, or a damaged one may have."""
        now = _contents(self._cells.root / "studies")
        if now != self._studies:
            self._studies = now
            self._named, self._may_be_named = named_keys(self._cells), bool(manifests_set_aside(self._cells))
        return self._may_be_named or key in self._named

    @cached_property
    def _without_cells(self) -> set[Path]:
        """Patches and snapshots of code that can be freed, now that cells have been."""
        used = {_sources_of(self._cells, key) for key in self._cells.all_keys()}
        return {it.path for it in (*_patches(self._cells), *_sources(self._cells, used))}

    @cached_property
    def _links(self) -> dict[tuple[int, int], Path]:
        return _links(self._cells.root / "artifacts")


@contextlib.contextmanager
def _held(cells: Cells, key: str) -> Iterator[bool]:
    """Holds a cell, if there is a key, and says whether nobody else does.

    Raises:
        FileNotFoundError: it is gone.
    """
    with contextlib.ExitStack() as holding:
        try:
            is_ours = not key or holding.enter_context(cells.hold(key))
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise
        yield is_ours


def _contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Which files a folder holds, and when each was written; all but the lock, which whoever looks may make."""
    try:
        with os.scandir(folder) as entries:
            found = {it.name: (it.inode(), it.stat(follow_symlinks=False).st_mtime_ns) for it in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found.pop("lock", None)
    return found


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
    yield from _left_in(folder, key)


def _left_in(folder: Path, key: str = "") -> Iterator[Garbage]:
    try:
        names = sorted(it.name for it in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        kind = LEFT if _TEMPORARY.fullmatch(name) else ASIDE if _ASIDE.fullmatch(name) else ""
        with contextlib.suppress(FileNotFoundError):
            if kind and _is_settled(folder / name):
                yield Garbage(kind, folder / name, tree_bytes(folder / name), key)


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
            with contextlib.suppress(FileNotFoundError):
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
    remove(path)
