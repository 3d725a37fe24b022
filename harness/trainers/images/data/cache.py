"""Decoded images on disk: written once, mapped into memory afterwards, checked at every opening.

    CACHE/images/KEY/{train,test}_{images,labels}.npy     plain NumPy files
    CACHE/images/KEY/facts.json                           class names, CRC-32 of each file, of itself

A folder appears under its key by one rename, so it is complete or absent; what was damaged later has another checksum
and counts as absent. CRC-32 and no cryptographic hash: it has to notice accidents, and takes 0.06 s for CIFAR-10's
184 MB (BLAKE2b: 0.20 s). Builders exclude each other by one lock on the whole cache; readers take none.

Does not belong here: where images come from and what their key is (`sources.py`).

Axes: N images, H rows, W columns, C channels (red, green, blue).
"""

import errno
import fcntl
import io
import json
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import StoreError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class ImageArrays:
    """A whole data set as arrays, (N, H, W, C) and (N,); read-only memory maps when it comes from the cache."""

    train_images: Pixels
    train_labels: Labels
    test_images: Pixels
    test_labels: Labels
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ImageChunks:
    """A data set on its way into the cache: images a chunk at a time, so that it never has to fit in memory.

    The chunks of each split come in order and hold as many images as there are labels.
    """

    train_chunks: Iterable[Pixels]
    train_labels: Labels
    test_chunks: Iterable[Pixels]
    test_labels: Labels
    class_names: tuple[str, ...]


def open_images(cache: Path, key: str) -> ImageArrays | None:
    """The images stored under a key, or None if they are missing or any byte of them has changed."""
    folder = images_folder(cache, key)
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        if facts.pop("check") != _check(facts):
            return None
        if any(_crc32_of(folder / f"{name}.npy") != facts["crc32"][name] for name in ARRAYS):
            return None
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ARRAYS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ImageArrays(**arrays, class_names=tuple(facts["class_names"]))


def store_images(cache: Path, images: ImageChunks, key: str | Callable[[], str]) -> str:
    """Writes images under a key, in place of what may lie there damaged; the caller holds `locked(cache)`.

    Args:
        key: a function is called when every chunk was consumed: a key may depend on what was read.

    Returns:
        The key.

    Raises:
        StoreError: the cache cannot be written, or the disk is full. What was written is removed.
    """
    draft = cache / ".draft"  # one name: its writer is alone, and finds here what a killed one left
    with _explained(cache):
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            _write(draft, images)
            name = key if isinstance(key, str) else key()
            folder = images_folder(cache, name)
            folder.parent.mkdir(exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return name


def import_images(cache: Path, key: str, files: Mapping[str, Callable[[], memoryview]]) -> None:
    """Takes over images that another machine has in its cache; where they are here already, nothing is fetched.

    Args:
        files: those of `images_folder`, by name; each is fetched when it is called for.

    Raises:
        StoreError: the cache cannot be written, or what arrived is not whole.
    """
    with locked(cache):
        if open_images(cache, key) is not None:  # whoever held the lock before us has fetched them
            return
        draft, folder = cache / ".draft", images_folder(cache, key)
        with _explained(cache):
            shutil.rmtree(draft, ignore_errors=True)
            try:
                draft.mkdir(parents=True)
                for name, fetch in files.items():
                    _write_file(draft / name, fetch())
                _sync(draft)
                folder.parent.mkdir(exist_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                draft.rename(folder)
                _sync(folder.parent)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        if open_images(cache, key) is None:
            raise StoreError(f"{folder}: what arrived here of the images is not whole. Run the same command again.")


def images_folder(cache: Path, key: str) -> Path:
    return cache / "images" / key


def _write_file(path: Path, content: memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Replaces a small file in one step; the caller holds `locked(cache)`.

    Raises:
        StoreError: it cannot be written.
    """
    with _explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        try:
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Excludes other builders in this cache; waits for the one that is at work. Leaves no cache behind that is empty.

    Raises:
        StoreError: the cache cannot be written.
    """
    with _explained(cache):
        lock = _acquire(cache)
    try:
        yield
    finally:
        with suppress(OSError):  # tidying only; another process may just have come in
            if [path.name for path in cache.iterdir()] == [".lock"]:
                (cache / ".lock").unlink()
                cache.rmdir()
        os.close(lock)


def _acquire(cache: Path) -> int:
    path = cache / ".lock"
    while True:
        cache.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # the holder before us removed the file, so another process may hold the one that is there now


def _write(folder: Path, images: ImageChunks) -> None:
    checks = {
        "train_images": _write_array(folder, "train_images", images.train_chunks, len(images.train_labels)),
        "train_labels": _write_array(folder, "train_labels", [images.train_labels], len(images.train_labels)),
        "test_images": _write_array(folder, "test_images", images.test_chunks, len(images.test_labels)),
        "test_labels": _write_array(folder, "test_labels", [images.test_labels], len(images.test_labels)),
    }
    facts = {"class_names": images.class_names, "crc32": checks}
    write_text(folder / "facts.json", json.dumps({**facts, "check": _check(facts)}))
    _sync(folder)


def _write_array(folder: Path, name: str, chunks: Iterable[npt.NDArray[Any]], count: int) -> int:
    """Writes chunks as one .npy file and returns its CRC-32, computed from memory: it sees a disk that errs, too."""
    check, written = 0, 0
    with (folder / f"{name}.npy").open("wb") as file:
        for chunk in chunks:
            parts = [np.ascontiguousarray(chunk).data] if written else [_npy_header(chunk, count), chunk.tobytes()]
            for part in parts:
                file.write(part)
                check = zlib.crc32(part, check)
            written += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    assert written == count, f"{name}: {written} rows for {count} labels"
    return check


def _npy_header(chunk: npt.NDArray[Any], count: int) -> bytes:
    head = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(chunk.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(head, {**facts, "shape": (count, *chunk.shape[1:])})
    return head.getvalue()


def _crc32_of(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return zlib.crc32(data)


def _check(facts: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _explained(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        trouble = "there is no space left for decoded images" if full else f"cannot be written ({error.strerror})"
        step = "Free some, or set" if full else "Set"
        raise StoreError(f"{cache}: {trouble}. {step} HARNESS_CACHE to a folder on another disk.") from error
