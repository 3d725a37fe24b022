"""Fractional factorials: the resolution that is claimed, least aberration as published, aliases as counted directly."""

from collections import Counter
from itertools import combinations

import pytest

from harness.study.designs.fractional import best_fraction, fewest_runs

# Counts of words of length 4, 5, 6 of the minimum-aberration design of k factors in N runs:
# Chen, Sun & Wu 1993, A catalogue of two-level and three-level fractional factorial designs; Wu & Hamada 2009.
PUBLISHED = {
    (4, 8): (1, 0, 0),
    (5, 16): (0, 1, 0),
    (6, 16): (3, 0, 0),
    (7, 16): (7, 0, 0),
    (8, 16): (14, 0, 0),
    (6, 32): (0, 0, 1),
    (7, 32): (1, 2, 0),
    (8, 32): (3, 4, 0),
    (9, 32): (6, 8, 0),
    (10, 32): (10, 16, 0),
    (11, 32): (25, 0, 27),
    (8, 64): (0, 2, 1),
    (9, 64): (1, 4, 2),
    (10, 64): (2, 8, 4),
    (11, 64): (4, 14, 8),
    (9, 128): (0, 0, 3),
    (10, 128): (0, 3, 3),
    (11, 128): (0, 6, 6),
}
DESIGNS = [(k, 1 << b) for k in range(1, 17) for b in range(1, 9) if fewest_runs(k) <= 1 << b <= 1 << k]


def words(columns):
    """Every set of factors whose columns sum to zero, by brute force over sets of up to 6."""
    found = []
    for size in range(1, 7):
        for chosen in combinations(range(len(columns)), size):
            total = 0
            for index in chosen:
                total ^= columns[index]
            if total == 0:
                found.append(chosen)
    return found


@pytest.mark.parametrize(("factors", "runs"), PUBLISHED)
def test_word_counts_are_those_of_the_published_minimum_aberration_designs(factors, runs):
    counts = Counter(map(len, words(best_fraction(factors, runs).columns)))
    assert (counts[4], counts[5], counts[6]) == PUBLISHED[factors, runs]
    assert counts[1] == counts[2] == counts[3] == 0


@pytest.mark.parametrize(("factors", "runs"), DESIGNS)
def test_every_design_has_the_resolution_that_it_claims_and_at_least_four(factors, runs):
    fraction = best_fraction(factors, runs)
    shortest = min(map(len, words(fraction.columns)), default=None)
    if runs == 2**factors:
        assert fraction.resolution is None
    elif shortest is None:
        assert fraction.resolution > 6
    else:
        assert fraction.resolution == shortest >= 4


@pytest.mark.parametrize(("factors", "runs"), DESIGNS)
def test_runs_are_distinct_balanced_and_start_with_the_baseline(factors, runs):
    found = best_fraction(factors, runs).runs
    assert len(set(found)) == len(found) == runs
    assert found[0] == ()
    on = Counter(index for run in found for index in run)
    assert set(on.values()) == {runs // 2}  # every factor is on in half of the runs
    assert len(on) == factors


@pytest.mark.parametrize(("factors", "runs"), [(6, 16), (8, 16), (9, 32), (9, 64), (12, 32)])
def test_aliases_are_the_interactions_with_equal_signs_in_every_run(factors, runs):
    fraction = best_fraction(factors, runs)
    signs = {
        pair: tuple(sum(index in run for index in pair) % 2 for run in fraction.runs)
        for pair in combinations(range(factors), 2)
    }
    mains = {tuple(index in run for run in fraction.runs) for index in range(factors)}
    assert not mains & set(signs.values())
    aliased = {frozenset(group) for group in fraction.aliases}
    expected = {frozenset(it for it in signs if signs[it] == sign) for sign in signs.values()}
    assert aliased == {group for group in expected if len(group) > 1}


def test_generators_say_how_the_further_factors_follow_from_the_base():
    fraction = best_fraction(7, 16)
    assert set(fraction.generators) == {4, 5, 6}
    for run in fraction.runs:
        for factor, base in fraction.generators.items():
            assert (factor in run) == (sum(index in run for index in base) % 2 == 1)


def test_the_fewest_runs_are_twice_the_factors_rounded_up_to_a_power_of_two():
    assert [fewest_runs(k) for k in range(1, 10)] == [2, 4, 8, 8, 16, 16, 16, 16, 32]  # 1 to 3: the complete factorial
