"""Fast convolutions on a CPU with AVX512-BF16 and without AMX: the compiled kernels of `_winograd.c`, for autograd.

A convolution of stride 1 with a kernel of 3x3 or 5x5 needs five or six times fewer products by Winograd's minimal
filtering than directly. (7x7 would gain nothing: its tiles have four outputs each.) Inputs, weights and outputs are
bfloat16 and all between them is float32, as in PyTorch's own kernels. A result is off its exact value by rounding it to
bfloat16, and by some 1e-5 of the largest values of its tile: two results in a thousand are the other neighbour of the
exact value, more among small values beside very large ones. An infinite input makes more results NaN than it would.

Max-pooling and ReLU are part of it: the largest value after rounding and its first place are those that PyTorch finds.
Which networks compute this way is decided in `arithmetic.py`; which machines do, in `hardware.py`.

Axes: N images, C channels, H rows, W columns, R = rows and columns of a kernel.
"""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.trainers.images.machine import winograd_library, winograd_problem
from harness.trainers.images.models.convnet import Block

LANES = 16  # channels of a vector register
# Rows and columns of images for which the kernels pay: smaller ones waste most of a tile, and of larger ones not even
# one fits into the caches with its points.
LEAST_SIDE, MOST_SIDE = 5, 112


class WinogradBlock(Block):
    """A block whose convolution, max-pooling and ReLU are one operation; its parts are those of the given block.

    Takes and gives bfloat16 (N, C, H, W), channels-last; the normalization, if any, computes as it did.
    """

    def __init__(self, block: Block) -> None:
        nn.Module.__init__(self)
        self.conv, self.activation, self.pool, self.norm = block.conv, block.activation, block.pool, block.norm

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < LEAST_SIDE or max(x.shape[2:]) > MOST_SIDE:
            return super().forward(x)
        if isinstance(self.pool, nn.MaxPool2d) and isinstance(self.activation, nn.ReLU):
            x = convolve(x, self.conv.weight, self.conv.bias, pool=True)
        else:
            x = self.pool(self.activation(convolve(x, self.conv.weight, self.conv.bias, pool=False)))
        return self.norm(x)  # type: ignore[no-any-return]


def suits(block: Block, *, is_first: bool) -> bool:
    """Whether the kernels can take this block's place.

    Args:
        is_first: it sees the images, so that nobody asks for gradients by its input.
    """
    conv = block.conv
    size = conv.kernel_size[0]
    return (
        conv.kernel_size in ((3, 3), (5, 5))
        and conv.stride == (1, 1)
        and conv.padding == (size // 2, size // 2)
        and conv.bias is not None
        and conv.out_channels % LANES == 0
        and (conv.in_channels % LANES == 0 or (is_first and conv.in_channels < LANES))
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, pool: bool) -> Tensor:
    """Convolution of stride 1 that keeps the image's size; with `pool`, 2x2 max-pooling and ReLU of it.

    Gradients flow to `x` only where its channels fill whole vectors: not to an image of three.

    Args:
        x: bfloat16 (N, C, H, W), best channels-last.
        weight: bfloat16 (C', C, R, R); see `suits` for what is possible.
        bias: (C',).

    Returns:
        bfloat16 (N, C', H, W), or (N, C', H // 2, W // 2) with `pool`; channels-last.
    """
    if torch.is_grad_enabled():
        return _Convolution.apply(x, weight, bias, pool)  # type: ignore[no-any-return]
    assert bias is not None
    return _forward(_pixels(x), weight, bias, pool=pool, keeps_places=False)[0]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, pool: bool) -> Tensor:
        pixels = _pixels(x)
        y, places = _forward(pixels, weight, bias, pool=pool, keeps_places=True)
        ctx.save_for_backward(pixels, weight, places)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        pixels, weight, places = ctx.saved_tensors
        return *_backward(pixels, weight, places, _pixels(gradients[0]), needs_dx=ctx.needs_input_grad[0]), None


def _forward(
    pixels: Tensor, weight: Tensor, bias: Tensor, *, pool: bool, keeps_places: bool
) -> tuple[Tensor, Tensor | None]:
    """The result as (N, C, H, W), and where each pooled value came from, uint8 (N, H // 2, W // 2, C)."""
    shape = _shape(pixels, weight, pool)
    n, h, w, _, co, _, _ = shape
    kernels, constants = weight.permute(2, 3, 1, 0).contiguous(), bias.float().contiguous()
    height, width = (h // 2, w // 2) if pool else (h, w)
    y = torch.empty((n, co, height, width), dtype=torch.bfloat16, memory_format=torch.channels_last)
    places = torch.empty((n, height, width, co), dtype=torch.uint8) if pool and keeps_places else None
    scratch = torch.empty(_library().winograd_scratch(*shape), dtype=torch.float32)
    _call("winograd_forward", shape, pixels, kernels, constants, y, places, scratch)
    return y, places


def _backward(
    pixels: Tensor, weight: Tensor, places: Tensor | None, dy: Tensor, *, needs_dx: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients by x (N, C, H, W), weight and bias; `pixels` and `dy` are (N, H, W, C)."""
    shape = _shape(pixels, weight, places is not None)
    _, _, _, ci, co, size, _ = shape
    assert not needs_dx or ci % LANES == 0, f"no gradient by an input of {ci} channels"
    transposed, dx = (weight.permute(2, 3, 0, 1).contiguous(), torch.empty_like(pixels)) if needs_dx else (None, None)
    dkernels, dbias = weight.new_empty((size, size, ci, co)), torch.empty(co, dtype=torch.float32)
    scratch = torch.empty(_library().winograd_scratch(*shape), dtype=torch.float32)
    _call("winograd_backward", shape, pixels, transposed, dy, places, dx, dkernels, dbias, scratch)
    return None if dx is None else dx.permute(0, 3, 1, 2), dkernels.permute(3, 2, 0, 1), dbias.to(weight.dtype)


def _pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) to contiguous (N, H, W, C): a view, where x is channels-last."""
    return x.permute(0, 2, 3, 1).contiguous()


def _shape(pixels: Tensor, weight: Tensor, pool: bool) -> tuple[int, ...]:
    """What the kernels take for granted, asserted: they write wherever they are told to."""
    assert pixels.dtype == weight.dtype == torch.bfloat16
    assert pixels.device.type == weight.device.type == "cpu"
    (n, h, w, ci), (co, channels, size, width) = pixels.shape, weight.shape
    assert channels == ci and width == size in (3, 5) and min(h, w) >= 1  # noqa: PT018
    assert co % LANES == 0 and (ci % LANES == 0 or ci < LANES)  # noqa: PT018
    return n, h, w, ci, co, size, int(pool)


def _call(name: str, shape: tuple[int, ...], *tensors: Tensor | None) -> None:
    addresses = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    status = getattr(_library(), name)(*map(ctypes.c_int, shape), *addresses)
    assert status == 0, f"{name}{shape}: no kernel for this shape"


@cache
def _library() -> ctypes.CDLL:
    assert not winograd_problem(), winograd_problem()
    library = ctypes.CDLL(str(winograd_library()))
    library.winograd_scratch.restype = ctypes.c_long
    return library
