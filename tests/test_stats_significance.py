"""Tests and corrections: closed forms, brute force, scipy and statsmodels to 1e-9."""

from itertools import product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from harness.plan.power import seeds_to_reach
from harness.stats.significance import (
    EXACT_MAX_SEEDS,
    MONTE_CARLO_FLIPS,
    equivalence_p,
    expected_luck,
    holm,
    sign_flip_p,
    smallest_sign_flip_p,
    t_p_value,
)


def normal(n: int, seed: int, shift: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, n)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # only +++ and --- reach |6|
        ([1.0, -2.0, 3.0], 6 / 8),  # |sum| 2 is reached by all but those of |sum| 0: 1 + 2 - 3 and its mirror
        ([0.01, 0.01, 0.0, 0.01], 4 / 16),  # a zero's sign does not matter: 2 of 8, twice
        ([0.0, 0.0, 0.0], 1.0),
        ([1.0, -1.0], 1.0),
    ],
)
def test_sign_flip_p_counted_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_p(np.array(differences)) == p


@pytest.mark.parametrize("n", [2, 3, 5, 8, 11])
@pytest.mark.parametrize("decimals", [1, 12])  # one decimal makes ties among the sums
def test_sign_flip_p_agrees_with_scipy(n: int, decimals: int) -> None:
    differences = np.round(normal(n, n), decimals)
    theirs = stats.permutation_test(
        (differences, np.zeros(n)),
        lambda x, y, axis: np.round(np.mean(x - y, axis=axis), 12),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.integers(-30, 30), min_size=2, max_size=7))
def test_sign_flip_p_is_the_share_of_sign_vectors(wholes: list[int]) -> None:
    reach = abs(sum(wholes))
    count = sum(
        abs(sum(s * d for s, d in zip(signs, wholes, strict=True))) >= reach
        for signs in product((-1, 1), repeat=len(wholes))
    )
    # Divided by 1000 the sums no longer are exact; the ties must survive.
    assert sign_flip_p(np.array(wholes) / 1000) == pytest.approx(count / 2 ** len(wholes), abs=1e-12)


def test_monte_carlo_takes_over_above_16_seeds_and_comes_close() -> None:
    differences = normal(17, 5)
    signs = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(17)) & 1)
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9)
    estimate = sign_flip_p(differences)
    assert EXACT_MAX_SEEDS == 16
    assert 0.01 < exact < 0.99
    assert estimate != pytest.approx(exact, abs=1e-9)
    assert estimate == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / MONTE_CARLO_FLIPS))


def test_monte_carlo_p_is_never_zero_and_the_same_every_time() -> None:
    overwhelming = np.full(40, 0.01)
    assert sign_flip_p(overwhelming) == 1 / (MONTE_CARLO_FLIPS + 1)
    assert sign_flip_p(normal(20, 1)) == sign_flip_p(normal(20, 1))


@pytest.mark.parametrize("n", [4, 20])
def test_many_comparisons_at_once_are_those_of_each(n: int) -> None:
    many = np.random.default_rng(2).normal(0.2, 1, (3, 400, n))  # more rows than one block holds
    together = sign_flip_p(many)
    assert together.shape == (3, 400)
    assert together[2, 399] == sign_flip_p(many[2, 399])
    assert together[0, 0] == sign_flip_p(many[0, 0])


def test_no_p_for_fewer_than_two_seeds() -> None:
    for n in (0, 1):
        assert np.isnan(sign_flip_p(np.ones(n)))
        assert np.isnan(t_p_value(np.ones(n)))


@pytest.mark.parametrize("n", [2, 3, 10, 30])
def test_t_p_value_agrees_with_scipy(n: int) -> None:
    variant, reference = normal(n, 1), normal(n, 2, 0)
    assert t_p_value(variant - reference) == pytest.approx(stats.ttest_rel(variant, reference).pvalue, rel=1e-9)


def test_equal_differences_have_no_t_test_but_a_sign_flip_test() -> None:
    equal = np.full(6, 0.01)
    assert np.isnan(t_p_value(equal))
    assert np.isnan(equivalence_p(equal, 0.1))
    assert sign_flip_p(equal) == 2 / 2**6


@pytest.mark.parametrize("delta", [0.05, 0.5, 1.5])
def test_equivalence_p_agrees_with_statsmodels(delta: float) -> None:
    variant, reference = normal(12, 1), normal(12, 2, 0)
    theirs = ttost_paired(variant, reference, -delta, delta)[0]
    assert equivalence_p(variant - reference, delta) == pytest.approx(theirs, rel=1e-9)


# STATS.md, table of the two traps.
@pytest.mark.parametrize(("n", "p"), [(3, 0.25), (5, 0.0625), (8, 0.0078125), (10, 0.001953125), (20, 1e-5)])
def test_smallest_p_by_number_of_seeds(n: int, p: float) -> None:
    assert smallest_sign_flip_p(n) == pytest.approx(p, rel=2e-5)


@pytest.mark.parametrize("n", [2, 6, 16])
def test_the_smallest_p_is_reached_by_a_unanimous_result_and_not_undercut(n: int) -> None:
    assert sign_flip_p(np.linspace(1, 2, n)) == smallest_sign_flip_p(n)


def test_six_seeds_reach_significance() -> None:
    assert seeds_to_reach(0.05) == 6  # 2 / 2^6 = .031
    assert seeds_to_reach(0.01) == 8  # 2 / 2^8 = .0078


def test_seeds_to_reach_counts_an_exact_hit() -> None:
    assert seeds_to_reach(0.25) == 3  # 2 / 2^3 is 0.25 exactly


def test_holm_gives_each_hypothesis_its_own_p_when_they_come_unsorted() -> None:
    # Sorted .001, .03, .04 times 3, 2, 1 = .003, .06, .04; the running maximum lifts .04 to .06.
    assert holm(np.array([0.04, 0.001, 0.03])) == pytest.approx([0.06, 0.003, 0.06], abs=1e-15)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1e-4, 0.004, 0.01, 0.02, 0.05, 0.4, 1.0]) | st.floats(0, 1), min_size=1, max_size=12)
)
def test_holm_agrees_with_statsmodels_in_any_order_and_with_ties(p_values: list[float]) -> None:
    with mock.patch("gc.collect"):  # which it calls each time: seconds, where much is loaded
        theirs = multipletests(p_values, method="holm")[1]
    assert holm(np.array(p_values)) == pytest.approx(theirs, abs=1e-12)


def test_holm_of_families_at_once_is_that_of_each() -> None:
    families = np.random.default_rng(0).uniform(0, 0.1, (5, 4))
    assert holm(families)[3] == pytest.approx(holm(families[3]))


def test_a_hypothesis_without_a_p_still_counts_in_the_family() -> None:
    adjusted = holm(np.array([0.02, np.nan, 0.001]))
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.003])
    assert np.isnan(adjusted[1])


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8), st.floats(1e-6, 1))
def test_a_larger_family_never_weakens_the_correction(p_values: list[float], another: float) -> None:
    alone, joined = holm(np.array(p_values)), holm(np.array([*p_values, another]))[:-1]
    assert (joined >= alone - 1e-15).all()


@pytest.mark.parametrize(("m", "luck"), [(1, 0.0), (2, 1 / np.sqrt(np.pi)), (9, 1.4850131622), (100, 2.5075936)])
def test_expected_luck_is_the_mean_maximum_of_standard_normals(m: int, luck: float) -> None:
    assert expected_luck(m) == pytest.approx(luck, abs=1e-7)  # order statistics: closed form for 2, tables above
