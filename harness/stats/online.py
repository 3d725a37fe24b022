"""Judging one proposal after the other: when a candidate is kept, when it is given up, and what a whole stream spends.

One proposal is decided by an e-process over its paired seeds, looked at after each of them. A stream of proposals
spends one declared level by e-LOND (Xu & Ramdas, AISTATS 2024, arXiv 2407.20683, Algorithm 1), under any dependence
between them: champion and seeds are shared. e-BH for streams would take decisions back, which a champion cannot.

Axes: ... any leading axes, n seeds.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

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
    """The log E of so many seeds that are all better, and all by the same; gains that grow reach more.

    >>> round(most_after(5), 3)
    3.139
    """
    return float(log_e_process(np.ones(num_seeds))[-1]) if num_seeds else 0.0


@lru_cache(maxsize=10_000)  # a simulation asks again and again
def least_seeds(level: float) -> int:
    """How many seeds keep a proposal at this level where all gain the same; a seed fewer may do where gains grow.

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
    """The verdict on one proposal, looked at after each seed: the first look that decides; see `first_decisions`.

    Args:
        improvements: (n,), positive where better, in the order of the seeds.
        most: seeds that there will be. smallest: gain worth finding, as improvements are measured; 0 for any.

    >>> judge_improvements(np.array([1.0, 1.2, 0.9, 1.1, 1.0]), 0.05, most=12).verdict
    'keep'
    """
    if not len(improvements):
        return Judgement("undecided", "", 0, 0.0)
    reasons, seeds, log_e = first_decisions(improvements[None], np.array([level]), np.array([most]), smallest)
    reason = REASONS[reasons[0]]
    verdict: Verdict = "keep" if reason == BETTER else "undecided" if reason in (TOO_FEW, "") else "discard"
    return Judgement(verdict, reason, int(seeds[0]), float(log_e[0]))


BETTER, WORSE, SAME, SMALL = "better", "worse", "the same numbers", "too small to matter"
NO_BETTER, TOO_FEW = "no better so far", "not enough seeds"  # when no further seeds could decide
REASONS = ("", BETTER, WORSE, SAME, SMALL, NO_BETTER, TOO_FEW)  # by code; the first one that holds at a look counts


def first_decisions(
    improvements: FloatArray, levels: FloatArray, most: NDArray[np.int64], smallest: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """The first look that decides, of many proposals, each looked at after each seed.

    Kept when E reaches 1 / level. Given up, which claims nothing: when it is worse, by the same process at 5%; when all
    numbers are the same; when a gain of `smallest`, where one is declared, is excluded with 90% confidence (t,
    one-sided); when even seeds that are all better could not decide any more. Then it stays undecided where it looks
    better, and is discarded where it does not.

    Args:
        improvements: (m, n), positive where better. levels: (m,). most: (m,), seeds that each will have; those beyond
            are not looked at.

    Returns:
        (m,) each: the place of the reason in `REASONS`, the number of seeds at that look, log E there.
    """
    n = np.arange(1, improvements.shape[1] + 1)
    path, worse, needed = log_e_process(improvements), log_e_process(-improvements), -np.log(levels)[:, None]
    gives_up = n >= FIRST_TO_GIVE_UP
    is_hopeless = gives_up & (path + (most[:, None] - n) * log(2) < needed) | (n >= most[:, None])
    holds = np.stack(
        [
            path >= needed,
            worse >= -log(WORSE_LEVEL),
            gives_up & (np.cumsum(improvements != 0, axis=1) == 0),
            gives_up & (smallest > 0) & (_upper(improvements) < smallest),
            is_hopeless & (np.cumsum(improvements, axis=1) <= 0),
            is_hopeless,
        ]
    )
    looks: NDArray[np.bool_] = holds & (n <= most[:, None])
    decided: NDArray[np.bool_] = np.asarray(looks.any(axis=0))
    place = np.where(decided.any(axis=1), decided.argmax(axis=1), np.minimum(improvements.shape[1], most) - 1)
    rows = np.arange(len(improvements))
    at = looks[:, rows, place]
    reasons = np.where(at.any(axis=0), at.argmax(axis=0) + 1, 0)
    return reasons, place + 1, path[rows, place]


def _upper(improvements: FloatArray) -> FloatArray:
    """One-sided upper bound of each mean gain after each seed; infinite after the first."""
    n = np.arange(1, improvements.shape[1] + 1)
    mean = np.cumsum(improvements, axis=1) / n
    centred = improvements - mean[:, -1:]  # no digits are lost where all are nearly the same
    squares = np.cumsum(centred**2, axis=1) - np.cumsum(centred, axis=1) ** 2 / n
    degrees = np.maximum(n - 1, 1)
    sd = np.sqrt(np.maximum(squares, 0) / degrees)
    bound: FloatArray = np.where(n > 1, mean + stdtrit(degrees, FUTILE) * sd / np.sqrt(n), np.inf)
    return bound
