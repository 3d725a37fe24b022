"""Pictures of test examples as the plain values that plotly takes. Imports no plotly."""

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.report.example_data import Gallery, Thumbnail

ROWS = (3.0, 1.35)  # where the gained ones begin, and the lost ones, from below


def gallery_layout(data: Gallery) -> dict[str, Any]:
    """The pictures, and what is written at them."""
    titles = zip((f"gained by {data.change}", "lost"), ROWS, strict=True)
    heads = [_text(0.0, top, title, 13, xanchor="left", yanchor="bottom") for title, top in titles]
    said = [
        _text(
            place + 0.5,
            top - 1.02,
            f"{it.label}<br>{it.before} → {it.after} of {data.num_seeds}",
            10,
            xanchor="center",
            yanchor="top",
        )
        for it, place, top in _placed(data)
    ]
    size = {"xref": "x", "yref": "y", "sizex": 0.9, "sizey": 0.95, "layer": "above"}
    pictures = [
        {"source": png_address(it.pixels), "x": place + 0.05, "y": top - 0.05, **size}
        for it, place, top in _placed(data)
    ]
    return {"annotations": [*heads, *said], "images": pictures}


def gallery_points(data: Gallery) -> dict[str, Any]:
    """An unseen point in each picture, for what a pointer reads."""
    placed = list(_placed(data))
    return {
        "x": [place + 0.5 for _, place, _ in placed],
        "y": [top - 0.5 for *_, top in placed],
        "mode": "markers",
        "marker": {"size": 30, "opacity": 0},
        "text": [f"test example {it.place}: {it.label}" for it, *_ in placed],
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
    }


def _placed(data: Gallery) -> Iterator[tuple[Thumbnail, int, float]]:
    for shown, top in zip((data.gained, data.lost), ROWS, strict=True):
        for place, it in enumerate(shown):
            yield it, place, top


def _text(x: float, y: float, text: str, size: int, **anchors: str) -> dict[str, Any]:
    return {"x": x, "y": y, "text": text, "showarrow": False, "font": {"size": size}, **anchors}


def png_address(pixels: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) as an address that holds it, PNG in base64."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(content)).decode()
