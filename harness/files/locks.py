"""File locks between processes on one machine: held by a living process, free again when it dies, however it dies.

`flock`, as `filelock` does it on POSIX; that library's shared lock is a SQLite database, where this is one flag.
"""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock while the block runs; waits for it. Shared: several hold it, but not beside an exclusive one."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:  # NFS 4 shares no lock of a file that cannot be read
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if _is_still(path, file):
                with _held(file):
                    yield
                return


@contextlib.contextmanager
def trying(path: Path) -> Iterator[bool]:
    """Holds the lock while the block runs, and gives True; or False, at once, where another process holds it."""
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if _is_still(path, file):
                with _held(file):
                    yield True
                return


_files_held: set[IO[str]] = set()


@contextlib.contextmanager
def _held(file: IO[str]) -> Iterator[None]:
    _files_held.add(file)
    try:
        yield
    finally:
        _files_held.discard(file)


def _let_go() -> None:
    """In a forked process: what its parent locked is the parent's, and free when that one dies, whoever lives on."""
    for file in _files_held:
        file.close()
    _files_held.clear()


os.register_at_fork(after_in_child=_let_go)


def _is_still(path: Path, file: IO[str]) -> bool:
    """Whether the file has its name yet: who held the lock before may have removed it, and others lock a new one."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a living process (this one too) holds the lock now."""
    try:
        with _opened(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, IsADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def _opened(path: Path) -> IO[str]:
    """For writing, where that may be: NFS 4 locks no other file exclusively."""
    try:
        return path.open("r+")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return path.open()


# What another process does: exit code 3 where the lock is held, 4 where there are none.
_OTHER = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "a"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
except OSError as error:
    print(error.strerror)
    sys.exit(4)
"""


def lock_problem(folder: Path) -> str:
    """Why locks of files in this folder do not hold between processes of this machine, or nothing where they do.

    On some shared disks a lock is granted to everyone, or to nobody. Whether it holds between machines is another
    question (`presence.py`).

    Raises:
        OSError: nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".locks.{uuid.uuid4().hex[:12]}"
    try:
        for shared in (False, True):
            with locked(path, shared=shared):
                code, said = _other(path)
                if code != 3 or not is_locked(path):
                    return said or "two processes got the same lock"
        code, said = _other(path)
        return "" if code == 0 else said or "a lock was not free again when its holder had left it"
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
        return str(error.strerror)
    finally:
        path.unlink(missing_ok=True)


def _other(path: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-S", "-c", _OTHER, str(path)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()
