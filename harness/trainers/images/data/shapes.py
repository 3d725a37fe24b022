"""The drawn data set: 32x32 RGB images of ten shapes, from a seed and nothing else.

A shape is a signed distance function: negative inside, positive outside, in units of its own radius. How much of a
pixel it covers is its distance in pixels, clipped to one pixel around the edge, which antialiases. What makes the task
hard is what a network must learn to ignore: colours, position, size, rotation, bars behind and before the shape, noise.

The same settings give the same bytes on every machine and with every NumPy: numbers come from the raw output of PCG64,
whose stream is guaranteed, and pixels from operations that IEEE 754 rounds exactly (+ - * / sqrt, comparisons). Sines,
the only others, are rounded to a coarse grid. No BLAS, no normal deviates.

Does not belong here: the cache and the choice of a source (`sources.py`), tensors (`data.py`).

Axes: N images, H rows, W columns, C channels (red, green, blue). Coordinates run from -1 to 1, x rightwards, y upwards.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.trainers.images.settings import Shapes

VERSION = 1  # of the drawing: whoever changes a pixel raises it, because fingerprints hold it
IMAGE_SIZE = 32
CHUNK = 128  # images drawn at a time: their planes (float32, 128 x 32 x 32) stay in the processor's cache

# How hard it is: tuned with the report's network, see `tests/test_shapes.py`. Half the image's side is 1, colours are
# in [0, 1]; pairs are the ends of a uniform distribution. The shape is brighter than its background in every channel:
# with either sign at random, plain SGD needs thousands of steps before it learns anything.
RADIUS = (0.5, 0.9)
PLACE = (-0.5, 0.5)  # of the centre; 1 is where the shape touches the border
BACKGROUND = (0.0, 0.35)
BACKGROUND_SLOPE = (-0.3, 0.3)  # change of colour from the middle to the border
CONTRAST = (0.35, 0.8)  # shape minus background
BARS_BEHIND, BARS_BEFORE = 2, 2
BAR_LENGTH, BAR_WIDTH = (0.15, 0.5), (0.04, 0.14)  # half of each
NOISE = (0.1, 0.8)  # greatest deviation of a pixel; its standard deviation is 0.41 of that

Split = Literal["train", "test"]
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Plane = npt.NDArray[np.float32]  # a number for each pixel, (N, H, W), or one for each image, (N, 1, 1)
Distance = Callable[[Plane, Plane], Plane]

_PIXEL = 2 / IMAGE_SIZE
_AXIS = ((np.arange(IMAGE_SIZE) + 0.5) * _PIXEL - 1).astype(np.float32)
_X, _Y = _AXIS[None, None, :], -_AXIS[None, :, None]


def shapes_fingerprint(data: Shapes) -> str:
    """Short hash of what the images are made from: the settings and the version of the drawing. Draws nothing."""
    identity = f"shapes {VERSION} {data.seed} {data.train_images} {data.test_images}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def shape_labels(data: Shapes, split: Split) -> Labels:
    """The class of each image, in random order; the classes' counts differ by one at most."""
    count = data.train_images if split == "train" else data.test_images
    labels: Labels = _Stream(data, split).order(count) % len(SHAPES)
    return labels


def draw_shapes(data: Shapes, split: Split) -> Iterator[Pixels]:
    """The images of a split, (N, H, W, C), `CHUNK` at a time, in the order of `shape_labels`.

    The streams of train and test are disjoint: each chunk has its own, derived from (seed, version, split, position).
    """
    labels = shape_labels(data, split)
    for start in range(0, len(labels), CHUNK):
        yield _draw(_Stream(data, split, start + 1), labels[start : start + CHUNK])


class _Stream:
    """Random numbers from the raw 64-bit output of a generator: NumPy may change how it makes others from it."""

    def __init__(self, data: Shapes, split: Split, part: int = 0) -> None:
        key = (VERSION, ("train", "test").index(split), part)
        self._bits = np.random.PCG64(np.random.SeedSequence(data.seed, spawn_key=key))

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Plane:
        """From [low, high), in steps of 2**-24 of its width: what a float32 holds."""
        raw = self._bits.random_raw(int(np.prod(shape))).reshape(shape)
        unit = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return unit * np.float32(high - low) + np.float32(low)

    def bytes(self, shape: tuple[int, ...]) -> Pixels:
        count = int(np.prod(shape))
        return self._bits.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count].reshape(shape)

    def order(self, count: int) -> Labels:
        """The numbers below `count`, shuffled."""
        return np.argsort(self._bits.random_raw(count), kind="stable").astype(np.int64)

    def turned(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Coordinates in a frame at a random angle, one for each image."""
        chosen = self._bits.random_raw(len(x)) % np.uint64(len(_TURNS))
        sine, cosine = _TURNS[chosen].T[:, :, None, None]
        return x * cosine + y * sine, y * cosine - x * sine


def _directions(count: int) -> npt.NDArray[np.float32]:
    """Unit vectors at equal angles, (count, 2), the first upwards; rounded, lest a platform's sine show."""
    angles = 2 * np.pi / count * np.arange(count)
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).round(6).astype(np.float32)


_TURNS = _directions(4096)


def _draw(stream: _Stream, labels: Labels) -> Pixels:
    count = len(labels)
    colour = stream.uniform((3, count, 1, 1), *BACKGROUND)
    along, _ = stream.turned(np.broadcast_to(_X, (count, 1, IMAGE_SIZE)), _Y)
    scene = colour + stream.uniform((3, count, 1, 1), *BACKGROUND_SLOPE) * along
    for _ in range(BARS_BEHIND):
        _paint_bars(scene, stream)
    _paint(scene, _shapes_distance(stream, labels), colour + stream.uniform((3, count, 1, 1), *CONTRAST))
    for _ in range(BARS_BEFORE):
        _paint_bars(scene, stream)
    first, second = stream.bytes((2, *scene.shape)).astype(np.float32)
    noise = (first + second) / np.float32(255) - np.float32(1)  # triangular: near enough to a bell, and exact
    scene += noise * stream.uniform((count, 1, 1), *NOISE)
    pixels = np.clip(scene, 0, 1) * np.float32(255) + np.float32(0.5)
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(1, 2, 3, 0))


def _shapes_distance(stream: _Stream, labels: Labels) -> Plane:
    """Distance of every pixel to its image's shape, which has a random place, size and angle."""
    count = len(labels)
    radius = stream.uniform((count, 1, 1), *RADIUS)
    free = np.float32(1) - radius
    x = _X - stream.uniform((count, 1, 1), *PLACE) * free
    y = _Y - stream.uniform((count, 1, 1), *PLACE) * free
    x, y = stream.turned(x / radius, y / radius)
    distance = np.empty_like(x)
    for label, shape in enumerate(SHAPES.values()):
        chosen = labels == label
        distance[chosen] = shape(x[chosen], y[chosen])
    return distance * radius


def _paint_bars(scene: Plane, stream: _Stream) -> None:
    """A bar of random colour, length, width, place and angle in each image."""
    count = scene.shape[1]
    x = _X - stream.uniform((count, 1, 1), -1, 1)
    y = _Y - stream.uniform((count, 1, 1), -1, 1)
    x, y = stream.turned(x, y)
    length, width = stream.uniform((count, 1, 1), *BAR_LENGTH), stream.uniform((count, 1, 1), *BAR_WIDTH)
    distance = np.maximum(np.abs(x) - length, np.abs(y) - width)
    _paint(scene, distance, stream.uniform((3, count, 1, 1), 0, 1))


def _paint(scene: Plane, distance: Plane, colour: Plane) -> None:
    covered = np.clip(np.float32(0.5) - distance / np.float32(_PIXEL), 0, 1)
    scene += (colour - scene) * covered


def _edges(x: Plane, y: Plane, count: int, inradius: float) -> list[Plane]:
    """Distances to the lines that the edges of a regular polygon lie on, a corner upwards."""
    return [-x * u - y * v - np.float32(inradius) for u, v in _directions(count)]


def _polygon(x: Plane, y: Plane, corners: int, inradius: float) -> Plane:
    return reduce(np.maximum, _edges(x, y, corners, inradius))


def _box(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    return np.maximum(np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height))


def _disc(x: Plane, y: Plane, radius: float = 0.9) -> Plane:
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _ring(x: Plane, y: Plane) -> Plane:
    return np.abs(_disc(x, y, 0.74)) - np.float32(0.24)


def _star(x: Plane, y: Plane) -> Plane:
    """A pentagram holds the points beyond at most one of its five lines, so the second largest distance tells."""
    largest, *others = _edges(x, y, 5, 0.36)
    second = np.full_like(largest, -np.inf)
    for distance in others:
        second = np.maximum(second, np.minimum(largest, distance))
        largest = np.maximum(largest, distance)
    return second


def _cross(x: Plane, y: Plane) -> Plane:
    return np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))


def _crescent(x: Plane, y: Plane) -> Plane:
    return np.maximum(_disc(x, y, 0.98), -_disc(x - np.float32(0.45), y, 0.78))


def _arrow(x: Plane, y: Plane) -> Plane:
    return np.minimum(_polygon(x, y - np.float32(0.3), 3, 0.36), _box(x, y + np.float32(0.5), 0.2, 0.48))


def _heart(x: Plane, y: Plane) -> Plane:
    """A square on its corner, and a disc on each of its upper edges."""
    half, tilt = np.float32(0.52), np.float32(0.7071)
    square = _box((x + y) * tilt, (x - y) * tilt, 0.52, 0.52)
    return np.minimum(square, _disc(np.abs(x) - half * tilt, y - half * tilt, 0.52))


SHAPES: dict[str, Distance] = {
    "arrow": _arrow,
    "crescent": _crescent,
    "cross": _cross,
    "disc": _disc,
    "heart": _heart,
    "hexagon": lambda x, y: _polygon(x, y, 6, 0.86),
    "ring": _ring,
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "star": _star,
    "triangle": lambda x, y: _polygon(x, y, 3, 0.55),
}
CLASS_NAMES = tuple(SHAPES)
