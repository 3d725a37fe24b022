"""Tables for a terminal of any width: words are broken between words, numbers never."""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

GAP = 2
LEAST_WIDTH = 12  # of a column of words that has to give way; where even that is too much, its longest word
# Where a name such as wide+3x3 may be broken, and batch-norm where there is no other way; +15.1, 1e-05 and --study not.
JOINT = re.compile(r"(?<=\w\+)(?<!\de\+)(?=\w)")
HYPHEN = re.compile(r"(?<=[^\W\d]-)(?<!\de-)(?=\w)")
MOST_ROWS_WEIGHED = 100  # when the room is shared out


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and how its cells are set.

    Attributes:
        is_number: aligned right, on one line. is_optional: left out where the window is too narrow, the last one first.
        may_break: of numbers, such as an estimate with its interval: between them, where leaving out is not enough.
    """

    heading: str
    is_number: bool = True
    is_optional: bool = False
    may_break: bool = False


def print_grid(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    styles: Sequence[str] = (),
) -> None:
    """Prints a table; in a pipe every row is one line.

    Args:
        styles: of each row, such as `green`; none for plain rows.
    """
    width = console.width if console.is_terminal else 10**6
    kept, widths = _fitting(columns, rows, width)
    if title:
        console.print(Text(title, style="bold"))
    shown = [[row[index] for index in kept] for row in rows]
    headings = [columns[index].heading for index in kept]
    numbers = [columns[index].is_number for index in kept]
    if any(headings):
        _print_row(console, _lines(headings, widths, numbers, is_heading=True), "bold")
    for row, style in zip(shown, styles or [""] * len(shown), strict=True):
        _print_row(console, _lines(row, widths, numbers), style)
    left_out = [column.heading for index, column in enumerate(columns) if index not in kept]
    if left_out:
        console.print(f"A wider window also shows: {', '.join(left_out)}.", style="dim")


def _print_row(console: Console, lines: Iterable[str], style: str) -> None:
    for line in lines:
        console.print(Text(line, style=style), soft_wrap=True)


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> tuple[list[int], list[int]]:
    """Which columns are shown, and how wide each is."""
    wanted = [max(map(len, [column.heading, *(row[i] for row in rows)])) for i, column in enumerate(columns)]
    least, tight = (
        [
            max(len(it) for text in [c.heading, *(row[i] for row in rows)] for it in _parts(text, c, *joints))
            for i, c in enumerate(columns)
        ]
        for joints in ([JOINT], [JOINT, HYPHEN])
    )
    kept = list(range(len(columns)))
    easy = [
        want if column.is_number else max(it, min(LEAST_WIDTH, want))
        for it, want, column in zip(least, wanted, columns, strict=True)
    ]

    def room_beside(widths: Sequence[int]) -> int:
        return width - sum(widths[i] for i in kept) - GAP * (len(kept) - 1)

    while room_beside(easy) < 0 and (optional := [i for i in kept if columns[i].is_optional]):
        kept.remove(optional[-1])
    least = next((it for it in (easy, least) if room_beside(it) >= 0), tight)
    room = room_beside(least)
    texts = [[row[i] for row in rows[:MOST_ROWS_WEIGHED]] for i in kept]
    return kept, _widened([least[i] for i in kept], [wanted[i] for i in kept], texts, room)


def _widened(least: Sequence[int], wanted: Sequence[int], texts: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths of columns that share the room: what makes the table shorter first, by lines a character.

    Args:
        texts: of each column, its cells.
    """
    given = list(least)

    @functools.cache
    def heights(column: int, width: int) -> list[int]:
        return [len(folded(text, width)) for text in texts[column]]

    def lines(widths: Sequence[int]) -> int:
        return sum(map(max, zip(*(heights(i, width) for i, width in enumerate(widths)), strict=True)))

    while room > 0 and sum(wanted) > sum(given):
        now = lines(given)
        gains = []
        for i, width in enumerate(given):
            for more in range(1, min(wanted[i] - width, room) + 1):
                gained = now - lines([*given[:i], width + more, *given[i + 1 :]])
                gains.append((gained / more, -more, -i))
        gain, more, place = max(gains)
        if gain <= 0:  # nothing gets shorter by one column alone: who needs little gets it, the last one the rest
            for i in sorted(range(len(given)), key=lambda i: wanted[i] - given[i]):
                extra = min(wanted[i] - given[i], room)
                given[i] += extra
                room -= extra
            break
        given[-place] -= more
        room += more
    return given


def _parts(text: str, column: Column, *joints: re.Pattern[str]) -> list[str]:
    """What must stay on one line: a number as it is; words; of names the pieces between these joints."""
    if column.is_number:
        return text.split() or [""] if column.may_break else [text]
    parts = text.split() or [""]
    for joint in joints:
        parts = [piece for part in parts for piece in joint.split(part)]
    return parts


def _lines(
    row: Sequence[str], widths: Sequence[int], numbers: Sequence[bool], *, is_heading: bool = False
) -> Iterator[str]:
    cells = [folded(text, width) for text, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    if is_heading:
        cells = [[""] * (height - len(cell)) + cell for cell in cells]
    for line in range(height):
        parts = [cell[line] if line < len(cell) else "" for cell in cells]
        aligned = [
            part.rjust(width) if is_number else part.ljust(width)
            for part, width, is_number in zip(parts, widths, numbers, strict=True)
        ]
        yield (" " * GAP).join(aligned).rstrip()


def folded(text: str, width: int) -> list[str]:
    """The text on lines of this width, broken at spaces, or in a name after `+`, and after `-` where that is too long;
    a longer word stays whole."""
    lines, line = [], ""
    for word in text.split():
        for place, piece in enumerate(_pieces(word, width)):
            joined = line + (" " if line and place == 0 else "") + piece
            if line and len(joined) > width:
                lines.append(line)
                line = piece
            else:
                line = joined
    return [*lines, line]


def _pieces(word: str, width: int) -> list[str]:
    found = JOINT.split(word)
    return [it for part in found for it in (HYPHEN.split(part) if len(part) > width else [part])]
