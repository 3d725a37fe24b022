"""Images by name: parsing, fingerprints, every source through the cache, and what is said when one is missing."""

import hashlib
import io
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision
from image_files import encoded, two_classes, write_files

from harness.errors import DataError, StoreError, StudyError
from harness.trainers.images.data.shapes import CLASS_NAMES, draw_shapes, shape_labels
from harness.trainers.images.data.sources import CIFAR_MD5, data_fingerprint, default_cache, load_images, parse_data
from harness.trainers.images.settings import Cifar10, Cifar100, ImageFolder, Settings, Shapes

SHAPES = Shapes(train_images=200, test_images=50)


def same_images(first, second) -> bool:
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def cached_files(cache: Path) -> dict[str, int]:
    """Every image file of a cache and its inode: a file that was written again has another."""
    return {str(path.relative_to(cache)): path.stat().st_ino for path in cache.glob("images/*/*")}


# Names


@pytest.mark.parametrize("text", ["cifar10", "cifar100", "shapes"])
def test_a_name_is_a_kind(text):
    assert parse_data(text) == {"kind": text}
    assert Settings.model_validate({"data": parse_data(text)}).data.kind == text


def test_a_folders_path_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse_data("image-folder:pets") == {"kind": "image-folder", "path": str(tmp_path / "pets")}
    assert parse_data("image-folder:~/pets")["path"] == "/home/someone/pets"
    assert parse_data("image-folder:/a:b")["path"] == "/a:b"
    assert isinstance(Settings.model_validate({"data": parse_data("image-folder:pets")}).data, ImageFolder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar", "no such source. Did you mean 'cifar10'? Known: cifar10, cifar100, shapes, image-folder:PATH."),
        ("imagefolder:/x", "no such source. Did you mean 'image-folder'?"),
        ("", "no such source. Known:"),
        ("image-folder", "the folder is missing. Say image-folder:PATH."),
        ("image-folder:", "the folder is missing. Say image-folder:PATH."),
        ("cifar10:/data", "cifar10 takes no '/data'. Say --data cifar10."),
        ("shapes:", "shapes takes no ''. Say --data shapes."),
        ("/", "to read images from this folder, say --data image-folder:/."),
    ],
)
def test_a_name_that_is_none_says_what_to_say(text, message):
    with pytest.raises(StudyError) as error:
        parse_data(text)
    assert message in str(error.value)


def test_the_cache_lies_where_the_environment_says_or_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("HARNESS_CACHE", "~/elsewhere")
    assert default_cache() == Path("/home/someone/elsewhere")
    for nothing in ("", None):
        monkeypatch.delenv("HARNESS_CACHE") if nothing is None else monkeypatch.setenv("HARNESS_CACHE", nothing)
        assert default_cache() == Path("/home/someone/.cache/harness")


# Shapes


def test_shapes_are_drawn_once_and_mapped_afterwards(tmp_path):
    first = load_images(SHAPES, cache=tmp_path)
    assert np.array_equal(first.train_images, np.concatenate(list(draw_shapes(SHAPES, "train"))))
    assert np.array_equal(first.test_labels, shape_labels(SHAPES, "test"))
    assert first.class_names == CLASS_NAMES
    files = cached_files(tmp_path)
    assert same_images(load_images(SHAPES, cache=tmp_path), first)
    assert cached_files(tmp_path) == files
    assert not first.train_images.flags.writeable


def test_a_fingerprint_of_shapes_or_cifar_needs_no_cache(tmp_path):
    fingerprints = [
        data_fingerprint(data, cache=tmp_path / "none") for data in (SHAPES, Shapes(), Cifar10(), Cifar100())
    ]
    assert len(set(fingerprints)) == 4
    assert {len(fingerprint) for fingerprint in fingerprints} == {16}
    assert not (tmp_path / "none").exists()


def test_a_damaged_cache_is_noticed_and_built_again(tmp_path):
    first = load_images(SHAPES, cache=tmp_path)
    expected = np.array(first.train_images)
    (path,) = tmp_path.glob("images/*/train_images.npy")
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.unlink()  # not in place: `first` is mapped
    path.write_bytes(content)
    assert np.array_equal(load_images(SHAPES, cache=tmp_path).train_images, expected)


@pytest.mark.slow
def test_three_processes_that_build_at_once_build_once(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from harness.trainers.images.settings import Shapes;"
        "from harness.trainers.images.data.sources import load_images; cache = Path(sys.argv[1]);"
        "images = load_images(Shapes(train_images=3000, test_images=10), cache=cache);"
        "(path,) = cache.glob('images/*/train_images.npy');"
        "print(int(images.train_images.sum(dtype='int64')), path.stat().st_ino, path.stat().st_mtime_ns)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(printed) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "images"]


def test_a_cache_that_cannot_be_written_is_an_error_of_the_user(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="Set HARNESS_CACHE to a folder"):
        load_images(SHAPES, cache=tmp_path / "file/cache")


# Folders


def test_a_folder_is_decoded_once(tmp_path, monkeypatch):
    root, cache = two_classes(tmp_path / "pets"), tmp_path / "cache"
    data = ImageFolder(path=str(root), image_size=8)
    fingerprint = data_fingerprint(data, cache=cache)
    monkeypatch.delattr("harness.trainers.images.data.sources.FolderReader")  # from here on nothing may be read
    images = load_images(data, cache=cache)
    assert images.class_names == ("blue", "red")
    assert images.train_images[:, 0, 0].tolist() == [[0, 0, 255], [0, 0, 100], [200, 0, 0], [255, 0, 0]]
    assert images.train_labels.tolist() == [0, 0, 1, 1]
    assert images.test_images.shape == (2, 8, 8, 3)
    assert images.test_labels.tolist() == [0, 1]
    assert data_fingerprint(data, cache=cache) == fingerprint


def test_a_copy_of_a_folder_shares_fingerprint_and_cache(tmp_path):
    root, cache = two_classes(tmp_path / "pets"), tmp_path / "cache"
    copy = shutil.copytree(root, tmp_path / "copy")
    first, second = (ImageFolder(path=str(path), image_size=8) for path in (root, copy))
    assert data_fingerprint(first, cache=cache) == data_fingerprint(second, cache=cache)
    assert same_images(load_images(first, cache=cache), load_images(second, cache=cache))
    assert len(list(cache.glob("images/*"))) == 1


def test_a_changed_image_is_another_data_set(tmp_path):
    root, cache = two_classes(tmp_path / "pets"), tmp_path / "cache"
    data = ImageFolder(path=str(root), image_size=8)
    before = data_fingerprint(data, cache=cache)
    assert load_images(data, cache=cache).train_images[2, 0, 0].tolist() == [200, 0, 0]
    path = root / "train/red/a.png"
    times, size = path.stat(), path.stat().st_size
    path.write_bytes(encoded((100, 0, 0)).ljust(size, b"\0"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == size
    assert load_images(data, cache=cache).train_images[2, 0, 0].tolist() == [100, 0, 0]
    assert data_fingerprint(data, cache=cache) != before


def test_another_image_size_is_the_same_content_decoded_again(tmp_path):
    root, cache = two_classes(tmp_path / "pets"), tmp_path / "cache"
    small, large = (ImageFolder(path=str(root), image_size=size) for size in (4, 16))
    assert data_fingerprint(small, cache=cache) == data_fingerprint(large, cache=cache)
    assert load_images(small, cache=cache).train_images.shape == (4, 4, 4, 3)
    assert load_images(large, cache=cache).train_images.shape == (4, 16, 16, 3)


@pytest.mark.parametrize("damage", ["images", "note", "note of another", "both"])
def test_a_folders_damaged_cache_is_noticed_and_built_again(tmp_path, damage):
    root, cache = two_classes(tmp_path / "pets"), tmp_path / "cache"
    data = ImageFolder(path=str(root), image_size=8)
    fingerprint, expected = data_fingerprint(data, cache=cache), np.array(load_images(data, cache=cache).train_images)
    (note,) = cache.glob("folders/*")
    if damage in ("images", "both"):
        (cache / "images" / f"{fingerprint}-8" / "test_labels.npy").unlink()
    if damage in ("note", "both"):
        note.write_text(note.read_text()[5:])
    if damage == "note of another":
        note.write_text("0123456789abcdef " + note.read_text().split()[1])
    assert np.array_equal(load_images(data, cache=cache).train_images, expected)
    assert data_fingerprint(data, cache=cache) == fingerprint


def test_unreadable_images_are_found_before_anything_is_trained_and_leave_nothing(tmp_path):
    root = write_files(two_classes(tmp_path / "pets"), {"train/red/c.png": b"no image", "test/blue/z.png": b""})
    for look in (data_fingerprint, load_images):
        with pytest.raises(DataError) as error:
            look(ImageFolder(path=str(root)), cache=tmp_path / "cache")
        assert [line.split(": ")[0] for line in str(error.value).splitlines()] == [
            f"{root}/train/red/c.png",
            f"{root}/test/blue/z.png",
        ]
        assert not (tmp_path / "cache").exists()


# CIFAR


def pickled(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


def cifar_pickles(base: str, train: dict[str, int], label_key: str) -> dict[str, bytes]:
    """The files of an archive in CIFAR's layout: rows of 1,024 red, 1,024 green, 1,024 blue values."""
    files = {}
    for name, count in (train | {"test_batch": 2}).items():
        rows = np.repeat(np.arange(3, dtype=np.uint8)[None] + 10 * count, 1024, axis=1)
        files[f"{base}/{name}"] = pickled({"data": rows.repeat(count, axis=0), label_key: [1, 0, 1][:count]})
    return files | {f"{base}/meta": pickled({"names": ["cat", "dog"]})}


def fake_cifar(parent: type, url: str = "", archive: bytes = b"", label_key: str = "labels") -> type:
    """torchvision's data set with other files and no checksums but the archive's."""

    class Fake(parent):  # type: ignore[misc,valid-type]
        base_folder = "fake-batches"
        filename = "fake-cifar.tar.gz"
        tgz_md5 = hashlib.md5(archive).hexdigest()
        train_list = [["batch_1", None], ["batch_2", None]]  # noqa: RUF012
        test_list = [["test_batch", None]]  # noqa: RUF012
        meta = {"filename": "meta", "key": "names", "md5": None}  # noqa: RUF012

    Fake.url = url
    Fake.pickles = cifar_pickles(Fake.base_folder, {"batch_1": 3, "batch_2": 1}, label_key)
    return Fake


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_known_md5_are_torchvisions():
    assert CIFAR_MD5["cifar10"] == torchvision.datasets.CIFAR10.tgz_md5
    assert CIFAR_MD5["cifar100"] == torchvision.datasets.CIFAR100.tgz_md5


@pytest.mark.parametrize(("data", "label_key"), [(Cifar10(), "labels"), (Cifar100(), "fine_labels")])
def test_cifar_comes_through_torchvision_and_is_cached(tmp_path, monkeypatch, data, label_key):
    name = data.kind.upper()
    fake = fake_cifar(getattr(torchvision.datasets, name), label_key=label_key)
    write_files(tmp_path, fake.pickles)
    monkeypatch.setattr(torchvision.datasets, name, fake)
    images = load_images(data, cache=tmp_path)
    assert images.train_images.shape == (4, 32, 32, 3)
    assert images.train_images[:, 0, 0].tolist() == [[30, 31, 32]] * 3 + [[10, 11, 12]]  # channels last, in file order
    assert images.train_labels.tolist() == [1, 0, 1, 1]
    assert (images.train_labels.dtype, images.train_images.dtype) == (np.int64, np.uint8)
    assert images.test_images[:, 0, 0].tolist() == [[20, 21, 22]] * 2
    assert images.class_names == ("cat", "dog")
    monkeypatch.delattr(torchvision.datasets, name)
    shutil.rmtree(tmp_path / "fake-batches")
    assert same_images(load_images(data, cache=tmp_path), images)


@pytest.mark.slow
def test_cifar_is_downloaded_and_checked_by_torchvision(tmp_path, monkeypatch):
    pickles = fake_cifar(torchvision.datasets.CIFAR10).pickles
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in pickles.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    write_files(tmp_path / "served", {"fake-cifar.tar.gz": archive.getvalue()})

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/fake-cifar.tar.gz"
        other = fake_cifar(torchvision.datasets.CIFAR10, url, archive=b"something else")
        monkeypatch.setattr(torchvision.datasets, "CIFAR10", other)
        with pytest.raises(DataError, match="File not found or corrupted"):
            load_images(Cifar10(), cache=tmp_path / "cache")
        monkeypatch.undo()
        right = fake_cifar(torchvision.datasets.CIFAR10, url, archive=archive.getvalue())
        monkeypatch.setattr(torchvision.datasets, "CIFAR10", right)
        images = load_images(Cifar10(), cache=tmp_path / "cache")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert images.train_labels.tolist() == [1, 0, 1, 1]


def test_offline_without_cifar_says_which_file_to_put_where_and_leaves_no_folder(tmp_path, monkeypatch):
    fake = fake_cifar(torchvision.datasets.CIFAR10, f"http://127.0.0.1:{closed_port()}/fake-cifar.tar.gz")
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake)
    cache = tmp_path / "cache"
    with pytest.raises(DataError) as error:
        load_images(Cifar10(), cache=cache)
    message = str(error.value)
    assert message.startswith(f"fake-cifar.tar.gz is not in {cache} and cannot be downloaded (")
    assert f"Put it there yourself (md5 {fake.tgz_md5}, from {fake.url})" in message
    assert "--data shapes" in message
    assert "--data image-folder:PATH" in message
    assert error.value.__suppress_context__
    assert not cache.exists()
