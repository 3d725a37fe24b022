"""The tables as people read them: text cells, each number in the unit of its metric.

One `Grid` serves every output for people: Markdown, LaTeX and HTML differ in how they draw it, not in what it says.
Numbers for machines stay in `tables.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from harness.metrics import ABSENT, Metric, Metrics
from harness.report.best_steps import EPOCHS, STEPS, Clock
from harness.report.effect_data import bracketed
from harness.report.overfitting import Sides, clock_named
from harness.report.rows import effect_rows
from harness.report.tables import Family, Tables, rows_of
from harness.report.wording import format_count, format_p, format_seconds
from harness.stats.effect import metric_of_row
from harness.stats.headline import corrected_over
from harness.stats.sentences import CHECKPOINT_RULE
from harness.stats.values import PARAMETERS

MOST_REMARKS = 12  # below one table; the column `missing` of the exports has all


@dataclass(frozen=True)
class Column:
    """A heading, and how its cells are set.

    Attributes:
        is_number: aligned right, never wrapped.
        on_paper: whether a printed table, which is 12 cm wide, has room for it.
    """

    heading: str
    is_number: bool = True
    on_paper: bool = True


@dataclass(frozen=True)
class Grid:
    """A table in words.

    Attributes:
        title: what it shows, one line without a full stop.
        bold: (row, column) of the cells whose claim the corrected test supports; no other cell is bold.
        notes: sentences below the table.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    notes: tuple[str, ...] = ()


def effects_grid(family: Family, variants: pd.DataFrame) -> Grid:
    """The effects of one design: a row for what is compared with, then one per comparison."""
    metric = metric_of_row(family.effects.iloc[0])
    rows = effect_rows(family, variants)
    columns = (
        _text(_CHANGE_HEADING.get(family.kind, "change")), Column("n"),
        Column(f"{metric.words}{' without it' * (family.full is not None)}{bracketed(metric.value_unit)}"),
        Column(f"effect{bracketed(metric.difference_unit)}"), Column("p"), Column("p (adjusted)"),
        Column("P(improve)", on_paper=False), Column("cost of a cell", on_paper=False), _text("verdict"),
    )  # fmt: skip
    cells = tuple(
        (row.change, row.n, row.value, row.effect, row.p, row.p_adjusted, row.p_improve, row.cost, row.verdict)
        for row in rows
    )
    bold = frozenset((index, 3) for index, row in enumerate(rows) if row.is_supported)
    notes = [_family_note(family), *_limited([f"{row.change}: {row.remark}." for row in rows if row.remark])]
    return Grid(f"Effects, design {family.design}", columns, cells, bold, tuple(notes))


_CHANGE_HEADING = {"leave-one-out": "change left out", "path": "step", "pairs": "pair", "factorial": "combination"}


def variants_grid(tables: Tables) -> Grid:
    metric = tables.subject
    frame = tables.variants.astype({PARAMETERS: "float64"})
    has_parameters = frame[PARAMETERS].notna().any()
    columns = (
        _text("variant"), Column("n"), Column(metric.axis), *([Column(PARAMETERS)] if has_parameters else []),
        Column("cost of a cell"), _text("other outcomes", on_paper=False), _text("what it is", on_paper=False),
    )  # fmt: skip
    rows = tuple(
        (
            row.variant, f"{row.n_ok}/{row.n}", metric.format_spread(row.mean, row.sd),
            *([format_count(row.parameters)] if has_parameters else []),
            format_seconds(row.seconds), row.outcomes or ABSENT, row.summary,
        )
        for row in rows_of(frame)
    )  # fmt: skip
    return Grid("Variants: mean and sd over seeds", columns, rows)


def published_grid(tables: Tables) -> Grid:
    columns = (
        _text("variant"), _text("number"), Column("published"), Column("n"),
        Column("ours"), Column("ours − published"), Column("p", on_paper=False),
        Column("one more run of ours", on_paper=False), _text("source"),
    )  # fmt: skip
    rows = tuple(_published_row(row, tables.metrics[row.metric]) for row in rows_of(tables.published))
    note = (
        "A published number without a spread is a single run: it is reproduced where it lies within the interval for "
        "one more run of ours, even if it lies outside that of our mean. Brackets: 95% t interval."
    )
    return Grid("Ours against the published numbers", columns, rows, notes=(note,) if rows else ())


def _published_row(row: Any, metric: Metric) -> tuple[str, ...]:
    one_more = ABSENT
    if row.run_low == row.run_low:
        one_more = f"{metric.format(row.run_low)} to {metric.format(row.run_high)}"
    return (
        row.variant, metric.axis, metric.format(row.published), str(row.n),
        metric.format_spread(row.mean, row.sd),
        metric.format_estimate(row.difference, row.difference_low, row.difference_high), format_p(row.p), one_more,
        row.source,
    )  # fmt: skip


def overfitting_grid(tables: Tables) -> Grid:
    frame = tables.overfitting
    if frame.empty:
        return Grid(_OVERFITTING_TITLE, (_text("variant"),), ())
    gap, change = (Sides.of(tables.metrics, frame[name].iloc[0]) for name in ("gap_of", "change_of"))
    clock = clock_named(frame["counted_in"].iloc[0])
    gap_unit, change_unit = (bracketed(it.held_out.difference_unit) for it in (gap, change))
    columns = (
        _text("variant"), Column("n"), Column(f"best {clock.unit}"), Column(f"last {clock.unit}"),
        Column(f"gap at best{gap_unit}"), Column(f"gap at end{gap_unit}"),
        Column(f"{_short(change.held_out)} after best{change_unit}"),
        Column(f"{_short(change.training)} after best{change_unit}"),
    )  # fmt: skip
    rows = tuple(
        (
            row.variant, str(row.n),
            f"{clock.format(row.best)} ({clock.format(row.best_min)}–{clock.format(row.best_max)})",
            clock.format(row.end), gap.held_out.format_spread(row.gap_best, row.gap_best_sd),
            gap.held_out.format_spread(row.gap_end, row.gap_end_sd),
            change.held_out.format_signed(row.held_out_change), change.training.format_signed(row.training_change),
        )
        for row in rows_of(frame)
    )  # fmt: skip
    rule = _rule(tables)
    best = rule.removeprefix("at ") if rule.startswith("at ") else "the validation that training reports"
    note = (
        f"Best: {best}. Gap: {gap.training.split_words} minus {gap.held_out.words}; at best both as the cell reports"
        f" them, at the end {gap.training.words} as measured while training. After best: how the"
        f" {change.held_out.base_words} changed from there to the end. Means over finished cells, ± sd."
    )
    return Grid(_OVERFITTING_TITLE, columns, rows, notes=(note,))


_OVERFITTING_TITLE = "Over-fitting: training against validation"


def shown_of_cells(metrics: Metrics) -> tuple[Metric, ...]:
    """What a list of cells has room for: the reported quantity on every split, what else selects, and the rest of the
    split that is reported."""
    reported, chosen = metrics.reporting, [it for it in metrics if it.base == metrics.reporting.base]
    chosen += [it for it in (metrics.selecting, *metrics.on(reported.split)) if it not in chosen]
    return tuple(dict.fromkeys(chosen))


def short_headings(shown: Sequence[Metric]) -> dict[Metric, str]:
    """`val` where several splits of one quantity stand side by side, and it has a unit to be known by; `val loss`."""
    bases = [it.base for it in shown]
    return {it: it.split if bases.count(it.base) > 1 and it.value_unit else _short(it) for it in shown}


def _short(metric: Metric) -> str:
    return f"{metric.split} {metric.base_words}".strip()


def _rule(tables: Tables) -> str:
    return tables.manifest.checkpoint_rule or CHECKPOINT_RULE


def cells_grid(tables: Tables) -> Grid:
    shown = short_headings(shown_of_cells(tables.metrics))
    best = next((it for it in (EPOCHS, STEPS) if it.best in tables.cells.columns), None)
    columns = (
        _text("variant"), Column("seed"), _text("status"),
        *(Column(heading + bracketed(metric.value_unit)) for metric, heading in shown.items()),
        *([Column(f"best {best.unit}")] if best else []),
        Column("cost", on_paper=False), _text("cell", on_paper=False),
    )  # fmt: skip
    rows = tuple(
        (
            row["variant"], str(row["seed"]), row["status"], *(metric.format(row[metric.name]) for metric in shown),
            *([_place(row[best.best], best)] if best else []), format_seconds(row["seconds"]), row["key"],
        )
        for row in tables.cells.to_dict(orient="records")
    )  # fmt: skip
    note = f"Metrics {_rule(tables)}."
    return Grid("Cells", columns, rows, notes=(note,) if rows else ())


def _place(value: Any, clock: Clock) -> str:
    return ABSENT if pd.isna(value) else clock.format(value)


def _text(heading: str, *, on_paper: bool = True) -> Column:
    return Column(heading, is_number=False, on_paper=on_paper)


def seeds_grid(tables: Tables) -> Grid:
    """Every seed's value of the metric: a row per variant, a column per seed; a status where there is no number."""
    metric, results = tables.subject, tables.results
    seeds = sorted(results["seed"].unique())
    cells = zip(results["variant"], results["seed"], results["status"], results[metric.name], strict=True)
    shown = {
        (variant, seed): metric.format(value) if status == "finished" and value == value else str(status)
        for variant, seed, status, value in cells
    }
    columns = (_text("variant"), *(Column(f"seed {seed}") for seed in seeds))
    rows = tuple(
        (name, *(shown.get((name, seed), ABSENT) for seed in seeds)) for name in tables.results["variant"].unique()
    )
    return Grid(f"Every seed: {metric.axis}", columns, rows)


def contrasts_grid(frame: pd.DataFrame, title: str, heading: str) -> Grid:
    """Interactions or Shapley values: estimates without a side to show."""
    metric = metric_of_row(frame.iloc[0])
    columns = (
        _text(heading), Column("n"), Column(f"estimate{bracketed(metric.difference_unit)}"),
        Column("p"), Column("p (adjusted)"), _text("verdict"),
    )  # fmt: skip
    rows = tuple(
        (
            row.variant, f"{row.n}/{row.n_planned}", metric.format_estimate(row.mean, row.low, row.high),
            format_p(row.p), format_p(row.p_adjusted), row.verdict,
        )
        for row in rows_of(frame)
    )  # fmt: skip
    missing = _limited([f"{row.variant}: missing {row.missing}." for row in rows_of(frame) if row.missing])
    return Grid(title, columns, rows, notes=tuple(missing))


def marginal_grid(tables: Tables) -> Grid:
    metric, frame = tables.subject, tables.marginal
    columns = (
        _text("change"), Column("cells with"), Column("cells without"),
        Column(f"effect{bracketed(metric.difference_unit)}"), Column("p"), Column("p (Holm)"),
        _text("remark"),
    )  # fmt: skip
    rows = tuple(
        (
            row.change, str(row.cells_with), str(row.cells_without),
            metric.format_estimate(row.mean, row.low, row.high), format_p(row.p), format_p(row.p_holm),
            row.note or ABSENT,
        )
        for row in rows_of(frame)
    )  # fmt: skip
    note = (
        "Exploratory: least squares with a block for each seed over whatever combinations were trained, on the "
        "assumption that effects add up."
    )
    if (price := frame.attrs["price_of_look"]) > 1:
        note += f" p (Holm): times {price:.3g} for this look, one of several."
    return Grid("Average effects over all combinations trained", columns, rows, notes=(note,))


def examples_grid(tables: Tables) -> Grid:
    metric, frame = tables.subject, tables.examples
    columns = (
        _text("design", on_paper=False), _text("change"), Column("n"),
        Column(f"new seeds, same examples{bracketed(metric.difference_unit)}"),
        Column(f"new seeds and new examples{bracketed(metric.difference_unit)}"), Column("gained"), Column("lost"),
    )  # fmt: skip
    rows = tuple(
        (
            row.design, row.change, str(row.n), metric.format_estimate(row.mean, row.low, row.high),
            metric.format_estimate(row.mean, row.population_low, row.population_high),
            f"{row.gained:,}", f"{row.lost:,}",
        )
        for row in rows_of(frame)
    )  # fmt: skip
    sizes = " or ".join(f"{it:,}" for it in sorted(frame["num_examples"].unique()))
    note = (
        f"Both intervals are of the same difference, on {sizes} test examples. The first speaks of other seeds on "
        "these examples; the second of other examples, too (seeds crossed with examples, Satterthwaite), and is never "
        "narrower. Gained, lost: examples that are right in more, in fewer seeds with the change. No verdict is taken "
        "from here."
    )
    return Grid("On new test examples", columns, rows, notes=(note,))


# Name of a table -> what people see of it. Effects are one grid a design.
GRIDS: Mapping[str, Callable[[Tables], Sequence[Grid]]] = {
    "effects": lambda tables: [effects_grid(family, tables.variants) for family in tables.families.values()],
    "variants": lambda tables: [variants_grid(tables)],
    "cells": lambda tables: [cells_grid(tables)],
    "published": lambda tables: [published_grid(tables)],
    "overfitting": lambda tables: [overfitting_grid(tables)],
    "examples": lambda tables: [examples_grid(tables)],
    "interactions": lambda tables: [
        contrasts_grid(tables.interactions, "Interactions: both together beyond the sum of each alone", "pair")
    ],
    "shapley": lambda tables: [
        contrasts_grid(tables.shapley, "Shapley values: contributions averaged over all orders", "change")
    ],
    "marginal": lambda tables: [marginal_grid(tables)],
}


def _limited(notes: list[str]) -> list[str]:
    more = len(notes) - MOST_REMARKS
    return notes if more <= 0 else [*notes[:MOST_REMARKS], f"And {more} more with missing cells."]


def _family_note(family: Family) -> str:
    reference = family.reference or ("the step before" if family.kind == "path" else "the variant without the change")
    first = family.effects.iloc[0] if len(family.effects) else None
    by = "nothing to correct" if first is None else f"{first['correction']} over {corrected_over(first)}"
    look = f" ({first['look']})" if first is not None and first["look"] else ""
    return (
        f"Effect: {'full combination' if family.full else 'variant'} minus {reference}, paired by seed, with its 95% t "
        f"interval. p: sign-flip permutation test; adjusted by {by}{look}. Bold: an improvement that "
        "the corrected test supports."
    )
