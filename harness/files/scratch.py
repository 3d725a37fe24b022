"""Temporary folders that are gone when their process is, however it ended.

A folder's lock is held by the process that made it. One that is killed cannot remove its folder; whose lock is free
has no owner any more, and the next process that needs such a folder removes it.
"""

import contextlib
import fcntl
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "harness-scratch-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new, empty folder of this process's own, in the system's temporary one; removed at the end of the block."""
    place = Path(tempfile.gettempdir())
    _clear_away(place)
    folder, descriptor = _new(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _new(place: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with contextlib.suppress(FileNotFoundError):  # another process found it without an owner: before it was locked
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # no locks here: then nobody gets one, and nothing is cleared away
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, descriptor
            os.close(descriptor)


@functools.cache  # once a process: there may be many other files
def _clear_away(place: Path) -> None:
    """Removes this user's folders whose owners have died."""
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(descriptor)
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
