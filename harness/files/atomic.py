"""Files and folders that are replaced as a whole, and are on the disk when the call returns."""

import contextlib
import os
import shutil
import uuid
from pathlib import Path


def write_atomically(
    path: Path, *content: str | bytes | memoryview, syncs_folder: bool = True, one_writer: bool = False
) -> None:
    """Replaces the file as a whole, synced: a reader sees the old content or the new one, also after a power cut.

    Args:
        content: parts that follow each other.
        syncs_folder: that it is the new one when this returns. Without it a power cut may bring back the old one, until
            something else in the folder is synced.
        one_writer: nobody else writes this file at the same time; then the rest that a killed writer left is written
            over, not collected.
    """
    temporary = path.with_name(f".{path.name}.part") if one_writer else temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.writelines(it.encode() if isinstance(it, str) else it for it in content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if syncs_folder:
        sync_folder(path.parent)


def write_new(path: Path, content: str) -> None:
    """A file that is not there yet, in one step: a death leaves the whole of it, or nothing in its folder. Where a file
    cannot be without a name (macOS, some network disks), a death in the middle may leave a part.

    Raises:
        FileExistsError: it is there. OSError: it cannot be written.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unnamed = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o666, dir_fd=folder)  # it gets its name when it is whole
    except (AttributeError, OSError):  # not on this system, or not on this disk
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    else:
        with open(unnamed, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(unnamed)
            os.link(f"/proc/self/fd/{unnamed}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that nobody else writes to: process ids repeat between machines that share a disk."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def replace_synced(source: Path, target: Path) -> None:
    """Moves a file or a folder to `target`, in the same folder, in place of what stands there.

    A folder cannot be replaced in one step: between two renames there is none at `target`. What stood there is aside
    then, and `put_back` finds it after a death.
    """
    if not (source.is_dir() or target.is_dir()):
        move_synced(source, target)
        return
    _sync_all(source)
    aside = aside_of(target)
    if os.path.lexists(target):
        remove(aside)
        target.rename(aside)
    source.rename(target)
    sync_folder(target.parent)
    remove(aside)


def aside_of(target: Path) -> Path:
    """Where what stood at `target` waits while it is replaced."""
    return target.with_name(f".{target.name}.before")


def put_back(target: Path) -> None:
    """Where a death came while `target` was replaced: what stood there, if nothing new does."""
    if not os.path.lexists(target):
        with contextlib.suppress(FileNotFoundError):
            aside_of(target).rename(target)


def move_synced(source: Path, target: Path) -> None:
    """Moves a file or a folder to `target`, in the same folder; a folder only where no other one is."""
    _sync_all(source)
    source.replace(target)
    sync_folder(target.parent)


def _sync_all(source: Path) -> None:
    for path in [source, *source.rglob("*")] if source.is_dir() else [source]:
        _sync(path)


def remove(path: Path) -> None:
    """A file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder durable."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
