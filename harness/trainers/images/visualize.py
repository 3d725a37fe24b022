"""What a trained network looks like inside: filters of its first convolution, maps of any layer, as labelled grids.

A grid is data (panels with labels) until `draw` makes a PNG of it. Which cell's network it is, is up to the caller.

Axes: N images, C channels, H rows, W columns.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from harness.errors import DataError, StudyError
from harness.names import suggestion
from harness.trainers.images.data.reader import decode_image
from harness.trainers.images.settings import Preprocessing
from harness.trainers.images.trained import Classifier

COLUMNS, MOST_ROWS = 8, 8
MOST_PANELS = COLUMNS * MOST_ROWS
PANEL_INCHES, LABEL_INCHES, TITLE_INCHES = 1.15, 0.16, 0.3

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Panel:
    """One small picture: (H, W, 3) in [0, 1] for colours, (H, W) for values, which span the whole scale."""

    label: str
    values: Values


@dataclass(frozen=True)
class Grid:
    """Pictures under one title."""

    title: str
    panels: tuple[Panel, ...]


def filter_grid(network: nn.Module, title: str) -> Grid:
    """The filters of the first convolution as colours: grey is zero, each filter is scaled by its largest weight.

    Raises:
        StudyError: the network has no convolution that takes the three colours.
    """
    name, layer = find_layer(network, "first")
    assert isinstance(layer, nn.Conv2d)
    weights: Values = layer.weight.detach().float().permute(0, 2, 3, 1).numpy()
    if weights.shape[3] != 3:
        raise StudyError(f"layer {name!r} takes {weights.shape[3]} channels, so its filters have no colours to show.")
    largest = np.abs(weights).max(axis=(1, 2, 3))
    colours: Values = 0.5 + 0.5 * weights / np.where(largest > 0, largest, 1)[:, None, None, None]
    panels = (Panel(f"{channel}: ±{largest[channel]:.2g}", it) for channel, it in enumerate(colours[:MOST_PANELS]))
    shown = _how_many(len(weights), MOST_PANELS, "filters", weights.shape[1:3])
    return Grid(f"{title}: {shown} of {name}; grey is zero", tuple(panels))


def activation_grid(network: nn.Module, layer: str, image: Pixels, preprocessing: Preprocessing, title: str) -> Grid:
    """The image, then what a layer makes of it: a map for each channel, each on a scale of its own.

    Args:
        network: in evaluation mode.
        layer: as `find_layer` takes it.
        image: (H, W, 3), as large as the network takes it.

    Raises:
        StudyError: no such layer, or its output is not maps.
    """
    name, module = find_layer(network, layer)
    outputs: list[Tensor] = []
    # A copy: the next layer may well work in place.
    handle = module.register_forward_hook(lambda *call: outputs.append(call[2].detach().clone()))
    colours = image.astype(np.float32) / 255
    try:
        with torch.no_grad():
            Classifier(network, preprocessing)(torch.from_numpy(colours).permute(2, 0, 1)[None])
    finally:
        handle.remove()
    if not outputs or outputs[0].dim() != 4:
        raise StudyError(f"--layer {layer}: what it gives is not maps. {_layers_in_words(network)}")
    maps = outputs[0][0].numpy()
    room = MOST_PANELS - 1
    panels = [Panel(_range(channel, values), values) for channel, values in enumerate(maps[:room])]
    shown = _how_many(len(maps), room, "channels", maps.shape[1:])
    return Grid(f"{title}: {shown} after {name}", (Panel("the image", colours), *panels))


def find_layer(network: nn.Module, layer: str) -> tuple[str, nn.Module]:
    """Name and module of a layer.

    Args:
        layer: a name in `network.named_modules()`; `first` or `last` for that convolution; `conv3` for the third one,
            unless a module has that name.

    Raises:
        StudyError: there is none; the message lists the convolutions.
    """
    modules = {name: module for name, module in network.named_modules() if name}
    convolutions = convolutions_of(network)
    if not convolutions:
        raise StudyError(f"this network ({type(network).__name__}) has no convolution, so it makes no maps.")
    ends = {"first": next(iter(convolutions)), "last": list(convolutions)[-1]}
    numbered = {f"conv{number}": name for number, name in enumerate(convolutions, start=1)}
    name = layer if layer in modules else (numbered | ends).get(layer, "")
    if not name:
        hint = suggestion(layer, [*ends, *numbered, *modules])
        raise StudyError(f"--layer {layer}: no such layer.{hint} {_layers_in_words(network)}")
    return name, modules[name]


def convolutions_of(network: nn.Module) -> Mapping[str, nn.Conv2d]:
    """The convolutions by name, in the order of construction."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def read_image(path: Path, side: int) -> tuple[Pixels, list[str]]:
    """An image file as square pixels (H, W, 3), decoded as images of a folder are, and remarks on what that took.

    Raises:
        DataError: the file cannot be read, or is no image.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        pixels = decode_image(content, side)
    except OSError as error:
        raise DataError(f"--image {path}: cannot be read ({error.strerror}). Name an image file.") from None
    except DataError as error:
        raise DataError(f"--image {path}: {error}") from None
    with Image.open(io.BytesIO(content)) as file:
        is_grey, is_clear, size = (
            file.mode in ("1", "L", "LA") or file.mode[0] == "I",
            file.has_transparency_data,
            file.size,
        )
    remarks = ["is greyscale: all three channels show the same"] if is_grey else []
    remarks += ["has transparency: it was laid on white"] if is_clear else []
    remarks += [f"is {size[0]}x{size[1]}: it was squeezed to a square"] if size[0] != size[1] else []
    return pixels, [f"{path} {remark}." for remark in remarks]


def draw(grid: Grid) -> bytes:
    """The grid as the bytes of a PNG file; values from dark (lowest) to bright (highest of the panel)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(grid.panels))
    rows = ceil(len(grid.panels) / columns)
    height = rows * (PANEL_INCHES + LABEL_INCHES) + TITLE_INCHES
    figure = Figure(figsize=(max(columns * PANEL_INCHES, 6.0), height), dpi=150, layout="constrained")
    figure.suptitle(grid.title, fontsize=8, wrap=True)
    for index, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if index < len(grid.panels):
            panel = grid.panels[index]
            axes.imshow(panel.values, cmap="viridis", interpolation="nearest")
            axes.set_title(panel.label, fontsize=6, pad=2)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _range(channel: int, values: Values) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{channel}: {low:.2g} everywhere" if low == high else f"{channel}: {low:.2g} to {high:.2g}"


def _how_many(count: int, most: int, what: str, size: tuple[int, ...]) -> str:
    shown = f"the first {most} of {count}" if count > most else f"{count}"
    return f"{shown} {what} ({'x'.join(map(str, size))})"


def _layers_in_words(network: nn.Module) -> str:
    names = ", ".join(f"conv{number} ({name})" for number, name in enumerate(convolutions_of(network), start=1))
    return f"Its convolutions are: {names}; `first` and `last` are the ends. Other modules go by their own names."
