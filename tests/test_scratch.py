"""Temporary folders: whose owner lives, whose owner was killed, and what is nobody's business."""

import os
import signal

import pytest

from harness.files import scratch as module
from harness.files.atomic import write_new
from harness.files.scratch import PREFIX, scratch


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    module._clear_away.cache_clear()
    return tmp_path


def test_what_a_killed_process_left_goes_and_nothing_else(place):
    (place / "harness-data").mkdir()  # somebody's
    os.symlink(place / "harness-data", place / f"{PREFIX}link")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with scratch() as folder:
            (folder / "file").touch()
            os.write(write, os.fsencode(folder))
            signal.pause()
    left = os.fsdecode(os.read(read, 1_000))
    module._clear_away(place)
    assert os.listdir(left) == ["file"], "its owner lives"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    module._clear_away.cache_clear()
    with scratch() as folder:
        assert sorted(place.iterdir()) == sorted([place / "harness-data", folder, place / f"{PREFIX}link"])
    assert not folder.exists()


def test_a_folder_that_was_taken_for_a_dead_ones_is_made_again(place, monkeypatch):
    """Between its making and its lock."""
    real, made = module.tempfile.mkdtemp, []

    def mkdtemp(**options):
        made.append(real(**options))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(module.tempfile, "mkdtemp", mkdtemp)
    with scratch() as folder:
        assert str(folder) == made[1]
        assert folder.is_dir()


def test_a_new_file_has_no_name_before_it_is_whole(tmp_path, monkeypatch):
    def dies(descriptor):
        assert list(tmp_path.iterdir()) == []
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", dies)
        with pytest.raises(KeyboardInterrupt):
            write_new(tmp_path / "study.yaml", "name: one\n")
    assert list(tmp_path.iterdir()) == []
    write_new(tmp_path / "study.yaml", "name: one\n")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "study.yaml", "name: two\n")
    assert (tmp_path / "study.yaml").read_text() == "name: one\n"
