"""The table of effects in the terminal, with the sentence below it."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.text import Text

from harness.cli.screened import print_screening
from harness.metrics import ABSENT

if TYPE_CHECKING:
    import pandas as pd

    from harness.report.rows import EffectRow
    from harness.report.tables import Family, Tables

MOST_ROWS = 60  # of one design; a factorial has hundreds
MAX_NAME_WIDTH = 30  # longer names go on in the next line
GAP = 2
SHORT_VERDICTS = {
    "improves where it trains": "where it trains",
    "cannot reach significance": "too few seeds",
    "no inference (one seed)": "one seed",
}
STYLES = {"improves": "green", "hurts": "red", "reference": "dim"}


class Column(NamedTuple):
    field: str  # of EffectRow
    heading: str
    is_number: bool = True


# In the order in which they are left out where the window is narrow, the first one first; the others always stand.
OPTIONAL = ("cost", "p_improve", "p", "p_adjusted", "value")


def print_effects(
    console: Console,
    results: "pd.DataFrame",
    *,
    metric: str | None = None,
    asked: Collection[str] | None = None,
) -> None:
    """Prints a table for each design of these results, then the biggest single improvement, or why there is none.

    Args:
        results: as `load_results` gives them, with the manifest in `.attrs`.
        metric: by default the one that the study reports.
        asked: variants whose rows are shown; all by default. The correction is over whatever the study run holds of a
            design, whoever asked for it when: else asking for the best alone would make it look better.

    Raises:
        ResultsError: the metric is unknown, or no finished cell has it.
    """
    import pandas as pd

    from harness.report.tables import Tables

    tables = Tables(results, load_curves=lambda: pd.DataFrame(), metric=metric)
    screened = [family for family in tables.families.values() if family.kind == "screening"]
    for family in tables.families.values():
        if family not in screened:
            _print_family(console, tables, family, asked)
    for family in screened:
        print_screening(console, tables, family)
    if not tables.families:
        _print_reference(console, tables)
    if len(screened) < len(tables.families) or not screened:  # the best of its mixtures is no answer to what it asks
        console.print(Text(tables.headline.sentence, style="bold"))
    if tables.manifest.exploratory:
        profile = tables.manifest.profile
        console.print(
            f"Exploratory: profile {profile} is too small for conclusions; use it to find what to run in full."
        )


def _print_reference(console: Console, tables: "Tables") -> None:
    """What the reference reaches on each split, where there is nothing to compare it with: a column a quantity."""
    from harness.stats.sentences import CHECKPOINT_RULE

    finished = tables.results[tables.results["status"] == "finished"]
    rule = tables.manifest.checkpoint_rule or CHECKPOINT_RULE
    seeds = ", ".join(str(seed) for seed in sorted(finished["seed"]))
    metrics = [metric for metric in tables.metrics if finished[metric.name].notna().any()]
    headings = list(dict.fromkeys(metric.base_axis for metric in metrics))
    by_place = {(metric.split_words, metric.base_axis): metric for metric in metrics}
    console.print()
    console.print(Text(f"{rule[:1].upper()}{rule[1:]}; mean and sd over seeds {seeds}:", style="bold"))
    console.print(Text("".join([f"{'':12}", *(f"{heading:>18}" for heading in headings)]), style="bold"))
    for split in dict.fromkeys(metric.split_words for metric in metrics):
        shown = (by_place.get((split, heading)) for heading in headings)
        cells = (it.format_spread(finished[it.name].mean(), finished[it.name].std()) if it else ABSENT for it in shown)
        console.print(Text("".join([f"{split:12}", *(f"{cell:>18}" for cell in cells)])))


def _print_family(console: Console, tables: "Tables", family: "Family", asked: Collection[str] | None) -> None:
    from harness.report.rows import effect_rows

    metric, every = tables.subject, effect_rows(family, tables.variants)
    places = {label: variant for label, (variant, _) in family.sides.items()}
    rows = [it for it in every if it.is_reference or asked is None or places[it.change] in asked]
    if len(rows) < 2:
        return
    shown, left_out = rows[: MOST_ROWS + 1], len(rows) - MOST_ROWS - 1
    headings = [
        Column("change", _HEADINGS.get(family.kind, "change"), is_number=False),
        Column("n", "n"),
        Column("value", _heading(metric.words, "without it" * (family.full is not None), metric.value_unit)),
        Column("effect", _heading("effect", "", metric.difference_unit)),
        Column("p", "p"),
        Column("p_adjusted", "p\n(adjusted)"),
        Column("p_improve", "P(improve)"),
        Column("cost", "cost\nof a cell"),
        Column("verdict", "verdict", is_number=False),
    ]
    columns, is_short = _fitting(headings, shown, console.width) if console.is_terminal else (headings, False)
    against = family.reference or ("the step before" if family.kind == "path" else "the variant without the change")
    minuend = family.full or "variant"
    console.print()
    title = f"{family.design}: {metric.words}, {minuend} minus {against}"
    console.print(Text(title, style="bold"))
    for line in _lines(columns, shown, is_short):
        console.print(line, soft_wrap=True)
    if left_out > 0:
        console.print(f"... and {left_out} more; `harness export --table effects` has all.", style="dim")
    missing = [column.heading.replace("\n", " ") for column in headings if column not in columns]
    if missing:
        console.print(f"A wider window also shows: {', '.join(missing)}.", style="dim")
    first = family.effects.iloc[0]
    look = f"; {first.look}" if first.look else ""
    console.print(
        "Effect with its 95% t interval, paired by seed; p by sign-flip, adjusted by "
        f"{first.correction} over {_corrected_over(first)}{look}.",
        style="dim",
    )
    if len(rows) < len(every):
        console.print(
            f"Shown: {len(rows) - 1} of the {len(every) - 1} that this study run holds; corrected over all of them.",
            style="dim",
        )
    for row in shown:
        if row.remark:
            console.print(Text(f"{row.change}: {row.remark}.", style="yellow"))


def _corrected_over(first: Any) -> str:
    from harness.stats.headline import corrected_over

    return corrected_over(first)


_HEADINGS = {"leave-one-out": "change left out", "path": "step", "pairs": "pair", "factorial": "combination"}


def _heading(words: str, more: str, unit: str) -> str:
    """On two lines, the unit in brackets where there is one."""
    second = " ".join(part for part in (more, f"[{unit}]" if unit else "") if part)
    return f"{words}\n{second}" if second else words


def _fitting(columns: Sequence[Column], rows: Sequence["EffectRow"], width: int) -> tuple[list[Column], bool]:
    """The columns that fit into the width, and whether the verdicts must be shortened for it."""
    kept = list(columns)
    for is_short, name in ((False, ""), (True, ""), *((True, name) for name in OPTIONAL)):
        kept = [column for column in kept if column.field != name]
        if sum(_widths(kept, rows, is_short)) + GAP * (len(kept) - 1) <= width:
            return kept, is_short
    return kept, True


def _widths(columns: Sequence[Column], rows: Sequence["EffectRow"], is_short: bool) -> list[int]:
    return [
        max(len(line) for cell in [column.heading, *_cells(column, rows, is_short)] for line in cell.split("\n"))
        for column in columns
    ]


def _cells(column: Column, rows: Sequence["EffectRow"], is_short: bool) -> list[str]:
    cells = [str(getattr(row, column.field)) for row in rows]
    if column.field == "verdict" and is_short:
        return [SHORT_VERDICTS.get(cell, cell) for cell in cells]
    if column.field == "change":
        return [_folded(cell) for cell in cells]
    return cells


def _folded(name: str) -> str:
    """A long name on several lines, broken after `+` or `-` where there is one."""
    lines, rest = [], name
    while len(rest) > MAX_NAME_WIDTH:
        head = rest[:MAX_NAME_WIDTH]
        cut = max(head.rfind("+"), head.rfind("-")) + 1 or MAX_NAME_WIDTH
        lines.append(rest[:cut])
        rest = rest[cut:]
    return "\n".join([*lines, rest])


def _lines(columns: Sequence[Column], rows: Sequence["EffectRow"], is_short: bool) -> Iterator[Text]:
    """Heading and rows, laid out here and not by rich, which would cut numbers that do not fit."""
    widths = _widths(columns, rows, is_short)
    headings = [column.heading for column in columns]
    cells = [_cells(column, rows, is_short) for column in columns]
    styles = [STYLES.get(row.verdict, "") for row in rows]
    for row, style in zip([headings, *zip(*cells, strict=True)], ["bold", *styles], strict=True):
        split = [cell.split("\n") for cell in row]
        height = max(map(len, split))
        top = [[""] * (height - len(lines)) + lines if row is headings else lines for lines in split]
        for line in range(height):
            parts = [lines[line] if line < len(lines) else "" for lines in top]
            aligned = (
                part.rjust(width) if column.is_number else part.ljust(width)
                for part, width, column in zip(parts, widths, columns, strict=True)
            )
            yield Text((" " * GAP).join(aligned).rstrip(), style=style)
