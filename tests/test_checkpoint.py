import os

import pytest
import torch

from harness.errors import StoreError
from harness.trainers.images.checkpoint import (
    UnusableCheckpointError,
    load_checkpoint,
    save_checkpoint,
    write_file,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pt"


def state(value: float = 1.0) -> dict[str, object]:
    tensor = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last) * value
    return {
        "weights": {"a": tensor},
        "random": torch.get_rng_state(),
        "step": 7,
        "history": [{"loss": 0.1}],
        "none": None,
    }


def test_what_was_saved_comes_back(path):
    save_checkpoint(path, "k1", state())
    loaded = load_checkpoint(path, "k1")
    assert torch.equal(loaded["weights"]["a"], state()["weights"]["a"])
    assert loaded["weights"]["a"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(loaded["random"], state()["random"])
    assert {name: loaded[name] for name in ("step", "history", "none")} == {
        "step": 7,
        "history": [{"loss": 0.1}],
        "none": None,
    }


def test_no_file_is_no_state(path):
    assert load_checkpoint(path, "k1") is None


def test_another_cells_checkpoint_is_refused(path):
    save_checkpoint(path, "k1", state())
    with pytest.raises(UnusableCheckpointError, match="belongs to cell k1, not to k2"):
        load_checkpoint(path, "k2")


def test_a_flipped_bit_anywhere_is_noticed(path):
    save_checkpoint(path, "k1", state())
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UnusableCheckpointError, match="damaged"):
            load_checkpoint(path, "k1")


@pytest.mark.parametrize("length", [0, 10, 500, -1])
def test_a_truncated_file_is_noticed(path, length):
    save_checkpoint(path, "k1", state())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UnusableCheckpointError, match="damaged"):
        load_checkpoint(path, "k1")


def test_a_failed_write_leaves_the_old_checkpoint(path, monkeypatch):
    save_checkpoint(path, "k1", state())

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(StoreError, match=r"checkpoint\.pt: cannot be written: No space left on device"):
        save_checkpoint(path, "k1", state(2.0))
    monkeypatch.undo()
    assert torch.equal(load_checkpoint(path, "k1")["weights"]["a"], state()["weights"]["a"])


def test_the_rest_of_a_killed_write_does_not_collect(path):
    (path.parent / ".checkpoint.pt.part").write_bytes(b"half")
    save_checkpoint(path, "k1", state())
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_missing_folder_is_an_error_of_the_user(tmp_path):
    with pytest.raises(StoreError, match="No such file or directory"):
        write_file(tmp_path / "nowhere" / "file", b"x")


def test_a_checkpoint_holds_no_code(path):
    """Anything but tensors and plain types could run code when it is loaded; it must not even be readable."""
    save_checkpoint(path, "k1", {"path": path})
    with pytest.raises(UnusableCheckpointError, match="cannot be read"):
        load_checkpoint(path, "k1")


def test_a_folder_where_the_checkpoint_should_be_is_unusable_and_no_error_of_the_store(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(UnusableCheckpointError, match="is a folder"):
        load_checkpoint(tmp_path / "checkpoint", "key")
