"""Random edits of training images, drawn for each image and never for a whole batch.

An edit is a frozen value that maps a batch of images and its draws to a batch of the same kind; only the edits that the
settings ask for are made, in the order of `settings.Augmentation`. What happens to test images too is not here but in
`data.Preprocess`.

Axes: N images, H rows, W columns, C = 3 channels; images are uint8 (N, H, W, C). Every edit rounds back to uint8, as a
chain of torchvision's transforms on uint8 images does.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import StudyError
from harness.trainers.images.settings import Augmentation
from harness.trainers.images.streams import stream

# Which column of a batch's draws, uniform in [0, 1), an edit uses. Every image has all of them, used or not, so that
# one edit more leaves the draws of the others as they were.
PAD_Y, PAD_X, CROP_Y, CROP_X, BRIGHTNESS, ROTATION, HORIZONTAL, VERTICAL, GRAYSCALE = range(9)
DRAWS_PER_IMAGE = 9
# Behind these, where cutout is used: drawn from a stream of its own, so that the nine stay as they are.
CUTOUT_Y, CUTOUT_X = DRAWS_PER_IMAGE, DRAWS_PER_IMAGE + 1

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, with the digits that torchvision uses


class Edit(Protocol):
    """One random edit; `draws` is float (N, draws_per_image) on the device of the images."""

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PaddedCrop:
    """Zero (black) padding on each side, then a crop at a random place back to the size."""

    padding: int

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        _, height, width, _ = images.shape
        padded = F.pad(images, (0, 0, self.padding, self.padding, self.padding, self.padding))
        places = 2 * self.padding + 1
        return _crop(padded, _integers(draws[:, PAD_Y], places), _integers(draws[:, PAD_X], places), height, width)


@dataclass(frozen=True)
class ResizedCrop:
    """A crop of size x size at a random place, resized back (bilinear)."""

    size: int

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        _, height, width, _ = images.shape
        top = _integers(draws[:, CROP_Y], height - self.size + 1)
        left = _integers(draws[:, CROP_X], width - self.size + 1)
        crop = _crop(images, top, left, self.size, self.size).permute(0, 3, 1, 2).float()
        return _pixels(F.interpolate(crop, (height, width), mode="bilinear").permute(0, 2, 3, 1))


@dataclass(frozen=True)
class Brightness:
    """Pixel values times a factor uniform in [1 - strength, 1 + strength), clipped at white."""

    strength: float

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        factor = 1 + self.strength * (2 * draws[:, BRIGHTNESS] - 1)
        return _pixels((images * factor[:, None, None, None]).clamp_(max=255))


@dataclass(frozen=True)
class Rotation:
    """Rotation about the centre, uniform in [-degrees, degrees); uncovered pixels are black.

    Nearest neighbour, the default of torchvision's RandomRotation, and so the report's.
    """

    degrees: float

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        count, height, width, _ = images.shape
        angle = torch.deg2rad(self.degrees * (2 * draws[:, ROTATION] - 1))
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # affine_grid works in units of half the height and half the width: the sines carry the aspect ratio.
        rows = [torch.stack([cos, -sin * height / width, zero], 1), torch.stack([sin * width / height, cos, zero], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), [count, 3, height, width], align_corners=False)
        turned = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, mode="nearest", align_corners=False)
        return _pixels(turned.permute(0, 2, 3, 1))


@dataclass(frozen=True)
class HorizontalFlip:
    probability: float

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return _where(draws[:, HORIZONTAL] < self.probability, images.flip(2), images)


@dataclass(frozen=True)
class VerticalFlip:
    probability: float

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return _where(draws[:, VERTICAL] < self.probability, images.flip(1), images)


@dataclass(frozen=True)
class Grayscale:
    """All three channels become the luminance."""

    probability: float

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        luminance = (images.float() @ _luma(images.device)).unsqueeze(3)
        return _where(draws[:, GRAYSCALE] < self.probability, _pixels(luminance), images)


@dataclass(frozen=True)
class Cutout:
    """A square of side `size` about a random pixel becomes the mean colour; it may reach over the edge.

    DeVries and Taylor 2017, who cut out of normalized images, where the mean is zero.

    Attributes:
        colour: mean of red, green and blue, in [0, 1].
    """

    size: int
    colour: tuple[float, float, float]

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        _, height, width, _ = images.shape
        inside_y = self._is_inside(_integers(draws[:, CUTOUT_Y], height), height)
        inside_x = self._is_inside(_integers(draws[:, CUTOUT_X], width), width)
        return torch.where(
            (inside_y[:, :, None] & inside_x[:, None, :])[..., None], _colour(self.colour, images.device), images
        )

    def _is_inside(self, centre: Tensor, side: int) -> Tensor:
        """(N, side): the pixels from `size // 2` before the centre on."""
        offset = torch.arange(side, device=centre.device) - (centre[:, None] - self.size // 2)
        return (offset >= 0) & (offset < self.size)


@dataclass(frozen=True)
class Mixup:
    """Each image becomes a share of itself and the rest of another one of its batch, the batch read backwards; so does
    its label. Zhang et al. 2018, whose shares are one a batch; here each image has its own.

    Attributes:
        alpha: shares are drawn from Beta(alpha, alpha).
    """

    alpha: float

    def __call__(self, values: Tensor, shares: Tensor) -> Tensor:
        """Args: values: float (N, ...), images or labels as shares of classes; shares: float (N,)."""
        own = shares.view(-1, *[1] * (values.dim() - 1)).to(values.dtype)
        return own * values + (1 - own) * values.flip(0)

    def draw(self, count: int, *, seed: int, epoch: int) -> Tensor:
        """Shares of an epoch, float (count,), on the CPU.

        Beta is the share of one of two gamma variables. By their logarithms, for where alpha is small both would be
        zero: log Gamma(alpha) = log Gamma(alpha + 1) + log(U) / alpha (Marsaglia and Tsang 2000, section 6).
        """
        random = stream(seed, "mixup", epoch)
        gamma = torch._standard_gamma(torch.full((count, 2), self.alpha + 1, dtype=torch.float64), generator=random)
        uniform = 1 - torch.rand((count, 2), dtype=torch.float64, generator=random)  # above zero
        own, other = (gamma.log() + uniform.log() / self.alpha).unbind(1)
        return torch.sigmoid(own - other).float()


def draws_per_image(edits: tuple[Edit, ...]) -> int:
    """How many numbers each image needs; none without edits."""
    if any(isinstance(edit, Cutout) for edit in edits):
        return DRAWS_PER_IMAGE + 2
    return DRAWS_PER_IMAGE if edits else 0


def draw(edits: tuple[Edit, ...], count: int, *, seed: int, epoch: int) -> Tensor:
    """Uniform numbers in [0, 1) for so many images of an epoch, float (count, draws_per_image(edits)), on the CPU."""
    draws = torch.rand((count, DRAWS_PER_IMAGE), generator=stream(seed, "augmentation", epoch))
    more = draws_per_image(edits) - DRAWS_PER_IMAGE
    if not more:
        return draws
    return torch.cat([draws, torch.rand((count, more), generator=stream(seed, "cutout", epoch))], 1)


def make_edits(
    augmentation: Augmentation, *, height: int, width: int, mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
) -> tuple[Edit, ...]:
    """The edits that the settings ask for, in their order; none for the defaults.

    Args:
        mean: colour of red, green and blue, in [0, 1].

    Raises:
        StudyError: a crop is larger than the images.
    """
    a = augmentation
    if a.crop_size is not None and a.crop_size > min(height, width):
        raise StudyError(
            f"augmentation.crop_size: {a.crop_size} is larger than the images, which are {height}x{width}; "
            "choose at most the shorter side"
        )
    asked: list[tuple[bool, Edit]] = [
        (a.crop_padding > 0, PaddedCrop(a.crop_padding)),
        (a.crop_size is not None, ResizedCrop(a.crop_size or 0)),
        (a.brightness > 0, Brightness(a.brightness)),
        (a.rotation_degrees > 0, Rotation(a.rotation_degrees)),
        (a.horizontal_flip > 0, HorizontalFlip(a.horizontal_flip)),
        (a.vertical_flip > 0, VerticalFlip(a.vertical_flip)),
        (a.grayscale > 0, Grayscale(a.grayscale)),
        (a.cutout > 0, Cutout(a.cutout, mean)),
    ]
    return tuple(edit for is_asked, edit in asked if is_asked)


@cache
def _luma(device: torch.device) -> Tensor:
    """The weights of red, green and blue, made once a device: a copy in each step would make the host wait."""
    return torch.tensor(_LUMA, dtype=torch.float32, device=device)


@cache
def _colour(colour: tuple[float, float, float], device: torch.device) -> Tensor:
    """uint8 (3,), made once a device, and without a copy to it."""
    made = torch.empty(3, dtype=torch.uint8, device=device)
    for channel, value in enumerate(colour):
        made[channel].fill_(min(255, max(0, round(255 * value))))
    return made


def _integers(uniform: Tensor, count: int) -> Tensor:
    """Uniform integers in [0, count) from uniform numbers in [0, 1)."""
    return (uniform * count).long()


def _crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Image n from row top[n] and column left[n] on."""
    device = images.device
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    n = torch.arange(len(images), device=device)
    return images[n[:, None, None], rows[:, :, None], columns[:, None, :]]


def _where(chosen: Tensor, edited: Tensor, images: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], edited, images)


def _pixels(values: Tensor) -> Tensor:
    """Floats in [0, 255] to the nearest uint8."""
    return values.round().to(torch.uint8)
