import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import Numbers, synthetic_plan, synthetic_tables

from harness.errors import ResultsError
from harness.plan.manifest import RunComparison
from harness.report.display import GRIDS, overfitting_grid, seeds_grid
from harness.report.overfitting import describe_overfitting, overfitting_table
from harness.report.rows import effect_rows
from harness.report.tables import TABLES, effects_json, main_designs
from harness.stats import effects

EVERYTHING = ("add-one", "combinations", "leave-one-out:model-1", "path")
NOISELESS = {"seed_sd": 0.0, "noise": 0.0}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Ten seeds; one cell diverged, one has not run."""
    numbers = Numbers(outcomes={("kernel-7", 1): "diverged"}, missing=[("augment-harsh", 2)])
    plan = synthetic_plan(designs=EVERYTHING, seeds=10, profile="standard")
    return synthetic_tables(tmp_path_factory.mktemp("store"), plan, numbers)


def test_the_designs_of_a_run_are_corrected_together_and_the_first_one_weighs_most(tables):
    assert list(tables.families) == ["add-one", "combinations", "leave-one-out:model-1", "path:report"]
    sizes = {name: set(family.effects["m"]) for name, family in tables.families.items()}
    assert sizes == {"add-one": {15}, "combinations": {2}, "leave-one-out:model-1": {6}, "path:report": {6}}
    # The first step of the path is a single change. Where a pair stands beside its changes, so does
    # their interaction.
    compared = {frozenset(sides) for family in tables.families.values() for sides in family.sides.values()}
    assert len(compared) == 15 + 2 + 6 + 4  # and its last one leaves a change out
    interactions = len(tables.interactions)
    assert set(tables.effects["corrected_over"]) == {27 + interactions}
    (share,) = set(tables.families["add-one"].effects["share"])
    assert share == pytest.approx(0.8)
    others = sum(family.effects["share"].iloc[0] for name, family in tables.families.items() if name != "add-one")
    assert others + tables.interactions["share"].iloc[0] > 0.2  # the path's first step counts in add-one, too


def test_one_comparison_in_two_designs_has_one_p(tables):
    single = tables.families["add-one"].effects.set_index("variant")
    path = tables.families["path:report"].effects.set_index("variant")
    first = next(iter(tables.families["path:report"].sides))
    assert path.loc[first, "p_adjusted"] == single.loc[first, "p_adjusted"]
    assert tables.families["path:report"].sides[first] == tables.families["add-one"].sides[first]


def test_the_effects_of_one_design_are_those_of_the_statistics(tables, tmp_path):
    plan = synthetic_plan(designs=("add-one",), seeds=10, profile="standard")
    numbers = Numbers(outcomes={("kernel-7", 1): "diverged"}, missing=[("augment-harsh", 2)])
    single = synthetic_tables(tmp_path, plan, numbers).families["add-one"]
    expected = effects(tables.results, variants=list(single.sides))

    pd.testing.assert_frame_equal(single.effects, expected)
    beside_others = tables.families["add-one"].effects
    assert (beside_others["p_adjusted"] >= expected["p_adjusted"]).all()
    assert (beside_others["p_adjusted"] > expected["p_adjusted"]).any()


def test_the_main_design_is_the_one_that_was_compared_first(tables):
    manifest = tables.manifest
    assert main_designs(manifest) == ["add-one"]
    turned = replace(manifest, comparisons=manifest.comparisons[::-1])
    assert main_designs(turned) == ["path:report"]
    greedy = RunComparison("path:greedy", "a", "a", "baseline")
    assert main_designs(replace(manifest, comparisons=(greedy, *manifest.comparisons))) == ["add-one"]


def test_leaving_a_change_out_says_what_it_adds_to_the_full_combination(tmp_path):
    # 0.004 alone; its interactions are none, so the same inside model-1. Accuracies are multiples of 1/2000.
    plan = synthetic_plan(designs=("leave-one-out:model-1",), seeds=2)
    tables = synthetic_tables(tmp_path, plan, Numbers(**NOISELESS))
    row = tables.effects.set_index("change").loc["dropout-0.2"]

    assert row["mean"] == pytest.approx(0.004, abs=1e-9)
    assert (row["variant"], row["reference"]) == (
        "model-1",
        "optimizer-adamax+filters-64-128-256+batch-norm+batch-norm-fc+l2-1e-5",
    )


def test_a_path_keeps_its_order_and_the_other_designs_are_sorted_by_their_estimate(tables):
    path = tables.families["path:report"].effects["variant"]
    assert list(path) == list(tables.families["path:report"].sides)
    for name in ("add-one", "combinations", "leave-one-out:model-1"):
        assert tables.families[name].effects["improvement"].is_monotonic_decreasing


def test_the_headline_is_picked_by_validation_and_reported_on_test(tmp_path):
    second = "filters-128-256-512"
    plan = synthetic_plan(seeds=8, profile="standard", only=("batch-norm", second))
    tables = synthetic_tables(tmp_path, plan)
    results = tables.results
    better = results["val/accuracy"].where(results["variant"] != second, results["val/accuracy"] + 0.1)
    swapped = results.assign(**{"val/accuracy": better})

    assert tables.headline.variant == "batch-norm"
    assert tables.headline.is_supported
    headline = type(tables)(swapped, load_curves=pd.DataFrame).headline
    assert headline.variant == second
    ours = tables.effects.set_index("change").loc[second, "mean"]
    assert f"{100 * ours:+.2f} points" in headline.sentence


def test_single_changes_come_first_and_make_the_headline_whatever_design_ran_first(tmp_path):
    plan = synthetic_plan(designs=("path", "combinations", "add-one"), seeds=2)
    tables = synthetic_tables(tmp_path, plan)

    assert tables.manifest.comparisons[0].design == "path:report"
    assert list(tables.families) == ["add-one", "combinations", "path:report"]
    assert tables.headline.variant in tables.families["add-one"].sides


def test_a_greedy_path_is_exploratory_however_many_seeds(tmp_path):
    plan = synthetic_plan(designs=("path",), seeds=10, profile="standard")
    tables = synthetic_tables(tmp_path, plan)
    assert "improves" in set(tables.effects["verdict"])

    comparisons = tuple(replace(it, design="path:greedy") for it in tables.manifest.comparisons)
    tables.results.attrs["manifest"] = replace(tables.manifest, comparisons=comparisons)
    greedy = type(tables)(tables.results, load_curves=tables.load_curves)

    assert set(greedy.effects["verdict"]) == {"exploratory"}


def test_variants_stand_in_the_order_of_the_plan_with_their_outcomes(tables):
    assert list(tables.variants["variant"]) == [it.name for it in tables.manifest.variants]
    by_name = tables.variants.set_index("variant")
    assert tuple(by_name.loc["kernel-7", ["n_ok", "n", "outcomes"]]) == (9, 10, "1 diverged")
    assert tuple(by_name.loc["augment-harsh", ["n_ok", "n", "outcomes"]]) == (9, 10, "1 missing")


def test_published_numbers_of_variants_that_did_not_run_have_no_numbers_of_ours(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(profile="standard", seeds=3, only=("kernel-3",)))
    by_variant = tables.published.groupby("variant")["n"].max()

    assert by_variant.to_dict() == {"baseline": 3, "model-1": 0, "model-2": 0}
    assert tables.published.loc[tables.published["n"] == 0, "mean"].isna().all()
    baseline = tables.published.set_index(["variant", "metric"]).loc[("baseline", "test/accuracy")]
    assert baseline["difference"] == pytest.approx(baseline["mean"] - 0.7422)


def test_overfitting_is_the_gap_at_the_best_checkpoint_and_at_the_end():
    # By hand. Seed 0: best at epoch 1 (val loss .8), then .9 and train .2 -> .1. Seed 1: the best is the last.
    results = pd.DataFrame(
        {
            "variant": "a", "seed": [0, 1, 2], "status": ["finished", "finished", "failed"],
            "best_step": [10, 20, None], "best_epoch": [1.0, 2.0, np.nan], "num_epochs": [2.0, 2.0, 1.0],
            "train/accuracy": [0.9, 0.8, np.nan], "val/accuracy": [0.7, 0.7, np.nan],
            "train/loss": [0.2, 0.4, np.nan], "val/loss": [0.8, 0.6, np.nan],
        }
    ).astype({"best_step": "Int64"})  # fmt: skip
    results.attrs["manifest"] = task3()
    curves = pd.DataFrame(
        {
            "variant": "a", "seed": [1, 0, 1, 0, 2], "step": [10, 20, 20, 10, 10], "epoch": [1.0, 2.0, 2.0, 1.0, 1.0],
            "train/loss": [0.5, 0.1, 0.4, 0.2, np.nan], "train/accuracy": [0.5, 0.95, 0.75, 0.85, 0.1],
            "val/loss": [0.9, 0.9, 0.6, 0.8, np.nan], "val/accuracy": [0.6, 0.65, 0.7, 0.7, 0.1],
        }
    )  # fmt: skip

    (row,) = overfitting_table(results, curves).itertuples()

    assert (row.n, row.n_curves, row.counted_in, row.best_min, row.best_max) == (2, 2, "epoch", 1.0, 2.0)
    assert (row.gap_of, row.change_of) == ("val/accuracy", "val/loss")
    assert row.gap_best == pytest.approx(0.15)  # .2 and .1
    assert row.gap_end == pytest.approx((0.30 + 0.05) / 2)
    assert row.held_out_change == pytest.approx(0.05)  # .1 and 0
    assert row.training_change == pytest.approx(-0.05)  # -.1 and 0
    said = describe_overfitting(overfitting_table(results, curves), "a")
    assert "epoch 1.5 of 2.0 (mean over 2 seeds; 1.0 to 2.0)" in said
    assert "Training accuracy minus validation accuracy was 15.0 points there and 17.5 at the end." in said
    assert said.endswith("to the end, training loss changed by -0.050 nats, validation loss by +0.050.")
    assert describe_overfitting(overfitting_table(results, curves), "b") == ""


def test_interactions_are_what_two_changes_do_beyond_their_sum(tmp_path):
    plan = synthetic_plan(designs=("pairs",), seeds=2, only=("batch-norm", "optimizer-adamax", "kernel-3"))
    tables = synthetic_tables(tmp_path, plan, Numbers(**NOISELESS))
    found = tables.interactions.set_index("variant")["mean"]

    assert found["batch-norm x optimizer-adamax"] == pytest.approx(-0.008, abs=1e-9)
    assert found["batch-norm x kernel-3"] == pytest.approx(0, abs=1e-9)


def test_shapley_values_share_out_what_a_complete_factorial_gains(tmp_path):
    plan = synthetic_plan(designs=("add-one", "factorial"), seeds=2, only=("batch-norm", "optimizer-adamax"))
    tables = synthetic_tables(tmp_path, plan, Numbers(**NOISELESS))
    found = tables.shapley.set_index("variant")["mean"]

    # Each gets its own effect and half of the interaction of -.008.
    assert found["batch-norm"] == pytest.approx(0.034 - 0.004, abs=1e-9)
    assert found["optimizer-adamax"] == pytest.approx(0.012 - 0.004, abs=1e-9)


def test_a_table_that_needs_another_design_says_which_one(tables):
    with pytest.raises(ResultsError, match="--design factorial"):
        _ = tables.shapley


@pytest.mark.parametrize(("metric", "meant"), [("accuracy", "val/accuracy"), ("peak_memory", "peak_memory_bytes")])
def test_a_metric_that_does_not_exist_is_named_with_those_there_are(tables, metric, meant):
    broken = type(tables)(tables.results, load_curves=tables.load_curves, metric=metric)
    with pytest.raises(ResultsError, match=f"'{metric}'. Did you mean '{meant}'.*There are: train/loss, "):
        _ = broken.effects


def test_the_rows_of_people_are_in_points_and_begin_with_the_reference(tables):
    rows = effect_rows(tables.families["add-one"], tables.variants)
    effect = tables.effects.iloc[0]

    assert (rows[0].change, rows[0].effect, rows[0].verdict, rows[0].n) == ("baseline", "–", "reference", "10/10")
    assert rows[1].change == effect["change"]
    assert rows[1].effect == f"{100 * effect['mean']:+.2f} [{100 * effect['low']:+.2f}, {100 * effect['high']:+.2f}]"
    assert rows[1].cost.endswith(f"×{_cost(tables, rows[1].change) / _cost(tables, 'baseline'):.2f}")


def test_rows_of_leave_one_out_show_the_accuracy_without_the_change(tables):
    rows = effect_rows(tables.families["leave-one-out:model-1"], tables.variants)
    by_name = tables.variants.set_index("variant")

    assert rows[0].change == "model-1"
    without = tables.families["leave-one-out:model-1"].sides[rows[1].change][1]
    assert rows[1].value.startswith(f"{100 * by_name.loc[without, 'mean']:.2f} ± ")


def test_a_row_with_missing_cells_says_so_and_no_other_row_does(tables):
    remarks = {row.change: row.remark for row in effect_rows(tables.families["add-one"], tables.variants) if row.remark}
    assert remarks == {
        "kernel-7": "9 of 10 pairs complete (kernel-7 seed 1 diverged)",
        "augment-harsh": "9 of 10 pairs complete (augment-harsh seed 2 not run)",
    }


def test_one_seed_shows_an_estimate_and_nothing_that_would_need_more(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(seeds=1, only=("batch-norm",)))
    row = effect_rows(tables.families["add-one"], tables.variants)[1]

    assert row.effect == f"{100 * tables.effects['mean'].iloc[0]:+.2f}"
    assert (row.p, row.p_adjusted, row.p_improve, row.verdict) == ("–", "–", "–", "no inference (one seed)")


def test_every_seed_has_its_value_or_its_status(tables):
    grid = seeds_grid(tables)
    rows = {row[0]: row[1:] for row in grid.rows}
    harsh = tables.results[tables.results["variant"] == "augment-harsh"]

    assert rows["augment-harsh"][2] == "missing"
    assert rows["kernel-7"][1] == "diverged"
    assert rows["augment-harsh"][0] == f"{100 * harsh['test/accuracy'].iloc[0]:.2f}"


def test_every_table_has_a_grid_and_a_description():
    assert list(GRIDS) == list(TABLES)


def test_the_json_of_ablate_is_plain_json_with_the_answer(tables):
    found = json.loads(json.dumps(effects_json(tables.results), allow_nan=False))

    assert found["study"] == "task3"
    assert found["headline"]["variant"] == tables.headline.variant
    assert [row["change"] for row in found["effects"]] == list(tables.effects["change"])
    assert found["effects"][0]["mean"] == tables.effects["mean"].iloc[0]


def test_nothing_is_computed_before_anything_finished(tmp_path):
    plan = synthetic_plan(seeds=2, only=("batch-norm",))
    unfinished = [(variant.name, cell.seed) for variant in plan.variants for cell in variant.cells]
    tables = synthetic_tables(tmp_path, plan, Numbers(missing=unfinished))

    assert list(tables.effects["verdict"]) == ["no results"]
    assert tables.headline.variant is None
    assert tables.published["n"].sum() == 0
    assert overfitting_grid(tables).rows == ()
    json.dumps(effects_json(tables.results), allow_nan=False)


def task3():
    """The manifest of a study run of images."""
    return synthetic_plan(seeds=1, only=("batch-norm",)).manifest()


def _cost(tables, variant):
    cells = tables.results[(tables.results["variant"] == variant) & (tables.results["status"] == "finished")]
    return cells["seconds"].mean()
