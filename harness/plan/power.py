"""How many seeds, and what they can show: the power of the test that a study uses, and the sd to plan with.

That test is Westfall and Young's over joint sign flips. Its power was simulated once
(`python -m benchmarks.power_table`); the level at which a t test has the same lets noncentral t do the rest.

Nothing here looks at an effect that was found: power after the fact says no more than the p-value. No table is read
here, so that `harness plan`, which needs these numbers, starts without pandas.
"""

from functools import lru_cache

import numpy as np
from scipy.special import nctdtr, nctdtrit, ndtri, stdtr, stdtrit

from harness.errors import StudyError

MAX_SEEDS = 10_000
# What the designs beside the main one weigh together, in the correction of a study run: a quarter of the main one, so
# that it keeps at least four fifths of the error budget, however many comparisons there are beside it.
OTHERS_WEIGH = 0.25
SPENDING_POWER = 1.0  # rho: alpha (n / N)^rho may be spent by the look at n of N seeds (Kim & DeMets 1987)

# Seeds: the effect in sd of the per-seed differences that is found with power .8 at .05, by the number of changes
# against one baseline, of which one has it; normal noise. Standard error 1%.
FAMILY_SIZES = (1, 2, 3, 5, 9, 15, 30, 100)
FOUND_WITH_POWER: dict[int, tuple[float, ...]] = {
    6: (1.78, 2.15, 2.34, 2.70, 3.09, 3.50, 4.03, 5.04),
    7: (1.34, 1.55, 1.71, 1.88, 2.11, 2.26, 2.62, 3.28),
    8: (1.20, 1.38, 1.47, 1.61, 1.78, 1.94, 2.15, 2.59),
    9: (1.07, 1.25, 1.32, 1.47, 1.57, 1.71, 1.89, 2.23),
    10: (1.01, 1.14, 1.22, 1.32, 1.43, 1.54, 1.69, 1.93),
    12: (0.89, 0.99, 1.06, 1.17, 1.25, 1.33, 1.44, 1.63),
    14: (0.80, 0.90, 0.97, 1.04, 1.10, 1.19, 1.26, 1.46),
    16: (0.74, 0.83, 0.90, 0.95, 1.02, 1.08, 1.16, 1.27),
    20: (0.67, 0.74, 0.77, 0.82, 0.88, 0.92, 0.99, 1.09),
    24: (0.59, 0.67, 0.70, 0.74, 0.79, 0.83, 0.88, 0.97),
    30: (0.52, 0.59, 0.61, 0.66, 0.69, 0.73, 0.77, 0.86),
}
TABLE_ALPHA, TABLE_POWER = 0.05, 0.8


class BeyondError(StudyError):
    """An effect takes more seeds than the study declared.

    Attributes:
        num_seeds: what it takes of a study that declares as many.
    """

    def __init__(self, num_seeds: int, horizon: int) -> None:
        super().__init__(f"the effect takes {num_seeds} seeds; {horizon} were declared.")
        self.num_seeds = num_seeds


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


def smallest_detectable_effect(
    n: int, sd: float, alpha: float = 0.05, m: int = 1, power: float = 0.8, *, share: float = 1.0, horizon: int = 0
) -> float:
    """The smallest effect that n seeds show with this power in a family of m changes, in the unit of `sd`.

    Args:
        sd: of the per-seed differences, not of one variant.
        share: of the error budget that this family has, where others are tested beside it.
        horizon: seeds that the study declared, where these are fewer; 0 where they are all.

    Returns:
        NaN where n seeds can show nothing, whatever it is (`seeds_to_reach`).
    """
    alpha *= spent_share(n, horizon)
    if n < seeds_to_reach(alpha):
        return float("nan")
    return _detectable_dz(n, share * effective_level(n, m, alpha), power) * sd


def weight_beside_main(num_main: int, num_others: int) -> float:
    """What a comparison of another design weighs in the correction of a study run, where one of the main design weighs
    1: OTHERS_WEIGH of the main ones, shared out, and at most 1."""
    return min(1.0, OTHERS_WEIGH * num_main / num_others) if num_main and num_others else 1.0


def spent_share(n: int, horizon: int) -> float:
    """Of the error budget, what may be spent by a look at n of the seeds that a study declared; all where it declared
    none (0)."""
    return float(min(1.0, n / horizon) ** SPENDING_POWER) if horizon else 1.0


def effective_level(n: int, m: int, alpha: float = 0.05) -> float:
    """The level at which one t test has the power that the corrected sign-flip test has with n seeds and m changes.

    From FOUND_WITH_POWER, log-linear in log m and in 1 / n; beyond 30 seeds that of 30. Another alpha scales it.
    """
    rows = sorted(FOUND_WITH_POWER)
    size = np.log(m)
    by_seeds = [np.interp(size, np.log(FAMILY_SIZES), _levels(row)) for row in rows]
    if m > FAMILY_SIZES[-1]:  # as a correction by m would
        by_seeds = [level - (size - np.log(FAMILY_SIZES[-1])) for level in by_seeds]
    inverse = [1 / row for row in rows]
    level = np.interp(1 / n, inverse[::-1], by_seeds[::-1])
    return float(np.exp(level)) * alpha / TABLE_ALPHA


def seeds_needed(
    mde: float, sd: float, alpha: float = 0.05, m: int = 1, power: float = 0.8, *, share: float = 1.0, horizon: int = 0
) -> int:
    """The fewest seeds with which an effect of size `mde` is found with this power in a family of m changes.

    At least as many as the sign-flip test needs to be able to reach alpha at all (`seeds_to_reach`): large effects
    would otherwise be planned with seeds that can never show them. For an sd that is known; one that was measured on a
    few seeds takes `seeds_from_pilots`.

    Args:
        mde: smallest effect worth finding, in the unit of `sd`; positive.
        sd: of the per-seed differences, not of one variant.
        share: of the error budget that this family has, where others are tested beside it.
        horizon: seeds that the study declared; looking at fewer may spend a part of the budget. 0: what comes out here.

    Raises:
        StudyError: `mde` is not positive, or takes more than 10,000 seeds.
        BeyondError: it takes more than the horizon.
    """
    if not mde > 0:
        raise StudyError(f"the smallest effect worth finding must be positive, not {mde}.")
    least = seeds_to_reach(alpha, horizon)

    def reaches(n: int) -> bool:
        level = share * effective_level(n, m, alpha * spent_share(n, horizon))
        return sd == 0 or t_power(n, mde / sd, level) >= power

    if horizon and (least > horizon or not reaches(horizon)):
        raise BeyondError(seeds_needed(mde, sd, alpha, m, power, share=share), horizon)
    if not reaches(MAX_SEEDS):
        raise StudyError(
            f"an effect of {mde:g} with an sd of {sd:g} between seeds and {m} comparisons needs more than {MAX_SEEDS}"
            " seeds; ask for a larger effect or fewer comparisons."
        )
    if reaches(least):
        return least
    low, high = least, horizon or MAX_SEEDS  # reaches(high), not reaches(low), and power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def seeds_from_pilots(
    mde: float,
    sd: float,
    degrees: int,
    alpha: float = 0.05,
    m: int = 1,
    power: float = 0.8,
    *,
    share: float = 1.0,
    horizon: int = 0,
) -> int:
    """How many seeds an effect takes where the sd is an estimate from few pilot seeds, after Stein (1945).

    An sd that came out small by luck must not plan too few. Stein's n takes quantiles of t with the pilots' degrees of
    freedom v where a known sd would have normal ones; the same factor is laid on the sd here, (t(v, 1 - alpha / 2m) +
    t(v, power)) / (z(1 - alpha / 2m) + z(power)), and `seeds_needed` knows the test. Variants that share their baseline
    are correlated by one half, so that v = degrees / (1 + (m - 1) / 4).

    Args:
        sd: pooled over m variants; degrees: m (pilots - 1) of freedom. share, horizon: as `seeds_needed`.

    Raises:
        StudyError, BeyondError: as `seeds_needed`.
    """
    v, tail = degrees / (1 + (m - 1) / 4), 1 - share * alpha / (2 * m)
    factor = float((stdtrit(v, tail) + stdtrit(v, power)) / (ndtri(tail) + ndtri(power)))
    return seeds_needed(mde, factor * sd, alpha, m, power, share=share, horizon=horizon)


def seeds_to_reach(alpha: float = 0.05, horizon: int = 0) -> int:
    """The fewest seeds with which the sign-flip test can reach alpha: 6 at .05, however many changes are tested; or
    what of alpha may be spent by then, where a horizon was declared: 7 of 10."""
    n = 2
    while 2.0 ** (1 - n) > alpha * spent_share(n, horizon) + 1e-12:
        n += 1
    return n


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


@lru_cache(maxsize=len(FOUND_WITH_POWER))
def _levels(n: int) -> tuple[float, ...]:
    """By family size: the logarithm of the level at which a t test with n seeds has the table's power."""
    found = FOUND_WITH_POWER[n]
    critical = [float(nctdtrit(n - 1, dz * np.sqrt(n), 1 - TABLE_POWER)) for dz in found]
    return tuple(float(np.log(2 * stdtr(n - 1, -it))) for it in critical)


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
