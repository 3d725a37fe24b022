"""The correction of a family at one look: Westfall and Young's step-down maximum of |t| over joint sign flips.

Several looks are in `sequential.py`; which of the two a family gets is decided in `evidence.py`.
"""

import numpy as np

from harness.stats.resampling import FLIPS_AT_ONCE, TIE, can_decide, joint_signs, scores
from harness.stats.significance import MONTE_CARLO_FLIPS
from harness.stats.values import FloatArray

SCORES_AT_ONCE = 250_000  # 2 MB: what a processor keeps near


def westfall_young(differences: FloatArray, alpha: float = 0.05, weights: FloatArray | None = None) -> FloatArray:
    """Step-down adjusted p-values (Westfall & Young 1993, algorithm 2.8, by sign flips).

    With T_(1) >= T_(2) >= ... the observed |t| in falling order, p_(i) is the share of sign vectors e for which some
    T_j(e), j >= i, reaches T_(i), made monotone. Exact for up to 16 seeds, else 100,000 vectors with (b + 1) / (B + 1).
    The smallest p is 2^(1-n), whatever the size of the family: eight seeds can support fifteen changes.

    Assumes that the differences of a seed are jointly symmetric around 0 under the null: flipping the sign of all of
    them is as likely. A baseline that alone is skewed breaks that for all members at once (family-wise error .087 for
    a baseline alone skewed and three times noisier, by simulation).

    Args:
        differences: (m, s), a row a member, NaN where it lacks the seed.
        alpha: members with too few seeds to reach it alone are adjusted among themselves.
        weights: (m,), see `resampling.scores`; equal by default.

    Returns:
        (m,); NaN for fewer than two differences.
    """
    adjusted = np.full(len(differences), np.nan)
    weights = np.ones(len(differences)) if weights is None else weights
    decides = can_decide(differences, alpha)
    for members in (decides, ~decides & (np.isfinite(differences).sum(axis=1) > 1)):
        if members.any():
            adjusted[members] = _stepped_down(differences[members], weights[members])
    return adjusted


def _stepped_down(differences: FloatArray, weights: FloatArray) -> FloatArray:
    differences = differences[:, np.isfinite(differences).any(axis=0)]
    signs = joint_signs(differences.shape[1], MONTE_CARLO_FLIPS)
    observed = scores(differences, signs[:1], weights)[0]
    falling = np.argsort(-observed, kind="stable")
    reach = observed[falling] - TIE
    reached = np.zeros(len(falling))
    at_once = max(256, min(FLIPS_AT_ONCE, SCORES_AT_ONCE // len(falling)))
    for flip in range(0, len(signs), at_once):
        flipped = scores(differences, signs[flip : flip + at_once], weights)
        rising = flipped.T[falling[::-1]]  # (m, b): the maximum of whole rows is ten times faster than within them
        largest_of_rest = np.maximum.accumulate(rising, axis=0, out=rising)[::-1]
        reached += (largest_of_rest >= reach[:, None]).sum(axis=1)
    p = np.empty(len(falling))
    p[falling] = np.maximum.accumulate(reached / len(signs))  # the observed vector is one of them: (b + 1) / (B + 1)
    return p
