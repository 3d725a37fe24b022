"""What a store takes on the disk."""

import os
from dataclasses import dataclass
from pathlib import Path

from harness.store.cells import BOOKKEEPING, CHECKPOINTS, Cells


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on the disk, a file with several names counted once.

    Attributes:
        record: specifications, journals, results. kept: what trainers keep, such as weights. checkpoints: of cells.
    """

    record: int = 0
    kept: int = 0
    checkpoints: int = 0

    @property
    def total(self) -> int:
        return self.record + self.kept + self.checkpoints

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.record + other.record, self.kept + other.kept, self.checkpoints + other.checkpoints)


def cell_usage(cells: Cells, key: str) -> Usage:
    """What one cell's folder takes; nothing where there is none."""
    record = kept = checkpoints = 0
    try:
        with os.scandir(f"{cells.root}/cells/{key}") as entries:  # a store has 20,000: a Path takes longer than a look
            for entry in entries:
                size = tree_bytes(entry)
                if entry.name in CHECKPOINTS:
                    checkpoints += size
                elif entry.name in BOOKKEEPING:
                    record += size
                else:
                    kept += size
    except (FileNotFoundError, NotADirectoryError):
        pass
    return Usage(record, kept, checkpoints)


def tree_bytes(entry: "os.DirEntry[str] | Path") -> int:
    """Of a file, or of everything in a folder; links are not followed."""
    if entry.is_dir() and not entry.is_symlink():
        with os.scandir(entry) as inside:
            return sum(map(tree_bytes, inside))
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        return 0
