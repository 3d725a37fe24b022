"""Tests of "no effect", of "no effect that matters", and the correction for testing a family.

The test of a study is the sign-flip permutation test: under the null the sign of a paired difference is a coin.
Student's t stands beside it. Intervals are in `intervals.py`; how many seeds a test needs is in `power.py`.

Axes: ... any leading axes, n seeds.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

from harness.stats.intervals import mean_and_sd, standard_error
from harness.stats.values import FloatArray

EXACT_MAX_SEEDS = 16
MONTE_CARLO_FLIPS = 100_000
MOST_SIGNS = 100_000_000  # in memory: of more than 1,000 seeds fewer sign vectors are drawn
LEAST_FLIPS = 1_000
FLIP_GENERATOR_SEED = 0
_FLIPS_AT_ONCE = 8_192  # sign vectors as floats: 2 MB for 30 seeds, which stays in the cache
SIGNS_AT_ONCE = 8_000_000  # as floats
_ROWS_AT_ONCE = 512


def t_p_value(differences: FloatArray) -> FloatArray:
    """Two-sided p of the paired t test; NaN for fewer than two differences and where all of them are equal."""
    mean, _ = mean_and_sd(differences)
    return 2 * _t_cdf(differences, -np.abs(mean))


def equivalence_p(differences: FloatArray, delta: float) -> FloatArray:
    """p of two one-sided t tests against |effect| >= delta (Schuirmann 1987): the larger of the two.

    p <= alpha means that the 1 - 2 alpha interval lies inside (-delta, delta). NaN where there is no standard error.
    """
    mean, _ = mean_and_sd(differences)
    return np.maximum(_t_cdf(differences, -(mean + delta)), _t_cdf(differences, mean - delta))


def noninferiority_p(improvements: FloatArray, delta: float) -> FloatArray:
    """p of a one-sided t test against a loss of delta or more: one side of `equivalence_p`.

    Where all are equal there is no standard error, and no doubt: 0 above -delta, else 1. NaN for fewer than two.

    Args:
        improvements: paired differences, positive where better.
    """
    mean, sd = mean_and_sd(improvements)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = _t_cdf(improvements, -(mean + delta))
    certain = np.where(mean > -delta, 0.0, 1.0)
    found = np.where(sd > 0, p, certain)
    return np.where(improvements.shape[-1] > 1, found, np.nan)


def sign_flip_p(differences: FloatArray) -> FloatArray:
    """Two-sided p of the sign-flip permutation test of the mean.

    Exact for up to 16 differences: the share of the 2^n sign vectors whose |sum| reaches the observed one. Above,
    `num_flips` sign vectors from a generator with a fixed seed, as (b + 1) / (B + 1) (Phipson & Smyth 2010), which is
    never 0. Assumes only that differences are symmetric around 0 under the null. NaN for fewer than two differences.
    """
    n = differences.shape[-1]
    if n < 2:
        return np.full(differences.shape[:-1], np.nan)
    rows = differences.reshape(-1, n)
    signs = all_signs(n) if n <= EXACT_MAX_SEEDS else _random_signs(n)
    # Two sums of the same numbers in another order differ in the last bits; a tie must count as a tie.
    reach = np.abs(rows.sum(axis=1)) - 1e-12 * np.abs(rows).sum(axis=1)
    reached = np.zeros(len(rows))
    at_once = min(_FLIPS_AT_ONCE, max(1, SIGNS_AT_ONCE // n))
    for flip in range(0, len(signs), at_once):
        block = signs[flip : flip + at_once].astype(np.float64)
        for row in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(row, row + _ROWS_AT_ONCE)
            reached[part] += (np.abs(block @ rows[part].T) >= reach[part]).sum(axis=0)
    p = reached / len(signs) if n <= EXACT_MAX_SEEDS else (reached + 1) / (len(signs) + 1)
    return p.reshape(differences.shape[:-1])


def smallest_sign_flip_p(n: int) -> float:
    """The smallest two-sided p that the sign-flip test can give with n seeds: 2 / 2^n, and 1 / (B + 1) above 16."""
    exact = 2.0 ** (1 - n) if n > 0 else 1.0
    return exact if n <= EXACT_MAX_SEEDS else max(exact, 1 / (num_flips(n) + 1))


def num_flips(n: int) -> int:
    """Sign vectors that are drawn for n seeds, more than `EXACT_MAX_SEEDS`: 100,000, and fewer above 1,000 seeds."""
    return min(MONTE_CARLO_FLIPS, max(LEAST_FLIPS, MOST_SIGNS // n))


def holm(p_values: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Holm's (1979) step-down adjusted p-values over the last axis, each in the place of its own raw p.

    A NaN is a member of the family that has no p yet: it counts in m, as the largest, and stays NaN. A change whose
    cells failed must not make the correction of the others weaker. The same as
    `statsmodels.stats.multitest.multipletests(method="holm")`, without its import (0.9 s) and its `gc.collect()` a
    call.

    Args:
        weights: (m,), how much of the error each may spend (Holm 1979, section 3): p / weight in rising order, times
            the weight of those that are left. Equal by default.
    """
    weights = np.ones(p_values.shape[-1]) if weights is None else weights
    filled = np.where(np.isnan(p_values), 1.0, p_values) / weights
    order = np.argsort(filled, axis=-1, kind="stable")
    left = np.cumsum(weights[order][..., ::-1], axis=-1)[..., ::-1]
    stepped = np.take_along_axis(filled, order, axis=-1) * left
    adjusted = np.empty_like(filled)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0), axis=-1)
    return np.where(np.isnan(p_values), np.nan, adjusted)


def expected_luck(m: int) -> float:
    """By how many standard errors the best of m useless changes is expected to improve: the mean of the maximum of m
    independent standard normals (1.48 for m = 9). Changes that share their reference are correlated and give less.
    """
    z = np.linspace(-10.0, 10.0, 20_001)
    density = m * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * ndtr(z) ** (m - 1)
    return float(np.sum(z * density) * (z[1] - z[0]))  # the ends are 0: the plain sum is the trapezoid rule


def _t_cdf(differences: FloatArray, distance: FloatArray) -> FloatArray:
    """P(T <= distance / standard error) with n - 1 degrees of freedom."""
    degrees = max(differences.shape[-1] - 1, 1)
    return np.asarray(stdtr(degrees, distance / standard_error(differences)))


@lru_cache(maxsize=EXACT_MAX_SEEDS)
def all_signs(n: int) -> NDArray[np.int8]:
    """(2^(n-1), n) of -1 and 1. The first sign is fixed: the other half are the mirror images, with the same |sum|."""
    bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return (1 - 2 * bits).astype(np.int8)


@lru_cache(maxsize=4)
def _random_signs(n: int) -> NDArray[np.int8]:
    return as_signs(np.random.default_rng(FLIP_GENERATOR_SEED).integers(0, 2, (num_flips(n), n), dtype=np.int8))


def as_signs(bits: NDArray[np.int8]) -> NDArray[np.int8]:
    """1 for 0, -1 for 1; in place."""
    bits *= -2
    bits += 1
    return bits
