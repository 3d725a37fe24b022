"""A folder that is worked on in another place: what of it has to travel, and how it is put down there.

A cell that is trained on another machine has its folder there, and the store's folder of the cell follows it: files
that are new or altered travel, whole, before anything that is told after them.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.files.atomic import remove, write_atomically

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file, a link inside the folder, or the news that there is none any more.

    Attributes:
        name: below the folder, with slashes.
        content: of a file. link: what a link points to. Neither: it is gone.
        read_at: when somebody last read the file, in ns; a trainer may want to know whether its script did.
    """

    name: str
    content: bytes | None = None
    link: str | None = None
    is_program: bool = False
    read_at: int = 0


def parcels_of(root: Path, *, leave: Iterable[str] = ()) -> list[Parcel]:
    """Everything below a folder, or the file that `root` is, under the empty name.

    Args:
        leave: names in the folder that stay.
    """
    if root.is_file():
        return [_packed(root, "")]
    skipped = frozenset(leave)
    return [_packed(path, name) for name, path in _files(root) if name.partition("/")[0] not in skipped]


def put_down(root: Path, parcels: Iterable[Parcel]) -> None:
    """Files are replaced as a whole; what there is besides stays."""
    for it in parcels:
        path = root / it.name if it.name else root
        if it.content is None and it.link is None:
            remove(path)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if it.link is not None:
            _link(path, it.link)
            continue
        assert it.content is not None
        if path.is_dir() and not path.is_symlink():
            remove(path)
        write_atomically(path, it.content, syncs_folder=False)
        os.utime(path, ns=(it.read_at, path.stat().st_mtime_ns))
        if it.is_program:
            path.chmod(0o755)


class Followed:
    """The files of a folder, and which of them the other place has.

    Args:
        leave: names in the folder that do not travel this way.
    """

    def __init__(self, root: Path, *, leave: Iterable[str] = ()) -> None:
        self._root, self._leave = root, frozenset(leave)
        self._sent: dict[str, Stamp] = dict(self._now())

    def news(self, *, first: Iterable[str] = (), last: Iterable[str] = ()) -> list[Parcel]:
        """What has changed since the last call.

        The later a file comes, the earlier it is read: so whatever a file rests on is in those that come before it,
        although they are written meanwhile, and whenever who puts them down dies.

        Args:
            first: names of files that come at the beginning, whether they were seen to change or not.
            last: names of those that come at the end.
        """
        now = dict(self._now())
        changed = [name for name, stamp in now.items() if self._sent.get(name) != stamp]
        at_start, at_end = [it for it in first if it in now and changed], [it for it in last if it in changed]
        others = [it for it in changed if it not in {*at_start, *at_end}]
        packed = [_packed(self._root / name, name) for name in reversed([*at_start, *others, *at_end])]
        gone = [Parcel(name) for name in self._sent.keys() - now.keys()]
        self._sent = now
        return [*gone, *reversed(packed)]

    def _now(self) -> Iterator[tuple[str, Stamp]]:
        for name, path in _files(self._root):
            if name.partition("/")[0] not in self._leave:
                with suppress(FileNotFoundError):  # gone since it was seen
                    found = path.lstat()
                    yield name, (found.st_size, found.st_mtime_ns, found.st_ino)


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(root):
        links = [it for it in folders if (Path(folder) / it).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(folder) / name
            yield path.relative_to(root).as_posix(), path


def _packed(path: Path, name: str) -> Parcel:
    if path.is_symlink():
        return Parcel(name, link=os.readlink(path))
    try:
        read_at = path.stat().st_atime_ns
        with open(path, "rb", opener=_unseen) as file:
            return Parcel(name, file.read(), is_program=os.access(path, os.X_OK), read_at=read_at)
    except FileNotFoundError:  # gone since it was seen
        return Parcel(name)


def _unseen(path: str, flags: int) -> int:
    """Opens a file without a trace of it, where the system can."""
    with suppress(PermissionError):
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    return os.open(path, flags)


def _link(path: Path, target: str) -> None:
    """Makes a link, as a whole; one that leads out of its folder is none of the trainer's."""
    if os.path.isabs(target) or ".." in Path(target).parts:
        return
    temporary = path.with_name(f".{path.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    if path.is_dir() and not path.is_symlink():
        remove(path)
    temporary.replace(path)
