"""Joint sign flips of a family: one sign a seed, the same for every member, and the statistic that is compared.

Flipping whole seeds keeps whatever correlation the members have, which is what a correction by m throws away. What is
decided from it, once or at several looks, is in `stepdown.py` and `sequential.py`.

Axes: b sign vectors, m members of the family, s seeds.
"""

import numpy as np
from numpy.typing import NDArray

from harness.stats.significance import (
    EXACT_MAX_SEEDS,
    FLIP_GENERATOR_SEED,
    SIGNS_AT_ONCE,
    all_signs,
    as_signs,
    num_flips,
)
from harness.stats.values import FloatArray

FLIPS_AT_ONCE = 8_192
LARGEST_SHARE = 1 - 1e-12  # where all differences are equal: an infinite score would cross an infinite boundary
TIE = 1e-9  # scores that differ by less are equal: sums of the same numbers in another order differ in the last bits


def joint_signs(num_seeds: int, at_most: int) -> NDArray[np.int8]:
    """Sign vectors (b, s). The first is all ones: the data as they were observed.

    Up to 16 seeds all 2^(s-1) with the first sign fixed (the other half are mirror images); above, `at_most` drawn with
    a fixed seed (fewer where they would not fit into memory), behind the one that was observed.
    """
    if num_seeds <= EXACT_MAX_SEEDS:
        return all_signs(num_seeds)
    drawn = (min(at_most, num_flips(num_seeds)), num_seeds)
    signs = np.ones((drawn[0] + 1, num_seeds), dtype=np.int8)
    signs[1:] = as_signs(np.random.default_rng(FLIP_GENERATOR_SEED).integers(0, 2, drawn, dtype=np.int8))
    return signs


def scores(differences: FloatArray, signs: NDArray[np.int8], weights: FloatArray | None = None) -> FloatArray:
    """|t| of every member under every sign vector, (b, m), on one scale; 0 where a member is all zeros or empty.

    Where all members have the same number of seeds, that is any increasing function of |t|, and the largest |t| is the
    largest score. A member with fewer seeds has heavier tails; each |t| with v degrees of freedom is taken to the
    normal scale by (8v + 1) / (8v + 3) sqrt(v log(1 + t^2 / v)) (Wallace 1959), so that it does not outweigh the rest.

    Members that do not weigh the same are compared by z^2 + 2 log(weight), z on that normal scale: as p falls like
    exp(-z^2 / 2), a member of weight w has to have about w times the p of one of weight 1 to be as extreme. Any fixed
    statistic keeps the error; this one says who may spend it.

    Args:
        differences: (m, s), NaN where a member lacks the seed.
        weights: (m,), positive; equal by default.
    """
    has = np.isfinite(differences)
    filled = np.where(has, differences, 0.0)
    n = has.sum(axis=1)
    sum_of_squares = n * (filled**2).sum(axis=1)
    share = _sums(signs, filled)  # of the sums at first; all in place: b m is large
    # Flips leave the sum of squares: t^2 / (t^2 + v) = (sum d)^2 / (n sum d^2), a share of 1.
    np.square(share, out=share)
    share /= np.where(sum_of_squares > 0, sum_of_squares, np.inf)
    np.minimum(np.round(share, 12, out=share), LARGEST_SHARE, out=share)
    share[:, n < 2] = 0.0  # one difference says nothing, and would stand above all others on every path
    weights = np.ones(len(differences)) if weights is None else weights
    is_weighted = len(np.unique(weights)) > 1
    if len(np.unique(n[n > 1])) <= 1 and not is_weighted:
        return share
    v = np.maximum(n - 1, 1)
    squares = np.log1p(np.negative(share, out=share), out=share)
    squares *= -(((8 * v + 1) / (8 * v + 3)) ** 2) * v
    if is_weighted:
        squares += 2 * np.log(weights)
        return squares
    return np.asarray(np.sqrt(squares, out=squares))


def _sums(signs: NDArray[np.int8], rows: FloatArray) -> FloatArray:
    """(b, m) of signs (b, s) times rows (m, s)."""
    at_once = max(1, SIGNS_AT_ONCE // max(1, signs.shape[1]))
    if len(signs) <= at_once:
        return np.asarray(signs.astype(np.float64) @ rows.T)
    blocks = (signs[it : it + at_once] for it in range(0, len(signs), at_once))
    return np.concatenate([block.astype(np.float64) @ rows.T for block in blocks])


def can_decide(differences: FloatArray, alpha: float) -> NDArray[np.bool_]:
    """Which members have seeds enough to reach alpha alone: 2^(1-n) <= alpha. A member that cannot is never claimed,
    so it has no part in the correction of the others."""
    n = np.isfinite(differences).sum(axis=1)
    return np.asarray((n > 1) & (2.0 ** (1 - n) <= alpha))
