"""One paired effect: numbers by hand and by scipy, and what is said when seeds are missing, equal or alone."""

import dataclasses
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stats_tables import make_table, noisy

from harness.errors import ResultsError
from harness.stats import Contrast, Effect, measure, metric_values, paired_effect
from harness.stats.intervals import clopper_pearson
from harness.trainers.images.trainer import METRICS

AGREE = {"rel": 1e-9, "abs": 1e-12}
ALL_STATISTICS = [field.name for field in dataclasses.fields(Effect)]


def same(one: Effect, other: Effect, but: tuple[str, ...] = ()) -> bool:
    """Equal in every field, NaN equal to NaN, `but` for some."""
    return all(repr(getattr(one, name)) == repr(getattr(other, name)) for name in ALL_STATISTICS if name not in but)


@pytest.fixture
def table() -> pd.DataFrame:
    return make_table({"zebra": noisy(0.75, 10, 1), "baseline": noisy(0.74, 10, 0), "batch-norm": noisy(0.76, 10, 2)})


def test_an_effect_computed_by_hand() -> None:
    # Differences 0.01, 0.03, 0.02 in order of seed: mean 0.02, sd 0.01, dz 2, 3 wins.
    table = make_table({"a": {7: 0.73, 2: 0.72, 5: 0.74}, "baseline": {5: 0.71, 7: 0.71, 2: 0.71}})
    effect = paired_effect(table, "a")
    assert effect.seeds == (2, 5, 7)
    assert effect.differences == (0.01, 0.03, 0.02)
    assert (effect.n, effect.n_planned, effect.missing) == (3, 3, ())
    assert (effect.mean, effect.sd, effect.dz) == pytest.approx((0.02, 0.01, 2.0))
    assert (effect.variant_mean, effect.reference_mean) == pytest.approx((0.73, 0.71))
    assert effect.p == 0.25
    assert (effect.wins, effect.ties, effect.p_improve) == (3, 0, 1.0)


def test_an_effect_agrees_with_scipy(table: pd.DataFrame) -> None:
    effect = paired_effect(table, "batch-norm", confidence=0.9)
    variant, baseline = noisy(0.76, 10, 2), noisy(0.74, 10, 0)
    theirs = stats.ttest_rel(variant, baseline)
    interval = theirs.confidence_interval(0.9)
    assert effect.p_t == pytest.approx(theirs.pvalue, **AGREE)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high), **AGREE)
    assert effect.dz * np.sqrt(10) == pytest.approx(theirs.statistic, **AGREE)
    assert effect.correlation == pytest.approx(stats.pearsonr(variant, baseline).statistic, **AGREE)
    wins = stats.binomtest(effect.wins, 10).proportion_ci(0.9, method="exact")
    assert (effect.p_improve_low, effect.p_improve_high) == pytest.approx((wins.low, wins.high), **AGREE)


@pytest.mark.parametrize("n", [10, 20])  # exact and Monte Carlo
def test_neither_the_order_of_rows_nor_the_names_matter(n: int) -> None:
    cells = {"baseline": noisy(0.74, n, 0), "a": [*noisy(0.75, n - 1, 1), "diverged"], "m": noisy(0.75, n, 2)}
    table = make_table(cells)
    renamed = make_table({{"baseline": "z", "a": "b", "m": "a"}[name]: cell for name, cell in cells.items()})
    effect = paired_effect(table, "a")
    for seed in range(3):
        shuffled = table.sample(frac=1, random_state=seed)
        assert same(paired_effect(shuffled, "a"), effect)
        other = paired_effect(renamed.sample(frac=1, random_state=seed), "b", reference="z")
        assert same(other, effect, but=("variant", "reference", "missing"))


def test_a_constant_shift_moves_only_the_mean(table: pd.DataFrame) -> None:
    before = paired_effect(table, "batch-norm")
    table.loc[table["variant"] == "batch-norm", "test/accuracy"] -= 0.0125
    after = paired_effect(table, "batch-norm")
    for name in ("mean", "low", "high", "bca_low", "bca_high", "variant_mean"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) - 0.0125, **AGREE)
    for name in ("sd", "correlation", "variance_ratio", "delta", "n", "smallest_p", "reference_mean"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), **AGREE)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=2, max_size=12))
def test_swapping_the_sides_swaps_the_signs(images: list[tuple[int, int]]) -> None:
    table = make_table({"a": [a / 10_000 for a, _ in images], "b": [b / 10_000 for _, b in images]})
    there, back = paired_effect(table, "a", reference="b"), paired_effect(table, "b", reference="a")
    assert there.mean == -back.mean
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), nan_ok=True)
    assert (there.p, there.sd) == pytest.approx((back.p, back.sd))
    assert there.p_improve == pytest.approx(1 - back.p_improve)
    assert there.wins + there.ties + back.wins == len(images)


def test_one_seed_gives_a_difference_and_no_inference() -> None:
    effect = paired_effect(make_table({"baseline": [0.70], "a": [0.72]}), "a")
    assert (effect.n, effect.mean, effect.wins) == (1, 0.02, 1)
    for name in ("sd", "dz", "low", "high", "bca_low", "p", "p_t", "smallest_p", "p_improve_low", "p_improve_high"):
        assert np.isnan(getattr(effect, name)), name
    assert np.isnan(effect.correlation)
    assert np.isnan(effect.p_equivalence)


def test_no_finished_pair_gives_no_number() -> None:
    effect = paired_effect(make_table({"baseline": ["missing", 0.7], "a": [0.7, "failed"]}), "a")
    assert (effect.n, effect.n_planned) == (0, 2)
    assert all(np.isnan(x) for x in (effect.mean, effect.p, effect.low, effect.p_improve, effect.extra_seconds))


def test_bca_stands_beside_t_from_ten_seeds_on(table: pd.DataFrame) -> None:
    assert paired_effect(table, "zebra").bca_low == pytest.approx(paired_effect(table, "zebra").low, abs=0.002)
    assert np.isnan(paired_effect(table[table["seed"] < 9], "zebra").bca_low)


def test_skewed_differences_are_said_with_the_centre_that_outliers_do_not_move() -> None:
    gains = [0.010, 0.012, 0.011, 0.009, 0.013, 0.010, 0.011, 0.012, 0.010, -0.150]
    table = make_table({"baseline": [0.7] * 10, "a": [0.7 + it for it in gains]})
    note = paired_effect(table, "a").note
    assert "skewed differences (skewness -2.7 on 10 seeds)" in note
    assert "Hodges-Lehmann +1.0" in note
    assert "look at the seeds that ended early" in note
    assert paired_effect(table[table["seed"] < 9], "a").note == ""


# --- missing cells


@pytest.fixture
def holes() -> pd.DataFrame:
    return make_table(
        {
            "baseline": {0: 0.70, 1: 0.71, 2: "missing", 3: 0.72, 4: 0.70},
            "a": {0: 0.71, 1: "diverged", 2: 0.73, 3: 0.75, 5: 0.99},
        }
    )


def test_missing_seeds_are_named_with_their_side_and_reason(holes: pd.DataFrame) -> None:
    effect = paired_effect(holes, "a")
    assert effect.seeds == (0, 3)
    assert (effect.n, effect.n_planned) == (2, 4)
    assert [str(cell) for cell in effect.missing] == [
        "a seed 1 diverged",
        "baseline seed 2 not run",
    ]
    assert effect.mean == pytest.approx(0.02)  # of 0.01 and 0.03: no number is taken from an incomplete pair
    assert effect.reference_mean == pytest.approx(0.71)


def test_a_number_left_on_a_cell_that_did_not_finish_is_not_used(holes: pd.DataFrame) -> None:
    holes.loc[holes["status"] == "diverged", "test/accuracy"] = 0.1
    assert paired_effect(holes, "a").seeds == (0, 3)


def test_a_finished_cell_without_the_metric_is_missing() -> None:
    table = make_table({"baseline": [0.7, 0.7], "a": [0.71, 0.72]})
    table.loc[(table["variant"] == "a") & (table["seed"] == 1), "test/accuracy"] = np.nan
    assert [str(cell) for cell in paired_effect(table, "a").missing] == ["a seed 1 without this metric"]


def test_a_variant_that_cancels_out_of_a_contrast_is_not_needed(holes: pd.DataFrame) -> None:
    # (a - b) - (baseline - b): b, of which there is no cell, drops out.
    contrast = Contrast("a", "baseline", {"a": 1.0, "baseline": -1.0, "b": 0.0})
    assert same(measure(metric_values(holes, "test/accuracy"), contrast), paired_effect(holes, "a"))


# --- ties and equal differences


def test_ties_count_half_and_rounding_does_not_break_them() -> None:
    # 0.72 - 0.71 and 0.71 - 0.70 differ in the last bits, and so do 0.3 - 0.1 and 0.2: all are one tie class.
    table = make_table({"baseline": [0.70, 0.71, 0.72, 0.74], "a": [0.71, 0.72, 0.72, 0.73]})
    effect = paired_effect(table, "a")
    assert (effect.wins, effect.ties, effect.p_improve) == (2, 1, 0.625)
    assert (effect.p_improve_low, effect.p_improve_high) == clopper_pearson(2.5, 4)
    assert set(effect.differences) == {0.01, 0.0, -0.01}


def test_the_same_difference_in_every_seed_has_no_t_interval_and_says_so() -> None:
    baseline = noisy(0.7, 8, 4)
    effect = paired_effect(make_table({"baseline": baseline, "a": [x + 0.01 for x in baseline]}), "a")
    assert (effect.mean, effect.sd) == (0.01, 0)
    assert np.isnan([effect.low, effect.high, effect.dz, effect.p_t, effect.p_equivalence]).all()
    assert effect.p == 2 / 2**8
    assert "the same difference in every seed" in effect.note


def test_identical_numbers_in_every_seed_ask_whether_the_change_reaches_the_model() -> None:
    values = noisy(0.7, 5, 4)
    effect = paired_effect(make_table({"baseline": values, "a": values}), "a")
    assert (effect.mean, effect.p, effect.p_improve, effect.ties) == (0, 1, 0.5, 5)
    assert effect.note == "identical in all 5 seeds: check that the change reaches the model"
    assert paired_effect(make_table({"baseline": values, "a": noisy(0.7, 5, 5)}), "a").note == ""


# --- pairing diagnostics, direction, equivalence, cost


def test_pairing_that_removes_all_noise_shows_in_correlation_and_variance_ratio() -> None:
    baseline = noisy(0.7, 6, 1)
    helped = paired_effect(make_table({"baseline": baseline, "a": [x + 0.01 for x in baseline]}), "a")
    hurt = paired_effect(make_table({"baseline": baseline, "a": [1.4 - x for x in baseline]}), "a")
    assert (helped.correlation, helped.variance_ratio) == pytest.approx((1, 0), abs=1e-9)
    assert (hurt.correlation, hurt.variance_ratio) == pytest.approx((-1, 2))


def test_variance_ratio_compares_paired_with_independent_runs(table: pd.DataFrame) -> None:
    effect = paired_effect(table, "zebra")
    independent = np.var(noisy(0.75, 10, 1), ddof=1) + np.var(noisy(0.74, 10, 0), ddof=1)
    assert effect.variance_ratio == pytest.approx(effect.sd**2 / independent)


def test_a_smaller_loss_is_an_improvement() -> None:
    table = make_table({"baseline": [0.70, 0.71, 0.72], "a": [0.72, 0.73, 0.71]})
    accuracy, loss = paired_effect(table, "a"), paired_effect(table, "a", metric="test/loss")
    assert loss.mean == pytest.approx(-accuracy.mean)
    assert loss.improvement == pytest.approx(accuracy.improvement)
    assert (loss.wins, loss.p_improve) == (accuracy.wins, accuracy.p_improve) == (2, pytest.approx(2 / 3))


def test_of_all_metrics_only_accuracies_are_better_when_larger() -> None:
    assert {metric.name for metric in METRICS if metric.is_maximized} == {
        "test/accuracy",
        "val/accuracy",
        "train/accuracy",
    }
    slower = make_table({"baseline": [0.7, 0.7], "a": [0.7, 0.7]})
    slower.loc[slower["variant"] == "a", "seconds"] = 75.0
    assert paired_effect(slower, "a", metric="seconds").improvement == -15


@pytest.mark.parametrize(
    ("wins", "n", "meaningful"),
    [(10, 10, True), (7, 10, False), (22, 29, True), (33, 50, True), (248, 400, False)],
)
def test_p_improve_is_meaningful_above_one_half_with_three_quarters_in_reach(
    wins: int, n: int, meaningful: bool
) -> None:
    # Clopper-Pearson: 10/10 [.69, 1]; 7/10 [.35, .93]; 22/29 [.56, .90]; 33/50 [.51, .79]; 248/400 [.57, .67].
    table = make_table({"baseline": [0.7] * n, "a": [0.71 if seed < wins else 0.69 for seed in range(n)]})
    assert paired_effect(table, "a").is_meaningful is meaningful


def test_nothing_is_equivalent_within_a_margin_that_nobody_declared(table: pd.DataFrame) -> None:
    assert paired_effect(table, "zebra").delta == 0
    assert np.isnan(paired_effect(table, "zebra").p_equivalence)
    assert paired_effect(table, "zebra", delta=0.02).delta == 0.02
    assert paired_effect(table, "zebra", delta=0.03).p_equivalence < 0.001


def test_cost_is_the_same_contrast_of_seconds_and_parameters() -> None:
    table = make_table({"baseline": [0.7, 0.7], "a": [0.71, 0.72]})
    table.loc[table["variant"] == "a", ["seconds", "parameters"]] = [75.0, 1500]
    effect = paired_effect(table, "a")
    assert (effect.extra_seconds, effect.extra_parameters) == (15, 500)


# --- the table itself


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"variant": "batchnorm"}, "'batchnorm' is not in these results. Did you mean 'batch-norm'?"),
        ({"variant": "zebra", "reference": "base"}, "'base' is not in these results"),
        ({"variant": "baseline"}, "'baseline' is compared with itself"),
        ({"variant": "zebra", "metric": "accuracy"}, "unknown metric 'accuracy'. Did you mean 'val/accuracy'?"),
        ({"variant": "zebra", "metric": "key"}, "unknown metric 'key'. There are: train/loss"),
    ],
)
def test_a_wrong_request_names_what_there_is(table: pd.DataFrame, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ResultsError) as caught:
        paired_effect(table, **asked)
    assert message in str(caught.value)


def test_a_metric_that_no_run_has_is_refused_and_the_others_are_named(table: pd.DataFrame) -> None:
    table["test/accuracy"] = np.nan
    with pytest.raises(ResultsError, match=r"'test/accuracy'. Available: train/loss, train/accuracy, val/loss"):
        paired_effect(table, "zebra")


def test_a_metric_is_not_missed_before_anything_finished() -> None:
    assert paired_effect(make_table({"baseline": ["missing"], "a": ["missing"]}), "a").n == 0


def test_an_empty_table_and_a_table_of_something_else_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(ResultsError, match="no rows"):
        paired_effect(table.iloc[:0], "zebra")
    with pytest.raises(ResultsError, match="the columns status, seconds are missing"):
        paired_effect(table.drop(columns=["status", "seconds"]), "zebra")


def test_two_different_cells_for_one_seed_are_refused_by_name(table: pd.DataFrame) -> None:
    other = make_table({"zebra": {4: 0.5}}, study="other")
    other["key"] = "else"
    with pytest.raises(ResultsError, match=r"'zebra', seed 4 .*study other, cell else; study toy, cell zebra/4"):
        paired_effect(pd.concat([table, other]), "zebra")


def test_a_cell_that_two_studies_share_counts_once(table: pd.DataFrame) -> None:
    twice = pd.concat([table, table.assign(study="other")])
    assert same(paired_effect(twice, "zebra"), paired_effect(table, "zebra"))


def test_a_table_that_went_through_a_csv_file_gives_the_same_effect(table: pd.DataFrame) -> None:
    table.loc[table["seed"] == 3, ["status", "test/accuracy", "parameters"]] = ["failed", None, None]
    reread = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    with pytest.raises(ResultsError, match="does not say what its metrics are"):
        paired_effect(reread, "zebra")
    reread.attrs = table.attrs
    assert reread["changes"].isna().any()  # the baseline's empty text
    assert same(paired_effect(reread, "zebra"), paired_effect(table, "zebra"))
