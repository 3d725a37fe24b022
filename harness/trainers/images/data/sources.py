"""Images by name: from a `data` setting to arrays, and to the fingerprint that stands for them in a cell's key.

Whatever the source, images are decoded once into the cache and mapped from there afterwards. A fingerprint never needs
the images themselves when it can be known without: it is a constant for CIFAR, a hash of the settings for the drawn
shapes, and for a folder it is looked up by the folder's listing.

Does not belong here: how folders are read (`image_folder.py`, `image_reader.py`), how shapes are drawn (`shapes.py`),
how the cache is written (`image_cache.py`), tensors (`data.py`).
"""

import hashlib
import http.client
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.errors import DataError, StoreError, StudyError
from harness.names import suggestion
from harness.trainers.images.data.cache import ImageArrays, ImageChunks, locked, open_images, store_images, write_text
from harness.trainers.images.data.folder import Listing, list_folder
from harness.trainers.images.data.reader import FolderReader
from harness.trainers.images.data.shapes import CLASS_NAMES, draw_shapes, shape_labels, shapes_fingerprint
from harness.trainers.images.settings import Cifar10, Cifar100, Data, ImageFolder, Shapes

__all__ = ["ImageArrays", "data_fingerprint", "default_cache", "load_images", "parse_data"]

CIFAR_DECODER = 1  # version of what is made of the archives; fingerprints hold it
CIFAR_MD5 = {  # of the archives; torchvision checks the same
    "cifar10": "c58f30108f718f92721af3b95e74349a",
    "cifar100": "eb9058c3a382ffc7106e4002c42a8d85",
}
OTHER_SOURCES = "`--data shapes` (needs no file) or `--data image-folder:PATH`"

T = TypeVar("T")


def parse_data(text: str) -> dict[str, Any]:
    """What stands behind `--data`, as a mapping for `Settings.data`; a folder's path becomes absolute.

    >>> parse_data("cifar10")
    {'kind': 'cifar10'}

    Raises:
        StudyError: no such source, or a folder without its path.
    """
    kind, colon, path = text.partition(":")
    kinds = ("cifar10", "cifar100", "shapes")
    if kind == "image-folder" and path:
        return {"kind": kind, "path": str(Path(path).expanduser().absolute())}
    if kind in kinds and not colon:
        return {"kind": kind}
    if kind == "image-folder":
        raise StudyError("--data image-folder: the folder is missing. Say image-folder:PATH.")
    if kind in kinds:
        raise StudyError(f"--data {text}: {kind} takes no {path!r}. Say --data {kind}.")
    if text and os.path.isdir(os.path.expanduser(text)):
        raise StudyError(f"--data {text}: to read images from this folder, say --data image-folder:{text}.")
    hint = suggestion(kind, [*kinds, "image-folder"])
    raise StudyError(f"--data {text}: no such source.{hint} Known: {', '.join(kinds)}, image-folder:PATH.")


def default_cache() -> Path:
    """Where downloads and decoded images are kept: $HARNESS_CACHE, or ~/.cache/harness."""
    return Path(os.environ.get("HARNESS_CACHE") or "~/.cache/harness").expanduser().absolute()


def data_fingerprint(data: Data, *, cache: Path) -> str:
    """A short hash of the images that `data` names: the same images, the same hash, wherever they lie.

    Immediate but for a folder: a known one takes a look at each file's size and times (0.2 s for 60,000 files), a new
    one is read and decoded into the cache, so that images that cannot be read are found before anything is trained.

    Raises:
        DataError: the folder's problems, all of them.
        StoreError: the cache cannot be written.
    """
    if isinstance(data, Shapes):
        return shapes_fingerprint(data)
    if isinstance(data, Cifar10 | Cifar100):
        identity = f"{data.kind} {CIFAR_MD5[data.kind]} {CIFAR_DECODER}"
        return hashlib.sha256(identity.encode()).hexdigest()[:16]
    listing = list_folder(Path(data.path))
    return _found_or_built(
        cache, lambda: _known_fingerprint(cache, listing), lambda: _import_folder(cache, listing, data.image_size)
    )


def images_key(data: Data, fingerprint: str) -> str:
    """Under which the cache holds the images that `data` names and that have this fingerprint."""
    return f"{fingerprint}-{data.image_size}" if isinstance(data, ImageFolder) else fingerprint


def load_images(data: Data, *, cache: Path, fingerprint: str | None = None) -> ImageArrays:
    """The images that `data` names, as read-only memory maps of the cache; decoded into it if they are not there.

    Args:
        fingerprint: of the images, where it is known: what the cache has of it needs no look at where it came from.

    Raises:
        DataError: images are missing, unreadable or inconsistent, or cannot be downloaded.
        StoreError: the cache cannot be written.
    """
    if fingerprint is not None and (found := open_images(cache, images_key(data, fingerprint))) is not None:
        return found
    if isinstance(data, ImageFolder):
        return _load_folder(data, cache)
    key = data_fingerprint(data, cache=cache)
    return _found_or_built(
        cache, lambda: open_images(cache, key), lambda: store_images(cache, _made_or_downloaded(data, cache), key)
    )


def _found_or_built(cache: Path, find: Callable[[], T | None], build: Callable[[], object]) -> T:
    """What `find` finds; if nothing, what it finds after `build`, which one process at a time runs."""
    if (found := find()) is None:
        with locked(cache):
            if (found := find()) is None:  # nor has anyone built it while we waited
                build()
                found = find()
    if found is None:
        raise StoreError(f"{cache}: what was just written reads back otherwise. Set HARNESS_CACHE to another disk.")
    return found


def _load_folder(data: ImageFolder, cache: Path) -> ImageArrays:
    listing = list_folder(Path(data.path))

    def find() -> ImageArrays | None:
        fingerprint = _known_fingerprint(cache, listing)
        return open_images(cache, images_key(data, fingerprint)) if fingerprint else None

    return _found_or_built(cache, find, lambda: _import_folder(cache, listing, data.image_size))


def _known_fingerprint(cache: Path, listing: Listing) -> str | None:
    """The fingerprint that `_import_folder` noted for this listing, or None if there is no (sound) note."""
    try:
        fingerprint, check = (cache / "folders" / listing.stamp).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return fingerprint if check == str(zlib.crc32(fingerprint.encode())) else None


def _import_folder(cache: Path, listing: Listing, image_size: int) -> None:
    """Reads a folder into the cache and notes its fingerprint under its listing's stamp."""
    reader = FolderReader(listing, image_size)
    train, test = reader.chunks("train"), reader.chunks("test")
    images = ImageChunks(train, listing.labels("train"), test, listing.labels("test"), listing.class_names)
    key = store_images(cache, images, lambda: f"{reader.fingerprint()}-{image_size}")
    fingerprint, _ = key.split("-")
    write_text(cache / "folders" / listing.stamp, f"{fingerprint} {zlib.crc32(fingerprint.encode())}\n")


def _made_or_downloaded(data: Shapes | Cifar10 | Cifar100, cache: Path) -> ImageChunks:
    if isinstance(data, Shapes):
        train, test = draw_shapes(data, "train"), draw_shapes(data, "test")
        return ImageChunks(train, shape_labels(data, "train"), test, shape_labels(data, "test"), CLASS_NAMES)
    from torchvision import datasets  # seconds, and torch: only while CIFAR is not in the cache yet

    return read_torchvision(getattr(datasets, data.kind.upper()), cache)


def read_torchvision(dataset: Any, folder: Path) -> ImageChunks:
    """A CIFAR data set through torchvision, which downloads it into `folder` if it is not there and checks its md5.

    Args:
        dataset: `torchvision.datasets.CIFAR10`, `CIFAR100` or a subclass.

    Raises:
        DataError: it is not there and cannot be downloaded.
    """
    try:
        train, test = (dataset(root=str(folder), train=is_train, download=True) for is_train in (True, False))
    except (OSError, EOFError, RuntimeError, tarfile.TarError, http.client.HTTPException) as error:
        raise DataError(
            f"{dataset.filename} is not in {folder} and cannot be downloaded ({error}). Put it there yourself "
            f"(md5 {dataset.tgz_md5}, from {dataset.url}), or use other images: {OTHER_SOURCES}."
        ) from None
    train_labels, test_labels = (np.asarray(split.targets, dtype=np.int64) for split in (train, test))
    return ImageChunks([train.data], train_labels, [test.data], test_labels, tuple(train.classes))
