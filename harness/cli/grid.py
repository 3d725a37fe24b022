"""Tables for a terminal of any width: words are broken between words, numbers never.

Widths are columns of the terminal: a Chinese character takes two.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

GAP = 2
LEAST_WIDTH = 12  # of a column of words that has to give way; where even that is too much, its longest word
# Where a name such as wide+3x3 may be broken, and batch-norm where there is no other way; +15.1, 1e-05 and --study not.
JOINT = re.compile(r"(?<=\w\+)(?<!\de\+)(?=\w)")
HYPHEN = re.compile(r"(?<=[^\W\d]-)(?<!\de-)(?=\w)")
_BREAK = re.compile(r"[^\S ]")  # of a line, or to the next tab: a cell is one line
MOST_ROWS_WEIGHED = 100  # when the room is shared out


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and how its cells are set.

    Attributes:
        is_number: aligned right, on one line.
        is_optional: left out where the window is too narrow, the last one first.
        leaves_late: of optional ones: after all that do not.
        may_break: of numbers, such as an estimate with its interval: between them, where leaving out is not enough.
        shorter: cells in fewer words, said before anything is left out.
        ease: of words, the width down to which they are folded before anything is left out.
    """

    heading: str
    is_number: bool = True
    is_optional: bool = False
    may_break: bool = False
    leaves_late: bool = False
    shorter: Mapping[str, str] = field(default_factory=dict)
    ease: int = LEAST_WIDTH


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
    rows = [[" ".join(it.split()) if _BREAK.search(it) else it for it in row] for row in rows]
    if title:
        console.print(Text(title, style="bold"))
    left_out = []
    if console.is_terminal:
        (shown, widths), rows = _fitting(columns, rows, console.width)
        left_out = [column.heading for index, column in enumerate(columns) if index not in shown]
    else:
        shown, widths = list(range(len(columns))), _whole_widths(columns, rows)
    kept = [columns[index] for index in shown]
    lines = (
        [_lines([it.heading for it in kept], widths, kept, is_heading=True)] if any(it.heading for it in kept) else []
    )
    lines += [_lines([row[index] for index in shown], widths, kept) for row in rows]
    named = ["bold"] * (len(lines) - len(rows)) + list(styles or [""] * len(rows))
    for style, some in itertools.groupby(zip(named, lines, strict=True), key=lambda it: it[0]):
        console.print(Text("\n".join(line for _, several in some for line in several), style=style), soft_wrap=True)
    if left_out:
        console.print(f"A wider window also shows: {', '.join(left_out)}.", style="dim")


def _whole_widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, [column.heading, *(row[i] for row in rows)])) for i, column in enumerate(columns)]


def _fitting(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int
) -> tuple[tuple[list[int], list[int]], Sequence[Sequence[str]]]:
    """Which columns are shown and how wide each is, and the rows, in fewer words where the window asks for it."""
    for said in (
        rows,
        [[column.shorter.get(text, text) for column, text in zip(columns, row, strict=True)] for row in rows],
    ):
        wanted = [
            max(_heading_width(column), *(cell_len(row[i]) for row in said)) if said else _heading_width(column)
            for i, column in enumerate(columns)
        ]
        least = _least(columns, said, JOINT)
        easy = [
            want if column.is_number else max(it, min(column.ease, want))
            for it, want, column in zip(least, wanted, columns, strict=True)
        ]
        kept = list(range(len(columns)))
        if _room(easy, kept, width) >= 0:
            break
    leaving = sorted((i for i in reversed(kept) if columns[i].is_optional), key=lambda i: columns[i].leaves_late)
    while _room(easy, kept, width) < 0 and leaving and len(kept) > 1:
        kept.remove(leaving.pop(0))
    fits = (it for it in (easy, least) if _room(it, kept, width) >= 0)
    given = next(fits, None) or _least(columns, said, JOINT, HYPHEN)
    texts = [[row[i] for row in said[:MOST_ROWS_WEIGHED]] for i in kept]
    room = _room(given, kept, width)
    return (kept, _widened([given[i] for i in kept], [wanted[i] for i in kept], texts, room)), said


def _room(widths: Sequence[int], kept: Sequence[int], width: int) -> int:
    return width - sum(widths[i] for i in kept) - GAP * (len(kept) - 1)


def _heading_width(column: Column) -> int:
    """The least width at which it takes two lines at most."""
    heading = column.heading
    return next(it for it in range(_longest(heading.split()), cell_len(heading) + 1) if len(folded(heading, it)) <= 2)


def _least(columns: Sequence[Column], rows: Sequence[Sequence[str]], *joints: re.Pattern[str]) -> list[int]:
    """Of each column, its longest word or number; of names, the longest piece between these joints."""
    return [
        max(_longest(column.heading.split()), *(_longest(_parts(row[i], column, *joints)) for row in rows), 0)
        for i, column in enumerate(columns)
    ]


def _longest(parts: Iterable[str]) -> int:
    return max(map(cell_len, parts), default=0)


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
        return text.split() if column.may_break else [text]
    parts = text.split()
    for joint in joints:
        parts = [piece for part in parts for piece in joint.split(part)]
    return parts


def _lines(
    row: Sequence[str], widths: Sequence[int], columns: Sequence[Column], *, is_heading: bool = False
) -> Sequence[str]:
    cells = [folded(text, width) if cell_len(text) > width else [text] for text, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    if is_heading:
        cells = [[""] * (height - len(cell)) + cell for cell in cells]
    found = []
    for line in range(height):
        parts = [cell[line] if line < len(cell) else "" for cell in cells]
        aligned = [
            " " * (width - cell_len(part)) + part if column.is_number else part + " " * (width - cell_len(part))
            for part, width, column in zip(parts, widths, columns, strict=True)
        ]
        found.append((" " * GAP).join(aligned).rstrip())
    return found


def folded(text: str, width: int) -> list[str]:
    """The text on lines of this width, broken at spaces, or in a name after `+`, and after `-` where that is too long;
    a longer word stays whole."""
    lines, line = [], ""
    for word in text.split():
        for place, piece in enumerate(_pieces(word, width)):
            joined = line + (" " if line and place == 0 else "") + piece
            if line and cell_len(joined) > width:
                lines.append(line)
                line = piece
            else:
                line = joined
    return [*lines, line]


def _pieces(word: str, width: int) -> list[str]:
    found = JOINT.split(word)
    return [it for part in found for it in (HYPHEN.split(part) if cell_len(part) > width else [part])]
