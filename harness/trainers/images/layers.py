"""A model as a list of layers, as data: the shapes, receptive fields, parameters and multiplications of each.

The description mirrors the constructors of `torch.nn` and needs no torch, so that a study's models can be counted
before anything is built; the tests hold it against the built modules. Which sizes fit is decided in `conv_sizes.py`.
A layer is counted as it stands in a chain; of a branch that is added to its own input, the layers of the branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import prod
from typing import Literal, TypeAlias, get_args

from harness.errors import StudyError
from harness.trainers.images.conv_sizes import Window, output_size, receptive_fields, same_padding

Shape: TypeAlias = tuple[int, ...]  # (channels, height, width) of one image, or (features,) once flattened
Pooling = Literal["max", "avg", "stride"]


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution with a bias, square kernel and zero padding."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """Maximum or mean over square windows that do not overlap."""

    kind: Literal["max", "avg"]
    kernel_size: int


@dataclass(frozen=True, slots=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True, slots=True)
class Activation:
    """Any other function of each value alone."""

    name: str


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch normalization with a learned scale and shift for each channel, or for each feature once flattened."""

    num_features: int


@dataclass(frozen=True, slots=True)
class Flatten:
    """An image's channels, rows and columns in one row of features."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Fully connected layer with a bias."""

    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class Dropout:
    """Each value is zeroed with this probability while training."""

    probability: float


Layer: TypeAlias = Conv | Pool | ReLU | Activation | BatchNorm | Flatten | Linear | Dropout

_KINDS = {Conv: "conv", ReLU: "relu", BatchNorm: "batch-norm", Flatten: "flatten", Linear: "linear", Dropout: "dropout"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer in numbers.

    Attributes:
        layer: the kind and a number that counts within the kind, from 1: `conv2`.
        kind: `conv`, `max-pool`, `avg-pool`, `relu` or another activation's name, `batch-norm`, `flatten`, `linear` or
            `dropout`.
        output_shape: of one image: (channels, height, width), or (features,).
        kernel: pixels along one side of the window; None without a window.
        stride: of this layer alone; None without a window.
        total_stride: input pixels between neighbouring outputs; None from the flattening on.
        receptive_field: input pixels along one side that can change one output, padding included, statistics of batch
            normalization apart; None from the flattening on, where each output sees the whole image.
        parameters: learned numbers, biases included, running statistics of batch normalization not.
        macs: multiply-accumulate operations for one image, of convolutions and fully connected layers only: biases,
            pooling, activations and normalization count as none, as is customary.
    """

    layer: str
    kind: str
    output_shape: Shape
    kernel: int | None
    stride: int | None
    total_stride: int | None
    receptive_field: int | None
    parameters: int
    macs: int


def convnet_layers(
    *,
    filters: Sequence[int],
    kernel_size: int,
    pooling: Pooling,
    batch_norm: bool,
    batch_norm_fc: bool,
    dropout: float,
    hidden_units: int,
    image_size: int = 32,
    in_channels: int = 3,
    num_classes: int = 10,
    activation: str = "relu",
    residual: bool = False,
) -> tuple[Layer, ...]:
    """The report's network: for each entry of `filters` a block, then two fully connected layers.

    A block is convolution ("same" padding), ReLU, pooling over 2x2, [batch normalization]; with pooling "stride" the
    convolution has stride 2 and there is no pooling. With `residual`, a branch of convolution, ReLU,
    [batch normalization] follows each block. Then flatten, hidden fully connected layer, ReLU,
    [batch normalization], [dropout], fully connected layer with one output for each class.

    Args:
        dropout: probability before the last layer; 0 means no dropout layer.
        activation: in place of ReLU.
        image_size: pixels along one side; an odd size loses a row and a column to each 2x2 pooling.

    Raises:
        StudyError: an even kernel, or an image too small for the number of blocks.
    """
    assert pooling in get_args(Pooling), pooling
    act: Layer = ReLU() if activation == "relu" else Activation(activation)
    layers: list[Layer] = []
    channels = in_channels
    for num_filters in filters:
        stride = 2 if pooling == "stride" else 1
        layers += [Conv(channels, num_filters, kernel_size, stride, same_padding(kernel_size)), act]
        layers += [] if pooling == "stride" else [Pool(pooling, 2)]
        norm: list[Layer] = [BatchNorm(num_filters)] if batch_norm else []
        layers += norm
        if residual:
            layers += [Conv(num_filters, num_filters, kernel_size, 1, same_padding(kernel_size)), act, *norm]
        channels = num_filters
    try:
        num_features = prod(output_shape(layers, (in_channels, image_size, image_size)))
    except StudyError as error:
        blocks = f"{len(filters)} blocks of filters do not fit on images of {image_size}x{image_size} pixels"
        raise StudyError(f"{blocks}; use fewer filters or larger images. {error}") from None
    layers += [Flatten(), Linear(num_features, hidden_units), act]
    layers += [BatchNorm(hidden_units)] if batch_norm_fc else []
    layers += [Dropout(dropout)] if dropout > 0 else []
    return (*layers, Linear(hidden_units, num_classes))


def layer_table(layers: Sequence[Layer], input_shape: Shape) -> tuple[LayerRow, ...]:
    """A row for each layer, in the order in which an image passes them.

    Args:
        input_shape: (channels, height, width) of one image.

    Raises:
        StudyError: a layer does not fit on what reaches it; the message names the layer as in `LayerRow.layer`.
    """
    names, shapes = _names(layers), _shapes(layers, input_shape)
    on_image = takewhile(lambda layer: not isinstance(layer, Flatten), layers)
    fields = receptive_fields([_window(layer) or Window(1) for layer in on_image])
    rows = []
    for index, layer in enumerate(layers):
        window = _window(layer)
        field = fields[index] if index < len(fields) else None
        rows.append(
            LayerRow(
                layer=names[index],
                kind=_kind(layer),
                output_shape=shapes[index],
                kernel=window.kernel_size if window else None,
                stride=window.stride if window else None,
                total_stride=field.stride if field else None,
                receptive_field=field.size if field else None,
                parameters=num_parameters(layer),
                macs=num_macs(layer, shapes[index]),
            )
        )
    return tuple(rows)


def output_shape(layers: Sequence[Layer], input_shape: Shape) -> Shape:
    """What comes out of the last layer, for one image; raises StudyError as `layer_table` does."""
    return (input_shape, *_shapes(layers, input_shape))[-1]


def num_parameters(layer: Layer) -> int:
    """Learned numbers: a weight for each connection and a bias for each output; batch norm a scale and a shift."""
    match layer:
        case Conv():
            return (layer.kernel_size**2 * layer.in_channels + 1) * layer.out_channels
        case Linear():
            return (layer.in_features + 1) * layer.out_features
        case BatchNorm():
            return 2 * layer.num_features
        case _:
            return 0


def num_macs(layer: Layer, shape: Shape) -> int:
    """Multiply-accumulate operations for one image, given the shape of the layer's output; see `LayerRow.macs`."""
    match layer:
        case Conv():
            return prod(shape) * layer.kernel_size**2 * layer.in_channels
        case Linear():
            return prod(shape) * layer.in_features
        case _:
            return 0


def _names(layers: Sequence[Layer]) -> list[str]:
    kinds = [_kind(layer) for layer in layers]
    return [f"{kind}{kinds[: index + 1].count(kind)}" for index, kind in enumerate(kinds)]


def _kind(layer: Layer) -> str:
    if isinstance(layer, Activation):
        return layer.name
    return f"{layer.kind}-pool" if isinstance(layer, Pool) else _KINDS[type(layer)]


def _window(layer: Layer) -> Window | None:
    match layer:
        case Conv():
            return Window(layer.kernel_size, layer.stride, layer.padding)
        case Pool():
            return Window(layer.kernel_size, stride=layer.kernel_size)
        case _:
            return None


def _shapes(layers: Sequence[Layer], input_shape: Shape) -> list[Shape]:
    """The shape after each layer."""
    shapes, shape = [], input_shape
    for name, layer in zip(_names(layers), layers, strict=True):
        try:
            shape = _shape_after(layer, shape)
        except StudyError as error:
            where = f"{name} on {'x'.join(map(str, shape))}"
            raise StudyError(*(f"{where}: {problem}" for problem in error.problems)) from None
        shapes.append(shape)
    return shapes


def _shape_after(layer: Layer, shape: Shape) -> Shape:
    window = _window(layer)
    match layer, shape:
        case Conv(), (channels, height, width) if window and channels == layer.in_channels:
            return layer.out_channels, output_size(height, window), output_size(width, window)
        case Pool(), (channels, height, width) if window:
            return channels, output_size(height, window), output_size(width, window)
        case BatchNorm(), (features, *_) if features == layer.num_features:
            return shape
        case Linear(), (features,) if features == layer.in_features:
            return (layer.out_features,)
        case Flatten(), _:
            return (prod(shape),)
        case ((ReLU() | Activation() | Dropout()), _):
            return shape
    raise StudyError(f"{layer} does not take that shape.")
