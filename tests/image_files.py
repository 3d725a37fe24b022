"""Small image folders for tests."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(colour: tuple[int, int, int], size: int = 8, kind: str = "PNG") -> bytes:
    """An image file of one colour."""
    return encoded_pixels(np.full((size, size, 3), colour, dtype=np.uint8), kind)


def encoded_pixels(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    """Writes files by relative path, in the order given."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def two_classes(root: Path) -> Path:
    """`train/` and `test/` with a red and a blue class; names written in an order that is not theirs."""
    red, blue, dark = encoded((255, 0, 0)), encoded((0, 0, 255)), encoded((0, 0, 100))
    return write_files(
        root,
        {
            "train/red/b.png": red,
            "train/blue/2.png": dark,
            "train/blue/10.PNG": blue,
            "train/red/a.png": encoded((200, 0, 0)),
            "test/red/x.bmp": encoded((255, 0, 0), kind="BMP"),
            "test/blue/y.png": blue,
        },
    )
