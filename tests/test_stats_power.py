"""Seeds and detectable effects: STATS.md's own table, statsmodels to 1e-9, and the refusals."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from harness.errors import StudyError
from harness.plan.power import FAMILY_SIZES, FOUND_WITH_POWER, effective_level, seeds_from_pilots
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


@pytest.mark.parametrize("n", FOUND_WITH_POWER)
def test_the_detectable_effect_is_that_of_the_table(n: int) -> None:
    for m, dz in zip(FAMILY_SIZES, FOUND_WITH_POWER[n], strict=True):
        assert smallest_detectable_effect(n, 1.0, m=m) == pytest.approx(dz, rel=1e-4)
        assert smallest_detectable_effect(n, 0.004, m=m) == pytest.approx(0.004 * dz, rel=1e-4)


def test_between_the_rows_of_the_table_and_beyond_it_the_effect_falls_with_seeds_and_grows_with_changes() -> None:
    by_seeds = [smallest_detectable_effect(n, 1.0, m=9) for n in range(6, 60)]
    by_changes = [smallest_detectable_effect(11, 1.0, m=m) for m in range(1, 200)]
    assert (np.diff(by_seeds) < 0).all()
    assert (np.diff(by_changes) > 0).all()
    # At 100 seeds the test is nearly the t test at its level.
    assert smallest_detectable_effect(100, 1.0) == pytest.approx(0.283, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_seeds_that_can_show_nothing_have_no_detectable_effect(n: int) -> None:
    assert np.isnan(smallest_detectable_effect(n, 1.0))


@pytest.mark.parametrize(("n", "m"), [(7, 1), (10, 9), (30, 500)])
def test_the_detectable_effect_has_the_power_asked_for(n: int, m: int) -> None:
    effect = smallest_detectable_effect(n, 1.0, m=m, power=0.9)
    assert integrated_power(n, effect, effective_level(n, m)) == pytest.approx(0.9, abs=1e-9)


@pytest.mark.parametrize("mde", [0.001, 0.002, 0.0035])
@pytest.mark.parametrize("m", [1, 9])
def test_seeds_needed_is_the_fewest_with_the_power(mde: float, m: int) -> None:
    n = seeds_needed(mde, 0.004, m=m)
    assert n > seeds_to_reach(0.05)
    assert smallest_detectable_effect(n, 0.004, m=m) <= mde < smallest_detectable_effect(n - 1, 0.004, m=m)


def test_a_large_effect_still_needs_the_seeds_that_the_test_needs() -> None:
    assert t_power(5, 10.0, 0.05 / 9) > 0.99  # t alone would be content with fewer
    assert seeds_needed(0.04, 0.004, m=9) == 6
    assert seeds_needed(0.04, 0.0, m=9) == 6


def test_few_pilots_plan_more_seeds_than_a_spread_that_is_known() -> None:
    # Stein 1945 by hand: t(2, .975) + t(2, .8) = 4.3027 + 1.0607 where z has 1.9600 + 0.8416: 1.9144 times the sd.
    assert seeds_from_pilots(1.0, 1.0, 2) == seeds_needed(1.0, 1.9144)
    assert seeds_from_pilots(1.0, 1.0, 10_000) == seeds_needed(1.0, 1.0)
    assert seeds_from_pilots(10.0, 1.0, 2) == 6
    # Nine changes and three pilots: 18 degrees shared by a baseline count as 6.
    t, z = (it.ppf(1 - 0.05 / 18) + it.ppf(0.8) for it in (stats.t(6), stats.norm()))
    assert seeds_from_pilots(1.0, 1.0, 18, m=9) == seeds_needed(1.0, t / z, m=9)
    with pytest.raises(StudyError, match="more than 10000 seeds"):
        seeds_from_pilots(1e-6, 0.01, 4)


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
