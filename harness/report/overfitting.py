"""The over-fitting note: how far training runs ahead of validation, at the best checkpoint and at the end, in numbers.

For trainers that measure something both on the split that training learns from and on the one that selects. No test is
made of it: what selects the best checkpoint cannot be better at the end.
"""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from harness.errors import ResultsError
from harness.metrics import TRAINING, Metric, Metrics
from harness.report.best_steps import CELL, EPOCHS, STEPS, Clock, best_validations, clock_of
from harness.store.load import metrics_of

OVERFITTING_COLUMNS: tuple[str, ...] = (
    "variant", "n", "counted_in", "best", "best_min", "best_max", "end",
    "gap_of", "gap_best", "gap_best_sd", "gap_end", "gap_end_sd",
    "change_of", "held_out_change", "training_change", "n_curves",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sides:
    """One quantity, as training sees it and as it is held out."""

    training: Metric
    held_out: Metric

    @classmethod
    def of(cls, metrics: Metrics, held_out: str) -> "Sides":
        """Those of a held-out metric's name, as `gap_of` and `change_of` give it."""
        training = metrics.twin(metrics[held_out], TRAINING)
        assert training is not None, held_out
        return cls(training, metrics[held_out])

    def difference(self, frame: pd.DataFrame) -> "pd.Series[float]":
        """Training minus held out."""
        difference: pd.Series[float] = frame[self.training.name] - frame[self.held_out.name]
        return difference


def overfitting_table(results: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row per variant with a finished cell, in the order of the results; means over its finished cells.

    Args:
        curves: as `store.load.curves_table` gives them. A cell without validations counts in `n`, not in `n_curves`.

    Returns:
        OVERFITTING_COLUMNS. `best`: where the best checkpoint stands, of `end`, both in `counted_in` (epoch or step).
        `gap_best`: training minus held out of `gap_of` (the reported quantity, where training sees it too), as the
        cell reports both. `gap_end`: the same at the last validation, as it was logged while training.
        `held_out_change` and `training_change`: of `change_of` (what training minimizes, where there is such a thing),
        from the best checkpoint to the end; both 0 where training ended there.

    Raises:
        ResultsError: nothing is measured both on the training split and on the one that selects.
    """
    finished = results.loc[results["status"] == "finished"].drop_duplicates(CELL).set_index(CELL)
    gap, change = _watched(metrics_of(results), finished, curves)
    clock = clock_of(curves)
    best, last = best_validations(results, curves), _last_validations(curves, change)
    cells = pd.DataFrame(
        {
            "best": _noted(finished, clock.best, best[clock.unit]),
            "end": _noted(finished, clock.end, last[clock.unit]),
            "gap_best": gap.difference(finished),
            "gap_end": gap.difference(last),
            "held_out_change": last[change.held_out.name] - best[change.held_out.name],
            "training_change": last[change.training.name] - best[change.training.name],
        }
    ).reindex(finished.index)
    by_variant = cells.groupby(level="variant", sort=False)
    counts = by_variant.agg(
        n=("best", "size"), n_curves=("gap_end", "count"), best_min=("best", "min"), best_max=("best", "max")
    )
    sds = by_variant[["gap_best", "gap_end"]].std().add_suffix("_sd")
    table = by_variant.mean().join([sds, counts]).reset_index()
    table = table.assign(counted_in=clock.unit, gap_of=gap.held_out.name, change_of=change.held_out.name)
    table = table.astype(dict.fromkeys(("counted_in", "gap_of", "change_of"), "str"))[list(OVERFITTING_COLUMNS)]
    table.attrs = dict(results.attrs)
    return table


def describe_overfitting(overfitting: pd.DataFrame, variant: str, label: str = "") -> str:
    """One variant's row as a sentence; empty where it has no finished cell with curves.

    Args:
        overfitting: as `overfitting_table` gives it.
        label: what to call the variant; by default its name.
    """
    rows = overfitting[(overfitting["variant"] == variant) & (overfitting["n_curves"] > 0)]
    if rows.empty:
        return ""
    row: Any = next(rows.itertuples())
    clock = clock_named(row.counted_in)
    lowest, highest = clock.format(row.best_min), clock.format(row.best_max)
    seeds = "one seed" if row.n == 1 else f"mean over {row.n} seeds; {lowest} to {highest}"
    gap, change = (_rounded(Sides.of(metrics_of(overfitting), name)) for name in (row.gap_of, row.change_of))
    gaps = f"{gap.held_out.format(row.gap_best)} {gap.held_out.difference_unit}".rstrip()
    training = change.held_out.say_difference(row.training_change)
    return (
        f"{label or variant}: the best checkpoint came at {clock.unit} {clock.format(row.best)} of"
        f" {clock.format(row.end)} ({seeds}). {_capitalized(gap.training.words)} minus {gap.held_out.words} was {gaps}"
        f" there and {gap.held_out.format(row.gap_end)} at the end. From that checkpoint to the end,"
        f" {change.training.words} changed by {training}, {change.held_out.words} by"
        f" {change.held_out.format_signed(row.held_out_change)}."
    )


def clock_named(unit: str) -> Clock:
    """The clock of `counted_in`."""
    return EPOCHS if unit == EPOCHS.unit else STEPS


def both_sides(metrics: Metrics) -> list[Sides]:
    """What is declared both on the training split and on the one that selects."""
    held_out = metrics.selecting.split
    if held_out in ("", TRAINING):
        return []
    twins = (metrics.twin(it, held_out) for it in metrics.on(TRAINING))
    return [Sides.of(metrics, it.name) for it in twins if it is not None]


def _watched(metrics: Metrics, finished: pd.DataFrame, curves: pd.DataFrame) -> tuple[Sides, Sides]:
    """What the gap is of, and what the changes are of."""
    sides, held_out = both_sides(metrics), metrics.selecting.split
    if len(finished):  # before that, what is declared is all that is known
        sides = [it for it in sides if it.difference(finished).notna().any() or it.difference(curves).notna().any()]
    if not sides:
        raise ResultsError(
            f"nothing is measured both on {TRAINING} and on {held_out or 'a split that selects'}, so over-fitting"
            " cannot be told."
        )
    gap = next((it for it in sides if it.held_out.base == metrics.reporting.base), sides[0])
    return gap, next((it for it in sides if not it.held_out.is_maximized), gap)


def _last_validations(curves: pd.DataFrame, change: Sides) -> pd.DataFrame:
    return curves.dropna(subset=change.held_out.name).sort_values("step").groupby(CELL).last()


def _noted(finished: pd.DataFrame, column: str, otherwise: "pd.Series[float]") -> "pd.Series[float]":
    """What training noted of its cells, and what the curves say where it did not."""
    if column not in finished.columns:
        return otherwise.astype("float64")
    return finished[column].astype("float64").combine_first(otherwise.astype("float64"))


def _rounded(sides: Sides) -> Sides:
    """With a digit less than in tables: the note says how much, roughly."""
    fewer = (replace(it, digits=max(it.digits - 1, 0)) for it in (sides.training, sides.held_out))
    return Sides(*fewer)


def _capitalized(words: str) -> str:
    return words[:1].upper() + words[1:]
