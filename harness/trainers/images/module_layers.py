"""The layers of a built module in numbers, seen by hooks while one black image passes.

For models that have no description (`layers.py` describes the report's network, without torch).

Axes: N images, C channels, H rows, W columns.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness.trainers.images.layers import LayerRow

Field = tuple[int, int]  # of view, in input pixels: side, and distance between neighbours

KINDS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], str], ...] = (
    (nn.Conv2d, "conv"),
    (nn.Linear, "linear"),
    ((nn.BatchNorm1d, nn.BatchNorm2d), "batch-norm"),
    (nn.ReLU, "relu"),
    (nn.LeakyReLU, "leaky-relu"),
    (nn.MaxPool2d, "max-pool"),
    ((nn.AvgPool2d, nn.AdaptiveAvgPool2d), "avg-pool"),
    (nn.Dropout, "dropout"),
    (nn.Flatten, "flatten"),
)
# They widen no field of view.
VALUE_BY_VALUE = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh),
    *(nn.BatchNorm2d, nn.Dropout, nn.Identity),
)


def module_rows(module: nn.Module, image_size: tuple[int, int]) -> tuple[LayerRow, ...]:
    """A row for each call of a layer, under its name in `module.named_modules()`, in the order of the calls.

    A layer is a module that has parameters of its own or holds no other module. Where one is called twice, its
    parameters count once and its operations twice. Total stride and receptive field follow square windows and layers
    that work on each value alone; from any other layer on, or where a layer's input was made by something that is no
    module, they are None. An addition in place (the shortcut of a ResNet) keeps the field of its left side.

    Args:
        module: takes images (N, 3, H, W); its mode is left as it was.
        image_size: height and width in pixels.
    """
    rows: list[LayerRow] = []
    handles = [layer.register_forward_hook(_hook(name, rows)) for name, layer in layers_of(module)]
    was_training = module.training
    image = torch.zeros(1, 3, *image_size)
    _set_field(image, (1, 1))
    try:
        with torch.no_grad():
            module.eval()(image)
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return tuple(rows)


def layers_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of each layer, in the order of construction."""
    for name, layer in module.named_modules():
        if any(True for _ in layer.parameters(recurse=False)) or not any(True for _ in layer.children()):
            yield name, layer


def _hook(name: str, rows: list[LayerRow]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        is_first_call = all(row.layer != name for row in rows)
        rows.append(_row(name, layer, inputs[0], output, is_first_call=is_first_call))

    return note


def _row(name: str, layer: nn.Module, inputs: Tensor, output: Tensor, *, is_first_call: bool) -> LayerRow:
    window = _window(layer)
    field = _field_after(layer, window, getattr(inputs, "field_of_view", None))
    _set_field(output, field)
    products = layer.weight[0].numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 0
    return LayerRow(
        layer=name,
        kind=next((kind for types, kind in KINDS if isinstance(layer, types)), type(layer).__name__.lower()),
        output_shape=tuple(output.shape[1:]),
        kernel=window[0] if window else None,
        stride=window[1] if window else None,
        total_stride=field[1] if field else None,
        receptive_field=field[0] if field else None,
        parameters=sum(it.numel() for it in layer.parameters(recurse=False)) if is_first_call else 0,
        macs=output[0].numel() * products,
    )


def _window(layer: nn.Module) -> tuple[int, int] | None:
    """Side and stride, in pixels, of a square window without gaps; None for any other layer."""
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return None
    sides, strides, gaps = (
        {value} if isinstance(value, int) else set(value)
        for value in (layer.kernel_size, layer.stride, getattr(layer, "dilation", 1))
    )
    return (sides.pop(), strides.pop()) if len(sides) == len(strides) == 1 and gaps == {1} else None


def _field_after(layer: nn.Module, window: tuple[int, int] | None, before: Field | None) -> Field | None:
    if before is None:
        return None
    if window is not None:
        return before[0] + (window[0] - 1) * before[1], before[1] * window[1]
    return before if isinstance(layer, VALUE_BY_VALUE) else None


def _set_field(tensor: Tensor, field: Field | None) -> None:
    tensor.field_of_view = field  # type: ignore[attr-defined]  # Python keeps it with the tensor, also through `x += y`
