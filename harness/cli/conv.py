"""`harness conv`: the arithmetic of convolutions, printed."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.as_json import print_json
from harness.errors import StudyError

if TYPE_CHECKING:
    from harness.trainers.images.conv_sizes import Window

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group()
def conv() -> None:
    """Arithmetic of convolutions: results, sizes, padding and receptive fields."""


@conv.command()
@click.option("--image", required=True, help="JSON rows, rows separated by ';', or a text file with either.")
@click.option("--kernel", required=True, help="The same; it need not be square.")
@click.option("--padding", default=0, show_default=True, help="Zeros on each of the four sides.")
@click.option("--stride", default=1, show_default=True, help="Pixels between neighbouring windows.")
@click.option("--flip", is_flag=True, help="Convolution proper: the kernel upside down and left to right.")
@JSON_OPTION
def apply(image: str, kernel: str, padding: int, stride: int, flip: bool, as_json: bool) -> None:
    """Slide a kernel over an image with zero padding.

    Without --flip this is cross-correlation, which is what deep-learning libraries call convolution.

    \b
    harness conv apply --image "1 0 2; 3 2 0; 0 6 1" --kernel "[[-1, 0, 1]]" --padding 1
    """
    from harness.trainers.images.conv import convolve, cross_correlate

    operation = convolve if flip else cross_correlate
    result = operation(_rows(image, "image"), _rows(kernel, "kernel"), padding=padding, stride=stride).tolist()
    name = "convolution (flipped kernel)" if flip else "cross-correlation"
    if as_json:
        print_json({"operation": name, "padding": padding, "stride": stride, "output": result}, indent=None)
        return
    title = f"{name}, padding {padding}, stride {stride}: {len(result)}x{len(result[0])}"
    _print_table(title, [""] * len(result[0]), [[_cell(cell) for cell in row] for row in result])


@conv.command()
@click.option("--input", "input_", type=int, help="Pixels along one side of the input.")
@click.option("--kernel", type=int, help="Pixels along one side of the kernel.")
@click.option("--padding", type=int, help="Zeros on each side.")
@click.option("--stride", type=int, help="Pixels between neighbouring windows.")
@click.option("--output", type=int, help="Pixels along one side of the output.")
@click.option("--exact", is_flag=True, help="Accept only sizes with which the windows reach every pixel.")
@JSON_OPTION
def size(
    input_: int | None,
    kernel: int | None,
    padding: int | None,
    stride: int | None,
    output: int | None,
    exact: bool,
    as_json: bool,
) -> None:
    """Solve for the one size that you leave out.

    output = floor((input - kernel + 2 padding) / stride) + 1

    \b
    harness conv size --input 512 --padding 0 --stride 1 --output 504
    """
    from dataclasses import asdict

    from harness.trainers.images.conv_sizes import solve_size

    given = {"input": input_, "kernel": kernel, "padding": padding, "stride": stride, "output": output}
    sizes = solve_size(**given, exact=exact)
    solved = next(name for name, value in given.items() if value is None)
    if as_json:
        print_json({"solved": solved, **asdict(sizes), "unused": sizes.unused}, indent=None)
        return
    found = {**asdict(sizes), "unused pixels": sizes.unused}
    title = f"{solved} = {found[solved]}"
    _print_table(title, list(found), [[str(value) for value in found.values()]])


@conv.command()
@click.option("--kernel", type=int, required=True, help="Pixels along one side of the kernel, an odd number.")
@JSON_OPTION
def same(kernel: int, as_json: bool) -> None:
    """The padding that keeps the size of the image at stride 1."""
    from harness.trainers.images.conv_sizes import same_padding

    padding = same_padding(kernel)
    if as_json:
        print_json({"kernel": kernel, "padding": padding}, indent=None)
        return
    _print_table(f"padding = {padding}", ["kernel", "stride", "padding"], [[str(kernel), "1", str(padding)]])


@conv.command()
@click.argument("layers")
@click.option("--input", "input_", type=int, help="Pixels along one side of the image; adds each layer's output size.")
@JSON_OPTION
def stack(layers: str, input_: int | None, as_json: bool) -> None:
    """Receptive field and total stride after each layer of a stack.

    LAYERS are kernel/stride/padding, separated by commas; stride 1 and padding 0 may be left out.

    \b
    harness conv stack 5/1/2,2/2,5/1/2,2/2 --input 32
    """
    from harness.trainers.images.conv_sizes import receptive_fields

    windows = _windows(layers)
    rows = [
        {
            "layer": number,
            "kernel": window.kernel_size,
            "stride": window.stride,
            "padding": window.padding,
            "total stride": field.stride,
            "receptive field": field.size,
            "output": field.output_size,
        }
        for number, (window, field) in enumerate(zip(windows, receptive_fields(windows, input_), strict=True), start=1)
    ]
    if as_json:
        print_json({"layers": [{name.replace(" ", "_"): it for name, it in row.items()} for row in rows]}, indent=None)
        return
    known = [{name: value for name, value in row.items() if value is not None} for row in rows]
    _print_table("receptive fields, in input pixels", list(known[0]), [[str(v) for v in row.values()] for row in known])


def _rows(text: str, name: str) -> Any:
    """Rows of numbers from JSON, from rows separated by ';' or line ends, or from a file with either.

    A cell that is no number stays text: `harness.conv` reports it with its row and column.
    """
    content = _file_content(text, name).strip()
    if content.startswith("["):
        try:
            return json.loads(content)
        except json.JSONDecodeError as error:
            raise StudyError(f"{name}: not valid JSON: {error}; expected rows such as [[1, 0], [2, 3]].") from None
    rows = re.split(r"\s*[;\n]\s*", content.removesuffix(";"))
    # Split at commas where there are any, so that an empty cell between two of them is seen.
    return [[_number(cell.strip()) for cell in (row.split(",") if "," in row else row.split())] for row in rows]


def _file_content(text: str, name: str) -> str:
    """The text of the file `text`, or `text` itself where it names no file."""
    if text.lstrip().startswith("[") or not re.search(r"[^\d\s.,;+\-eE]", text):
        return text
    try:
        return Path(text).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise StudyError(f"{name}: {text} is not a text file; expected rows of numbers, as text or JSON.") from None
    except (OSError, ValueError) as error:
        if re.search(r"[;,\s]", text) and not re.search(r"[/\\]", text):
            return text
        reason = getattr(error, "strerror", None) or error
        raise StudyError(
            f"{name}: {text!r} is neither numbers nor a file that can be read ({reason}); "
            "expected JSON such as '[[1, 0], [2, 3]]', rows such as '1 0; 2 3', or a text file with either."
        ) from None


def _number(cell: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _windows(text: str) -> list["Window"]:
    from harness.trainers.images.conv_sizes import Window

    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not re.fullmatch(r"-?\d+(/-?\d+){0,2}", part)]
    if wrong:
        raise StudyError(
            f"layers: {', '.join(map(repr, wrong))}: expected kernel, kernel/stride or kernel/stride/padding in whole "
            "numbers, with commas between the layers, such as 5/1/2,2/2."
        )
    return [Window(*map(int, part.split("/"))) for part in parts]


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from harness.cli.grid import Column, print_grid
    from harness.cli.screen import Screen

    click.echo(title)
    print_grid(Screen(), [Column(it) for it in header], rows)
