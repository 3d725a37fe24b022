"""Each edit against torchvision's functional form, applied image by image with the same draws."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from harness.errors import StudyError
from harness.trainers.images import augment
from harness.trainers.images.augment import DRAWS_PER_IMAGE, Cutout, draws_per_image, make_edits
from harness.trainers.images.settings import Augmentation

MEAN = (0.2, 0.4, 1.0)
HARSH = Augmentation(
    crop_size=20, brightness=0.5, rotation_degrees=45, horizontal_flip=0.5, vertical_flip=0.05, grayscale=0.2
)


def images(count: int = 64, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def draws(count: int = 64) -> torch.Tensor:
    return torch.rand(count, DRAWS_PER_IMAGE, generator=torch.Generator().manual_seed(1))


def edited(augmentation: Augmentation, pixels: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    for edit in make_edits(augmentation, height=pixels.shape[1], width=pixels.shape[2]):
        pixels = edit(pixels, drawn)
    return pixels


def one_by_one(transform, pixels: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """`transform(image, draws)` on each image as torchvision likes it, uint8 (C, H, W)."""
    each = [transform(image.permute(2, 0, 1), row.tolist()) for image, row in zip(pixels, drawn, strict=True)]
    return torch.stack(each).permute(0, 2, 3, 1)


def test_padded_crop_is_torchvision_s():
    def transform(image, row):
        top, left = int(row[augment.PAD_Y] * 9), int(row[augment.PAD_X] * 9)
        return reference.crop(reference.pad(image, [4]), top, left, 32, 32)

    found = edited(Augmentation(crop_padding=4), images(), draws())
    assert torch.equal(found, one_by_one(transform, images(), draws()))


def test_resized_crop_is_torchvision_s_to_one_grey_level():
    def transform(image, row):
        top, left = int(row[augment.CROP_Y] * 13), int(row[augment.CROP_X] * 13)
        return reference.resized_crop(image, top, left, 20, 20, [32, 32], antialias=True)

    found = edited(Augmentation(crop_size=20), images(), draws())
    difference = (found.int() - one_by_one(transform, images(), draws()).int()).abs()
    assert difference.max() <= 1  # torchvision rounds uint8 after fixed-point arithmetic


def test_brightness_is_torchvision_s_to_one_grey_level():
    def transform(image, row):
        return reference.adjust_brightness(image, 1 + 0.5 * (2 * row[augment.BRIGHTNESS] - 1))

    found = edited(Augmentation(brightness=0.5), images(), draws())
    difference = (found.int() - one_by_one(transform, images(), draws()).int()).abs()
    assert difference.max() <= 1  # torchvision truncates, we round
    assert (found == 255).any()


@pytest.mark.parametrize("size", [1, 4, 5, 40])
def test_cutout_is_a_square_about_each_image_s_own_pixel_cut_off_at_the_edges(size):
    """Pixel by pixel, by its definition."""
    pixels, drawn = images(40, 12, 9), torch.rand(40, draws_per_image((Cutout(1, MEAN),)))
    (edit,) = make_edits(Augmentation(cutout=size), height=12, width=9, mean=MEAN)
    expected = pixels.clone()
    for image, row in zip(expected, drawn.tolist(), strict=True):
        top, left = int(row[augment.CUTOUT_Y] * 12) - size // 2, int(row[augment.CUTOUT_X] * 9) - size // 2
        image[max(0, top) : top + size, max(0, left) : left + size] = torch.tensor([51, 102, 255], dtype=torch.uint8)
    assert torch.equal(edit(pixels, drawn), expected)
    assert not torch.equal(expected, pixels)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33)])
def test_rotation_is_torchvision_s_but_for_ties(height, width):
    def transform(image, row):
        return reference.rotate(image, 45 * (2 * row[augment.ROTATION] - 1))

    pixels = images(height=height, width=width)
    found = edited(Augmentation(rotation_degrees=45), pixels, draws())
    same = (found == one_by_one(transform, pixels, draws())).float().mean()
    assert same > 0.999  # points half-way between two pixels may go to either
    assert (found[:, 0, 0] == 0).all(1).any()  # uncovered corners are black


@pytest.mark.parametrize(
    ("augmentation", "column", "probability", "flip"),
    [
        (Augmentation(horizontal_flip=0.5), augment.HORIZONTAL, 0.5, reference.horizontal_flip),
        (Augmentation(vertical_flip=0.05), augment.VERTICAL, 0.05, reference.vertical_flip),
    ],
)
def test_flips_are_torchvision_s_for_each_image_on_its_own(augmentation, column, probability, flip):
    def transform(image, row):
        return flip(image) if row[column] < probability else image

    found = edited(augmentation, images(), draws())
    assert torch.equal(found, one_by_one(transform, images(), draws()))
    is_flipped = (found != images()).flatten(1).any(1)
    assert 0 < is_flipped.sum() < len(is_flipped)


def test_grayscale_is_torchvision_s_to_one_grey_level():
    def transform(image, row):
        return reference.rgb_to_grayscale(image, 3) if row[augment.GRAYSCALE] < 0.2 else image

    found = edited(Augmentation(grayscale=0.2), images(), draws())
    difference = (found.int() - one_by_one(transform, images(), draws()).int()).abs()
    assert difference.max() <= 1  # torchvision truncates, we round
    is_grey = (found[..., :1] == found).flatten(1).all(1)
    assert 0 < is_grey.sum() < len(is_grey)


def test_no_edit_draws_once_for_a_whole_batch():
    """The silent bug of batched torchvision transforms: 64 copies of one image must come out in many versions."""
    pixels = images(1).expand(64, -1, -1, -1)
    for name, value in HARSH.model_dump().items():
        if value:
            versions = edited(Augmentation(**{name: value}), pixels, draws()).flatten(1).unique(dim=0)
            assert len(versions) >= 2, name


@pytest.mark.parametrize("count", [1, 5])
def test_edits_fit_batches_of_any_size_and_stay_pixels(count):
    found = edited(HARSH, images(count), draws(count))
    assert found.shape == (count, 32, 32, 3)
    assert found.dtype == torch.uint8


def test_draws_at_the_ends_of_their_range_stay_inside_the_image():
    largest = torch.full((64, DRAWS_PER_IMAGE), 1 - 2**-24)  # the largest float32 that torch.rand gives
    both = Augmentation(crop_padding=4, crop_size=31)
    for drawn in (largest, torch.zeros_like(largest)):
        assert edited(both, images(), drawn).shape == (64, 32, 32, 3)


@pytest.mark.slow
def test_the_harsh_edits_look_like_the_report_s_chain_on_average():
    """Same mean brightness, within a few standard errors, as torchvision's own random transforms in the same order."""
    chain = v2.Compose(
        [
            v2.RandomCrop(20),
            v2.Resize(32),
            v2.ColorJitter(brightness=0.5),
            v2.RandomRotation(45),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.05),
            v2.RandomGrayscale(0.2),
        ]
    )
    pixels = images(256)
    torch.manual_seed(0)
    expected = torch.stack([chain(image.permute(2, 0, 1)) for image in pixels]).float().mean((1, 2, 3))
    found = edited(HARSH, pixels, draws(256)).float().mean((1, 2, 3))
    standard_error = (expected.var() / 256 + found.var() / 256).sqrt()
    assert abs(expected.mean() - found.mean()) < 4 * standard_error


def test_nothing_asked_is_nothing_done():
    assert make_edits(Augmentation(), height=32, width=32) == ()


def test_a_crop_larger_than_the_image_is_an_error_of_the_user():
    with pytest.raises(StudyError, match=r"augmentation\.crop_size: 40 is larger than the images, which are 32x48"):
        make_edits(Augmentation(crop_size=40), height=32, width=48)
