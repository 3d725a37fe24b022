"""Image trainers whose workers train on the pretended CUDA device; worker processes import them by name.

They share what a device has, 20 GB, through files in the store's folder: each cell takes 6 and its worker's context 1,
and where that does not fit PyTorch's own error is raised.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from planted import planted_images
from pretended_cuda import pretended_cuda

from harness.trainers.images import train
from harness.trainers.images.trainer import ImageTrainer
from harness.trainers.run import Run

GB = 10**9
TOTAL, CELL, CONTEXT = 20 * GB, 6 * GB, GB
NUM_AT_FIRST = 3  # workers of the test


class OnPretendedCuda(ImageTrainer):
    kind = "pretended_pool:OnPretendedCuda"

    def train(self, run: Run) -> None:
        root = run.folder.parent.parent
        with pretended_cuda(), shared_memory(root, run) as numbers, mock.patch.multiple(torch.cuda, **numbers):
            step = mock.patch.object(train, "_train_step", noted_step(root, run))
            wait = mock.patch.object(torch.cuda, "synchronize", side_effect=lambda *_: note(root, "synchronized"))
            with step, wait:
                train.train_on(run, planted_images())


@contextmanager
def shared_memory(root: Path, run: Run) -> Iterator[dict[str, object]]:
    """What PyTorch says of the memory. A context stays taken until the process ends, a cell's memory until it ends; the
    first cells wait until one of them was refused."""
    contexts, cells = root / "contexts", root / "cells-on-device"
    for folder in (contexts, cells):
        folder.mkdir(exist_ok=True)
    mine = cells / str(os.getpid())

    def free() -> int:
        living = [it for it in contexts.iterdir() if Path("/proc", it.name).exists()]
        return TOTAL - len(living) * CONTEXT - len([it for it in living if (cells / it.name).exists()]) * CELL

    with (root / "allocator").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (contexts / str(os.getpid())).touch()
        fits = free() >= CELL
        (mine if fits else root / "refused").touch()
    deadline = time.monotonic() + 20
    while not (root / "refused").exists() and run.seed < NUM_AT_FIRST and time.monotonic() < deadline:
        time.sleep(0.02)
    held = {"memory_reserved": lambda *_: CELL * mine.exists(), "max_memory_reserved": lambda *_: CELL}
    try:
        yield {"mem_get_info": lambda *_: (free(), TOTAL), **held} | ({} if fits else {"init": out_of_memory})
    finally:
        mine.unlink(missing_ok=True)


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5.59 GiB.")


def noted_step(root: Path, run: Run):  # type: ignore[no-untyped-def]
    """The step of training, begun and ended in the notes; seed 3's third is the end of its first process's context."""
    step, count = train._train_step, 0

    def call(parts: object, position: object) -> None:
        nonlocal count
        note(root, "a step begins")
        count += 1
        poisoned = root / "poisoned"
        if run.seed == 3 and count == 3 and not poisoned.exists():
            poisoned.touch()
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        step(parts, position)  # type: ignore[arg-type]
        note(root, "a step ends")

    return call


def note(root: Path, what: str) -> None:
    with (root / f"notes-{os.getpid()}").open("a") as notes:
        notes.write(f"{what}\n")
