"""How many seeds, and what they can show: noncentral t power at the corrected level, and the sd to plan with.

Nothing here looks at an effect that was found: power after the fact says no more than the p-value. No table is read
here, so that `harness plan`, which needs these numbers, starts without pandas.
"""

from functools import lru_cache

import numpy as np
from scipy.special import nctdtr, ndtri, stdtrit

from harness.errors import StudyError

MAX_SEEDS = 10_000


def t_power(n: int, dz: float, alpha: float) -> float:
    """Power of the two-sided paired t test: P(|T'| > t) with T' noncentral t(n - 1, dz * sqrt(n)).

    Args:
        dz: the effect in sd of the per-seed differences.
        alpha: level of this one test; divide the family-wise level by the size of the family.
    """
    critical = stdtrit(n - 1, 1 - alpha / 2)
    shift = abs(dz) * np.sqrt(n)
    # P(T' > t) as P(T'(-shift) < -t): one minus the distribution function would lose its small values.
    right = nctdtr(n - 1, -shift, -critical)
    # Significant with the other sign; scipy 1.17 gives NaN far out in this tail, where it adds nothing (tests: 1e-9).
    wrong = nctdtr(n - 1, shift, -critical)
    return float(right if np.isnan(wrong) else right + wrong)


def smallest_detectable_effect(n: int, sd: float, alpha: float = 0.05, m: int = 1, power: float = 0.8) -> float:
    """The smallest effect that a test with n seeds at level alpha / m finds with this power, in the unit of `sd`.

    Args:
        sd: of the per-seed differences, not of one variant.
    """
    return _detectable_dz(n, alpha / m, power) * sd


def seeds_needed(mde: float, sd: float, alpha: float = 0.05, m: int = 1, power: float = 0.8) -> int:
    """The fewest seeds with which an effect of size `mde` is found with this power at level alpha / m.

    At least as many as the sign-flip test needs to be able to reach alpha / m at all (`seeds_to_reach`): large effects
    would otherwise be planned with seeds that can never show them.

    Args:
        mde: smallest effect worth finding, in the unit of `sd`; positive.
        sd: of the per-seed differences (`stats.difference_sd`), not of one variant.

    Raises:
        StudyError: `mde` is not positive, or more than 10,000 seeds would be needed.
    """
    if not mde > 0:
        raise StudyError(f"the smallest effect worth finding must be positive, not {mde}.")
    least = seeds_to_reach(alpha, m)
    if sd == 0:
        return least
    dz, level = mde / sd, alpha / m
    if t_power(MAX_SEEDS, dz, level) < power:
        raise StudyError(
            f"an effect of {mde:g} with an sd of {sd:g} between seeds and {m} comparisons needs more than {MAX_SEEDS}"
            " seeds; ask for a larger effect or fewer comparisons."
        )
    if t_power(least, dz, level) >= power:
        return least
    low, high = least, MAX_SEEDS  # power(low) < power <= power(high), and power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if t_power(middle, dz, level) < power else (low, middle)
    return high


def seeds_to_reach(alpha: float = 0.05, m: int = 1) -> int:
    """The fewest seeds with which the sign-flip test can reach alpha in a family of m: 6 for one change, 9 for nine."""
    return max(2, int(np.ceil(1 + np.log2(m / alpha) - 1e-12)))


def prior_sd(accuracy: float, n_eval: int) -> float:
    """Seed-to-seed sd of an accuracy before any run: sqrt(error / (2 n_eval)), as a fraction (Jordan 2023).

    0.0035 (0.35 points) at 75% on 10,000 images. For one variant; see `prior_difference_sd` for a difference.

    Raises:
        StudyError: accuracy outside (0, 1), or no evaluation images.
    """
    if not 0 < accuracy < 1 or n_eval < 1:
        raise StudyError(f"an accuracy in (0, 1) on at least one image is needed, not {accuracy} on {n_eval} images.")
    return float(np.sqrt((1 - accuracy) / (2 * n_eval)))


def prior_difference_sd(accuracy: float, n_eval: int) -> float:
    """Sd of the per-seed difference before any run: sqrt(2) `prior_sd`, as if pairing by seed brought nothing."""
    return float(np.sqrt(2)) * prior_sd(accuracy, n_eval)


def noether_seeds(gamma: float = 0.75, alpha: float = 0.05, beta: float = 0.05) -> int:
    """Seeds for P(improve) = gamma to be told from 1/2, one-sided (Noether 1987): 29 for the defaults.

    n = ((z(1 - alpha) + z(1 - beta)) / (sqrt(6) (gamma - 1/2)))^2, as Bouthillier et al. 2021 recommend.
    """
    return int(np.ceil(((ndtri(1 - alpha) + ndtri(1 - beta)) / (np.sqrt(6) * (gamma - 0.5))) ** 2))


@lru_cache(maxsize=1024)
def _detectable_dz(n: int, level: float, power: float) -> float:
    """By bisection: power grows with dz from `level` at 0."""
    low, high = 0.0, 1.0
    while t_power(n, high, level) < power:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_power(n, middle, level) < power else (low, middle)
    return high
