"""Intervals: closed forms, and agreement with scipy to 1e-9."""

import numpy as np
import pytest
from scipy import stats

from harness.stats import intervals
from harness.stats.intervals import (
    bca_interval,
    clopper_pearson,
    hodges_lehmann,
    mean_and_sd,
    sd_interval,
    skewness,
    standard_error,
    t_interval,
)
from harness.stats.significance import sign_flip_p, smallest_sign_flip_p
from harness.stats.stepdown import westfall_young

AGREE = {"rel": 1e-9, "abs": 1e-12}


def draws(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 0.01, n) - 0.01  # skewed, both signs


def test_t_interval_has_its_closed_form() -> None:
    # Mean 2, sd 1. With two degrees of freedom t(p) = (2p - 1) sqrt(2 / (4p (1 - p))): 4.30265 for p = 0.975.
    half = 0.95 * np.sqrt(2 / (4 * 0.975 * 0.025)) / np.sqrt(3)
    low, high = t_interval(np.array([3.0, 1.0, 2.0]))
    assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_t_interval_agrees_with_scipy(n: int, confidence: float) -> None:
    reference, variant = draws(n, 1), draws(n, 2)
    theirs = stats.ttest_rel(variant, reference).confidence_interval(confidence)
    assert t_interval(variant - reference, confidence) == pytest.approx((theirs.low, theirs.high), **AGREE)


def test_intervals_of_many_comparisons_at_once_are_those_of_each() -> None:
    many = np.random.default_rng(3).normal(size=(2, 4, 6))
    low, high = t_interval(many)
    assert low.shape == high.shape == (2, 4)
    assert (low[1, 3], high[1, 3]) == pytest.approx([float(x) for x in t_interval(many[1, 3])], **AGREE)


def test_the_sd_of_equal_values_is_exactly_zero() -> None:
    equal = np.array([0.1, 0.1, 0.1])
    assert equal.std(ddof=1) > 0  # what plain summing leaves
    assert mean_and_sd(equal)[1] == 0


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.1, 0.1]])
def test_without_a_spread_there_is_no_interval(values: list[float]) -> None:
    assert np.isnan(t_interval(np.array(values))).all()
    assert np.isnan(standard_error(np.array(values)))


@pytest.mark.parametrize("n", [10, 13, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bca_agrees_with_scipy_on_the_same_resamples(n: int, confidence: float) -> None:
    values = draws(n, n)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="BCa", confidence_level=confidence, rng=np.random.default_rng(0)
    ).confidence_interval
    assert bca_interval(values, confidence) == pytest.approx((theirs.low, theirs.high), **AGREE)


def test_bca_counts_ties_with_the_observed_mean_as_halves() -> None:
    # Whole numbers sum exactly, so scipy sees the ties too; divided by 10 they only tie within rounding.
    values = np.array([0, 1, 1, 2, 2, 2, 3, 3, 4, 7], dtype=float)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert bca_interval(values) == pytest.approx((theirs.low, theirs.high), **AGREE)
    assert bca_interval(values / 10) == pytest.approx((theirs.low / 10, theirs.high / 10), **AGREE)


def test_bca_is_not_given_where_it_is_far_too_narrow() -> None:
    assert np.isnan(bca_interval(draws(9))).all()
    assert np.isnan(bca_interval(np.full(10, 0.01))).all()
    assert np.isfinite(bca_interval(draws(10))).all()


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_clopper_pearson_agrees_with_scipy_for_every_number_of_wins(n: int) -> None:
    for wins in range(n + 1):
        theirs = stats.binomtest(wins, n).proportion_ci(confidence_level=0.9, method="exact")
        assert clopper_pearson(wins, n, 0.9) == pytest.approx((theirs.low, theirs.high), **AGREE)


def test_half_a_tie_lies_between_its_neighbours() -> None:
    below, between, above = (clopper_pearson(wins, 10) for wins in (6, 6.5, 7))
    assert below[0] < between[0] < above[0]
    assert below[1] < between[1] < above[1]


def test_the_interval_of_a_proportion_without_trials_is_unknown() -> None:
    assert np.isnan(clopper_pearson(0, 0)).all()


def test_sd_interval_is_the_chi_square_one() -> None:
    low, high = sd_interval(2.0, 10)
    assert low == pytest.approx(2 * np.sqrt(9 / stats.chi2.ppf(0.975, 9)), **AGREE)
    assert high == pytest.approx(2 * np.sqrt(9 / stats.chi2.ppf(0.025, 9)), **AGREE)


def test_hodges_lehmann_is_the_median_of_the_means_of_pairs_with_the_bounds_of_the_signed_rank_test() -> None:
    # By hand: of 1, 2, 6 the means of pairs are 1, 1.5, 2, 3.5, 4, 6; three values have no 95% interval.
    assert hodges_lehmann(np.array([6.0, 1.0, 2.0]))[0] == pytest.approx(2.75)
    assert np.isnan(hodges_lehmann(np.array([6.0, 1.0, 2.0]))[1:]).all()
    differences = np.random.default_rng(0).normal(0.5, 1, 10)
    _, low, high = hodges_lehmann(differences)
    p_of = lambda shift: stats.wilcoxon(differences - shift, method="exact").pvalue  # noqa: E731
    assert p_of(low - 1e-9) <= 0.05 < p_of(low + 1e-9)
    assert p_of(high + 1e-9) <= 0.05 < p_of(high - 1e-9)


def test_many_seeds_are_measured_as_few_are_but_in_less_memory(monkeypatch) -> None:
    differences = np.random.default_rng(3).normal(0.1, 1, 150)
    exact, resampled = hodges_lehmann(differences), bca_interval(differences)
    monkeypatch.setattr(intervals, "MANY_SEEDS", 100)
    intervals._largest_rejected_sum.cache_clear()
    assert hodges_lehmann(differences) == pytest.approx(exact, abs=0.001)  # signed ranks as normal
    assert bca_interval(differences) == pytest.approx(resampled)  # the same draws
    intervals._largest_rejected_sum.cache_clear()


@pytest.mark.slow
def test_five_thousand_seeds_have_intervals_and_tests() -> None:
    differences = np.random.default_rng(4).normal(0.1, 1, 5_000)
    centre, low, high = hodges_lehmann(differences)
    assert low < 0.1 < high < low + 0.06
    assert low < centre < high
    assert bca_interval(differences) == pytest.approx(np.array(t_interval(differences)), abs=0.002)
    assert sign_flip_p(differences) == smallest_sign_flip_p(5_000) == 1 / 20_001
    both = westfall_young(np.stack([differences, differences - differences.mean()]))
    assert both[0] == pytest.approx(1 / 20_001)
    assert both[1] == 1.0


def test_skewness_and_what_normal_differences_exceed_once_in_a_hundred() -> None:
    differences = np.random.default_rng(1).exponential(size=12)
    found, bound = skewness(differences)
    assert found == pytest.approx(stats.skew(differences))
    draws = np.random.default_rng(2).normal(size=(20_000, 12))
    assert np.mean(np.abs(stats.skew(draws, axis=1)) > bound) == pytest.approx(0.01, abs=0.006)
    assert np.isnan(skewness(differences[:7])).all()
