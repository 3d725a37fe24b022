"""Effects averaged over whatever combinations were trained, and the simplest combination that is good enough.

For results of a search or of several designs together, where no complete factorial exists. The averages of a complete
factorial are in `combinations.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from harness.errors import ResultsError
from harness.metrics import Metric
from harness.stats.evidence import price_of_look
from harness.stats.intervals import mean_and_sd
from harness.stats.significance import holm
from harness.stats.values import FloatArray, Values, metric_values
from harness.stats.wording import describe_cells
from harness.store.load import metrics_of

TIE = 1e-12  # a gap of exactly one standard error is within it

MARGINAL_COLUMNS: tuple[str, ...] = (
    "change", "mean", "se", "low", "high", "p", "p_holm", "m", "cells_with", "cells_without", "n", "n_planned", "note",
)  # fmt: skip


def marginal_effects(
    table: pd.DataFrame,
    changes: Sequence[str] | None = None,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Each change's effect averaged over the combinations seen: a linear model with a block for each seed.

    y(cell) = block(seed) + sum of the effects of the cell's changes + noise, by least squares. Standard errors take the
    combinations for the unit, not their cells: what a model of sums leaves unexplained is the same in every seed of a
    combination, so that more seeds do not make it smaller (cells as independent cover .85 where there are
    interactions, combination means .954). t with combinations - 1 - changes degrees of freedom. Where every
    combination has a parameter of its own, nothing is left unexplained but the cells' own noise, which then stands for
    it. Combinations picked by a search are not a sample: the label is exploratory. `p_holm` is corrected over the
    changes and, where the study run declared how many seeds it will have, over the looks (`price_of_look`).

    Args:
        changes: the columns of the model; by default all that the table names. Cells with other changes are not used.
        metric: by default the one that the study reports.

    Returns:
        MARGINAL_COLUMNS, a row per change by name. `n` of `n_planned` cells had the metric. An effect that these
        combinations cannot separate is NaN and `note` says from what. `m` is the number of changes; a change that
        cannot be separated still counts. `attrs["price_of_look"]`: by what the looks multiplied `p_holm`.

    Raises:
        ResultsError: no change to estimate; unknown metric; no finished cell among these combinations.
    """
    values = metric_values(table, metric)
    named = sorted(set(changes) if changes is not None else frozenset[str]().union(*values.changes))
    if not named:
        raise ResultsError("these results hold no changes, only the baseline; there is no effect to estimate.")
    design, response, block, num_planned = _cells(values, named)
    if not response.size:
        raise ResultsError(f"no finished cell has only the changes {', '.join(named)}; nothing can be estimated.")
    inseparable = _inseparable(_within(design, block))
    fit = _least_squares(_within(design, block), _within(response[:, None], block)[:, 0], block, design)
    estimate, se, degrees = fit
    alone = [not others.any() for others in inseparable]
    estimate, se = np.where(alone, estimate, np.nan), np.where(alone, se, np.nan)
    half = stdtrit(degrees, 1 - alpha / 2) * se if degrees > 0 else np.full_like(se, np.nan)
    p = 2 * stdtr(max(degrees, 1), -np.abs(estimate) / np.where(se > 0, se, np.nan))
    has_ended = np.isfinite(values.numbers).sum(axis=0) > 1  # on both sides of something, as a look counts them
    price = price_of_look([values.seeds[it] for it in np.flatnonzero(has_ended)], values.schedule)
    frame = pd.DataFrame(
        {
            "change": named,
            "mean": estimate,
            "se": se,
            "low": estimate - half,
            "high": estimate + half,
            "p": p,
            "p_holm": np.minimum(holm(p) * price, 1.0),
            "m": len(named),
            "cells_with": design.sum(axis=0).astype(int),
            "cells_without": (1 - design).sum(axis=0).astype(int),
            "n": response.size,
            "n_planned": num_planned,
            "note": [_note(j, others, named) for j, others in enumerate(inseparable)],
        }
    )
    frame = frame[list(MARGINAL_COLUMNS)]
    frame.attrs["price_of_look"] = price
    return frame


@dataclass(frozen=True, slots=True)
class SimplestChoice:
    """The best combination, and the simplest one that cannot be told from it.

    Attributes:
        gap: mean difference best minus simplest over their common seeds. standard_error: of that gap, paired by seed;
            NaN where the best is the simplest.
        left_out: variants with fewer than two finished seeds, which cannot be compared.
    """

    best: str
    simplest: str
    metric: Metric
    best_mean: float
    simplest_mean: float
    gap: float
    standard_error: float
    left_out: tuple[str, ...]


def simplest_within_one_se(
    table: pd.DataFrame, *, metric: str | None = None, variants: Sequence[str] | None = None
) -> SimplestChoice:
    """The one-standard-error rule (Breiman et al. 1984), paired: of the variants that are not more than one standard
    error of their own difference to the best behind it, the one with the fewest changes; then with the fewest
    parameters, where training notes them; the best mean; the first name.

    The gap and its standard error are taken over the seeds that both have; what a seed does to both is in neither. A
    variant with one seed takes no part: the best of many such would be the luckiest.

    Args:
        metric: by default the one that selects: this is a choice.

    Raises:
        ResultsError: no variant has two finished seeds; unknown variant or metric.
    """
    values = metric_values(table, metrics_of(table).select if metric is None else metric)
    sign = values.metric.sign
    asked = [values.require(name) for name in (variants if variants is not None else values.variants)]
    rows = [row for row in asked if np.isfinite(values.numbers[row]).sum() > 1]
    if not rows:
        raise ResultsError(
            f"no variant has {values.metric.name} on two seeds, so no standard error is known; run at least two."
        )
    best = min(rows, key=lambda row: (-sign * np.nanmean(values.numbers[row]), values.variants[row]))

    def gap(row: int) -> tuple[float, float]:
        """Mean and standard error of best minus this one; NaN with fewer than two common seeds."""
        both = np.isfinite(values.numbers[best]) & np.isfinite(values.numbers[row])
        mean, sd = mean_and_sd((values.numbers[best] - values.numbers[row])[both])
        return float(mean), float(sd) / np.sqrt(max(int(both.sum()), 1))

    gaps = {row: gap(row) for row in rows}
    near = [row for row in rows if row == best or sign * gaps[row][0] <= gaps[row][1] + TIE]
    simplest = min(
        near,
        key=lambda row: (
            len(values.changes[row]),
            float(np.nan_to_num(values.parameters[row])),
            -sign * np.nanmean(values.numbers[row]),
            values.variants[row],
        ),
    )
    return SimplestChoice(
        best=values.variants[best],
        simplest=values.variants[simplest],
        metric=values.metric,
        best_mean=float(np.nanmean(values.numbers[best])),
        simplest_mean=float(np.nanmean(values.numbers[simplest])),
        gap=gaps[simplest][0],
        standard_error=np.nan if simplest == best else gaps[simplest][1],
        left_out=tuple(sorted(values.variants[row] for row in asked if row not in rows)),
    )


def _cells(values: Values, named: Sequence[str]) -> tuple[FloatArray, FloatArray, NDArray[np.intp], int]:
    """Design (cell, change) of 0 and 1, response (cell,), seed index (cell,), and how many cells were planned."""
    sets = [held for held in sorted(values.variant_of, key=sorted) if held <= set(named)]
    rows = [values.require(values.variant_of[held]) for held in sets]
    numbers = values.numbers[rows]
    indicator = np.array([[change in held for change in named] for held in sets], dtype=np.float64)
    combination, seed = np.nonzero(np.isfinite(numbers))
    num_planned = int((values.statuses[rows] != "").sum())
    return indicator[combination], numbers[combination, seed], seed, num_planned


def _within(columns: FloatArray, block: NDArray[np.intp]) -> FloatArray:
    """Each column minus its mean within the block: least squares with block effects, without fitting them."""
    counts = np.bincount(block)
    sums = np.zeros((len(counts), columns.shape[1]))
    np.add.at(sums, block, columns)
    return columns - (sums / np.maximum(counts, 1)[:, None])[block]


def _least_squares(
    design: FloatArray, response: FloatArray, block: NDArray[np.intp], combinations: FloatArray
) -> tuple[FloatArray, FloatArray, int]:
    """Estimates, standard errors (NaN without residual degrees of freedom), and those degrees of freedom.

    Args:
        combinations: (cell, change), of which equal rows are one combination.
    """
    solution, _, rank, _ = np.linalg.lstsq(design, response, rcond=1e-10)
    estimate: FloatArray = np.asarray(solution, dtype=np.float64)
    residual = response - design @ estimate
    _, of_cell = np.unique(combinations, axis=0, return_inverse=True)
    counts = np.bincount(of_cell.ravel())
    degrees = len(counts) - 1 - int(rank)
    squares = float((np.bincount(of_cell.ravel(), residual) ** 2 / counts).sum())
    if degrees < 1:
        degrees = len(response) - len(np.unique(block)) - int(rank)
        squares = float(residual @ residual)
    if degrees < 1:
        return estimate, np.full(len(estimate), np.nan), degrees
    covariance = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True) * squares / degrees
    return estimate, np.sqrt(np.diag(covariance)), degrees


def _inseparable(design: FloatArray) -> list[NDArray[np.bool_]]:
    """For each change, which changes move with it in some direction that leaves every fitted value as it is.

    From the projection on the null space, which has no such choice of basis as the null vectors themselves: two
    separate confusions stay separate. A change that can be estimated has no True, not even its own.
    """
    eigenvalues, directions = np.linalg.eigh(design.T @ design)
    null = directions[:, eigenvalues <= 1e-10 * max(eigenvalues.max(), 1.0)]
    return list(np.abs(null @ null.T) > 1e-9)


def _note(change: int, others: NDArray[np.bool_], named: Sequence[str]) -> str:
    if not others.any():
        return ""
    partners = [name for j, name in enumerate(named) if others[j] and j != change]
    if not partners:
        return "in every cell of a seed or in none, so that its effect cannot be told from the seed's"
    return f"cannot be told apart from {describe_cells(partners)} with these combinations"
