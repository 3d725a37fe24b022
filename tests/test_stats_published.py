"""Published numbers: a closed form and scipy's Welch test to 1e-9, and what one seed or a percentage gets told."""

import numpy as np
import pytest
from scipy import stats
from stats_tables import make_table, noisy

from harness.errors import ResultsError, StudyError
from harness.stats import compare_published

OURS = noisy(0.74, 10, 0)


def test_a_value_without_spread_is_compared_as_one_more_run() -> None:
    comparison = compare_published(make_table({"baseline": OURS}), "baseline", 0.7422, confidence=0.9)
    interval = stats.ttest_1samp(OURS, 0.7422).confidence_interval(0.9)
    t = (np.mean(OURS) - 0.7422) / (np.std(OURS, ddof=1) * np.sqrt(1 + 1 / 10))
    assert comparison.method == "prediction t"
    assert comparison.p == pytest.approx(2 * stats.t.sf(abs(t), 9), rel=1e-9)
    assert (comparison.low, comparison.high) == pytest.approx((interval.low, interval.high), rel=1e-9)  # of our mean
    assert comparison.difference == pytest.approx(np.mean(OURS) - 0.7422)
    # The published value lies in the prediction interval exactly where the difference's interval holds zero.
    for value in np.linspace(0.70, 0.78, 41):
        one = compare_published(make_table({"baseline": OURS}), "baseline", value)
        assert (one.run_low <= value <= one.run_high) == (one.difference_low <= 0 <= one.difference_high)
        assert (one.p > 0.05) == (one.run_low <= value <= one.run_high)


@pytest.mark.slow
def test_one_run_of_ours_is_called_different_from_the_others_as_often_as_the_level_says() -> None:
    generator = np.random.default_rng(0)
    cells = generator.normal(0.74, 0.004, (400, 11))
    p = [compare_published(make_table({"baseline": list(row[1:])}), "baseline", float(row[0])).p for row in cells]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 400))


@pytest.mark.parametrize("m", [2, 7])
def test_raw_values_are_compared_by_welch(m: int) -> None:
    published = noisy(0.75, m, 5, sd=0.01)
    comparison = compare_published(make_table({"baseline": OURS}), "baseline", published)
    theirs = stats.ttest_ind(OURS, published, equal_var=False)
    interval = theirs.confidence_interval()
    assert (comparison.method, comparison.published_n) == ("Welch t", m)
    assert comparison.p == pytest.approx(theirs.pvalue, rel=1e-9)
    bounds = (comparison.difference_low, comparison.difference_high)
    assert bounds == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_one_more_run_lands_in_the_prediction_interval() -> None:
    comparison = compare_published(make_table({"baseline": OURS}), "baseline", 0.7422)
    half = stats.t.ppf(0.975, 9) * np.std(OURS, ddof=1) * np.sqrt(1 + 1 / 10)
    assert comparison.run_high - comparison.mean == pytest.approx(half)
    assert comparison.mean - comparison.run_low == pytest.approx(half)


def test_equal_published_values_still_have_our_spread() -> None:
    comparison = compare_published(make_table({"baseline": OURS}), "baseline", [0.75, 0.75])
    theirs = stats.ttest_1samp(OURS, 0.75)  # Welch with one variance zero has our degrees of freedom
    assert comparison.p == pytest.approx(theirs.pvalue, rel=1e-9)


@pytest.mark.parametrize("ours", [[0.73], [0.73, 0.73, 0.73], ["failed"]])
def test_without_a_spread_of_ours_there_is_a_difference_at_most(ours: list[float | str]) -> None:
    comparison = compare_published(make_table({"baseline": ours}), "baseline", 0.7422)
    assert np.isnan([comparison.p, comparison.difference_low, comparison.low, comparison.run_low]).all()
    assert comparison.difference == pytest.approx(-0.0122) or comparison.n == 0


@pytest.mark.parametrize("published", [74.22, -0.1, [0.7, 1.2], float("nan"), []])
def test_what_is_no_fraction_is_refused(published: float | list[float]) -> None:
    with pytest.raises(StudyError, match="published test/accuracy"):
        compare_published(make_table({"baseline": OURS}), "baseline", published)


def test_a_loss_may_exceed_one() -> None:
    assert (
        compare_published(make_table({"baseline": OURS}), "baseline", 1.2585, metric="train/loss").published == 1.2585
    )


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ResultsError, match="Did you mean 'baseline'"):
        compare_published(make_table({"baseline": OURS}), "base-line", 0.7)
