"""A user's folder as it lies there: layout, order, every problem at once, and the stamp that stands for its content."""

import os

import pytest
from image_files import encoded, two_classes, write_files

from harness.errors import DataError
from harness.trainers.images.data.folder import MOST_SHOWN, list_folder

RED = encoded((255, 0, 0))


def problems_of(root):
    with pytest.raises(DataError) as error:
        list_folder(root)
    return str(error.value).splitlines()


def test_classes_and_images_are_numbered_in_the_order_of_their_names(tmp_path):
    listing = list_folder(two_classes(tmp_path))
    assert listing.class_names == ("blue", "red")
    assert listing.files("train") == ["train/blue/10.PNG", "train/blue/2.png", "train/red/a.png", "train/red/b.png"]
    assert listing.labels("train").tolist() == [0, 0, 1, 1]
    assert listing.files("test") == ["test/blue/y.png", "test/red/x.bmp"]
    assert listing.labels("test").tolist() == [0, 1]


def test_every_ending_is_read_whatever_its_case_and_dot_files_are_passed_over(tmp_path):
    names = ["a.png", "b.JPG", "c.jpeg", "d.Bmp", "e.WEBP"]
    write_files(tmp_path, {f"{split}/one/{name}": RED for split in ("train", "test") for name in names})
    write_files(
        tmp_path, {"train/.hidden/x.png": RED, "train/one/.DS_Store": b"", "train/one/.x.png": b"", ".git": b""}
    )
    assert list_folder(tmp_path).names["train"] == [names]


def test_everything_wrong_with_the_layout_is_said_at_once(tmp_path):
    write_files(
        tmp_path,
        {
            "train/cat/1.png": RED,
            "train/dog/1.png": RED,
            "train/loose.png": RED,
            "test/cat/1.png": RED,
            "test/emu/1.png": RED,
            "test/emu/notes.txt": b"",
            "test/emu/film.gif": b"",
        },
    )
    (tmp_path / "train/empty").mkdir()
    (tmp_path / "test/empty").mkdir()
    (tmp_path / "train/cat/broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "train/cat/fine.png").symlink_to(tmp_path / "train/dog/1.png")
    empty = "the class is empty. Put images in it, or remove it from train/ and test/."
    assert problems_of(tmp_path) == [
        f"{tmp_path}/train: 'loose.png' is no class folder. Move or remove what is no class.",
        f"{tmp_path}/train/cat/broken.png: does not exist; a broken link?",
        f"{tmp_path}/train/empty: {empty}",
        f"{tmp_path}/test/empty: {empty}",
        f"{tmp_path}/test/emu: 2 entries ('film.gif', 'notes.txt') are no .png, .jpg, .jpeg, .bmp, .webp. "
        "Convert or remove.",
        f"{tmp_path}/train: class 'emu' is missing; test/ has it.",
        f"{tmp_path}/test: class 'dog' is missing; train/ has it.",
    ]


def test_a_folder_that_is_not_there_or_has_no_train_and_test_says_what_was_expected(tmp_path):
    (missing,) = problems_of(tmp_path / "nowhere")
    assert missing.startswith(f"{tmp_path}/nowhere: no such folder. Expected {tmp_path}/nowhere/train/<class>/ and ")
    write_files(tmp_path, {"cat/1.png": RED})
    assert [line.partition(". ")[0] for line in problems_of(tmp_path)] == [
        f"{tmp_path}/train: does not exist",
        f"{tmp_path}/test: does not exist",
    ]
    (tmp_path / "train").mkdir()
    (tmp_path / "test").write_bytes(b"")
    assert [line.partition(". ")[0] for line in problems_of(tmp_path)] == [
        f"{tmp_path}/train: no class folders",
        f"{tmp_path}/test: cannot be read (Not a directory)",
    ]


def test_problems_beyond_a_readable_number_are_counted(tmp_path):
    for number in range(MOST_SHOWN + 3):
        write_files(tmp_path, {f"train/{number:02}/1.png": RED})
    write_files(tmp_path, {"test/00/1.png": RED})
    lines = problems_of(tmp_path)  # all classes but the first are missing in test/
    assert len(lines) == MOST_SHOWN + 1
    assert lines[-1] == "... and 2 more problems."


def test_the_stamp_changes_when_an_image_is_rewritten_with_the_same_size_and_time(tmp_path):
    path = two_classes(tmp_path) / "train/red/a.png"
    before, times = list_folder(tmp_path).stamp, path.stat()
    assert list_folder(tmp_path).stamp == before
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert list_folder(tmp_path).stamp != before


@pytest.mark.parametrize(
    ("old", "new"), [("train/red/a.png", "train/red/c.png"), ("test/blue/y.png", "test/red/y.png")]
)
def test_the_stamp_changes_when_an_image_is_renamed_or_moved(tmp_path, old, new):
    write_files(two_classes(tmp_path), {"test/blue/z.png": RED})
    before = list_folder(tmp_path).stamp
    (tmp_path / old).rename(tmp_path / new)
    assert list_folder(tmp_path).stamp != before
