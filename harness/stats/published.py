"""Our mean against a number that someone else published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from harness.errors import StudyError
from harness.metrics import PERCENT, Metric
from harness.stats.intervals import mean_and_sd, t_interval
from harness.stats.values import FloatArray, metric_values


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedComparison:
    """Ours minus published. NaN where the seeds do not suffice (one, or equal values in all).

    Attributes:
        mean, sd, low, high: ours, over n seeds, with the t interval of the mean.
        run_low, run_high: where one more run of ours would land (prediction interval). A published number without a
            spread is a single run: it may well lie outside the interval of our mean and yet be reproduced.
        published: the published value, the mean where there are several. published_n: how many.
        difference, difference_low, difference_high, p: ours minus published, its interval, the two-sided test of none.
    """

    variant: str
    metric: Metric
    method: Literal["prediction t", "Welch t"]
    confidence: float
    n: int
    mean: float
    sd: float
    low: float
    high: float
    run_low: float
    run_high: float
    published: float
    published_n: int
    difference: float
    difference_low: float
    difference_high: float
    p: float


def compare_published(
    table: pd.DataFrame,
    variant: str,
    published: float | Sequence[float],
    *,
    metric: str | None = None,
    confidence: float = 0.95,
) -> PublishedComparison:
    """Our mean over seeds against a published value, or against published raw values.

    A single value is taken for one more run, with the spread of ours: t = difference / (sd sqrt(1 + 1/n)), which agrees
    with the prediction interval (to test our mean alone against it would call most such runs different). Raw values:
    Welch's t test (unequal variances, Welch-Satterthwaite degrees of freedom). The published runs are not paired with
    ours.

    Args:
        published: as the metric is logged; where its unit is percent, a fraction.
        metric: by default the one that the study reports.

    Raises:
        ResultsError: unknown variant or metric.
        StudyError: no published value, or one that is not finite; one outside [0, 1] where the unit is percent and all
            of ours lie inside.
    """
    values = metric_values(table, metric)
    ours = values.numbers[values.require(variant)]
    ours = ours[np.isfinite(ours)]
    theirs = np.atleast_1d(np.asarray(published, dtype=np.float64))
    _check_published(theirs, values.metric, ours)
    mean, sd = (float(x) for x in mean_and_sd(ours))
    low, high = (float(x) for x in t_interval(ours, confidence))
    n = ours.size
    run_half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd * np.sqrt(1 + 1 / n) if n > 1 and sd > 0 else np.nan
    difference = mean - float(theirs.mean())
    se, degrees = _standard_error(ours, theirs)
    half = float(stdtrit(degrees, (1 + confidence) / 2)) * se
    return PublishedComparison(
        variant=variant,
        metric=values.metric,
        method="prediction t" if theirs.size == 1 else "Welch t",
        confidence=confidence,
        n=n,
        mean=mean,
        sd=sd,
        low=low,
        high=high,
        run_low=mean - run_half,
        run_high=mean + run_half,
        published=float(theirs.mean()),
        published_n=theirs.size,
        difference=difference,
        difference_low=difference - half,
        difference_high=difference + half,
        p=float(2 * stdtr(degrees, -abs(difference) / se)),
    )


def _check_published(theirs: FloatArray, metric: Metric, ours: FloatArray) -> None:
    said = ", ".join(f"{value:g}" for value in theirs) or "none"
    if not theirs.size or not np.isfinite(theirs).all():
        raise StudyError(f"a published {metric.name} must be one or more finite numbers, not {said}.")
    # Most are shares of a whole; a relative error may exceed one, and then ours does so too.
    if metric.unit == PERCENT and _is_outside(theirs) and not _is_outside(ours):
        raise StudyError(f"a published {metric.name} is a fraction in [0, 1], not {said}; divide percentages by 100.")


def _is_outside(values: FloatArray) -> bool:
    return bool(((values < 0) | (values > 1)).any())


def _standard_error(ours: FloatArray, theirs: FloatArray) -> tuple[float, float]:
    """Standard error of the difference of the means, and its degrees of freedom; NaN and 1 where it is unknown."""
    if ours.size < 2:
        return np.nan, 1.0
    mine = float(mean_and_sd(ours)[1]) ** 2 / ours.size
    other = float(mean_and_sd(theirs)[1]) ** 2 / theirs.size if theirs.size > 1 else 0.0
    if mine + other == 0:
        return np.nan, 1.0
    if theirs.size == 1:
        return float(np.sqrt(mine * (ours.size + 1))), ours.size - 1
    degrees = (mine + other) ** 2 / (mine**2 / (ours.size - 1) + other**2 / (theirs.size - 1))
    return float(np.sqrt(mine + other)), degrees
