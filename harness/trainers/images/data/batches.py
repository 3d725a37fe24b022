"""Images as one uint8 tensor on the device: the split, the batches of an epoch, normalisation.

Nothing is decoded, copied to the device or waited for within an epoch: a batch is an index into resident images.
Where images come from is `sources.py`; random edits of training images are `augment.py`.

Axes: N images, H rows, W columns, C = 3 channels. Images are stored (N, H, W, C); a permuted view of that is what
PyTorch calls channels-last, so the network's preferred layout costs nothing.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import StudyError
from harness.trainers.images.augment import Edit, Mixup, draw, draws_per_image
from harness.trainers.images.data.sources import ImageArrays
from harness.trainers.images.settings import Preprocessing
from harness.trainers.images.streams import stream


@dataclass(frozen=True)
class Images:
    """Labelled images on one device.

    Attributes:
        pixels: uint8 (N, H, W, C).
        labels: int64 (N,), class indices.
    """

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Split:
    """Some rows of some images.

    Attributes:
        rows: int64, ascending, on the CPU.
    """

    images: Images
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Splits:
    """Train and validation share their images; `classes` says what the labels mean."""

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, as stored."""
        _, height, width, _ = self.train.images.pixels.shape
        return height, width


def make_splits(arrays: ImageArrays, *, fraction: float, seed: int, device: torch.device) -> Splits:
    """Images on the device, in three splits; the same for every cell seed.

    On the CPU the arrays are used in place: memory maps stay shared between processes.

    Args:
        fraction: of the training images that go to validation, rounded to the nearest whole number of images.
        seed: the protocol's split seed; the cell's where the split varies with it.

    Raises:
        StudyError: training or validation would be empty.
    """
    train = _to_device(arrays.train_images, arrays.train_labels, device)
    test = _to_device(arrays.test_images, arrays.test_labels, device)
    train_rows, validation_rows = split_rows(len(train.labels), fraction=fraction, seed=seed)
    return Splits(
        train=Split(train, train_rows),
        validation=Split(train, validation_rows),
        test=Split(test, torch.arange(len(test.labels))),
        classes=arrays.class_names,
    )


def split_rows(count: int, *, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows for training and rows for validation, each ascending; see `make_splits`."""
    held_out = round(count * fraction)
    if not 0 < held_out < count:
        raise StudyError(
            f"training.validation_fraction: {fraction} of {count} training images leaves {held_out} for validation and "
            f"{count - held_out} for training; both need at least one"
        )
    shuffled = torch.randperm(count, generator=stream(seed, "split"))
    return shuffled[held_out:].sort().values, shuffled[:held_out].sort().values


def _to_device(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], device: torch.device) -> Images:
    with warnings.catch_warnings():
        # PyTorch warns that a read-only array could be written to through the tensor; nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Images(torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device))


class Preprocess:
    """Pixels to what the network takes: (x / 255 - mean) / std for each channel, then an optional resize.

    The resize (bilinear, antialiased) follows the normalisation, on fewer pixels when it enlarges; the two commute,
    because the weights of an interpolation sum to one.

    Args:
        width: of the images as stored, in pixels.
        dtype: of the result; the arithmetic before it is float32.
    """

    def __init__(self, settings: Preprocessing, *, width: int, device: torch.device, dtype: torch.dtype) -> None:
        self.mean = torch.tensor(settings.mean, device=device)
        self.std = torch.tensor(settings.std, device=device)
        self.resize = settings.resize
        self.dtype = dtype
        # For a whole row of an image: three channels as the last axis are too short for vector instructions.
        self._scale = (1 / (255 * self.std)).repeat(width)
        self._shift = (-self.mean / self.std).repeat(width)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (N, H, W, C) to `dtype` (N, C, H', W'), channels-last in memory."""
        rows = pixels.flatten(2).to(torch.float32).mul_(self._scale).add_(self._shift)
        images = rows.view(pixels.shape).permute(0, 3, 1, 2)
        if self.resize is not None:
            size = (self.resize, self.resize)
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return images.to(self.dtype, memory_format=torch.channels_last)


class TrainingBatches:
    """The batches of any epoch, from any batch on: a function of (seed, epoch) alone, so nothing needs to be saved.

    Each epoch has a new order, drawn from (seed, "shuffle", epoch); the last, shorter batch is dropped. Augmentation
    draws come from (seed, "augmentation", epoch), those of cutout and mixup from streams of their own.

    An epoch's order and draws, and which batch is next, stand in tensors on the device that stay the same ones: so that
    `next` can be captured in a CUDA graph.

    Args:
        edits: of `augment.make_edits`; none, and nothing is drawn for them.
        mixup: of images and labels, or None.
        num_classes: of the labels; only mixup needs to know.

    Attributes:
        place: int64 (1,), on the device: the batch of the epoch that is next.

    Raises:
        StudyError: there are fewer images than one batch holds.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        edits: tuple[Edit, ...],
        preprocess: Preprocess,
        seed: int,
        mixup: Mixup | None = None,
        num_classes: int = 0,
    ) -> None:
        if len(split) < batch_size:
            raise StudyError(
                f"training.batch_size: {batch_size} is more than the {len(split)} training images; "
                "choose a smaller batch or more images"
            )
        self.batch_size = batch_size
        self.edits = edits
        self.preprocess = preprocess
        self.mixup = mixup
        self.steps_per_epoch = len(split) // batch_size
        self._images, self._rows, self._seed = split.images, split.rows, seed
        device, shape = split.images.pixels.device, (self.steps_per_epoch, batch_size)
        self._epoch: int | None = None  # whose order and draws these are
        self._order = torch.empty(shape, dtype=torch.int64, device=device)
        self._draws = torch.empty((*shape, draws_per_image(edits)), device=device) if edits else None
        self._shares = torch.empty(shape, device=device) if mixup else None
        self._one_hot = torch.eye(num_classes, device=device) if mixup else None
        self.place = torch.zeros(1, dtype=torch.int64, device=device)

    def order(self, epoch: int) -> Tensor:
        """Rows of the epoch in the order of training, int64 (steps_per_epoch * batch_size,), on the CPU."""
        shuffled = torch.randperm(len(self._rows), generator=stream(self._seed, "shuffle", epoch))
        return self._rows[shuffled[: self.steps_per_epoch * self.batch_size]]

    def seek(self, step: int) -> int:
        """Makes the batch of an optimizer step, counted from 0 over all epochs, the next one; waits for nothing.

        Returns:
            How many batches of its epoch are left.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            _put(self.order(epoch), self._order)
            if self._draws is not None:
                _put(draw(self.edits, self._order.numel(), seed=self._seed, epoch=epoch), self._draws)
            if self.mixup is not None and self._shares is not None:
                _put(self.mixup.draw(self._order.numel(), seed=self._seed, epoch=epoch), self._shares)
            self._epoch = epoch
        self.place.fill_(place)
        return self.steps_per_epoch - place

    def next(self) -> tuple[Tensor, Tensor]:
        """(inputs, labels) of the next batch of the epoch that `seek` found.

        Labels are int64 (N,), class indices; with mixup float (N, classes), the share of each class.
        """
        rows = self._order.index_select(0, self.place)[0]
        pixels = self._images.pixels.index_select(0, rows)
        if self._draws is not None:
            draws = self._draws.index_select(0, self.place)[0]
            for edit in self.edits:
                pixels = edit(pixels, draws)
        inputs, labels = self.preprocess(pixels), self._images.labels[rows]
        if self.mixup is not None and self._shares is not None and self._one_hot is not None:
            shares = self._shares.index_select(0, self.place)[0]
            inputs = self.mixup(inputs, shares).contiguous(memory_format=torch.channels_last)
            labels = self.mixup(self._one_hot.index_select(0, labels), shares)
        self.place.add_(1)
        return inputs, labels


def evaluation_batches(split: Split, *, batch_size: int, preprocess: Preprocess) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, labels) of the split in order, each image once; the last batch may be shorter."""
    images = split.images
    rows_on_device = _send(split.rows, images.pixels.device)
    for rows in torch.split(rows_on_device, batch_size):
        yield preprocess(images.pixels.index_select(0, rows)), images.labels[rows]


def _put(values: Tensor, place: Tensor) -> None:
    """Copies from the CPU to a tensor on the device, without waiting for it."""
    values = values.view(place.shape)
    place.copy_(values.pin_memory() if place.device.type == "cuda" else values, non_blocking=True)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
