"""Bytes to pixels, by the rules of the module; and bytes to the fingerprint of a folder."""

import io
import shutil

import numpy as np
import pytest
from image_files import encoded, encoded_pixels, two_classes, write_files
from PIL import Image

from harness.errors import DataError
from harness.trainers.images.data.folder import list_folder
from harness.trainers.images.data.reader import CHUNK, FolderReader, decode_image


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixel(content: bytes) -> list[int]:
    """The one colour of an image, decoded at its own size of 4 pixels."""
    pixels = decode_image(content, 4)
    assert (pixels.shape, pixels.dtype) == ((4, 4, 3), np.uint8)
    assert (pixels == pixels[0, 0]).all()
    return pixels[0, 0].tolist()


def read(root, image_size=8):
    reader = FolderReader(list_folder(root), image_size)
    train, test = (np.concatenate(list(reader.chunks(split))) for split in ("train", "test"))
    return train, test, reader.fingerprint()


def fingerprint(root):
    return read(root)[2]


def test_pixels_of_a_lossless_image_come_out_as_they_went_in():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    for kind in ("PNG", "BMP"):
        assert np.array_equal(decode_image(encoded_pixels(pixels, kind), 4), pixels)


def test_grey_palette_and_two_tone_images_become_rgb():
    assert pixel(saved(Image.new("L", (4, 4), 77))) == [77, 77, 77]
    assert pixel(saved(Image.new("RGB", (4, 4), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE))) == [
        10,
        20,
        30,
    ]
    assert pixel(saved(Image.new("1", (4, 4), 1))) == [255, 255, 255]


def test_sixteen_bit_grey_keeps_its_upper_eight_bits():
    # 0x1234 = 4660: Pillow's own conversion gives 255
    assert pixel(saved(Image.fromarray(np.full((4, 4), 0x1234, dtype=np.uint16)))) == [0x12, 0x12, 0x12]


def test_transparency_lies_on_white():
    assert pixel(saved(Image.new("RGBA", (4, 4), (9, 9, 9, 0)))) == [255, 255, 255]
    assert pixel(saved(Image.new("LA", (4, 4), (9, 255)))) == [9, 9, 9]
    # half of black on white: 255 * (1 - 128 / 255) = 127
    assert pixel(saved(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))) == [127, 127, 127]
    assert pixel(saved(Image.new("P", (4, 4), 0), transparency=bytes([0]))) == [255, 255, 255]
    assert pixel(saved(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "WEBP", lossless=True)) == [255, 255, 255]


def test_cmyk_photographs_are_converted_not_inverted():
    cyan = pixel(saved(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "JPEG"))
    assert cyan[0] < 20
    assert min(cyan[1:]) > 235


def test_other_sizes_are_squeezed_to_a_square_without_cropping():
    wide = np.zeros((4, 64, 3), dtype=np.uint8)
    wide[:, :16] = 100  # the left quarter, which a centre crop would lose
    columns = decode_image(encoded_pixels(wide), 8)[:, :, 0].T
    assert (columns[0] == 100).all()
    assert (columns[3:] == 0).all()


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200  # bilinear between two neighbours alone would give stripes or a solid colour
    shrunk = decode_image(encoded_pixels(stripes), 8).astype(int)
    assert abs(shrunk - 100).max() <= 6


def test_small_images_are_enlarged():
    assert (decode_image(encoded((1, 2, 3), size=2), 16) == [1, 2, 3]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no PNG, JPEG, BMP or WebP image, whatever its name says"),
        (b"<html>", "is no PNG, JPEG, BMP or WebP image, whatever its name says"),
        (saved(Image.new("RGB", (4, 4)), "GIF"), "is no PNG, JPEG, BMP or WebP image"),
        (saved(Image.effect_noise((64, 64), 50), "JPEG")[:-500], "is damaged (image file is truncated"),
        (saved(Image.effect_noise((64, 64), 50), "PNG")[:-500], "is damaged ("),
    ],
    ids=["empty", "html", "gif", "jpeg", "png"],
)
def test_what_is_no_sound_image_is_refused(content, message):
    with pytest.raises(DataError) as error:
        decode_image(content, 8)
    assert message in str(error.value)


def test_images_come_in_the_order_of_the_listing_over_many_chunks(tmp_path):
    count = 2 * CHUNK + 3
    names = [f"{number:04}.png" for number in range(count)]
    colours = [(number % 251, number // 251, 7) for number in range(count)]
    write_files(tmp_path, {f"train/a/{name}": encoded(colours[number], 1) for number, name in enumerate(names)})
    write_files(tmp_path, {"test/a/1.png": encoded((1, 1, 1), 1)})
    train, test, _ = read(tmp_path, image_size=1)
    assert train[:, 0, 0].tolist() == [list(colour) for colour in colours]
    assert test.shape == (1, 1, 1, 3)


def test_all_unreadable_images_are_named_at_once(tmp_path):
    root = write_files(two_classes(tmp_path), {"train/blue/3.jpg": b"", "test/red/w.png": encoded((1, 2, 3))[:-40]})
    (root / "train/red/folder.png").mkdir()
    with pytest.raises(DataError) as error:
        read(root)
    lines = str(error.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        f"{root}/train/blue/3.jpg",
        f"{root}/train/red/folder.png",
        f"{root}/test/red/w.png",
    ]
    assert "cannot be read (Is a directory)" in lines[1]


def test_a_copy_elsewhere_has_the_same_fingerprint(tmp_path):
    first = two_classes(tmp_path / "first")
    second = shutil.copytree(first, tmp_path / "elsewhere")
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize("edit", ["byte", "file name", "class name", "new image", "swap of two images"])
def test_another_content_has_another_fingerprint(tmp_path, edit):
    root = two_classes(tmp_path)
    before = fingerprint(root)
    first, second = root / "train/red/a.png", root / "train/red/b.png"
    if edit == "byte":
        first.write_bytes(encoded((201, 0, 0)))
    elif edit == "file name":
        first.rename(root / "train/red/c.png")
    elif edit == "class name":
        (root / "train/red").rename(root / "train/rot")
        (root / "test/red").rename(root / "test/rot")
    elif edit == "new image":
        write_files(root, {"test/red/z.png": encoded((1, 2, 3))})
    else:
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
    assert fingerprint(root) != before


def test_a_folder_that_changes_while_it_is_read_is_refused(tmp_path):
    root = two_classes(tmp_path)
    reader = FolderReader(list_folder(root), 8)
    assert sum(len(chunk) for split in ("train", "test") for chunk in reader.chunks(split)) == 6
    (root / "train/red/a.png").write_bytes(encoded((3, 3, 3)))
    with pytest.raises(DataError, match=r"changed while they were read\. Run the command again"):
        reader.fingerprint()
