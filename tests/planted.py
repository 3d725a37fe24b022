"""Tiny labelled images with a planted signal: class k is brighter in channel k, so that a small network learns them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from fakes import recorded_run

from harness.plan.cell import Cell, make_cells
from harness.trainers.images.settings import Settings, with_overrides
from harness.trainers.images.trainer import ImageTrainer
from harness.trainers.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from harness.trainers.images.data.batches import TrainingBatches

# Two small blocks on 8x8 images, and batches that leave a remainder: 160 training images are 10 batches of 15 and ten
# images dropped; 40 validation and 50 test images are no multiple of anything that matters.
TINY = {
    "model.filters": (4, 6),
    "model.kernel_size": 3,
    "model.hidden_units": 8,
    "training.batch_size": 15,
    "training.max_epochs": 3,
    "training.validation_fraction": 0.2,
    "training.precision": "float32",
}


@dataclass(frozen=True)
class Arrays:
    """As `sources.ImageArrays`."""

    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]


def planted_images(*, train: int = 200, test: int = 50, side: int = 8, signal: float = 60, seed: int = 0) -> Arrays:
    """Three classes; noise of standard deviation 40 about mid grey, plus `signal` in the class's channel."""
    random = np.random.default_rng(seed)

    def draw(count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        labels = random.integers(0, 3, count)
        pixels = 100 + 40 * random.standard_normal((count, side, side, 3))
        pixels[np.arange(count), :, :, labels] += signal
        return pixels.clip(0, 255).astype(np.uint8), labels

    return Arrays(*draw(train), *draw(test), ("red", "green", "blue"))


def tiny_cell(overrides: dict[str, Any] | None = None, *, seed: int = 0) -> Cell:
    """One cell of tiny settings, with overrides by dotted path."""
    return image_cell(with_overrides(Settings(), TINY | (overrides or {})), seed=seed)


def image_cell(settings: Settings, *, seed: int = 0, **fingerprints: str) -> Cell:
    (cell,) = make_cells(ImageTrainer(), settings, [seed], {"data": "planted", **fingerprints})
    return cell


def batches_between(batches: "TrainingBatches", first: int, last: int) -> "Iterator[tuple[Tensor, Tensor]]":
    """(inputs, labels) of the optimizer steps first, ..., last - 1, counted from 0 over all epochs."""
    while first < last:
        for _ in range(min(batches.seek(first), last - first)):
            yield batches.next()
            first += 1


def trained(cell: Cell, folder: Path, arrays: Arrays | None = None, device: str = "cpu", **recording: Any) -> Run:
    """The run of a cell on images in memory, after training; `recording` as `fakes.recorded_run` takes it."""
    from harness.trainers.images.train import train_on

    run = recorded_run(cell, folder, device, **recording)
    train_on(run, arrays or planted_images())
    return run
