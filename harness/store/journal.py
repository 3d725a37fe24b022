"""A cell's journal: its events, a line of JSON each, added and synced by whoever holds the cell's claim.

Reading is in `cells.py`: a reader needs no more than the file as it is.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import StoreError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # what a full disk says


class Journal:
    """The file, open for adding as long as a cell is trained. Closing it is the owner's business.

    Raises:
        StoreError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def append(self, event: dict[str, Any], *, is_synced: bool = True) -> None:
        """Adds one event with the time (UTC, ISO 8601).

        Args:
            is_synced: on the disk when this returns, and so is every event before it. Without it the event outlives
                the death of this process, but perhaps not that of the machine.
        """
        line = (json.dumps({"time": now(), **event}) + "\n").encode()
        with writing(self._path):
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                line = b"\n" + line  # the last writer died within a line, or found the disk full
            while line:
                line = line[os.write(self._file, line) :]
            if is_synced:
                os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises StoreError in place of OSError: `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror}). Make room or give rights there, or choose another folder "
            "with --store; nothing that was saved is lost."
        ) from error
