"""The tables as people read them: text cells in percentage points, percent, nats and seconds.

One `Grid` serves every output for people: Markdown, LaTeX and HTML differ in how they draw it, not in what it says.
Numbers for machines stay in `tables.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from harness.report.rows import effect_rows
from harness.report.tables import Family, Tables, rows_of
from harness.report.units import ABSENT, format_count, format_p, format_seconds, unit_of

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
    unit = unit_of(str(family.effects["metric"].iloc[0]))
    rows = effect_rows(family, variants)
    columns = (
        _text(_CHANGE_HEADING.get(family.kind, "change")), Column("n"),
        Column(f"{unit.name}{' without it' * (family.full is not None)} [{unit.value}]"),
        Column(f"effect [{unit.difference}]"), Column("p"), Column("p (Holm)"), Column("P(improve)", on_paper=False),
        Column("cost of a cell", on_paper=False), _text("verdict"),
    )  # fmt: skip
    cells = tuple(
        (row.change, row.n, row.value, row.effect, row.p, row.p_holm, row.p_improve, row.cost, row.verdict)
        for row in rows
    )
    bold = frozenset((index, 3) for index, row in enumerate(rows) if row.is_supported)
    notes = [_family_note(family), *_limited([f"{row.change}: {row.remark}." for row in rows if row.remark])]
    return Grid(f"Effects, design {family.design}", columns, cells, bold, tuple(notes))


_CHANGE_HEADING = {"leave-one-out": "change left out", "path": "step", "pairs": "pair", "factorial": "combination"}


def variants_grid(tables: Tables) -> Grid:
    unit = unit_of(tables.metric)
    columns = (
        _text("variant"), Column("n"), Column(f"{unit.name} [{unit.value}]"), Column("parameters"),
        Column("cost of a cell"), _text("other outcomes", on_paper=False), _text("what it is", on_paper=False),
    )  # fmt: skip
    rows = tuple(
        (
            row.variant, f"{row.n_ok}/{row.n}", unit.format_spread(row.mean, row.sd), format_count(row.parameters),
            format_seconds(row.seconds), row.outcomes or ABSENT, row.summary,
        )
        for row in rows_of(tables.variants.astype({"parameters": "float64"}))
    )  # fmt: skip
    return Grid("Variants: mean and sd over seeds", columns, rows)


def published_grid(tables: Tables) -> Grid:
    columns = (
        _text("variant"), _text("number"), Column("published"), Column("n"),
        Column("ours"), Column("ours − published"), Column("p", on_paper=False),
        Column("one more run of ours", on_paper=False), _text("source"),
    )  # fmt: skip
    rows = tuple(_published_row(row) for row in rows_of(tables.published))
    note = (
        "A published number without a spread is a single run: it is reproduced where it lies within the interval for "
        "one more run of ours, even if it lies outside that of our mean. Brackets: 95% t interval."
    )
    return Grid("Ours against the published numbers", columns, rows, notes=(note,) if rows else ())


def _published_row(row: Any) -> tuple[str, ...]:
    unit = unit_of(row.metric)
    one_more = f"{unit.format(row.run_low)} to {unit.format(row.run_high)}" if row.run_low == row.run_low else ABSENT
    return (
        row.variant, f"{unit.name} [{unit.value}]", unit.format(row.published), str(row.n),
        unit.format_spread(row.mean, row.sd),
        unit.format_estimate(row.difference, row.difference_low, row.difference_high), format_p(row.p), one_more,
        row.source,
    )  # fmt: skip


def overfitting_grid(tables: Tables) -> Grid:
    unit, nats = unit_of("train_accuracy"), unit_of("train_loss")
    columns = (
        _text("variant"), Column("n"), Column("best epoch"), Column("last epoch"),
        Column("gap at best [points]"), Column("gap at end [points]"), Column("val loss after best [nats]"),
        Column("train loss after best [nats]"),
    )  # fmt: skip
    rows = tuple(
        (
            row.variant, str(row.n), f"{row.best_epoch:.1f} ({row.best_epoch_min:.1f}–{row.best_epoch_max:.1f})",
            f"{row.num_epochs:.1f}", unit.format_spread(row.gap_best, row.gap_best_sd),
            unit.format_spread(row.gap_end, row.gap_end_sd), nats.format_signed(row.val_loss_rise),
            nats.format_signed(-row.train_loss_fall),
        )
        for row in rows_of(tables.overfitting)
    )  # fmt: skip
    note = (
        "Best: the checkpoint with the lowest validation loss. Gap: training minus validation accuracy; at best both "
        "in eval mode, at the end training accuracy as measured while training. After best: how the loss changed from "
        "there to the end. Means over finished cells, ± sd."
    )
    return Grid("Over-fitting: training against validation", columns, rows, notes=(note,) if rows else ())


def cells_grid(tables: Tables) -> Grid:
    percent, nats = unit_of("test_accuracy"), unit_of("test_loss")
    columns = (
        _text("variant"), Column("seed"), _text("status"), Column("train [%]"),
        Column("val [%]"), Column("test [%]"), Column("test loss [nats]"), Column("best epoch"),
        Column("cost", on_paper=False), _text("cell", on_paper=False),
    )  # fmt: skip
    rows = tuple(
        (
            row.variant, str(row.seed), row.status, percent.format(row.train_accuracy),
            percent.format(row.val_accuracy), percent.format(row.test_accuracy), nats.format(row.test_loss),
            ABSENT if np.isnan(row.best_epoch) else f"{row.best_epoch:.1f}", format_seconds(row.seconds), row.key,
        )
        for row in rows_of(tables.cells)
    )  # fmt: skip
    note = "Accuracies and losses of the checkpoint with the lowest validation loss."
    return Grid("Cells", columns, rows, notes=(note,) if rows else ())


def _text(heading: str, *, on_paper: bool = True) -> Column:
    return Column(heading, is_number=False, on_paper=on_paper)


def seeds_grid(tables: Tables) -> Grid:
    """Every seed's value of the metric: a row per variant, a column per seed; a status where there is no number."""
    unit = unit_of(tables.metric)
    seeds = sorted(tables.results["seed"].unique())
    shown = {(row.variant, row.seed): _value_or_status(row, tables.metric) for row in rows_of(tables.results)}
    columns = (_text("variant"), *(Column(f"seed {seed}") for seed in seeds))
    rows = tuple(
        (name, *(shown.get((name, seed), ABSENT) for seed in seeds)) for name in tables.results["variant"].unique()
    )
    return Grid(f"Every seed: {unit.name} [{unit.value}]", columns, rows)


def _value_or_status(row: Any, metric: str) -> str:
    value = getattr(row, metric)
    return unit_of(metric).format(value) if row.status == "finished" and value == value else str(row.status)


def contrasts_grid(frame: pd.DataFrame, title: str, heading: str) -> Grid:
    """Interactions or Shapley values: estimates without a side to show."""
    unit = unit_of(str(frame["metric"].iloc[0]))
    columns = (
        _text(heading), Column("n"), Column(f"estimate [{unit.difference}]"),
        Column("p"), Column("p (Holm)"), _text("verdict"),
    )  # fmt: skip
    rows = tuple(
        (
            row.variant, f"{row.n}/{row.n_planned}", unit.format_estimate(row.mean, row.low, row.high), format_p(row.p),
            format_p(row.p_holm), row.verdict,
        )
        for row in rows_of(frame)
    )  # fmt: skip
    missing = _limited([f"{row.variant}: missing {row.missing}." for row in rows_of(frame) if row.missing])
    return Grid(title, columns, rows, notes=tuple(missing))


def marginal_grid(tables: Tables) -> Grid:
    unit, frame = unit_of(tables.metric), tables.marginal
    columns = (
        _text("change"), Column("cells with"), Column("cells without"),
        Column(f"effect [{unit.difference}]"), Column("p"), Column("p (Holm)"),
        _text("remark"),
    )  # fmt: skip
    rows = tuple(
        (
            row.change, str(row.cells_with), str(row.cells_without), unit.format_estimate(row.mean, row.low, row.high),
            format_p(row.p), format_p(row.p_holm), row.note or ABSENT,
        )
        for row in rows_of(frame)
    )  # fmt: skip
    note = "Least squares with a block for each seed over all combinations trained; assumes that effects add up."
    return Grid("Average effects over all combinations trained", columns, rows, notes=(note,))


# Name of a table -> what people see of it. Effects are one grid a design.
GRIDS: Mapping[str, Callable[[Tables], Sequence[Grid]]] = {
    "effects": lambda tables: [effects_grid(family, tables.variants) for family in tables.families.values()],
    "variants": lambda tables: [variants_grid(tables)],
    "cells": lambda tables: [cells_grid(tables)],
    "published": lambda tables: [published_grid(tables)],
    "overfitting": lambda tables: [overfitting_grid(tables)],
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
    m = len(family.effects)
    return (
        f"Effect: {'full combination' if family.full else 'variant'} minus {reference}, paired by seed, with its 95% t "
        f"interval. p: sign-flip permutation test; Holm over {m} comparison{'s' * (m > 1)}. Bold: an improvement that "
        "the corrected test supports."
    )
