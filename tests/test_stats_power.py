"""Seeds and detectable effects: STATS.md's own table, statsmodels to 1e-9, and the refusals."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from harness.errors import StudyError
from harness.stats import (
    prior_difference_sd,
    prior_sd,
    seeds_needed,
    seeds_to_reach,
    smallest_detectable_effect,
    t_power,
)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("dz", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 9])
def test_power_agrees_with_statsmodels(n: int, dz: float, alpha: float) -> None:
    theirs = TTestPower().power(dz, n, alpha, alternative="two-sided")
    assert t_power(n, dz, alpha) == pytest.approx(theirs, rel=1e-9)
    assert t_power(n, -dz, alpha) == t_power(n, dz, alpha)


def integrated_power(n: int, dz: float, alpha: float) -> float:
    """Power without a noncentral distribution: P(V < df (Z + shift)^2 / t^2), V chi-square, averaged over normal Z."""
    degrees, shift, critical = n - 1, dz * np.sqrt(n), stats.t.ppf(1 - alpha / 2, n - 1)
    edges = np.unique([*np.linspace(-9.5, 9.5, 400), np.clip(-shift, -9.5, 9.5)])  # |Z + shift| has a corner
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1] + edges[1:])[:, None] / 2 + half * nodes
    return float(
        (stats.norm.pdf(z) * stats.chi2.cdf(degrees * (z + shift) ** 2 / critical**2, degrees) * weights * half).sum()
    )


@pytest.mark.parametrize("n", [2, 3, 10, 200, 2000])
@pytest.mark.parametrize("dz", [0.0, 0.3, 1.0, 3.0, 10.0, 50.0])  # where statsmodels gives NaN, too
@pytest.mark.parametrize("alpha", [0.05, 1e-4])
def test_power_agrees_with_its_integral_however_large_the_effect(n: int, dz: float, alpha: float) -> None:
    assert t_power(n, dz, alpha) == pytest.approx(integrated_power(n, dz, alpha), rel=1e-9)


# STATS.md, table of the two traps: n -> at .05, at .05 / 9, to the digits printed there (9.8 is 9.82).
DETECTABLE = {3: (3.26, 9.82), 5: (1.68, 3.07), 8: (1.16, 1.77), 10: (1.00, 1.46), 20: (0.66, 0.90), 30: (0.53, 0.71)}


@pytest.mark.parametrize("n", DETECTABLE)
def test_detectable_effect_is_that_of_the_specification(n: int) -> None:
    alone, of_nine = DETECTABLE[n]
    assert smallest_detectable_effect(n, 1.0) == pytest.approx(alone, abs=0.006)
    assert smallest_detectable_effect(n, 1.0, m=9) == pytest.approx(of_nine, abs=0.006)
    assert smallest_detectable_effect(n, 0.004) == pytest.approx(0.004 * alone, rel=0.01)


@pytest.mark.parametrize(("n", "m"), [(2, 1), (3, 9), (10, 9), (30, 500)])
def test_the_detectable_effect_has_the_power_asked_for(n: int, m: int) -> None:
    effect = smallest_detectable_effect(n, 1.0, m=m, power=0.9)
    assert integrated_power(n, effect, 0.05 / m) == pytest.approx(0.9, abs=1e-9)


@pytest.mark.parametrize("mde", [0.001, 0.002, 0.0035])
@pytest.mark.parametrize("m", [1, 9])
def test_seeds_needed_is_the_fewest_with_the_power(mde: float, m: int) -> None:
    n = seeds_needed(mde, 0.004, m=m)
    assert n > seeds_to_reach(0.05, m)
    assert t_power(n, mde / 0.004, 0.05 / m) >= 0.8 > t_power(n - 1, mde / 0.004, 0.05 / m)


def test_a_large_effect_still_needs_the_seeds_that_the_test_needs() -> None:
    assert t_power(5, 10.0, 0.05 / 9) > 0.99  # t alone would be content with fewer
    assert seeds_needed(0.04, 0.004, m=9) == 9
    assert seeds_needed(0.04, 0.0, m=9) == 9


def test_an_effect_that_no_affordable_number_of_seeds_shows_is_refused() -> None:
    with pytest.raises(StudyError, match="more than 10000 seeds"):
        seeds_needed(1e-6, 0.01)
    for mde in (0.0, -0.01, float("nan")):
        with pytest.raises(StudyError, match="must be positive"):
            seeds_needed(mde, 0.01)


def test_prior_sd_is_that_of_the_specification() -> None:
    assert prior_sd(0.75, 10_000) == pytest.approx(0.0035, abs=0.00005)  # 0.35 points
    assert prior_difference_sd(0.75, 10_000) == pytest.approx(0.005)  # sqrt(2 * 0.25 / 20000)
    assert prior_sd(0.75, 2_500) == pytest.approx(2 * prior_sd(0.75, 10_000))


@pytest.mark.parametrize(("accuracy", "images"), [(75.0, 10_000), (1.0, 10), (0.0, 10), (0.5, 0)])
def test_prior_sd_refuses_what_is_no_fraction(accuracy: float, images: int) -> None:
    with pytest.raises(StudyError, match=r"accuracy in \(0, 1\)"):
        prior_sd(accuracy, images)
