"""Marginal effects against statsmodels' least squares; confusions by name; the one-standard-error rule by hand."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from stats_tables import make_table

from harness.errors import ResultsError
from harness.stats import MARGINAL_COLUMNS, marginal_effects, simplest_within_one_se
from harness.stats.evidence import price_of_look
from harness.stats.values import Schedule

NAMES = {"baseline": "", "a": "a", "b": "b", "m1": "c+a", "m2": "a+b+c", "c": "c"}


@pytest.fixture
def table() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    cells = {name: [float(x) for x in draw.uniform(0.6, 0.8, 4)] for name in NAMES}
    table = make_table(cells, NAMES)
    lost = (table["variant"] == "m1") & (table["seed"] == 3)
    table.loc[lost, ["status", "test/accuracy"]] = ["diverged", np.nan]
    return table


def test_a_look_before_the_last_planned_one_has_its_share_of_alpha_alone() -> None:
    seeds = range(10)
    assert price_of_look(seeds, Schedule()) == price_of_look(seeds, Schedule(10)) == 1
    assert price_of_look(range(3), Schedule(10)) == pytest.approx(10 / 3)
    assert price_of_look(seeds, Schedule(10, (tuple(range(8)),))) == pytest.approx(5)
    assert price_of_look(seeds, Schedule(10, (tuple(seeds),))) == 1  # the same look again
    beyond = Schedule(8, (tuple(range(8)), tuple(range(9))))
    assert price_of_look(seeds, beyond) == 10 * 2 * 3  # the second one beyond
    prices = [
        1 / price_of_look(range(n), Schedule(8, tuple(tuple(range(it)) for it in range(2, n)))) for n in range(2, 60)
    ]
    assert sum(prices) < 1.1


def test_estimates_agree_with_statsmodels_ols_on_cells(table: pd.DataFrame) -> None:
    cells = table[table["status"] == "finished"]
    design = pd.DataFrame({change: [float(change in held.split("+")) for held in cells["changes"]] for change in "abc"})
    blocks = pd.get_dummies(cells["seed"], dtype=float).set_axis(design.index)
    fit = sm.OLS(cells["test/accuracy"].to_numpy(), pd.concat([design, blocks], axis=1).to_numpy()).fit()
    family = marginal_effects(table, alpha=0.1)
    assert tuple(family.columns) == MARGINAL_COLUMNS
    assert family["change"].tolist() == ["a", "b", "c"]
    assert family["mean"].to_numpy() == pytest.approx(fit.params[:3], rel=1e-9)
    assert (family["n"].iloc[0], family["n_planned"].iloc[0]) == (23, 24)
    assert family["cells_with"].tolist() == [11, 8, 11]
    assert family["cells_without"].tolist() == [12, 15, 12]


def test_standard_errors_are_those_of_statsmodels_ols_on_combination_means() -> None:
    draw = np.random.default_rng(4)
    full = make_table({name: [float(x) for x in draw.uniform(0.6, 0.8, 4)] for name in NAMES}, NAMES)
    means = full.groupby("changes")["test/accuracy"].mean()
    design = np.array([[float(change in held.split("+")) for change in "abc"] for held in means.index])
    fit = sm.OLS(means.to_numpy(), sm.add_constant(design)).fit()
    family = marginal_effects(full, alpha=0.1)
    assert family["mean"].to_numpy() == pytest.approx(fit.params[1:], rel=1e-9)
    assert family["se"].to_numpy() == pytest.approx(fit.bse[1:], rel=1e-9)
    assert family["p"].to_numpy() == pytest.approx(fit.pvalues[1:], rel=1e-9)
    assert family[["low", "high"]].to_numpy() == pytest.approx(fit.conf_int(0.1)[1:], rel=1e-9)


def test_more_seeds_do_not_make_an_interaction_certain() -> None:
    # y = .7 + .02 ab in every seed: the additive model misses it by the same everywhere.
    def of(n: int) -> pd.DataFrame:
        cells = {name: [0.70 + 0.0001 * s for s in range(n)] for name in ("baseline", "a", "b")}
        return make_table({**cells, "a+b": [0.72 + 0.0001 * s for s in range(n)]}, {"a+b": "a+b"})

    few, many = (marginal_effects(of(n))["se"].iloc[0] for n in (2, 50))
    assert few == pytest.approx(many) == pytest.approx(0.01)  # residuals +-.005 of 4 means, 1 degree: .01 / sqrt(1)


def test_row_order_and_label_order_never_matter(table: pd.DataFrame) -> None:
    expected = marginal_effects(table)
    pd.testing.assert_frame_equal(marginal_effects(table.sample(frac=1, random_state=2), ["c", "a", "b"]), expected)
    renamed = table.assign(variant=table["variant"].map(lambda name: f"z{len(name)}{name}"))
    pd.testing.assert_frame_equal(marginal_effects(renamed), expected)


def test_the_level_of_a_seed_is_not_taken_for_an_effect() -> None:
    # Seed 1 is 0.1 better throughout, and only there was a trained: its effect is 0.01, not 0.1.
    table = make_table({"baseline": {0: 0.6, 1: 0.7, 2: 0.6}, "a": {1: 0.71}})
    assert marginal_effects(table)["mean"].iloc[0] == pytest.approx(0.01)


def test_changes_that_always_come_together_are_not_given_separate_effects() -> None:
    held = {"x": "a+b", "y": "c", "z": "a+b+c", "u": "d+e"}
    draw = np.random.default_rng(1)
    table = make_table({name: list(draw.uniform(0.6, 0.8, 3)) for name in ("baseline", *held)}, held)
    family = marginal_effects(table).set_index("change")
    assert np.isnan(family.loc[["a", "b", "d", "e"], ["mean", "low", "p"]]).all(axis=None)
    assert np.isfinite(family.loc["c", ["mean", "low", "high", "p"]].astype(float)).all()
    assert family.loc["a", "note"] == "cannot be told apart from b with these combinations"
    assert family.loc["e", "note"] == "cannot be told apart from d with these combinations"
    assert family.loc["c", "note"] == ""
    assert (family["m"] == 5).all()
    assert family.loc["c", "p_holm"] == pytest.approx(min(1.0, 5 * family.loc["c", "p"]))


def test_a_change_in_every_cell_cannot_be_told_from_the_seed() -> None:
    family = marginal_effects(make_table({"a": [0.7, 0.8], "x": [0.6, 0.7]}, {"x": "a+b"})).set_index("change")
    assert family.loc["a", "note"].startswith("in every cell of a seed or in none")
    assert family.loc["b", "mean"] == pytest.approx(-0.1)


def test_without_residual_degrees_of_freedom_there_is_an_estimate_and_no_interval() -> None:
    row = marginal_effects(make_table({"baseline": [0.7], "a": [0.72]})).iloc[0]
    assert row["mean"] == pytest.approx(0.02)
    assert np.isnan([row["se"], row["low"], row["p"], row["p_holm"]]).all()


def test_cells_with_other_changes_are_not_used(table: pd.DataFrame) -> None:
    family = marginal_effects(table, ["a", "b"])
    assert family["n_planned"].tolist() == [12, 12]  # baseline, a, b


def test_nothing_to_estimate_is_refused() -> None:
    with pytest.raises(ResultsError, match="only the baseline"):
        marginal_effects(make_table({"baseline": [0.7]}))
    with pytest.raises(ResultsError, match="no finished cell"):
        marginal_effects(make_table({"baseline": ["failed"], "a": ["missing"]}))


# --- the one-standard-error rule. Validation accuracy is 0.01 above the numbers given.


def test_the_simplest_set_within_one_standard_error_is_offered() -> None:
    # Best m2: mean .74. Gaps: m1 .003, a .005, b .02, each -.01, 0, +.01 more by seed: standard error .00577.
    best, wobble = np.array([0.70, 0.74, 0.78]), np.array([-0.01, 0.0, 0.01])
    gaps = {"b": 0.02 + wobble, "m2": 0 * wobble, "m1": 0.003 + wobble, "a": 0.005 + wobble}
    cells = {name: list(best - gap) for name, gap in gaps.items()}
    choice = simplest_within_one_se(make_table(cells, NAMES))
    assert (choice.best, choice.simplest, choice.metric.name) == ("m2", "a", "val/accuracy")
    assert choice.standard_error == pytest.approx(0.01 / np.sqrt(3))
    assert (choice.best_mean, choice.simplest_mean, choice.gap) == pytest.approx((0.75, 0.745, 0.005))
    assert simplest_within_one_se(make_table(cells, NAMES), variants=["m1", "m2"]).simplest == "m1"


def test_what_a_seed_does_to_both_is_no_reason_to_take_the_worse() -> None:
    # a is .005 behind m2 in every seed; the seeds differ by .04, of which the mean of m2 alone has an error of .023.
    table = make_table({"m2": [0.70, 0.74, 0.78], "a": [0.695, 0.735, 0.775]}, NAMES)
    assert simplest_within_one_se(table).simplest == "m2"


def test_among_equally_many_changes_the_smaller_model_is_simpler() -> None:
    table = make_table({"a": [0.73, 0.75], "b": [0.7295, 0.7515]})  # gaps -.0005 and .0015: .0005 with an error of .001
    assert simplest_within_one_se(table).simplest == "b"  # same size: the better one
    table.loc[table["variant"] == "b", "parameters"] = 5000
    assert simplest_within_one_se(table).simplest == "a"


def test_the_gap_is_taken_over_common_seeds() -> None:
    # m1: standard error .026. a stands .009 below its mean, but on the seeds that both have, .0325 behind.
    table = make_table({"m1": {0: 0.70, 1: 0.75, 2: 0.79}, "a": {1: 0.72, 2: 0.755}}, NAMES)
    assert simplest_within_one_se(table).simplest == "m1"


def test_a_variant_with_one_seed_takes_no_part_and_is_named() -> None:
    table = make_table({"m1": [0.73, 0.75], "a": [0.99], "c": [0.9, "diverged"]}, NAMES)
    choice = simplest_within_one_se(table)
    assert (choice.best, choice.left_out) == ("m1", ("a", "c"))


def test_losses_are_chosen_by_the_smallest() -> None:
    table = make_table({"m1": [0.73, 0.75], "a": [0.6, 0.61]}, NAMES)
    choice = simplest_within_one_se(table, metric="val/loss")
    assert (choice.best, choice.simplest) == ("m1", "m1")  # a is simpler, and far behind


def test_the_rule_needs_a_standard_error() -> None:
    with pytest.raises(ResultsError, match="no variant has val/accuracy on two seeds"):
        simplest_within_one_se(make_table({"a": [0.7], "b": ["failed", "failed"]}))
