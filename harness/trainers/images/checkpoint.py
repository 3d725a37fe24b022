"""One file from which a cell continues, written atomically; tensors and plain types only.

The file is a line `harness-checkpoint 1 <sha256 of the rest>`, then what `torch.save` writes: PyTorch itself does not
notice a flipped bit. What the state holds is up to `train.py`.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harness.errors import StoreError
from harness.files.atomic import write_atomically

_MAGIC = b"harness-checkpoint 1 "


class UnusableCheckpointError(Exception):
    """The file is damaged or belongs to another cell; the cell has to start again. The message says which."""


def save_checkpoint(path: Path, key: str, state: Mapping[str, Any]) -> None:
    """Replace `path` by the state, so that a reader finds the old file or the new one, whole, after any death.

    Args:
        key: of the cell; `load_checkpoint` refuses another one's.
        state: tensors, numbers, strings, None, and lists and dicts of them.

    Raises:
        StoreError: the file cannot be written (disk full, read-only); the old one is as it was.
    """
    buffer = io.BytesIO()
    torch.save({"key": key, "state": dict(state)}, buffer)
    payload = buffer.getbuffer()
    head = _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
    write_file(path, head, payload)


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The state that was saved last, its tensors on the CPU; None where there is no file.

    Raises:
        UnusableCheckpointError: damaged, or of a cell with another key.
        StoreError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise UnusableCheckpointError(f"{path.name} is a folder") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
    head, _, payload = content.partition(b"\n")
    if head != _MAGIC + hashlib.sha256(payload).hexdigest().encode():
        raise UnusableCheckpointError(f"{path.name} is damaged: its checksum does not fit its content")
    try:
        saved = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UnusableCheckpointError(f"{path.name} cannot be read by torch {torch.__version__}: {error}") from error
    if saved["key"] != key:
        raise UnusableCheckpointError(f"{path.name} belongs to cell {saved['key']}, not to {key}")
    state: dict[str, Any] = saved["state"]
    return state


def write_file(path: Path, *content: bytes | memoryview) -> None:
    """Replaces a file of the cell as a whole.

    Raises:
        StoreError: the file cannot be written; a file that was there is as it was.
    """
    try:
        write_atomically(path, *content, one_writer=True)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror}. Free space or change the folder's permissions; "
            "the same command then continues from the last checkpoint"
        ) from error
