"""What the procedures promise, by simulation: coverage, family-wise error, power. The code under test is the code of a
study, on many studies at once."""

import numpy as np
import pytest
from stats_tables import make_table

from harness.plan.power import seeds_from_pilots, smallest_detectable_effect
from harness.stats import effects, holm, seeds_needed, sign_flip_p, westfall_young
from harness.stats.intervals import bca_interval, clopper_pearson, t_interval
from harness.stats.sequential import group_sequential
from harness.stats.significance import equivalence_p

pytestmark = pytest.mark.slow

STUDIES = 20_000  # standard error of a coverage: 0.15 points
NUM_IMAGES = 10_000


def normal_differences(n: int, studies: int, generator: np.random.Generator) -> np.ndarray:
    return generator.normal(0.0, 1.0, (studies, n))


def accuracy_differences(n: int, studies: int, generator: np.random.Generator) -> np.ndarray:
    """Of two variants whose accuracy varies between seeds, each counted on 10,000 images: discrete, with ties."""
    chance = generator.normal([[[0.74]], [[0.74]]], 0.003, (2, studies, n))
    variant, baseline = generator.binomial(NUM_IMAGES, chance) / NUM_IMAGES
    return variant - baseline


def skewed_differences(n: int, studies: int, generator: np.random.Generator) -> np.ndarray:
    """Of two variants that both train badly now and then, as happens: long tails to the left."""
    variant, baseline = 0.75 - generator.gamma(2.0, 0.002, (2, studies, n))
    return variant - baseline


@pytest.mark.parametrize("n", [3, 5, 10, 30])
@pytest.mark.parametrize("draw", [normal_differences, accuracy_differences, skewed_differences])
def test_the_t_interval_covers_within_a_point_and_a_half_of_nominal(n: int, draw) -> None:
    low, high = t_interval(draw(n, STUDIES, np.random.default_rng(n)))
    coverage = np.mean((low <= 0) & (high >= 0))
    assert coverage == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("n", "coverage"), [(10, 0.90), (30, 0.94)])
def test_bca_covers_less_than_t_as_the_specification_says(n: int, coverage: float) -> None:
    bounds = [bca_interval(row) for row in normal_differences(n, 1_500, np.random.default_rng(n))]
    covered = np.mean([low <= 0 <= high for low, high in bounds])
    assert covered == pytest.approx(coverage, abs=0.025)  # 3 standard errors at 0.90: 0.023


@pytest.mark.parametrize(("n", "m", "studies"), [(10, 9, 4_000), (10, 25, 2_000), (16, 3, 500)])
def test_holm_keeps_the_family_wise_error_where_no_change_does_anything(n: int, m: int, studies: int) -> None:
    generator = np.random.default_rng(n * m)
    # All against one baseline, as in a study: the differences are correlated.
    differences = generator.normal(size=(studies, m, n)) - generator.normal(size=(studies, 1, n))
    any_claim = (holm(sign_flip_p(differences)) <= 0.05).any(axis=1)
    assert 0 < any_claim.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_holm_keeps_the_error_of_useless_changes_beside_useful_ones() -> None:
    studies, generator = 4_000, np.random.default_rng(1)
    differences = generator.normal(size=(studies, 9, 10)) - generator.normal(size=(studies, 1, 10))
    differences[:, 2:5] += 5.0  # found, so that Holm tests the others at higher levels
    rejected = holm(sign_flip_p(differences)) <= 0.05
    assert rejected[:, 2:5].mean() > 0.95
    useless = np.delete(rejected, slice(2, 5), axis=1).any(axis=1)
    assert 0.01 < useless.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


@pytest.mark.ordeal
def test_the_table_of_effects_claims_something_in_few_useless_studies() -> None:
    """The whole way, table and verdicts included; without a correction 37% of these would claim something."""
    studies, claims = 400, 0
    generator = np.random.default_rng(7)
    table = make_table({name: [0.0] * 10 for name in ("baseline", *"abcdefghi")})
    for _ in range(studies):
        family = effects(table.assign(**{"test/accuracy": generator.normal(0.74, 0.004, len(table))}))
        claims += int(family["verdict"].isin(["improves", "hurts", "equivalent"]).any())
    assert claims > 0
    assert claims / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def family_differences(m: int, n: int, generator: np.random.Generator) -> np.ndarray:
    """Of m changes against one baseline, with an sd of 1."""
    return (generator.normal(size=(m, n)) - generator.normal(size=n)) / np.sqrt(2)


@pytest.mark.parametrize(("m", "mde"), [(1, 0.8), (1, 1.2), (9, 1.2), (9, 1.5), (15, 1.6)])  # in sd of the difference
def test_the_planned_seeds_reach_the_planned_power_of_the_test_that_is_used(m: int, mde: float) -> None:
    n, studies = seeds_needed(mde, 1.0, m=m), 1_000
    generator, found = np.random.default_rng(n), 0
    for _ in range(studies):
        differences = family_differences(m, n, generator)
        differences[0] += mde
        found += int(westfall_young(differences)[0] <= 0.05)
    assert 0.8 - 3 * np.sqrt(0.16 / studies) <= found / studies <= 0.9


@pytest.mark.parametrize(("m", "n", "horizon"), [(1, 8, 10), (1, 7, 10), (5, 8, 10), (5, 12, 30)])
def test_a_look_before_the_horizon_finds_what_is_said_with_the_power_that_is_said(m: int, n: int, horizon: int) -> None:
    mde, studies = smallest_detectable_effect(n, 1.0, m=m, horizon=horizon), 1_000
    generator, found = np.random.default_rng(n), 0
    for _ in range(studies):
        differences = family_differences(m, n, generator)
        differences[0] += mde
        found += int(group_sequential(differences, [np.ones(n, dtype=bool)], horizon)[0] <= 0.05)
    assert found / studies == pytest.approx(0.8, abs=0.06)


@pytest.mark.ordeal
@pytest.mark.parametrize("m", [1, 9])
def test_seeds_planned_from_three_pilots_reach_their_power(m: int) -> None:
    """The sd of three pilot seeds is often too small by luck; planned as if it were right, .71 was reached."""
    studies, generator, found = 400, np.random.default_rng(m), 0
    for _ in range(studies):
        pilots = family_differences(m, 3, generator)
        n = seeds_from_pilots(1.5, np.sqrt(pilots.var(axis=1, ddof=1).mean()), 2 * m, m=m)
        differences = family_differences(m, min(n, 60), generator)
        differences[0] += 1.5
        found += int(westfall_young(differences)[0] <= 0.05)
    assert found / studies >= 0.8 - 3 * np.sqrt(0.16 / studies)


@pytest.mark.parametrize("n", [5, 10, 30])
def test_a_difference_as_large_as_delta_is_called_equivalent_in_one_study_of_twenty_at_most(n: int) -> None:
    differences = normal_differences(n, STUDIES, np.random.default_rng(n)) + 2.0
    assert np.mean(equivalence_p(differences, 2.0) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / STUDIES)
    assert np.mean(equivalence_p(differences - 2.0, 2.0) <= 0.05) > 0.9  # of no difference, most are


@pytest.mark.parametrize("n", [5, 10, 29])
@pytest.mark.parametrize("p_improve", [0.5, 0.75])
def test_the_interval_of_p_improve_covers_at_least_its_level(n: int, p_improve: float) -> None:
    wins = np.random.default_rng(n).binomial(n, p_improve, STUDIES)
    bounds = np.array([clopper_pearson(k, n) for k in range(n + 1)])[wins]
    coverage = np.mean((bounds[:, 0] <= p_improve) & (p_improve <= bounds[:, 1]))
    assert coverage >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / STUDIES)
