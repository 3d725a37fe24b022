"""The correction of a family that is looked at more than once: group-sequential up to the horizon, e-values beyond it.

A study declares how many seeds it will have, its horizon. Looking earlier is allowed at any number of seeds, but every
look spends from one error budget. Who goes on beyond the horizon has spent it all, and is judged by a process that is
valid whenever one looks.

Axes: b sign vectors, m members of the family, s seeds, k looks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.plan.power import spent_share
from harness.stats.resampling import TIE, can_decide, joint_signs, scores
from harness.stats.significance import MONTE_CARLO_FLIPS, holm
from harness.stats.values import FloatArray

MOST_SCORES = 10_000_000  # b m k: 80 MB
LEAST_FLIPS = 10_000
COARSE = 0.005  # a p that claims nothing is found to half a percent of itself, from above
SHIFTS = (0.4, 0.8, 1.2, 2.0, 3.5)  # effects in sd of the differences that the e-process bets on, with both signs

Looks = Sequence[NDArray[np.bool_]]  # the seeds that were there, a mask (s,) a look, the last one now


def spent_by(looks: Looks, horizon: int) -> FloatArray:
    """The share of the error budget that may be spent by each look: (n / N)^rho, 1 at the horizon."""
    return np.array([spent_share(int(look.sum()), horizon) for look in looks])


def boundaries(largest: Sequence[FloatArray], allowed: NDArray[np.int64]) -> FloatArray:
    """The boundary at each look, over one set of paths under the null.

    At look k, of the paths that crossed no boundary before, those with the largest statistic are removed, at most
    `allowed[k]` of all paths by then. The boundary is the smallest statistic among the removed; infinite where none may
    be removed. Ties are removed together or not at all.

    Args:
        largest: k arrays (b,): the largest |t| of the family on each path.
        allowed: (k,), rising.
    """
    alive = np.ones(len(largest[0]), dtype=bool)
    found, removed = np.full(len(largest), np.inf), 0
    for k, statistic in enumerate(largest):
        room = int(allowed[k]) - removed
        if room < 1:
            continue
        rest = statistic[alive]
        if room >= len(rest):
            found[k] = -np.inf
            break
        place = len(rest) - room
        split = np.partition(rest, (place - 1, place))
        boundary = split[place] - TIE
        if split[place - 1] >= boundary:  # a tie across the edge: none of the equal ones
            above = rest[rest > split[place] + TIE]
            boundary = above.min() - TIE if len(above) else np.inf
        crossing = alive & (statistic >= boundary)
        found[k], removed, alive = boundary, removed + int(crossing.sum()), alive & ~crossing
    return found


def group_sequential(
    differences: FloatArray,
    looks: Looks,
    horizon: int,
    alpha: float = 0.05,
    weights: FloatArray | None = None,
    counts: NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Adjusted p-values of a family at the last of several looks: the smallest level at which a member is claimed by
    then, at this look or at an earlier one.

    The group-sequential version of Westfall and Young's procedure, on one set of joint sign vectors: the boundaries
    (see there) are those of the largest |t| of the members that were not claimed yet, recomputed after each claim. With
    one look at the horizon it is `stepdown.westfall_young`. Members that are not claimed at `alpha` are adjusted
    against all that remain then, which is never too small.

    Args:
        differences: (m, s), NaN where a member lacks the seed.
        looks: which seeds each look had, the last one now; every mask within the next.
        horizon: number of seeds that the study declared.
        weights: (m,), see `resampling.scores`; equal by default.
        counts: (k, m), whether a member may be claimed at that look; all by default. Fewer claims keep the error.

    Returns:
        (m,); NaN for fewer than two differences.
    """
    adjusted = np.full(len(differences), np.nan)
    weights = np.ones(len(differences)) if weights is None else weights
    decides = can_decide(differences, alpha)
    for members in (decides, ~decides & (np.isfinite(differences).sum(axis=1) > 1)):
        if members.any():
            paths = _Paths(differences[members], looks, horizon, weights[members])
            if counts is not None:
                paths.observed[~counts[:, members]] = -np.inf
            adjusted[members] = paths.adjusted(alpha)
    return adjusted


class _Paths:
    """The family under every sign vector, at every look.

    Attributes:
        levels: the levels at which one path more may be removed at some look, rising; nothing changes between them.
    """

    def __init__(self, differences: FloatArray, looks: Looks, horizon: int, weights: FloatArray) -> None:
        m = len(differences)
        at_most = max(LEAST_FLIPS, min(MONTE_CARLO_FLIPS, MOST_SCORES // (m * len(looks))))
        signs = joint_signs(differences.shape[1], at_most)
        self.scores = [scores(np.where(look, differences, np.nan), signs, weights) for look in looks]
        self.observed = np.array([it[0] for it in self.scores])  # (k, m)
        self.spent = spent_by(looks, horizon)
        self.num_paths = len(signs)
        steps = [np.arange(1, int(self.num_paths * share + 1e-9) + 1) / share for share in self.spent]
        self.levels = np.unique(np.concatenate(steps)) / self.num_paths

    def adjusted(self, alpha: float) -> FloatArray:
        """Claimed at alpha by stepping down; then for each member the lowest level found at which it would be.

        Ties are removed whole, so that a little more alpha may remove a large group early and leave less for later: the
        decision at alpha is therefore made at alpha, and the search for a level does not cross it.
        """
        p = np.full(self.observed.shape[1], np.nan)
        at_alpha = int(np.searchsorted(self.levels, alpha + 1e-12, side="right")) - 1
        rest, so_far = list(range(len(p))), 0
        while rest:
            family = _Remaining(self, rest)
            if at_alpha < 0 or not family.claims(at_alpha).any():
                for place, member in enumerate(rest):
                    p[member] = self.level(family.least([place], at_alpha, len(self.levels), COARSE))
                break
            so_far = family.least(range(len(rest)), so_far - 1, at_alpha)
            claimed = family.claims(so_far)
            for place, member in enumerate(rest):
                if claimed[place]:
                    p[member] = self.level(so_far)
            rest = [member for place, member in enumerate(rest) if not claimed[place]]
        return p

    def level(self, index: int) -> float:
        """0 below the first; 1 beyond the last: a look before the horizon may not remove every path."""
        if index < 0:
            return 0.0
        return float(self.levels[index]) if index < len(self.levels) else 1.0


class _Remaining:
    """What is claimed of the members that were not claimed yet, by the level."""

    def __init__(self, paths: _Paths, members: Sequence[int]) -> None:
        self.paths = paths
        self.observed = paths.observed[:, members]
        self.largest = [it[:, members].max(axis=1) for it in paths.scores]
        self.known: dict[int, NDArray[np.bool_]] = {}

    def claims(self, index: int) -> NDArray[np.bool_]:
        """(members,): whether each crossed a boundary by now, at the level of this index."""
        if index not in self.known:
            paths = self.paths.num_paths * self.paths.levels[index] * self.paths.spent
            crossed = self.observed >= boundaries(self.largest, np.floor(paths + 1e-6).astype(np.int64))[:, None]
            self.known[index] = np.asarray(crossed.any(axis=0))
        return self.known[index]

    def least(self, places: Sequence[int], above: int, most: int, coarse: float = 0.0) -> int:
        """Index of a level in (above, most] at which one of these members is claimed, and is not at the one before, or
        at one that is lower by this share; `most` where there is no lower one."""
        low, high = above, most
        while high - low > 1 and self.paths.level(low) < (1 - coarse) * self.paths.level(high):
            middle = (low + high) // 2
            low, high = (low, middle) if self.claims(middle)[list(places)].any() else (middle, high)
        return high


def e_process_p(differences: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """p-values that hold whenever one looks: Holm over 1 / max E, for differences that are symmetric under the null.

    E_n = mean over the shifts of the product over s <= n of exp(l d_s / r_s) / cosh(l d_s / r_s), with l = delta
    sqrt(1 + delta^2) and r_s the root mean square of d_1..d_s. Given |d|, each factor has mean 1 under a random sign,
    so that E is a martingale and ever reaches 1 / alpha with probability alpha at most (Ville; de la Pena 1999). The
    largest E is taken over the seeds after which the sum had the sign that it has at the end.

    Args:
        differences: (m, s) in the order in which the seeds came, NaN where a member lacks the seed.
        weights: (m,), of Holm's correction; equal by default.

    Returns:
        (m,); NaN for fewer than two differences.
    """
    return holm(np.array([_one_e_process_p(row[np.isfinite(row)]) for row in differences]), weights)


def smallest_e_process_p(counts: NDArray[np.int64], weights: FloatArray | None = None) -> FloatArray:
    """What `e_process_p` can be at least with so many seeds, whatever they show.

    d_s / r_s is sqrt(s) at most, which differences that grow without end come near to.

    Args:
        counts: (m,).
    """
    bets = np.array([it * np.sqrt(1 + it**2) for shift in SHIFTS for it in (shift, -shift)])

    def least(n: int) -> float:
        if n < 2:
            return float("nan")
        products = np.logaddexp(0, -2 * bets[:, None] * np.sqrt(np.arange(1, n + 1))).sum(axis=1)
        return float(min(1.0, 1 / np.exp(n * np.log(2) - products).mean()))

    return holm(np.array([least(int(n)) for n in counts]), weights)


def _one_e_process_p(differences: FloatArray) -> float:
    if len(differences) < 2:
        return float("nan")
    scale = np.sqrt(np.cumsum(differences**2) / np.arange(1, len(differences) + 1))
    scaled = np.divide(differences, scale, out=np.zeros_like(differences), where=scale > 0)
    shifts = np.array([*SHIFTS, *(-it for it in SHIFTS)])
    bets = (shifts * np.sqrt(1 + shifts**2))[:, None] * scaled
    growth = np.cumsum(bets - np.logaddexp(bets, -bets) + np.log(2), axis=1)  # (shift, s): log of each product
    ways = np.sign(np.cumsum(differences))  # when it went the other way, nothing spoke for what is said now
    return float(min(1.0, 1 / np.exp(growth).mean(axis=0)[ways == ways[-1]].max()))
