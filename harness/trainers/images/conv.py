"""Cross-correlation and convolution of a small 2-D image, exactly: integers stay integers.

Which sizes fit together is in `conv_sizes.py`, layers with their parameters in `layers.py`, printing in the command
line. Nothing here is fast: training never calls it.
"""

from collections.abc import Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import StudyError
from harness.trainers.images.conv_sizes import range_problems

Matrix = NDArray[np.int64] | NDArray[np.float64]
Rows = Sequence[Sequence[float]] | NDArray[Any]

LARGEST_IMAGE = 10_000_000  # Pixels after padding, 80 MB.
LISTED = 6  # More problems than this are counted instead of listed.


def cross_correlate(image: Rows, kernel: Rows, *, padding: int = 0, stride: int = 1) -> Matrix:
    """Slide the kernel, as it is, over the zero-padded image: what deep-learning libraries call convolution.

    output[i, j] = sum over a, b of padded[i stride + a, j stride + b] kernel[a, b]

    Args:
        image: rows of finite numbers, all equally long: lists or a 2-D array.
        kernel: the same; it need not be square.
        padding: zeros added on each of the four sides.
        stride: pixels between neighbouring windows, the same in both directions.

    Returns:
        int64 where image and kernel hold integers only, otherwise float64. Last rows and columns that no whole window
        reaches are left out, as in `solve_size`.

    Raises:
        StudyError: rows of different lengths, a cell that is not a finite number, a negative padding, a stride below
            1 (all of these at once), a kernel larger than the padded image, or a sum too large for 64-bit integers.
    """
    problems = range_problems({"padding": padding, "stride": stride})
    pixels, weights = _matrix(image, "image", problems), _matrix(kernel, "kernel", problems)
    if pixels is None or weights is None or problems:
        raise StudyError(*problems)
    _check_fit(pixels, weights, padding)
    padded = np.pad(pixels, padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape)[::stride, ::stride]
    result: Matrix = np.einsum("ijab,ab->ij", windows, weights)
    return result


def convolve(image: Rows, kernel: Rows, *, padding: int = 0, stride: int = 1) -> Matrix:
    """Convolution in the mathematical sense: `cross_correlate` with the kernel flipped upside down and left to right.

    output[i, j] = sum over a, b of padded[i stride + h - 1 - a, j stride + w - 1 - b] kernel[a, b], with an h x w
    kernel. Arguments, result and errors are those of `cross_correlate`.
    """
    weights = _matrix(kernel, "kernel", [])
    # An unreadable kernel goes on as it is, so that its problems are told together with the image's.
    return cross_correlate(image, kernel if weights is None else weights[::-1, ::-1], padding=padding, stride=stride)


def _matrix(values: Any, name: str, problems: list[str]) -> Matrix | None:
    """`values` as an array, or None with what is wrong appended to `problems`; rows and columns count from 1."""
    rows = values.tolist() if isinstance(values, np.ndarray) else values
    if not _is_filled_list(rows) or not all(_is_filled_list(row) for row in rows):
        problems.append(f"{name}: expected rows of numbers, at least one in each row, such as [[1, 0], [2, 3]].")
        return None
    found = [
        f"{name}: row {number} has {len(row)} cells, row 1 has {len(rows[0])}; all rows need the same number."
        for number, row in enumerate(rows, start=1)
        if len(row) != len(rows[0])
    ]
    cells = [(cell, i, j) for i, row in enumerate(rows, start=1) for j, cell in enumerate(row, start=1)]
    found += [
        f"{name}: row {i}, column {j}: {cell!r} is not a finite number of at most 64 bits."
        for cell, i, j in cells
        if not _is_number(cell)
    ]
    if found:
        problems += found[:LISTED]
        problems += [f"{name}: {len(found) - LISTED} more problems of these kinds."] if len(found) > LISTED else []
        return None
    if all(isinstance(cell, Integral) for cell, _, _ in cells):
        return np.array(rows, dtype=np.int64)
    return np.array(rows, dtype=np.float64)


def _is_filled_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _is_number(cell: Any) -> bool:
    if isinstance(cell, Integral):
        return not isinstance(cell, bool) and abs(int(cell)) < 2**63
    return isinstance(cell, Real) and isfinite(cell)


def _check_fit(pixels: Matrix, weights: Matrix, padding: int) -> None:
    """Raises StudyError where the kernel does not fit on the padded image, or memory or integers do not suffice."""
    height, width = (side + 2 * padding for side in pixels.shape)
    image = f"the image of {pixels.shape[0]}x{pixels.shape[1]} with padding {padding} ({height}x{width})"
    if weights.shape[0] > height or weights.shape[1] > width:
        raise StudyError(
            f"the kernel of {weights.shape[0]}x{weights.shape[1]} is larger than {image}; "
            "use a smaller kernel or more padding."
        )
    if height * width > LARGEST_IMAGE:
        raise StudyError(f"{image} has more than {LARGEST_IMAGE} pixels; use less padding or a smaller image.")
    if pixels.dtype == weights.dtype == np.int64:
        largest_sum = int(np.abs(pixels).max()) * sum(abs(weight) for weight in weights.ravel().tolist())
        if largest_sum >= 2**63:
            raise StudyError("the result may not fit into 64-bit integers; write the numbers with a decimal point.")
