"""Files that a user asked for: whether they can be written is found out before anything is computed for them."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import OutputError


def check_file(path: Path) -> None:
    """Raises OutputError where this file cannot be written. Makes missing folders; leaves the file as it is."""
    with _asking_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("ab"):
            pass
        if is_new:
            path.unlink()


def check_folder(path: Path) -> None:
    """Raises OutputError where no file can be made in this folder. Makes the folder and those above it."""
    with _asking_for(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass


def write_file(path: Path, content: bytes) -> Path:
    """Writes the file and returns its path. Raises OutputError, for a full disk say."""
    with _asking_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


@contextlib.contextmanager
def _asking_for(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"--output {path}: cannot be written ({reason}). Name a place that you may write, on a disk with room."
        ) from None
