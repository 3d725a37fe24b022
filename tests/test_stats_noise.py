"""A/A: noise is measured, drift is seen, and the interval of the false-positive rate is as wide as it must be."""

import numpy as np
import pytest
from scipy import stats
from stats_tables import make_table, noisy

from harness.errors import ResultsError
from harness.stats import aa_noise_floor
from harness.stats.intervals import clopper_pearson


def test_the_noise_is_the_sd_between_seeds_with_its_chi_square_interval() -> None:
    values = noisy(0.74, 12, 0)
    floor = aa_noise_floor(make_table({"baseline": values, "other": noisy(0.9, 12, 1)}))
    sd = np.std(values, ddof=1)
    assert (floor.sd, floor.mean) == pytest.approx((sd, np.mean(values)))
    assert floor.sd_low == pytest.approx(sd * np.sqrt(11 / stats.chi2.ppf(0.975, 11)))
    assert floor.sd_low < sd < floor.sd_high
    assert (floor.num_seeds, floor.num_pairs) == (12, 6)


def test_the_planned_split_sets_the_first_seeds_against_the_last() -> None:
    values = noisy(0.74, 9, 0)
    cells = dict(zip([40, 3, 7, 1, 30, 20, 5, 9, 12], values, strict=True))
    floor = aa_noise_floor(make_table({"baseline": cells}))
    ordered = [cells[seed] for seed in sorted(cells)]
    theirs = stats.ttest_rel(ordered[:4], ordered[5:])  # nine seeds: the one in the middle has no partner
    interval = theirs.confidence_interval()
    assert floor.difference == pytest.approx(np.mean(ordered[:4]) - np.mean(ordered[5:]))
    assert (floor.low, floor.high) == pytest.approx((interval.low, interval.high))


def test_drift_between_the_first_and_the_last_cells_leaves_zero_outside() -> None:
    drifting = [0.74 - 0.002 * seed + 0.0001 * (seed % 3) for seed in range(20)]
    floor = aa_noise_floor(make_table({"baseline": drifting}))
    assert floor.low > 0.01


def test_random_splits_of_exchangeable_seeds_reject_at_about_the_nominal_rate() -> None:
    floor = aa_noise_floor(make_table({"baseline": noisy(0.74, 40, 3)}), num_pairs=8)
    assert floor.rate_t == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / floor.num_splits))
    assert floor.rate_sign_flip == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / floor.num_splits))


def test_the_two_sides_of_a_split_never_share_a_seed() -> None:
    # One seed far off: if it met itself, differences of exactly zero would appear and pull the quantile down.
    floor = aa_noise_floor(make_table({"baseline": [0.0, 0.0, 0.0, 1.0]}))
    assert floor.largest_by_luck == 0.5  # it is in every split, on one side: |mean of 0 and 1|


def test_the_rate_is_worth_seeds_over_two_pairs_independent_comparisons() -> None:
    floor = aa_noise_floor(make_table({"baseline": noisy(0.74, 30, 3)}), num_pairs=5)
    assert (floor.rate_low, floor.rate_high) == clopper_pearson(3 * floor.rate_t, 3)
    one_comparison = aa_noise_floor(make_table({"baseline": noisy(0.74, 10, 3)}))
    assert one_comparison.rate_high > 0.9  # ten seeds are one comparison of five pairs: it says next to nothing


def test_below_six_pairs_the_sign_flip_test_cannot_reject() -> None:
    assert aa_noise_floor(make_table({"baseline": noisy(0.74, 10, 3)})).rate_sign_flip == 0


def test_the_noise_floor_is_the_same_every_time_and_in_any_row_order() -> None:
    table = make_table({"baseline": noisy(0.74, 11, 3)})
    assert aa_noise_floor(table.sample(frac=1, random_state=1)) == aa_noise_floor(table)


def test_failed_seeds_do_not_count() -> None:
    assert aa_noise_floor(make_table({"baseline": [*noisy(0.74, 6, 3), "diverged", "missing"]})).num_seeds == 6


@pytest.mark.parametrize(("n", "pairs", "needed"), [(3, None, 4), (10, 6, 12), (10, 1, 4)])
def test_too_few_seeds_are_refused_with_the_number_needed(n: int, pairs: int | None, needed: int) -> None:
    with pytest.raises(ResultsError, match=f"baseline has {n} finished seeds and {needed} are needed"):
        aa_noise_floor(make_table({"baseline": noisy(0.74, n, 3)}), num_pairs=pairs)
