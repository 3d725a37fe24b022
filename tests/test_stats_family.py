"""Families: the correction reaches the right change, each verdict has its case, designs differ in contrasts only."""

import io
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stats_tables import TOY, make_table, noisy
from statsmodels.stats.multitest import multipletests

from harness.errors import ResultsError
from harness.plan.manifest import Look
from harness.stats import (
    EFFECT_COLUMNS,
    VERDICTS,
    biggest_improvement,
    effects,
    leave_one_out_effects,
    paired_effect,
    smallest_detectable_effect,
)

BASELINE = noisy(0.74, 10, 0)


def shifted(by: float, seed: int, n: int = 10, sd: float = 0.003) -> list[float]:
    """The baseline's first n accuracies plus an effect with its own noise."""
    noise = np.random.default_rng(seed).normal(by, sd, n)
    return [round(base + float(extra), 4) for base, extra in zip(BASELINE, noise, strict=False)]


@pytest.fixture
def table() -> pd.DataFrame:
    return make_table(
        {
            "kernel-7": shifted(-0.04, 1),
            "baseline": BASELINE,
            "batch-norm": shifted(0.02, 2),
            "average-pooling": shifted(0.0005, 3),
            "dropout-0.2": shifted(0.003, 4),
        }
    )


def test_every_p_is_adjusted_in_its_own_row(table: pd.DataFrame) -> None:
    family = effects(table)
    raw = [paired_effect(table, variant).p for variant in family["variant"]]
    assert family["p"].tolist() == raw
    assert sorted(raw) != raw  # the input of the correction was unsorted
    assert family["p_holm"].to_numpy() == pytest.approx(multipletests(raw, method="holm")[1], abs=1e-12)
    assert family.set_index("variant").loc["batch-norm", "p_holm"] == pytest.approx(4 * 2 / 2**10)
    assert (family["m"] == 4).all()


def test_neither_the_order_of_rows_nor_that_of_names_matters(table: pd.DataFrame) -> None:
    expected = effects(table)
    for seed in range(3):
        pd.testing.assert_frame_equal(effects(table.sample(frac=1, random_state=seed)), expected)
    names = ["batch-norm", "kernel-7", "dropout-0.2", "average-pooling"]
    pd.testing.assert_frame_equal(effects(table, variants=names), effects(table, variants=names[::-1]))
    renamed = table.assign(variant=table["variant"].replace({"kernel-7": "a", "batch-norm": "z"}))
    numbers = expected.drop(columns="variant")
    pd.testing.assert_frame_equal(effects(renamed).drop(columns="variant"), numbers)


def test_the_table_of_effects_has_its_columns_and_the_best_first(table: pd.DataFrame) -> None:
    family = effects(table)
    assert tuple(family.columns) == EFFECT_COLUMNS
    assert family["variant"].tolist() == ["batch-norm", "dropout-0.2", "average-pooling", "kernel-7"]
    by_loss = effects(table, metric="test/loss")
    assert by_loss["variant"].tolist() == family["variant"].tolist()
    assert (np.sign(by_loss["mean"]) == -np.sign(family["mean"])).all()


def test_the_table_of_effects_goes_through_parquet(table: pd.DataFrame) -> None:
    family, file = effects(table), io.BytesIO()
    family.to_parquet(file)
    pd.testing.assert_frame_equal(pd.read_parquet(file), family)


def test_the_family_is_the_variants_named(table: pd.DataFrame) -> None:
    few = effects(table, variants=["batch-norm", "kernel-7", "batch-norm"])
    assert few["variant"].tolist() == ["batch-norm", "kernel-7"]
    assert (few["m"] == 2).all()
    assert few["p_holm"].tolist() == pytest.approx([2 * 2 / 2**10] * 2)


def test_a_change_without_results_still_counts_in_the_family(table: pd.DataFrame) -> None:
    nothing = make_table({"adamax": ["failed"] * 10})
    family = effects(pd.concat([nothing, table])).set_index("variant")
    assert family.index[-1] == "adamax"
    assert family.loc["adamax", "verdict"] == "no results"
    assert (family["m"] == 5).all()
    assert family.loc["batch-norm", "p_holm"] == pytest.approx(5 * 2 / 2**10)


def test_missing_seeds_stand_in_the_table_of_effects(table: pd.DataFrame) -> None:
    lost = (table["variant"] == "batch-norm") & (table["seed"] == 4)
    table.loc[lost, ["status", "test/accuracy"]] = ["diverged", np.nan]
    row = effects(table).set_index("variant").loc["batch-norm"]
    assert (row["n"], row["n_planned"]) == (9, 10)
    assert row["seeds"] == "0-3, 5-9"
    assert row["missing"] == "batch-norm seed 4 diverged"


# Each verdict, by the smallest case that earns it: seeds that trained, of ten; what the variant adds; size of the
# family, delta, horizon.
UNANIMOUS = np.linspace(0.008, 0.012, 10)
VERDICT_CASES = {
    "improves": (10, UNANIMOUS, 9, 0.0, 0),
    "improves where it trains": (8, UNANIMOUS, 1, 0.0, 0),  # p .008; .11 with the two failed seeds against it
    "hurts": (10, -UNANIMOUS, 1, 0.0, 0),
    "equivalent": (10, UNANIMOUS, 1, 0.02, 0),  # surely positive, and surely too small to matter
    "inconclusive": (10, UNANIMOUS * ([1, -1] * 5), 1, 0.0, 0),
    "exploratory": (5, UNANIMOUS, 1, 0.0, 0),  # 2 / 2^5 > .05
    "cannot reach significance": (6, UNANIMOUS, 1, 0.0, 30),  # 2 / 2^6 <= .05, but > .05 10 / 30
    "no inference (one seed)": (1, UNANIMOUS, 1, 0.0, 0),
    "no results": (0, UNANIMOUS, 1, 0.0, 0),
}


def test_every_verdict_has_a_case() -> None:
    assert set(VERDICT_CASES) == set(VERDICTS)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_verdict(verdict: str) -> None:
    n, by, m, delta, horizon = VERDICT_CASES[verdict]
    by = np.resize(by, 10)
    cells: dict[str, list[float | str]] = {"baseline": list(BASELINE)}
    for k in range(m):
        cells[f"v{k}"] = [base + x if s < n else "failed" for s, (base, x) in enumerate(zip(BASELINE, by, strict=True))]
    table = make_table(cells)
    table.attrs["manifest"] = replace(TOY, horizon=horizon)
    assert effects(table, delta=delta)["verdict"].tolist() == [verdict] * m


@pytest.mark.parametrize(
    ("status", "next_step"),
    [("failed", "Find out why they have none."), ("missing", "The same command trains the rest.")],
)
def test_pairs_that_are_not_trained_yet_are_no_failures(status: str, next_step: str) -> None:
    cells = [base + x if s < 8 else status for s, (base, x) in enumerate(zip(BASELINE, UNANIMOUS, strict=True))]
    family = effects(make_table({"baseline": list(BASELINE), "wide": cells}))
    assert family["verdict"].tolist() == ["improves where it trains"]
    assert biggest_improvement(family).sentence.count(next_step) == 1


def test_what_was_trained_without_a_number_comes_first_in_the_words(table: pd.DataFrame) -> None:
    wide = table["variant"] == "batch-norm"
    table.loc[wide & table["seed"].isin(range(8)), ["status", "test/accuracy"]] = ["missing", np.nan]
    table.loc[wide & (table["seed"] == 9), ["status", "test/accuracy"]] = ["diverged", np.nan]
    row = effects(table).set_index("variant").loc["batch-norm"]
    assert row["missing"].startswith("batch-norm seed 9 diverged, batch-norm seed 0 not run, ")


def test_what_was_chosen_after_seeing_data_is_exploratory(table: pd.DataFrame) -> None:
    assert set(effects(table, exploratory=True)["verdict"]) == {"exploratory"}
    assert effects(table)["verdict"].iloc[0] == "improves"


def test_a_small_alpha_widens_the_intervals(table: pd.DataFrame) -> None:
    wide, usual = effects(table, alpha=0.01).iloc[0], effects(table).iloc[0]
    assert wide["confidence"] == 0.99
    assert wide["low"] < usual["low"] < usual["high"] < wide["high"]


def test_the_equivalence_claim_is_corrected_for_the_family_too(table: pd.DataFrame) -> None:
    family = effects(table, delta=0.01)
    expected = multipletests(family["p_equivalence"], method="holm")[1]
    assert family["p_equivalence_holm"].to_numpy() == pytest.approx(expected, abs=1e-12)


def test_equivalence_of_several_changes_takes_more_than_equivalence_of_one() -> None:
    # Three one-sided p of about .03: each alone would be called equivalent, the family's smallest becomes .09.
    noise = np.random.default_rng(3).normal(0, 1, 10)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    by = 0.01 - 2.2 / np.sqrt(10) * 0.002 + 0.002 * noise  # t = -2.2 against delta .01
    cells = {"baseline": BASELINE, **{name: list(np.add(BASELINE, by)) for name in "abc"}}
    family = effects(make_table(cells), delta=0.01)
    alone = effects(make_table(cells), variants=["a"], delta=0.01)
    assert (family["p_equivalence"] < 0.05).all()
    assert family["verdict"].tolist() == ["improves"] * 3
    assert alone["verdict"].tolist() == ["equivalent"]


def test_the_detectable_effect_is_that_of_the_corrected_level(table: pd.DataFrame) -> None:
    row = effects(table).iloc[0]
    assert row["detectable"] == smallest_detectable_effect(10, row["sd"], 0.05, 4)


def test_a_smaller_loss_is_called_an_improvement(table: pd.DataFrame) -> None:
    verdicts = effects(table, metric="test/loss").set_index("variant")["verdict"]
    assert (verdicts["batch-norm"], verdicts["kernel-7"]) == ("improves", "hurts")


def test_the_reference_cannot_be_a_member(table: pd.DataFrame) -> None:
    with pytest.raises(ResultsError, match="compared with itself"):
        effects(table, variants=["baseline", "kernel-7"])
    with pytest.raises(ResultsError, match="Did you mean 'kernel-7'"):
        effects(table, variants=["kernel7"])


def test_a_table_of_the_reference_alone_has_no_effects() -> None:
    assert len(effects(make_table({"baseline": BASELINE}))) == 0


# --- leave-one-out and path


@pytest.fixture
def built_up() -> pd.DataFrame:
    """y = 0.70 + 0.02 a + 0.01 b - 0.005 ab, the same noise in every variant of a seed."""
    noise = np.array([0.001, -0.002, 0.0005])
    cells = {"baseline": 0.70, "a": 0.72, "b": 0.71, "model-1": 0.725}
    changes = {"model-1": "b+a"}
    return make_table({name: list(mean + noise) for name, mean in cells.items()}, changes)


def test_leave_one_out_is_full_minus_full_without_the_change(built_up: pd.DataFrame) -> None:
    family = leave_one_out_effects(built_up, "model-1").set_index("variant")
    assert family["mean"].to_dict() == pytest.approx({"a": 0.015, "b": 0.005})
    assert family["reference"].to_dict() == {"a": "b", "b": "a"}  # without a there is b, and the reverse


def test_leaving_the_only_change_out_leaves_the_baseline(built_up: pd.DataFrame) -> None:
    family = leave_one_out_effects(built_up, "a")
    assert family[["variant", "reference"]].to_numpy().tolist() == [["a", "baseline"]]
    assert family["mean"].iloc[0] == pytest.approx(0.02)


def test_a_leave_one_out_variant_that_was_never_planned_is_a_row_without_results(built_up: pd.DataFrame) -> None:
    family = leave_one_out_effects(built_up[built_up["variant"] != "b"], "model-1").set_index("variant")
    assert family.loc["a", "verdict"] == "no results"
    assert family.loc["a", "missing"] == "b seed 0 not planned, b seed 1 not planned, b seed 2 not planned"
    assert np.isnan(family.loc["a", "extra_parameters"])  # no number of another variant stands in
    assert family.loc["b", "mean"] == pytest.approx(0.005)


def test_nothing_can_be_left_out_of_the_baseline(built_up: pd.DataFrame) -> None:
    with pytest.raises(ResultsError, match="'baseline' has no changes"):
        leave_one_out_effects(built_up, "baseline")


def test_of_two_variants_with_the_same_changes_the_one_with_more_seeds_is_used(built_up: pd.DataFrame) -> None:
    thin = make_table({"alias": {0: 0.5}}, {"alias": "b"})
    family = leave_one_out_effects(pd.concat([thin, built_up]), "model-1").set_index("variant")
    assert family.loc["a", "reference"] == "b"


@pytest.mark.slow
def test_five_thousand_cells_take_less_than_three_seconds() -> None:
    cells = {f"v{k}": noisy(0.74, 10, k + 1) for k in range(499)}
    table = make_table({"baseline": BASELINE, **cells})
    started = time.process_time()  # of this process: others may be busy
    family = effects(table)
    assert time.process_time() - started < 3
    assert len(family) == 499


def test_what_looked_stronger_before_has_no_adjusted_p_below_the_one_that_is_seen_now() -> None:
    """It claimed nothing then; with a raw p of .8 beside an adjusted one of .3 nobody could read the table."""
    baseline = [0.5 + 0.001 * it for it in range(10)]
    fading = [0.01, 0.012, 0.008, 0.011, -0.002, 0.009, -0.05, -0.04, 0.02, 0.015]
    table = make_table({"baseline": baseline, "fading": [a + b for a, b in zip(baseline, fading, strict=True)]})
    looks = tuple(Look(tuple(range(n)), "", "") for n in (6, 8, 10))
    table.attrs["manifest"] = replace(TOY, horizon=10, looks=looks)
    (row,) = effects(table).to_dict("records")
    assert row["look"].startswith("look 3")
    assert row["p_adjusted"] >= row["p"] > 0.5


def claimed_then_different(later: list[float | str]) -> dict[str, Any]:
    """The row of a change that eight planned seeds show to help, with these improvements on seeds beyond the plan, or
    how they ended."""
    n = 8 + len(later)
    baseline = [0.5 + 0.001 * (it % 3) for it in range(n)]
    found = [0.05 + 0.001 * (it % 5) for it in range(8)] + later
    cells = [b if isinstance(b, str) else a + b for a, b in zip(baseline, found, strict=True)]
    table = make_table({"baseline": baseline, "b": cells})
    looks = tuple(Look(tuple(range(it)), "", "") for it in (8, n))
    table.attrs["manifest"] = replace(TOY, horizon=8, looks=looks)
    (row,) = effects(table).to_dict("records")
    assert row["look"] == f"look 2, at {n} seeds, beyond the 8 planned"
    return row


def test_a_claim_of_the_plan_is_given_up_where_seeds_beyond_it_do_not_bear_it_out() -> None:
    assert claimed_then_different([0.05, 0.049])["verdict"] == "improves"
    faded = claimed_then_different([-0.06, -0.07, -0.05, -0.06, -0.05, -0.06, -0.05])
    assert faded["p"] > 0.5
    assert faded["p_adjusted"] >= faded["p"]
    assert faded["verdict"] == "inconclusive"


def test_a_claim_of_the_plan_does_not_outlast_seeds_that_fail_beyond_it() -> None:
    row = claimed_then_different(["failed"] * 7)
    assert (row["n"], row["n_planned"]) == (8, 15)
    assert row["p_adjusted"] <= 0.05
    assert row["verdict"] == "improves where it trains"


def test_a_number_beyond_measure_is_none_and_leaves_the_others_as_they_are() -> None:
    """Its square is infinite: as a number it made every other change of the family significant."""
    cells = {f"v{k}": noisy(0.74, 8, k + 1) for k in range(4)}
    plain = effects(make_table({"baseline": noisy(0.74, 8, 0), **cells})).set_index("variant")
    with_one = {**cells, "boom": [0.9, 0.91, 0.92, 1e160, 0.9, 0.91, 0.9, 0.92]}
    found = effects(make_table({"baseline": noisy(0.74, 8, 0), **with_one})).set_index("variant")
    assert found.loc["boom", "n"] == 7
    assert (found["p_adjusted"] >= found["p"]).all()
    assert (found.loc[list(cells), "p"] == plain.loc[list(cells), "p"]).all()
    assert (found.loc[list(cells), "verdict"] == plain.loc[list(cells), "verdict"]).all()
