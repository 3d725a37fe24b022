"""Intervals around a mean and around a proportion.

Each function takes differences with the seeds on the last axis, so that a simulation runs the very code that a study
runs. Tests of hypotheses are in `significance.py`.

Axes: ... any leading axes, n seeds.
"""

from functools import lru_cache

import numpy as np
from scipy.special import betaincinv, gammaincinv, ndtr, ndtri, stdtrit

from harness.stats.values import FloatArray

BCA_RESAMPLES = 10_000
BCA_MIN_SEEDS = 10  # below, it covers 84% (n = 5) and less of a nominal 95%
BCA_GENERATOR_SEED = 0
RESAMPLES_AT_ONCE = 250
MANY_SEEDS = 200  # above, resamples are not kept, and signed ranks are as good as normal


def mean_and_sd(differences: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and sample standard deviation over the last axis.

    The sd is exactly 0 where all values are equal (summing equal numbers may otherwise leave 1e-18), and NaN for fewer
    than two values.
    """
    n = differences.shape[-1]
    if n == 0:
        nothing = np.full(differences.shape[:-1], np.nan)
        return nothing, nothing
    mean = differences.mean(axis=-1)
    if n == 1:
        return mean, np.full_like(mean, np.nan)
    return mean, np.where(np.ptp(differences, axis=-1) == 0, 0.0, differences.std(axis=-1, ddof=1))


def standard_error(differences: FloatArray) -> FloatArray:
    """Standard error of the mean; NaN where the sd is 0 or unknown.

    Equal differences in every seed say that the spread is below the resolution of the metric, not that the mean is
    known without error; an interval of width 0 would claim the latter.
    """
    _, sd = mean_and_sd(differences)
    return np.asarray(np.where(sd > 0, sd, np.nan) / np.sqrt(max(differences.shape[-1], 1)))


def t_interval(differences: FloatArray, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Student's t interval of the mean: mean -/+ t(n-1) * sd / sqrt(n); NaN where `standard_error` is."""
    mean, _ = mean_and_sd(differences)
    n = differences.shape[-1]
    if n < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stdtrit(n - 1, (1 + confidence) / 2) * standard_error(differences)
    return mean - half, mean + half


def bca_interval(differences: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron 1987), for one comparison.

    10,000 resamples, drawn from a generator with a fixed seed: the same differences give the same interval. It stands
    beside Student's t and not in its place: at 10 seeds it covers 90% where t covers 95%.

    Returns:
        NaN for fewer than 10 differences, and where all are equal.
    """
    n = differences.size
    if n < BCA_MIN_SEEDS or np.ptp(differences) == 0:
        return np.nan, np.nan
    mean = differences.mean()
    means = _resampled_means(differences)
    tolerance = 1e-12 * np.abs(differences).max()  # a tie with the observed mean, up to the order of summing
    below = np.mean(means < mean - tolerance) + 0.5 * np.mean(np.abs(means - mean) <= tolerance)
    bias = ndtri(below)
    centred = differences - mean
    acceleration = np.sum(centred**3) / (6 * np.sum(centred**2) ** 1.5)
    shifted = bias + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(means, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def hodges_lehmann(differences: FloatArray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Hodges and Lehmann's estimate (1963) of the centre of symmetry, and its signed-rank interval.

    The median of the n (n + 1) / 2 means of two differences (each with itself, too); the bounds are the means that
    Wilcoxon's signed-rank test does not reject at 1 - confidence: exact, and by its normal approximation above
    `MANY_SEEDS`. NaN bounds where n is too small for that.
    """
    n = differences.size
    if n == 0:
        return np.nan, np.nan, np.nan
    total, cut = n * (n + 1) // 2, _largest_rejected_sum(n, (1 - confidence) / 2)
    places = [(total - 1) // 2, total // 2, max(cut, 0), total - 1 - max(cut, 0)]
    below, above, low, high = _means_of_two(differences, places)
    bounds = (low, high) if cut >= 0 else (np.nan, np.nan)
    return float((below + above) / 2), float(bounds[0]), float(bounds[1])


@lru_cache(maxsize=64)
def _largest_rejected_sum(n: int, tail: float) -> int:
    """Of the positive ranks: the largest k with P(sum <= k) <= tail; -1 where there is none."""
    if n > MANY_SEEDS:
        mean, variance = n * (n + 1) / 4, n * (n + 1) * (2 * n + 1) / 24
        return int(np.floor(mean + ndtri(tail) * np.sqrt(variance) - 0.5))
    shares = np.ones(1)
    for rank in range(1, n + 1):  # of the subsets of 1..rank, those with each sum
        shares = (np.concatenate([shares, np.zeros(rank)]) + np.concatenate([np.zeros(rank), shares])) / 2
    return int(np.searchsorted(np.cumsum(shares), tail, side="right")) - 1


def _means_of_two(differences: FloatArray, places: list[int]) -> FloatArray:
    """The means of two differences (each with itself, too) at these places of their order."""
    n = differences.size
    if n <= MANY_SEEDS:
        first, second = np.triu_indices(n)
        return np.asarray(np.sort((differences[first] + differences[second]) / 2)[places])
    ordered, own = np.sort(differences), np.arange(n)

    def at(place: int) -> float:  # by halving: all of them would take n^2 / 2 numbers
        low, high = float(ordered[0]), float(ordered[-1])
        while low < (middle := low + (high - low) / 2) < high:
            reached = np.searchsorted(ordered, 2 * middle - ordered, side="right") - own
            low, high = (low, middle) if np.maximum(reached, 0).sum() > place else (middle, high)
        return high

    return np.array([at(place) for place in places])


def skewness(differences: FloatArray) -> tuple[float, float]:
    """Sample skewness m3 / m2^1.5, and the bound that normal differences exceed in one case of a hundred.

    The bound is 2.58 standard errors, sqrt(6 n (n - 1) / ((n - 2) (n + 1) (n + 3))). NaN for fewer than eight, where
    it says nothing, and where all are equal.
    """
    n = differences.size
    if n < 8 or np.ptp(differences) == 0:
        return np.nan, np.nan
    centred = differences - differences.mean()
    error = np.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    return float(np.mean(centred**3) / np.mean(centred**2) ** 1.5), float(2.58 * error)


def clopper_pearson(wins: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper & Pearson 1934): its bounds are quantiles of beta distributions.

    `wins` may end in .5 (half a tie) and `n` may be a fraction (an effective number of trials); the beta quantiles
    interpolate between the whole numbers.
    """
    if n <= 0:
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low = float(betaincinv(wins, n - wins + 1, tail)) if wins > 0 else 0.0
    high = float(betaincinv(wins + 1, n - wins, 1 - tail)) if wins < n else 1.0
    return low, high


def sd_interval(sd: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a standard deviation from n normal values: (n-1) sd^2 / sigma^2 is chi-square with n-1 degrees."""
    degrees = n - 1
    low_tail, high_tail = 2 * gammaincinv(degrees / 2, np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    return float(sd * np.sqrt(degrees / high_tail)), float(sd * np.sqrt(degrees / low_tail))


def _resampled_means(differences: FloatArray) -> FloatArray:
    n = differences.size
    if n <= MANY_SEEDS:
        return np.asarray(_resample_counts(n) @ differences / n)
    generator = np.random.default_rng(BCA_GENERATOR_SEED)
    shape = (RESAMPLES_AT_ONCE, n)
    drawn = (generator.integers(0, n, shape) for _ in range(BCA_RESAMPLES // RESAMPLES_AT_ONCE))
    return np.concatenate([differences[it].mean(axis=1) for it in drawn])


@lru_cache(maxsize=8)
def _resample_counts(n: int) -> FloatArray:
    """(resamples, n): how often each seed was drawn. Counts, because one matrix serves every variant of a study."""
    drawn = np.random.default_rng(BCA_GENERATOR_SEED).integers(0, n, (BCA_RESAMPLES, n))
    cells = drawn + n * np.arange(BCA_RESAMPLES)[:, None]
    return np.bincount(cells.ravel(), minlength=BCA_RESAMPLES * n).reshape(BCA_RESAMPLES, n).astype(np.float64)
