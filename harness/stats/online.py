"""Judging one proposal after the other: when a candidate is kept, when it is given up, and what a whole stream spends.

One proposal is decided by an e-process over its paired seeds, looked at after each of them. A stream of proposals
spends one declared level by e-LOND (Xu & Ramdas, AISTATS 2024, arXiv 2407.20683, Algorithm 1), under any dependence
between them: champion and seeds are shared. e-BH for streams would take decisions back, which a champion cannot.

Axes: ... any leading axes, n seeds.
"""

from dataclasses import dataclass
from math import exp, inf, log
from typing import Literal

import numpy as np

from harness.stats.intervals import mean_and_sd
from harness.stats.sequential import SHIFTS
from harness.stats.values import FloatArray

Verdict = Literal["keep", "discard", "undecided"]
WORSE_LEVEL = 0.05  # at which a candidate is called worse: a mistake costs a gain, and claims nothing
FUTILE = 0.9  # one-sided confidence that a gain is smaller than what is worth finding
FIRST_TO_GIVE_UP = 3  # seeds
EXPONENT = 1.6  # of the weights of a stream's proposals (Ramdas et al. 2018)
ZETA = 2.2857656568  # sum of n ** -EXPONENT: the Riemann zeta function at it


def log_e_process(improvements: FloatArray) -> FloatArray:
    """log E_n after each seed, of the hypothesis that there is no improvement: E_n >= 1 / level ever happens with
    probability `level` at most.

    E_n = mean over shifts of the product over s <= n of exp(l d_s / r_s) / cosh(l d_s / r_s), l and r_s as in
    `sequential.e_process_p`, with bets on improvements alone. Assumes differences that are symmetric and unimodal
    around a mean of 0 or less: then each sign is positive with probability 1/2 at most, whatever its size.

    Args:
        improvements: (..., n), positive where better, in the order of the seeds.

    Returns:
        (..., n).
    """
    count = np.arange(1, improvements.shape[-1] + 1)
    scale = np.sqrt(np.cumsum(improvements**2, axis=-1) / count)
    scaled = np.divide(improvements, scale, out=np.zeros_like(scale), where=scale > 0)
    shifts = np.array(SHIFTS)
    bets = (shifts * np.sqrt(1 + shifts**2))[:, None] * scaled[..., None, :]
    growth = np.cumsum(bets - np.logaddexp(bets, -bets) + np.log(2), axis=-1)
    return np.asarray(np.logaddexp.reduce(growth, axis=-2) - np.log(len(shifts)))


def most_after(num_seeds: int) -> float:
    """The largest log E that so many seeds can give: each better, and all by the same.

    >>> round(most_after(5), 3)
    3.139
    """
    return float(log_e_process(np.ones(num_seeds))[-1]) if num_seeds else 0.0


def least_seeds(level: float) -> int:
    """How many seeds it takes at least to keep a proposal at this level, whatever they show.

    >>> least_seeds(0.05)
    5
    """
    return next(n for n in range(1, 1_000) if most_after(n) >= -log(level))


def weight(number: int) -> float:
    """gamma_t: the share of a stream's level that its proposal of this number (from 1) may spend; all add up to 1."""
    return float(number**-EXPONENT / ZETA)


def elond_level(alpha: float, number: int, num_kept: int) -> float:
    """The level of a stream's proposal: alpha gamma_t (R + 1), R of the ones before it having been kept.

    Keeping each proposal whose E reaches 1 / level holds the false discovery rate at `alpha` at any time, for any
    dependence between the proposals.

    >>> elond_level(0.05, 1, 0) < 0.05
    True
    """
    return min(1.0, alpha * weight(number) * (num_kept + 1))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the seeds so far say of one proposal.

    Attributes:
        reason: why, a word or two; empty while it is open.
        num_seeds: that were looked at; those after the decision are not.
        log_e: of the e-process at that seed.
    """

    verdict: Verdict
    reason: str
    num_seeds: int
    log_e: float

    @property
    def is_final(self) -> bool:
        return bool(self.reason)

    @property
    def e(self) -> float:
        return exp(min(self.log_e, 700.0))


def judge_improvements(improvements: FloatArray, level: float, *, most: int, smallest: float = 0.0) -> Judgement:
    """The verdict on one proposal, looked at after each seed: the first look that decides.

    Kept when E reaches 1 / level. Given up, which claims nothing: when it is worse, by the same process at 5%; when a
    gain of `smallest` is excluded with 90% confidence (t, one-sided); when all numbers are the same; when even seeds
    that are all better could not decide any more within `most`.

    Args:
        improvements: (n,), positive where better, in the order of the seeds.
        most: seeds that there will be. smallest: gain worth finding, as improvements are measured.
    """
    if not len(improvements):
        return Judgement("undecided", "", 0, 0.0)
    path, worse, needed = log_e_process(improvements), log_e_process(-improvements), -log(level)
    for n in range(1, min(len(improvements), most) + 1):
        reason = _reason(improvements[:n], float(path[n - 1]), float(worse[n - 1]), needed, most, smallest)
        if reason:
            verdict: Verdict = "keep" if reason == BETTER else "undecided" if reason == TOO_FEW else "discard"
            return Judgement(verdict, reason, n, float(path[n - 1]))
    n = min(len(improvements), most)
    return Judgement("undecided", TOO_FEW if n == most else "", n, float(path[n - 1]))


BETTER, WORSE, SMALL, NO_BETTER, SAME = "better", "worse", "too small to matter", "no better", "the same numbers"
TOO_FEW = "not decided by so many seeds"


def _reason(seen: FloatArray, better: float, worse: float, needed: float, most: int, smallest: float) -> str:
    if better >= needed:
        return BETTER
    if worse >= -log(WORSE_LEVEL):
        return WORSE
    n = len(seen)
    if n < FIRST_TO_GIVE_UP:
        return ""
    if not seen.any():
        return SAME
    if _upper(seen) < smallest:
        return SMALL if smallest > 0 else NO_BETTER
    return TOO_FEW if better + (most - n) * log(2) < needed else ""


def _upper(seen: FloatArray) -> float:
    """One-sided upper bound of the mean gain."""
    from scipy.special import stdtrit

    mean, sd = mean_and_sd(seen)
    if not sd > 0:
        return float(mean) if len(seen) > 1 else inf
    return float(mean + stdtrit(len(seen) - 1, FUTILE) * sd / np.sqrt(len(seen)))
