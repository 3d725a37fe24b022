"""Our mean against a number that someone else published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from harness.errors import StudyError
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
    metric: str
    method: Literal["one-sample t", "Welch t"]
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
    metric: str = "test_accuracy",
    confidence: float = 0.95,
) -> PublishedComparison:
    """Our mean over seeds against a published value, or against published raw values.

    A single value has no spread to compare with: one-sample t interval of ours around it. Two or more raw values:
    Welch's t test (unequal variances, Welch-Satterthwaite degrees of freedom). The published runs are not paired with
    ours.

    Args:
        published: in the metric's unit; an accuracy is a fraction in [0, 1], not a percentage.

    Raises:
        ResultsError: unknown variant or metric.
        StudyError: no published value, one that is not finite, or an accuracy outside [0, 1].
    """
    theirs = np.atleast_1d(np.asarray(published, dtype=np.float64))
    if not theirs.size or not np.isfinite(theirs).all():
        raise StudyError(f"a published {metric} must be one or more finite numbers, not {published!r}.")
    if metric.endswith("accuracy") and ((theirs < 0) | (theirs > 1)).any():
        raise StudyError(f"a published {metric} is a fraction in [0, 1], not {published!r}; divide percentages by 100.")
    values = metric_values(table, metric)
    ours = values.numbers[values.require(variant)]
    ours = ours[np.isfinite(ours)]
    mean, sd = (float(x) for x in mean_and_sd(ours))
    low, high = (float(x) for x in t_interval(ours, confidence))
    n = ours.size
    run_half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd * np.sqrt(1 + 1 / n) if n > 1 and sd > 0 else np.nan
    difference = mean - float(theirs.mean())
    se, degrees = _standard_error(ours, theirs)
    half = float(stdtrit(degrees, (1 + confidence) / 2)) * se
    return PublishedComparison(
        variant=variant,
        metric=metric,
        method="one-sample t" if theirs.size == 1 else "Welch t",
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


def _standard_error(ours: FloatArray, theirs: FloatArray) -> tuple[float, float]:
    """Standard error of the difference of the means, and its degrees of freedom; NaN and 1 where it is unknown."""
    if ours.size < 2:
        return np.nan, 1.0
    mine = float(mean_and_sd(ours)[1]) ** 2 / ours.size
    other = float(mean_and_sd(theirs)[1]) ** 2 / theirs.size if theirs.size > 1 else 0.0
    if mine + other == 0:
        return np.nan, 1.0
    if theirs.size == 1:
        return float(np.sqrt(mine)), ours.size - 1
    degrees = (mine + other) ** 2 / (mine**2 / (ours.size - 1) + other**2 / (theirs.size - 1))
    return float(np.sqrt(mine + other)), degrees
