"""The log of a loop that proposes, runs and keeps commits: a table with a row a proposal, such as `results.tsv`.

Loops write it themselves, each in its own words: columns are known by their headings, and the number is the first
column that holds numbers. What the numbers are worth is no matter of this module.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StudyError
from harness.texts import shortened

COMMIT = ("commit", "hash", "sha", "revision")
STATUS = ("status", "kept", "keep", "decision", "verdict", "accepted")
DESCRIPTION = ("description", "change", "subject", "idea", "message", "summary")
KEPT = ("keep", "kept", "accept", "accepted", "true", "yes", "1", "baseline", "champion")
LARGEST = 10_000_000  # bytes of a log


@dataclass(frozen=True)
class Row:
    """A proposal in a log.

    Attributes:
        commit: as it is written there. value: the number that the loop looked at; None where it is no number.
    """

    commit: str
    value: float | None
    is_kept: bool
    description: str


def read_log(path: Path) -> tuple[Row, ...]:
    """The rows of a log, in order; tabs, or commas where the first line has no tab.

    Raises:
        StudyError: it cannot be read, lacks a column, or has no row.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise StudyError(f"{path}: is larger than {LARGEST // 1_000_000} MB, which no log of a loop is.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read as a log ({getattr(error, 'strerror', None) or error}).") from None
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    table = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if any(it.strip() for it in row)]
    names = [it.strip().lower() for it in table[0]] if table else []
    places = {what: _column(names, known) for what, known in _KNOWN.items()}
    lacking = [f"{what} ({', '.join(_KNOWN[what])})" for what in ("commit", "status") if places[what] is None]
    if lacking:
        raise StudyError(
            f"{path}: its first line has no column for {' and '.join(lacking)}. Expected a table such as results.tsv, "
            "with the headings commit, a metric, status and description."
        )
    rows = [row + [""] * (len(names) - len(row)) for row in table[1:]]
    value = next((it for it in range(len(names)) if it not in places.values() and _is_numeric(rows, it)), None)
    if not rows or value is None:
        what = "no column of numbers" if rows else "no row"
        raise StudyError(f"{path}: has {what}; expected a row a proposal, with the number that it reached.")
    commit, status, description = places["commit"] or 0, places["status"] or 0, places["description"]
    return tuple(
        Row(
            row[commit].strip(),
            _number(row[value]),
            row[status].strip().lower() in KEPT,
            shortened(row[description].strip(), 200) if description is not None else "",
        )
        for row in rows
    )


_KNOWN: Mapping[str, Sequence[str]] = {"commit": COMMIT, "status": STATUS, "description": DESCRIPTION}


def _column(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(it) for it in known if it in names), None)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _is_numeric(rows: Sequence[Sequence[str]], place: int) -> bool:
    return any(_number(row[place]) is not None for row in rows)


def claimed_gains(rows: Sequence[Row], sign: float) -> dict[str, float]:
    """By commit as it is written: how much better than the best number kept before it each was, as the loop saw it.

    Args:
        sign: 1 where more of the number is better, -1 where less is.

    Returns:
        Gains, positive where the proposal looked better; none for the first row, and for rows without a number.

    >>> rows = [Row("a", 2.0, True, ""), Row("b", 1.5, True, ""), Row("c", 1.75, False, "")]
    >>> claimed_gains(rows, -1)
    {'b': 0.5, 'c': -0.25}
    """
    gains: dict[str, float] = {}
    best: float | None = None
    for row in rows:
        if row.value is None:
            continue
        if best is not None:
            gains[row.commit] = sign * (row.value - best)
        if row.is_kept or best is None:
            best = row.value
    return gains
