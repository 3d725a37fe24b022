"""Decoded images on disk: complete or absent, checked at every opening, one builder at a time."""

import resource
import threading

import numpy as np
import pytest

from harness.errors import StoreError
from harness.trainers.images.data.cache import ARRAYS, ImageChunks, locked, open_images, store_images, write_text

RANDOM = np.random.default_rng(0)
TRAIN = RANDOM.integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
TEST = RANDOM.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
TRAIN_LABELS, TEST_LABELS = np.arange(10, dtype=np.int64) % 2, np.array([1, 0, 1], dtype=np.int64)
NAMES = ("cat", "dög")
FILES = [*(f"{name}.npy" for name in ARRAYS), "facts.json"]


def chunks(train=None) -> ImageChunks:
    """The ten training images in chunks of 4, 4 and 2."""
    parts = [TRAIN[:4], TRAIN[4:8], TRAIN[8:]] if train is None else train
    return ImageChunks(parts, TRAIN_LABELS, [TEST], TEST_LABELS, NAMES)


def assert_sound(images) -> None:
    assert np.array_equal(images.train_images, TRAIN)
    assert np.array_equal(images.train_labels, TRAIN_LABELS)
    assert np.array_equal(images.test_images, TEST)
    assert np.array_equal(images.test_labels, TEST_LABELS)
    assert images.class_names == NAMES


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def test_what_was_stored_in_chunks_is_opened_whole_and_read_only(tmp_path):
    store_images(tmp_path, chunks(), "key")
    images = open_images(tmp_path, "key")
    assert_sound(images)
    assert [array.dtype for array in (images.train_images, images.train_labels)] == [np.uint8, np.int64]
    assert type(images.train_images) is np.ndarray
    assert images.train_images.flags.c_contiguous
    assert not images.train_images.flags.writeable
    assert np.array_equal(np.load(tmp_path / "images/key/test_images.npy"), TEST)  # a plain NumPy file


def test_a_key_that_was_not_stored_is_absent(tmp_path):
    assert open_images(tmp_path, "key") is None
    store_images(tmp_path, chunks(), "other")
    assert open_images(tmp_path, "key") is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "longer", "first byte", "last byte"])
def test_a_damaged_cache_counts_as_absent_and_can_be_written_again(tmp_path, name, damage):
    store_images(tmp_path, chunks(), "key")
    path = tmp_path / "images/key" / name
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "truncated": content[:-1],
        "longer": content + b"\0",
        "first byte": flipped(content, 0),
        "last byte": flipped(content, len(content) - 1),
    }
    path.unlink()
    if damage != "missing":
        path.write_bytes(damaged[damage])
    assert open_images(tmp_path, "key") is None
    store_images(tmp_path, chunks(), "key")
    assert_sound(open_images(tmp_path, "key"))


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_goes_unnoticed(tmp_path, name):
    store_images(tmp_path, chunks(), "key")
    path = tmp_path / "images/key" / name
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(flipped(content, position))
        assert open_images(tmp_path, "key") is None, f"byte {position}"
    path.write_bytes(content)
    assert_sound(open_images(tmp_path, "key"))


def test_a_key_may_depend_on_what_was_read(tmp_path):
    seen = []

    def parts():
        for part in (TRAIN[:4], TRAIN[4:]):
            seen.append(len(part))
            yield part

    assert store_images(tmp_path, chunks(parts()), lambda: f"key-{sum(seen)}") == "key-10"
    assert_sound(open_images(tmp_path, "key-10"))


def test_a_writer_that_fails_or_was_killed_leaves_nothing_that_opens(tmp_path):
    def fails():
        yield TRAIN[:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_images(tmp_path, chunks(fails()), "key")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".draft").mkdir()  # what a killed one leaves
    (tmp_path / ".draft/rest.npy").write_bytes(b"rest")
    store_images(tmp_path, chunks(), "key")
    assert sorted(path.name for path in (tmp_path / "images/key").iterdir()) == sorted(FILES)
    assert not (tmp_path / ".draft").exists()


def test_fewer_images_than_labels_are_our_own_mistake(tmp_path):
    with pytest.raises(AssertionError, match="train_images: 4 rows for 10 labels"):
        store_images(tmp_path, chunks([TRAIN[:4]]), "key")


def test_a_full_disk_is_said_in_one_sentence_and_leaves_nothing(tmp_path):
    big = np.zeros((1, 1024, 1024, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # fails as a full disk does: in write()
    try:
        with pytest.raises(StoreError) as error:
            store_images(tmp_path, ImageChunks([big], TEST_LABELS[:1], [TEST], TEST_LABELS, NAMES), "key")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value) == (
        f"{tmp_path}: there is no space left for decoded images. "
        "Free some, or set HARNESS_CACHE to a folder on another disk."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = tmp_path / "file/cache"
    for attempt in (lambda: store_images(cache, chunks(), "key"), lambda: write_text(cache / "note", "text")):
        with pytest.raises(StoreError, match=r"cannot be written \(Not a directory\). Set HARNESS_CACHE to a folder"):
            attempt()
    with pytest.raises(StoreError, match="Set HARNESS_CACHE"), locked(cache):
        pass


def test_a_lock_leaves_no_empty_cache_behind_and_touches_no_other(tmp_path):
    with locked(tmp_path / "new/cache"):
        assert (tmp_path / "new/cache").is_dir()
    assert not (tmp_path / "new/cache").exists()
    with locked(tmp_path / "cache"):
        write_text(tmp_path / "cache/folders/note", "text")
    assert (tmp_path / "cache/folders/note").read_text() == "text"
    with pytest.raises(KeyError), locked(tmp_path / "other"):
        raise KeyError
    assert not (tmp_path / "other").exists()


def test_builders_exclude_each_other_even_when_the_first_one_removes_the_cache(tmp_path):
    cache, inside, done = tmp_path / "cache", threading.Event(), []

    def second():
        with locked(cache):
            inside.set()
            done.append((cache / ".lock").exists())

    with locked(cache):
        thread = threading.Thread(target=second)
        thread.start()
        assert not inside.wait(0.2)
    thread.join(10)
    assert done == [True]
