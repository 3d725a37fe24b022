"""File locks between processes on one machine: held by a living process, free again when it dies, however it dies.

`flock`, as `filelock` does it on POSIX; that library's shared lock is a SQLite database, where this is one flag.
"""

import contextlib
import errno
import fcntl
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock while the block runs; waits for it. Shared: several hold it, but not beside an exclusive one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def trying(path: Path) -> Iterator[bool]:
    """Holds the lock while the block runs, and gives True; or False, at once, where another process holds it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_locked(path: Path) -> bool:
    """Whether a living process (this one too) holds the lock now."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, IsADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


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
        with locked(path):
            code, said = _other(path)
            if code != 3:
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
