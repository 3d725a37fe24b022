"""The figures of a tuning as plain values: tuned beside untuned effects, and what so many trials are expected to reach.

Both are of the study run of the tuned variants; the other two that `harness tune` makes come from `Tables.tuning`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import ResultsError
from harness.report.curve_data import SOLID, Curve, Curves
from harness.report.effect_data import Pair, Pairs, effect_axis, estimate_of
from harness.report.look import variant_colours
from harness.report.tables import Family, Tables, families, rows_of
from harness.stats.tuning import expected_best
from harness.stats.values import FloatArray

UNTUNED, TUNED = "with its own settings", "tuned, as the baseline is"
MOST_CURVES = 6  # besides the baseline's: a colour each


def tuned_pairs_data(tables: Tables) -> Pairs:
    """Each change with its own settings beside the same change at its best trials, the best of the latter first."""
    metric = tables.subject
    before = _by_change(families(_found(tables)[0], tables.metric))
    after = _by_change(tables.families)
    rows = [
        Pair(label, estimate_of(before[label], metric), estimate_of(row, metric))
        for label, row in after.items()
        if label in before
    ]
    if not rows:
        raise ResultsError("no change has a number both tuned and untuned yet.")
    rows.sort(key=lambda row: -metric.sign * row.left_out.mean)
    return Pairs((UNTUNED, TUNED), effect_axis(metric), metric.digits, tuple(rows))


def budgets_data(tables: Tables) -> Curves:
    """For each number of trials b, the reported metric at the best of b trials, over all choices of b of those made;
    the mean of the seeds, each of which is a tuning of its own, and their sd.
    """
    trials, metric = _found(tables)[1], tables.subject
    names = [it.name for it in tables.manifest.variants]
    ranked = list(_by_change(tables.families))
    shown = [name for name in names if name == "baseline" or name in ranked[:MOST_CURVES]]
    colours = variant_colours(shown)
    split = "best of so many"
    curves = []
    for name in shown:
        by_seed = [it for it in _expected(trials, name, metric.name, tables) if np.isfinite(it).any()]
        if by_seed:
            scaled = metric.scale(1.0) * np.array(by_seed)
            known = np.isfinite(scaled).all(axis=0)  # fewer trials may all have failed
            mean = scaled.mean(axis=0)[known]
            sd = scaled.std(axis=0, ddof=1)[known] if len(scaled) > 1 else np.zeros_like(mean)
            count, x = len(mean), tuple(float(b) for b in 1 + np.flatnonzero(known))
            bounds = (tuple(mean), tuple(mean - sd), tuple(mean + sd))
            curves.append(Curve(name, name, split, SOLID, x, *bounds, (len(by_seed),) * count))
    if not curves:
        raise ResultsError("no trial has a number yet.")
    return Curves(metric.axis, "trials", metric.digits, tuple(curves), {}, colours)


def _found(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    if tables.tuning is None:
        raise ResultsError("this study run is none of `harness tune`.")
    return tables.tuning


def _by_change(found: Mapping[str, Family]) -> dict[str, Any]:
    """The first effect of each change that has a number: of single changes, where they are compared."""
    rows: dict[str, Any] = {}
    for family in found.values():
        for row in rows_of(family.effects):
            if row.n > 0 and math.isfinite(row.mean):
                rows.setdefault(str(row.variant), row)
    return rows


def _expected(trials: pd.DataFrame, variant: str, shown: str, tables: Tables) -> Iterator[FloatArray]:
    """Of each seed the expected best of 1, 2, ... trials."""
    selecting = tables.metrics.selecting
    parts = trials["variant"].str.rpartition(" trial ")
    own = trials.assign(trial=pd.to_numeric(parts[2], errors="coerce"))[parts[0] == variant]
    for _, cells in own.sort_values("trial").groupby("seed"):
        is_number = (cells["status"] == "finished") & np.isfinite(cells[selecting.name].astype("float64"))
        chosen_by = np.where(is_number, selecting.sign * cells[selecting.name].astype("float64"), -np.inf)
        numbers = np.where(is_number, cells[shown].astype("float64"), np.nan)
        yield expected_best(list(chosen_by), list(numbers))
