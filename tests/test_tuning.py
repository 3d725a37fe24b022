"""Tuning: the same trials for every variant, the best one for each seed, compared as pairs; and what trials reach."""

import itertools
import math

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from own import write_study
from pydantic import ValidationError
from schemas import fitting

import harness
from harness.cli import cli
from harness.errors import StudyError
from harness.plan.plan import make_plan
from harness.plan.tuning import make_tuning
from harness.report.exhibits import exhibits
from harness.report.figures import draw as drawn
from harness.report.html import page
from harness.report.tables import Tables
from harness.report.tuning_data import budgets_data, tuned_pairs_data
from harness.stats.tuning import expected_best
from harness.store.load import curves_table, results_table, tuning_of
from harness.study.load import load_study
from harness.study.nuisance import Nuisance, draw
from harness.study.resolved import resolved_study

RATE = {"rate": {"low": 0.001, "high": 1.0, "log": True}}
# The baseline's own rate is ten times too high, and `fancy` moves the best rate there: it only seems to help. `helps`
# adds two points at any rate. Rates above 0.5 diverge.
PLANTED = """
import math, random
import harness

def train(run):
    s = run.settings
    if s.rate > 0.5:
        run.log(1, **{"val/score": math.nan})
        return
    off = math.log10(s.rate / (0.3 if s.fancy else 0.03))
    score = 70 - 4 * off**2 + (2 if s.helps else 0) + random.Random(run.seed).gauss(0, 1)
    noise = random.Random(f"{run.seed} {s.rate} {s.fancy} {s.helps}")
    val, test = score + noise.gauss(0, 0.1), score + noise.gauss(0, 0.1)
    run.finish(**{"val/score": SIGN * val / 100, "test/score": SIGN * test / 100})
"""
STUDY = {
    "baseline": {"rate": 0.3, "fancy": False, "helps": False},
    "changes": [
        {"name": "fancy", "overrides": {"fancy": True}},
        {"name": "helps", "overrides": {"helps": True}},
    ],
    "nuisance": RATE,
    "profiles": {"standard": {"seeds": 8}},
}


def planted(folder, *, goal="maximize", **more):
    sign = "1" if goal == "maximize" else "-1"
    metrics = {"val/score": {"goal": goal, "unit": "percent"}, "test/score": {"goal": goal, "unit": "percent"}}
    return write_study(folder, function=PLANTED.replace("SIGN", sign), **(STUDY | {"metrics": metrics} | more))


def verdicts(effects):
    return dict(zip(effects["change"], effects["verdict"], strict=True))


@pytest.mark.ordeal
@pytest.mark.slow
@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_what_only_suits_a_bad_rate_improves_untuned_and_not_tuned_and_what_helps_does_so_in_both(tmp_path, goal):
    found = harness.tune(planted(tmp_path, goal=goal), store=tmp_path / "store", trials=4, executor="here")
    assert verdicts(found.untuned_effects) == {"fancy": "improves", "helps": "improves"}
    assert verdicts(found.effects) == {"fancy": "inconclusive", "helps": "improves"}
    assert (found.chosen["rate"] <= 0.5).all()  # what diverged is never chosen
    assert found.chosen.groupby("variant").size().to_dict() == {"baseline": 8, "fancy": 8, "helps": 8}
    ends = found.budgets[found.budgets["trials"] == 4].set_index("variant")["mean"]
    sign = 1 if goal == "maximize" else -1
    best = [found.work.cells.result(cell.key).metrics["test/score"] for cell in found.work.plan.variants[0].cells]
    assert ends["baseline"] == pytest.approx(np.mean(best))
    assert sign * (ends["helps"] - ends["baseline"]) == pytest.approx(0.02, abs=0.005)
    the_report_shows_what_was_found(found)


def the_report_shows_what_was_found(found):
    cells = found.work.cells
    manifest = cells.manifests()[found.work.plan.id]
    tables = Tables(
        results_table(cells, manifest),
        load_curves=lambda: curves_table(cells, manifest),
        load_tuning=lambda: tuning_of(cells, manifest),
    )
    pairs, budgets = tuned_pairs_data(tables), budgets_data(tables)
    for row in pairs.rows:
        for estimate, effects in ((row.added, found.untuned_effects), (row.left_out, found.effects)):
            assert estimate.mean == pytest.approx(100 * effects.set_index("variant")["mean"][row.label])
    assert pairs.rows[0].label == "helps"  # the best tuned first
    reached = found.budgets.set_index(["variant", "trials"])["mean"]
    for curve in budgets.curves:
        assert list(curve.mean) == pytest.approx([100 * reached[curve.variant, int(b)] for b in curve.x], nan_ok=True)
    assert {trace.mode for trace in drawn(budgets).data} == {"lines"}  # no dots at the edges of the bands
    shown = [it.name for it in exhibits(tables).shown]
    assert {"tuned-beside-untuned", "tuned-budgets"} <= set(shown)
    assert "Expected best against budget" in page(tables, exhibits(tables))
    assert tuning_of(cells, cells.manifests()[found.untuned.plan.id]) is None


@pytest.mark.slow
def test_the_command_trains_once_says_both_and_leaves_an_ordinary_study_run(tmp_path):
    arguments = ["--study", str(planted(tmp_path)), "--store", str(tmp_path / "store"), "--jobs", "1"]
    narrow = {"COLUMNS": "40"}
    first = CliRunner().invoke(cli, ["tune", *arguments, "--trials", "4"], catch_exceptions=False, env=narrow)
    assert first.exit_code == 0
    assert "Tuned: rate; 4 trials x 3 variants x 8 seeds = 96 cells" in " ".join(first.output.split())
    beside = first.output.partition("tuned beside untuned: test score [points]\n")[2].splitlines()
    assert [it.split()[0] for it in beside[:4]] == ["change", "baseline", "fancy", "helps"]  # in a pipe a row is a line
    again = CliRunner().invoke(cli, ["tune", *arguments, "--trials", "4", "--json"], catch_exceptions=False)
    said = fitting("tune", again.stdout)
    assert "0 to train" in again.stderr
    assert "cells trained" not in again.stderr
    assert {row["change"]: row["verdict"] for row in said["tuned"]} == {"fancy": "inconclusive", "helps": "improves"}
    exported = CliRunner().invoke(
        cli, ["export", "--study", said["runs"]["tuned"], "--store", str(tmp_path / "store"), "--table", "effects"]
    )
    assert exported.exit_code == 0, exported.output
    assert "helps" in exported.stdout


@pytest.mark.slow
def test_more_trials_and_more_seeds_train_only_what_is_missing(tmp_path):
    request = {"store": tmp_path / "store", "executor": "here"}
    few = harness.tune(planted(tmp_path), trials=2, seeds=2, **request)
    many = harness.tune(planted(tmp_path), trials=4, seeds=3, **request)
    keys = {cell.key for cell in few.tuning.trials.cells}
    assert keys < {cell.key for cell in many.tuning.trials.cells}
    assert few.work.plan.id != many.work.plan.id


def test_every_variant_gets_the_same_values_and_each_seed_its_own(tmp_path):
    plan = make_plan(load_study(planted(tmp_path)), seeds=range(3))
    tuning = make_tuning(plan, plan.study.nuisance, 5)
    rates = {
        name: [[cell.settings.tree()["rate"] for cell in cells] for cells in by_seed]
        for name, by_seed in tuning.cells.items()
    }
    assert rates["baseline"] == rates["fancy"] == rates["helps"]
    assert len({rate for cells in rates["baseline"] for rate in cells}) == 15


def test_draws_are_evenly_spread_and_more_trials_only_add():
    nuisance = {
        "rate": Nuisance(**RATE["rate"]),
        "width": Nuisance(low=2, high=5),
        "kind": Nuisance(choices=("a", "b")),
    }
    many = draw(nuisance, seed=3, num_trials=64)
    assert draw(nuisance, seed=3, num_trials=5) == many[:5]
    assert draw(nuisance, seed=4, num_trials=5) != many[:5]
    decades = np.histogram(np.log10([it["rate"] for it in many]), bins=3, range=(-3, 0))[0]
    assert decades.min() >= 19  # of 21.3
    assert {it["width"] for it in many} == {2, 3, 4, 5}
    assert abs(sum(it["kind"] == "a" for it in many) - 32) <= 2


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"low": 1.0}, "expected low and high"),
        ({"low": 2.0, "high": 1.0}, "low below high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "low above 0"),
        ({"choices": ["a"]}, "at least two"),
        ({"choices": ["a", "b"], "low": 1.0}, "not both"),
        ({"low": True, "high": 2.0}, "valid"),
    ],
)
def test_a_range_that_is_none_is_refused(said, problem):
    with pytest.raises(ValidationError, match=problem):
        Nuisance.model_validate(said)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"nuisance": {"rat": RATE["rate"]}}, "nuisance: .*rat.*Did you mean"),
        ({"nuisance": {"fancy": RATE["rate"]}}, "nuisance: fancy"),
        ({"nuisance": {"rate": {"low": 1.0}}}, "nuisance.rate.*expected low and high"),
    ],
)
def test_a_study_with_nuisance_settings_that_cannot_be_is_refused(tmp_path, more, problem):
    with pytest.raises(StudyError, match=problem):
        load_study(planted(tmp_path, **more))


def test_requests_that_make_no_sense_say_what_to_do(tmp_path):
    store = tmp_path / "store"
    with pytest.raises(StudyError, match="names no nuisance settings"):
        harness.tune(planted(tmp_path, nuisance={}), store=store)
    with pytest.raises(StudyError, match="--trials 1: at least two"):
        harness.tune(planted(tmp_path), store=store, trials=1)
    slower = [*STUDY["changes"], {"name": "slower", "overrides": {"rate": 0.01}}]
    with pytest.raises(StudyError, match="'baseline trial 0' and 'slower trial 0' have the same settings"):
        harness.tune(planted(tmp_path, changes=slower), store=store)
    for said in ("rate", "rate=1", "rate=a:b", "rate=1:2:linear", "rate=2:1"):
        wrong = CliRunner().invoke(cli, ["tune", "--study", str(planted(tmp_path)), "--nuisance", said])
        assert wrong.exit_code == 2
        assert "rate" in wrong.output
    assert not store.exists()


def test_an_option_of_the_command_adds_to_what_the_study_names(tmp_path):
    arguments = ["--study", str(planted(tmp_path, nuisance={})), "--store", str(tmp_path / "store"), "--dry-run"]
    said = CliRunner().invoke(
        cli, ["tune", *arguments, "--nuisance", "rate=0.01:0.1:log", "--nuisance", "fancy=true|false"]
    )
    assert said.exit_code == 2  # `fancy` is then tuned, and the change sets nothing else
    assert "'baseline trial 0' and 'fancy trial 0' have the same settings" in said.output
    said = CliRunner().invoke(cli, ["tune", *arguments, "--nuisance", "rate=0.01:0.1:log"])
    assert said.exit_code == 0
    assert "Tuned: rate" in said.output


def test_a_study_is_written_out_with_its_nuisance_settings(tmp_path):
    path = planted(tmp_path)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(resolved_study(path), sort_keys=False))
    assert load_study(again).nuisance == load_study(path).nuisance


def test_the_expected_best_is_the_mean_over_all_choices():
    random = np.random.default_rng(0)
    chosen_by, shown = random.normal(size=7), random.normal(size=7)
    for b in range(1, 8):
        best = [shown[max(choice, key=lambda it: chosen_by[it])] for choice in itertools.combinations(range(7), b)]
        assert expected_best(chosen_by, shown)[b - 1] == pytest.approx(np.mean(best))
    failed = expected_best([-math.inf, 1.0, 2.0], [math.nan, 5.0, 6.0])
    assert math.isnan(failed[0])
    assert list(failed[1:]) == pytest.approx([(5 + 6 + 6) / 3, 6.0])
