"""Which sizes of a sliding window fit together: the equation of convolutions, "same" padding, receptive fields.

All sizes are pixels along one side; a square image is described by one of them. No pixel values (`conv.py`), no
channels or parameters (`layers.py`), no printing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import StudyError

SMALLEST = {"input": 1, "kernel": 1, "padding": 0, "stride": 1, "output": 1}
LARGEST = 100_000  # Solutions are tried one by one; a larger size is a slip of the keyboard.
LISTED = 6  # More solutions than this are summed up instead of listed.


@dataclass(frozen=True, slots=True)
class ConvSize:
    """Five sizes, in pixels along one side, with output = floor((input - kernel + 2 padding) / stride) + 1."""

    input: int
    kernel: int
    padding: int
    stride: int
    output: int

    @property
    def unused(self) -> int:
        """Pixels at the end of the padded input that no window reaches, because the division is rounded down."""
        return (self.input - self.kernel + 2 * self.padding) % self.stride


@dataclass(frozen=True, slots=True)
class Window:
    """A square window of a convolution or of a pooling: pixels along one side."""

    kernel_size: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """What one output of a stack of windows sees of the stack's input.

    Attributes:
        size: input pixels along one side that can change one output, padding included: it may exceed the image.
        stride: input pixels between neighbouring outputs, the product of the strides so far.
        output_size: outputs along one side; None where the input's size was not given.
    """

    size: int
    stride: int
    output_size: int | None


def solve_size(
    *,
    input: int | None = None,
    kernel: int | None = None,
    padding: int | None = None,
    stride: int | None = None,
    output: int | None = None,
    exact: bool = False,
) -> ConvSize:
    """The size that is left out, from the other four: output = floor((input - kernel + 2 padding) / stride) + 1.

    Because the division is rounded down, several inputs, kernels or paddings can give the same output when the stride
    is above 1, and so can several strides. That is an error which names them all, never a silent choice.

    Args:
        input, kernel, output: pixels along one side, at least 1.
        padding: zeros on each side, at least 0.
        stride: pixels between neighbouring windows, at least 1.
        exact: accept only what divides without a remainder, so that the windows reach every pixel.

    Returns:
        All five sizes; `unused` is the number of pixels that the rounding leaves out.

    Raises:
        StudyError: not exactly one size is left out, one is out of range, no whole number fits (the message says what
            the nearest ones give), or several fit (the message says which).

    Source: Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning", relationship 6.
    """
    sizes = {"input": input, "kernel": kernel, "padding": padding, "stride": stride, "output": output}
    known = {name: value for name, value in sizes.items() if value is not None}
    unknown = [name for name in sizes if name not in known]
    problems = range_problems(known)
    if len(unknown) != 1:
        missing = " and ".join(unknown) or "none"
        problems.append(f"leave out exactly one of {', '.join(sizes)}, the one to solve for; left out: {missing}.")
    elif unknown[0] in ("stride", "output") and not problems:
        problems += _fit_problems(known["input"], known["kernel"], known["padding"])
    if problems:
        raise StudyError(*problems)
    return _only_solution(unknown[0], known, exact)


def output_size(input_size: int, window: Window) -> int:
    """Outputs along one side of a window over `input_size` pixels; raises StudyError as `solve_size` does."""
    sizes = solve_size(input=input_size, kernel=window.kernel_size, padding=window.padding, stride=window.stride)
    return sizes.output


def same_padding(kernel_size: int) -> int:
    """The padding on each side with which stride 1 keeps the size of the image: (kernel_size - 1) / 2.

    Raises:
        StudyError: the kernel is even, so that the padding would have to be a fraction, or below 1.
    """
    problems = range_problems({"kernel": kernel_size})
    if not problems and kernel_size % 2 == 0:
        half = kernel_size // 2
        problems.append(
            f"kernel {kernel_size} with 'same' padding: an even kernel would need {half - 1}.5 zeros on each side "
            f"({half - 1} makes the image one pixel smaller, {half} one larger); "
            f"use an odd kernel, {kernel_size - 1} or {kernel_size + 1}, or a padding of your own."
        )
    if problems:
        raise StudyError(*problems)
    return (kernel_size - 1) // 2


def receptive_fields(windows: Sequence[Window], input_size: int | None = None) -> tuple[ReceptiveField, ...]:
    """The receptive field after each window of a stack, in the order in which an image passes them.

    size_l = size_(l-1) + (kernel_l - 1) total_(l-1) and total_l = total_(l-1) stride_l, from size_0 = total_0 = 1.
    Padding alters where the field lies, not how large it is.

    Args:
        input_size: pixels along one side of the image; without it the output sizes are None.

    Raises:
        StudyError: a window is out of range or larger than what reaches it; the message counts windows from 1.
    """
    fields = []
    size, stride, pixels = 1, 1, input_size
    for number, window in enumerate(windows, start=1):
        try:
            # Without an input size the window is tried on the largest one, so that its own numbers are still checked.
            outputs = output_size(LARGEST if pixels is None else pixels, window)
        except StudyError as error:
            raise StudyError(*(f"layer {number}: {problem}" for problem in error.problems)) from None
        size += (window.kernel_size - 1) * stride
        stride *= window.stride
        pixels = None if pixels is None else outputs
        fields.append(ReceptiveField(size, stride, pixels))
    return tuple(fields)


def range_problems(sizes: Mapping[str, int]) -> list[str]:
    """One sentence for each size, by its name in `SMALLEST`, that is out of range whatever the others are."""
    return [
        f"{name} must be a whole number from {SMALLEST[name]} to {LARGEST}, not {value}."
        for name, value in sizes.items()
        if not (isinstance(value, int) and SMALLEST[name] <= value <= LARGEST)
    ]


def _fit_problems(input: int, kernel: int, padding: int) -> list[str]:
    if kernel <= input + 2 * padding:
        return []
    return [
        f"kernel {kernel} is larger than input {input} with padding {padding} ({_pixels(input + 2 * padding)}); "
        "use a smaller kernel or more padding."
    ]


def _only_solution(unknown: str, known: Mapping[str, int], exact: bool) -> ConvSize:
    rounded = _solutions(unknown, known)
    dividing = [value for value in rounded if _complete(known, unknown, value).unused == 0]
    fitting = dividing if exact else rounded
    if len(fitting) == 1 and not _is_endless(unknown, known):
        return _complete(known, unknown, fitting[0])
    given = ", ".join(f"{name} {value}" for name, value in known.items())
    if not rounded:
        around = range(max(rounded.start - 1, SMALLEST[unknown]), rounded.start + 1)
        nearest = [sizes for value in around if (sizes := _complete(known, unknown, value)).output >= 1]
        gives = [f"{unknown} {getattr(sizes, unknown)} gives output {sizes.output}" for sizes in nearest]
        raise StudyError(f"no {unknown} fits {given}: {', '.join(gives)}; change one of the given sizes.")
    if not fitting:
        nearly = _complete(known, unknown, rounded[0])
        raise StudyError(
            f"no {unknown} fits {given} without a remainder: {unknown} {rounded[0]} leaves out the last "
            f"{_pixels(nearly.unused)} of the padded input; change one of the given sizes, or allow a remainder."
        )
    if _is_endless(unknown, known):
        raise StudyError(f"more than one stride fits {given}: every one from {fitting[0]} up; choose one.")
    several = f"more than one {unknown} fits {given}: {_listed(fitting)}, because the division is rounded down"
    hint = f" ({dividing[0]} is the exact fit, which leaves out no pixel)" if len(dividing) == 1 else ""
    raise StudyError(f"{several}; choose one{hint}.")


def _solutions(unknown: str, known: Mapping[str, int]) -> range:
    """All values with the known output; where there is none, an empty range that starts where one would have to lie."""
    if unknown == "output":
        only = _complete(known, unknown, 0).output
        return range(only, only + 1)
    # The output grows with input and padding and falls with kernel and stride, so that it can be searched in order.
    sign = 1 if unknown in ("input", "padding") else -1

    def signed_output(value: int) -> int:
        return sign * _complete(known, unknown, value).output

    values = range(SMALLEST[unknown], _largest_sensible(unknown, known) + 1)
    wanted = sign * known["output"]
    return values[bisect_left(values, wanted, key=signed_output) : bisect_right(values, wanted, key=signed_output)]


def _largest_sensible(unknown: str, known: Mapping[str, int]) -> int:
    """A bound on the solutions; of the strides that leave one output, only the first lies within."""
    if unknown == "kernel":
        return known["input"] + 2 * known["padding"]
    if unknown == "stride":
        return known["input"] + 2 * known["padding"] - known["kernel"] + 1
    return known["output"] * known["stride"] + known["kernel"]


def _complete(known: Mapping[str, int], unknown: str, value: int) -> ConvSize:
    """All five sizes with `value` for the unknown; the output is always computed, and can differ from the known one."""
    sizes = {**known, unknown: value}
    span = sizes["input"] - sizes["kernel"] + 2 * sizes["padding"]
    return ConvSize(**(sizes | {"output": span // sizes["stride"] + 1}))


def _is_endless(unknown: str, known: Mapping[str, int]) -> bool:
    """Whether there is no largest solution: each stride that steps over the whole image gives the one output."""
    return unknown == "stride" and known["output"] == 1


def _listed(values: Sequence[int]) -> str:
    if len(values) <= LISTED:
        return ", ".join(map(str, values))
    return f"{len(values)} values from {values[0]} to {values[-1]}"


def _pixels(number: int) -> str:
    return f"{number} pixel" if number == 1 else f"{number} pixels"
