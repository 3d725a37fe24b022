"""A study's part of a store as one file, to be kept, sent and merged into another store.

A pack is a gzipped tar of the store's own files under their own names, so that `tar xzf` and an editor are enough to
read it. Its first member is an index of the others:

    pack.json                       format, version, ids of the study runs, and of each file its size and SHA-256
    studies/<id>.json               manifests
    cells/<key>/spec.json, journal.jsonl, result.json, examples.bits; with weights whatever the trainer kept
    sources/<hash>/...              the user's code as it ran
    tracking/summaries/<id>/revisions.json
    lines/<id>.jsonl, lines/patches/<hash>.diff  a line of champions, and the patches that were judged in it

The same store gives the same bytes. Reading a pack is `unpack.py`'s matter, for that must trust nothing.
"""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.errors import OutputError, StoreError
from harness.files.atomic import temporary_beside
from harness.files.bits import EXAMPLES_FILE
from harness.plan.manifest import Manifest
from harness.store.cells import RECORD, Cells, is_key
from harness.store.lines import Lines
from harness.version import harness_version

FORMAT = 2  # of packs with a line of champions; without one it is 1, which older versions read
INDEX = "pack.json"
_CHUNK = 1 << 20
_ROOMS = ("studies", "cells", "sources", "tracking", "lines")
_PATCH = re.compile(r"[0-9a-f]{16}\.diff")
_PART = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True, slots=True)
class Packed:
    """What is in a pack.

    Attributes:
        runs: ids of study runs. num_cells: that have ended. num_left_out: cells that have not.
        num_bytes: of the file.
    """

    path: Path
    runs: tuple[str, ...]
    num_cells: int
    num_left_out: int
    num_bytes: int


def write_pack(
    cells: Cells, manifests: Iterable[Manifest], path: Path, *, with_weights: bool = False, with_code: bool = True
) -> Packed:
    """Writes the study runs and their ended cells into a file, in place of what stands there.

    Args:
        with_weights: also the files that the trainer kept; without them a pack holds results, curves and provenance.
        with_code: also the snapshots that cells ran from, which a study of many commits has many of.

    Raises:
        StoreError: a file of the store cannot be read, is no result that can be believed, or changes meanwhile.
        OutputError: the pack cannot be written.
    """
    manifests = tuple(manifests)
    keys = {key: seed for it in manifests for variant in it.variants for seed, key in variant.cells.items()}
    ended = [key for key, seed in sorted(keys.items()) if cells.result(key, seed=seed) is not None]
    files = dict(_files(cells, manifests, ended, with_weights=with_weights, with_code=with_code))
    refused = [name for name in files if not may_be_packed(name)]
    if refused:
        raise StoreError(f"{cells.root}: cannot pack {refused[0]!r}: no pack takes such a name. Rename or remove it.")
    index = {
        "format": FORMAT if any(name.startswith("lines/") for name in files) else 1,
        "harness": harness_version(),
        "runs": [it.id for it in manifests],
        "files": {name: _described(file) for name, file in files.items()},
    }
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as raw:
            _write(raw, index, files)
            raw.flush()
            os.fsync(raw.fileno())
        temporary.replace(path)
        size = path.stat().st_size
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Name another place with --output.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Packed(path, tuple(it.id for it in manifests), len(ended), len(keys) - len(ended), size)


def may_be_packed(name: str) -> bool:
    """Whether this is the name of a file of a store that a pack may hold."""
    room, *rest = name.split("/")
    if room not in _ROOMS or len(name) > 1_000 or not rest:
        return False
    if not all(_PART.fullmatch(part) and part not in (".", "..") for part in rest):
        return False
    if room == "studies":
        return len(rest) == 1 and rest[0].endswith(".json") and not rest[0].startswith(".")
    if room == "cells":
        return len(rest) == 2 and is_key(rest[0])
    if room == "lines":
        return (len(rest) == 1 and rest[0].endswith(".jsonl") and not rest[0].startswith(".")) or (
            len(rest) == 2 and rest[0] == "patches" and _PATCH.fullmatch(rest[1]) is not None
        )
    if room == "tracking":
        return len(rest) == 3 and (rest[0], rest[2]) == ("summaries", "revisions.json")
    return len(rest) >= 2


def _files(
    cells: Cells, manifests: Iterable[Manifest], ended: Iterable[str], *, with_weights: bool, with_code: bool
) -> Iterator[tuple[str, Path]]:
    """Name in the pack to file, in the order of writing."""
    root, sources = cells.root, set[str]()
    for manifest in manifests:
        yield f"studies/{manifest.id}.json", root / "studies" / f"{manifest.id}.json"
        sources.add(manifest.fingerprints.get("sources", ""))
        yield from _line(root, manifest.id)
        revisions = f"tracking/summaries/{manifest.id}/revisions.json"
        if (root / revisions).is_file():
            yield revisions, root / revisions
    for key in ended:
        folder = cells.folder(key)
        kept = [it for it in cells.kept_files(key) if with_weights or it.name == EXAMPLES_FILE]
        yield from ((f"cells/{key}/{it.name}", it) for it in (*(folder / name for name in RECORD), *kept))
        sources.add(cells.specification(key)["fingerprints"].get("sources", ""))
    for name in sorted(sources - {""}) if with_code else ():
        folder = root / "sources" / name
        for file in sorted(it for it in folder.rglob("*") if it.is_file() and not it.is_symlink()):
            if "__pycache__" not in file.parts:  # what an interpreter left there while cells ran
                yield file.relative_to(root).as_posix(), file


def _line(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    lines = Lines(root)
    if lines.path(name).is_file():
        for file in (lines.path(name), *(lines.patch_path(it) for it in sorted(lines.patches(name)))):
            yield file.relative_to(root).as_posix(), file


def _described(file: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    try:
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror}); `harness check` looks at the store.") from error
    return {"size": size, "sha256": digest.hexdigest()}


def _write(raw: IO[bytes], index: dict[str, Any], files: dict[str, Path]) -> None:
    zipped = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    with zipped, tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar:
        text = json.dumps(index, indent=1).encode()
        tar.addfile(_member(INDEX, len(text)), io.BytesIO(text))
        for name, file in files.items():
            known, status = index["files"][name], file.stat()
            with file.open("rb") as content:
                reader = _Checked(content)
                member = _member(name, known["size"], int(status.st_mtime), is_program=bool(status.st_mode & 0o100))
                if status.st_size == known["size"]:
                    tar.addfile(member, reader)
            if reader.digest.hexdigest() != known["sha256"]:
                raise StoreError(f"{file}: was written to while it was packed; run the same command again.")


def _member(name: str, size: int, seconds: int = 0, *, is_program: bool = False) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, seconds, 0o755 if is_program else 0o644
    return member


class _Checked:
    """A file that hashes what is read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self.digest.update(chunk)
        return chunk
