"""Reads a pack that anybody may have made: nothing is written outside one folder, and no more than the pack declares.

Only plain files that the index names are taken, each once, of the declared size and checksum; links, devices, absolute
names and `..` are refused, and what a compressed file may grow to is bounded before it grows.
"""

import gzip
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from harness.errors import StoreError
from harness.store.journal import NO_ROOM
from harness.store.pack import FORMAT, INDEX, may_be_packed

MOST_INDEX_BYTES = 128_000_000  # of 300,000 files
MOST_FILES = 2_000_000
_OVERHEAD = 16_384  # bytes of a tar besides a file's own: its header, that of a long name, and what fills it up
_CHUNK = 1 << 20
_LATEST = 1 << 33  # seconds since 1970 that every file system takes


def unpack(path: Path, folder: Path) -> tuple[str, ...]:
    """Writes the files of a pack below `folder`, which then looks like a store; gives the ids of the study runs.

    Raises:
        StoreError: this is no pack, is damaged, was made by a newer version, or holds what no pack may hold; or the
            disk is full. What was written until then is of no use.
    """
    try:
        with path.open("rb") as raw:
            return _unpack(raw, folder)
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, RecursionError, TypeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise StoreError(
                f"{folder}: has no room for what {path} holds ({error.strerror}). Make room there, or choose another "
                "folder with --store; nothing was merged."
            ) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StoreError(f"{path}: is no pack that can be read ({reason}). `harness pack` makes one.") from error
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error


def _unpack(raw: IO[bytes], folder: Path) -> tuple[str, ...]:
    stream = _Bounded(gzip.GzipFile(fileobj=raw, mode="rb"), MOST_INDEX_BYTES)
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as tar:  # type: ignore[call-overload]
        members = iter(tar)
        runs, files = _index(tar, next(members, None))
        total = sum(it["size"] for it in files.values())
        free = shutil.disk_usage(folder).free
        if total > free:
            raise StoreError(f"holds {total / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB are free in {folder}.")
        stream.allow(total + _OVERHEAD * (len(files) + 16))
        waiting = dict(files)
        for member in members:
            known = waiting.pop(member.name, None)
            if known is None or not member.isreg() or member.size != known["size"]:
                raise StoreError(f"holds {member.name!r}, which its index does not name like that: it is refused.")
            content = tar.extractfile(member)
            assert content is not None
            _extract(content, member, known["sha256"], folder)
    if waiting:
        raise StoreError(f"lacks {len(waiting)} of {len(files)} files, such as {next(iter(waiting))}; copy it again.")
    return runs


def _index(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    if member is None or member.name != INDEX or not member.isreg() or member.size > MOST_INDEX_BYTES:
        raise StoreError(f"is no pack: it does not begin with {INDEX}. `harness pack` makes one.")
    content = tar.extractfile(member)
    assert content is not None
    index = json.loads(content.read())
    if not isinstance(index, dict) or not isinstance(index.get("files"), dict):
        raise StoreError(f"is no pack: its {INDEX} is something else.")
    if index.get("format") not in range(1, FORMAT + 1):
        raise StoreError(
            f"has format {index.get('format')}, this harness reads up to {FORMAT}. Install the version that wrote it "
            f"({index.get('harness', '?')}); nothing is damaged."
        )
    files = index["files"]
    if len(files) > MOST_FILES:
        raise StoreError(f"names {len(files):,} files, more than {MOST_FILES:,}.")
    for name, known in files.items():
        if not may_be_packed(name):
            raise StoreError(f"names a file {name!r}, which no store has: it is refused.")
        if not (isinstance(known["size"], int) and known["size"] >= 0 and isinstance(known["sha256"], str)):
            raise StoreError(f"says of {name!r} what no pack says.")
    return tuple(str(it) for it in index.get("runs", ())), files


def _extract(content: IO[bytes], member: tarfile.TarInfo, expected: str, folder: Path) -> None:
    path, digest = folder / member.name, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in _chunks(content):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != expected:
        raise StoreError(f"its file {member.name} has another checksum than its index says: copy the pack again.")
    path.chmod(0o755 if member.mode & 0o100 and member.name.startswith("sources/") else 0o644)
    seconds = min(max(int(member.mtime), 0), _LATEST)
    os.utime(path, (seconds, seconds))


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    while chunk := content.read(_CHUNK):
        yield chunk


class _Bounded:
    """A stream that gives so many bytes and no more: headers of a tar are read whole, whatever size they claim."""

    def __init__(self, stream: gzip.GzipFile, allowed: int) -> None:
        self._stream, self._left = stream, allowed

    def allow(self, more: int) -> None:
        self._left = more

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(chunk)
        if self._left < 0:
            raise StoreError("grows beyond what its index declares: it is refused.")
        return chunk
