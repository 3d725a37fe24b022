"""Reports of a study of somebody's own: one score in no unit, of which more or less is better; no epochs, no training
split, no parameters. Both goals measure mirror images of the same numbers, so all that may differ is the sign."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from synthetic import Numbers, Scored, scored_study, synthetic_plan, synthetic_store, synthetic_tables

from harness.cli import cli
from harness.cli.screen import Screen
from harness.cli.table import print_effects
from harness.errors import ResultsError
from harness.metrics import Metric, Metrics, declared_metrics
from harness.report.best_steps import best_validations
from harness.report.curve_choice import best_variant
from harness.report.curve_data import MOST_QUANTITIES, curves_data, logged_quantities
from harness.report.display import GRIDS, effects_grid, short_headings, shown_of_cells
from harness.report.effect_data import forest_data, heat_data, pairs_data, waterfall_data
from harness.report.exhibits import exhibits
from harness.report.figure_data import costs_data, known_costs, published_data
from harness.report.figures import draw, forest, learning_curves
from harness.report.formats import read_csv, write_frame
from harness.report.html import page
from harness.report.look import DOWN, UP, diverging
from harness.report.overfitting import describe_overfitting, overfitting_table
from harness.report.pictures import png
from harness.report.rows import effect_rows
from harness.report.summary import methods, provenance
from harness.report.tables import Tables, chooser, effects_json
from harness.report.write import write_report

GOALS = ("maximize", "minimize")
SIGNS = {"maximize": 1, "minimize": -1}
DESIGNS = ("add-one", "combinations", "leave-one-out:all", "path", "pairs")
SINGLES = ["batch-norm", "optimizer-adamax", "dropout-0.2", "kernel-7"]  # as planted, the best first
ORANGE, BLUE = "#b35806", "#2166ac"


def scored_plan(goal, **options):
    return synthetic_plan(study=scored_study(goal), profile="standard", **{"designs": DESIGNS, "seeds": 10} | options)


@pytest.fixture(scope="module")
def of_goal(tmp_path_factory):
    numbers = Numbers(outcomes={("kernel-7", 1): "diverged"})
    return {goal: synthetic_tables(tmp_path_factory.mktemp(goal), scored_plan(goal), numbers) for goal in GOALS}


@pytest.fixture(params=GOALS)
def goal(request):
    return request.param


@pytest.fixture
def tables(of_goal, goal):
    return of_goal[goal]


def test_both_goals_give_the_same_effects_with_the_other_sign(of_goal):
    more, less = (of_goal[goal].effects for goal in GOALS)

    assert list(more["change"]) == list(less["change"])
    assert list(more["verdict"]) == list(less["verdict"])
    assert less["mean"].to_numpy() == pytest.approx(-more["mean"].to_numpy())
    for same in ("p", "p_holm", "p_improve", "improvement", "sd"):
        assert less[same].to_numpy() == pytest.approx(more[same].to_numpy(), nan_ok=True), same


def test_the_best_comes_first_with_its_planted_effect_and_sign(tables, goal):
    effects = tables.families["add-one"].effects.set_index("variant")

    assert list(effects.index) == SINGLES
    assert SIGNS[goal] * effects.loc["batch-norm", "mean"] == pytest.approx(0.034, abs=0.003)
    assert SIGNS[goal] * effects.loc["kernel-7", "mean"] == pytest.approx(-0.024, abs=0.003)
    assert effects.loc["batch-norm", "verdict"] == "improves"
    assert effects.loc["kernel-7", "verdict"] == "hurts"


def test_the_headline_names_the_biggest_improvement_in_the_words_of_the_metric(tables, goal):
    said = tables.headline.sentence
    mean = tables.families["add-one"].effects["mean"].iloc[0]

    assert (tables.headline.variant, tables.headline.is_supported) == ("batch-norm", True)
    assert said.startswith(f"The biggest single improvement, picked by validation score, is batch-norm: {mean:+.4f} [")
    assert " in test score over baseline" in said


def test_the_rows_for_people_have_the_metrics_digits_and_no_unit(tables):
    grid = effects_grid(tables.families["add-one"], tables.variants)
    headings = [column.heading for column in grid.columns]
    rows = {row[0]: row for row in grid.rows}
    first = tables.effects.iloc[0]

    assert headings[2:4] == ["test score", "effect"]
    assert rows["batch-norm"][3] == f"{first['mean']:+.4f} [{first['low']:+.4f}, {first['high']:+.4f}]"
    assert {grid.rows[row][0] for row, _ in grid.bold} == {"batch-norm", "optimizer-adamax", "dropout-0.2"}


def test_the_terminal_colours_what_is_better_green_whatever_the_sign(tables):
    file = io.StringIO()
    print_effects(Screen(file=file, width=160, force_terminal=True, color_system="standard"), tables.results)
    lines = file.getvalue().splitlines()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    green = {line[5:].split()[0] for line in lines if line.startswith("\x1b[32m")}
    red = {line[5:].split()[0] for line in lines if line.startswith("\x1b[31m")}

    assert "batch-norm" in green
    assert "kernel-7" in red
    assert not green & red
    assert "add-one: test score, variant minus baseline" in plain
    assert "[]" not in plain


def test_the_forest_is_in_the_metrics_own_numbers_and_coloured_by_good_and_bad(tables, goal):
    data, figure = forest_data(tables), forest(tables.results)
    colours = {trace.name: trace.marker.color for trace in figure.data}
    improving = next(trace for trace in figure.data if trace.name.startswith("improves"))

    assert (data.axis, data.digits) == ("effect on test score", 4)
    assert [row.label for row in data.rows] == SINGLES
    assert (colours["improves (adjusted, .05)"], colours["hurts (adjusted, .05)"]) == (UP, DOWN)
    assert all(SIGNS[goal] * x > 0 for x in improving.x)
    assert "%{x:+.4f}" in improving.hovertemplate


def test_a_change_alone_and_inside_is_listed_best_first(tables, goal):
    rows = pairs_data(tables).rows
    assert [row.label for row in rows] == ["batch-norm", "optimizer-adamax"]
    assert SIGNS[goal] * rows[0].added.mean > SIGNS[goal] * rows[1].added.mean


def test_the_waterfall_goes_where_the_score_goes(tables, goal):
    data = waterfall_data(tables)
    figure = draw(data)

    assert data.axis == "test score"
    assert SIGNS[goal] * (data.steps[0].after - data.steps[0].before) == pytest.approx(0.034, abs=0.003)
    assert list(figure.data[1].marker.color) == [UP if step.label != "kernel-7" else DOWN for step in data.steps]
    assert f"<b>{data.steps[0].effect.mean:+.4f}</b>" in figure.layout.yaxis.ticktext[1]


def test_an_interaction_that_is_worse_than_the_sum_is_orange(tables, goal):
    data = heat_data(tables)
    at = [data.changes.index(name) for name in ("batch-norm", "optimizer-adamax")]
    scale = draw(data).data[0].colorscale

    assert data.axis == "interaction"
    assert SIGNS[goal] * data.values[at[0]][at[1]] == pytest.approx(-0.008, abs=0.004)  # planted: they get in each
    worst, best = (scale[0], scale[-1]) if goal == "maximize" else (scale[-1], scale[0])  # other's way
    assert (worst[1], best[1]) == (ORANGE, BLUE)
    (exhibit,) = [it for it in exhibits(tables).shown if it.name == "interactions"]
    more = "Blue: more than the sum; orange: less."
    less = "Blue: less than the sum, which is better; orange: more."
    assert (more if goal == "maximize" else less) in exhibit.caption


def test_both_scales_of_interactions_rise_from_zero_to_one():
    for is_maximized in (True, False):
        stops = [stop for stop, _ in diverging(is_maximized)]
        assert stops == [0.0, 0.5, 1.0]
    assert [colour for _, colour in diverging(False)] == [colour for _, colour in reversed(diverging(True))]


def test_the_best_value_is_what_helps_most_for_its_time(tables):
    data = costs_data(tables)
    named = {row.label for row in data.rows if row.is_best_value}

    assert known_costs(tables) == ("seconds",)  # nobody noted any parameters
    assert data.axis == "effect on test score"
    assert "batch-norm" in named or "all" in named
    assert not named & {"kernel-7"}
    places = {trace_place for trace in draw(data).data for trace_place in trace.textposition}
    assert {place.split()[0] for place in places} == {"top" if data.is_maximized else "bottom"}
    (exhibit,) = [it for it in exhibits(tables).shown if it.name == "cost"]
    assert [panel for panel, _ in exhibit.panels] == ["seconds"]


def test_the_best_variant_is_the_one_that_selects_best(tables, goal):
    means = tables.results.groupby("variant")["val/score"].mean()
    assert best_variant(tables) == (means.idxmax() if goal == "maximize" else means.idxmin())


def test_a_baseline_that_is_best_is_said_in_the_metrics_words(tmp_path, goal):
    tables = synthetic_tables(tmp_path, scored_plan(goal, designs=("add-one",), only=("kernel-7",)))
    reasons = {it.title: it.reason for it in exhibits(tables).left_out}
    assert reasons["learning curves of the best variant"].startswith("the baseline has the best validation score;")


def test_dropout_is_missed_only_where_over_fitting_can_be_told_or_a_change_is_called_so(tables, tmp_path, goal):
    other = synthetic_tables(tmp_path, scored_plan(goal, designs=("add-one",), seeds=2, only=("kernel-7",)))
    assert "curves-dropout" in [it.name for it in exhibits(tables).shown]
    assert "with and without dropout" not in [it.title for it in exhibits(other).left_out]


def test_curves_without_epochs_go_by_steps_and_mark_the_best_step(tables):
    figure = learning_curves(tables.curves, ["baseline"])
    noted = tables.results.query("variant == 'baseline'")["best_step"].astype("float64").mean()

    assert figure.layout.xaxis.title.text == "step"
    assert figure.layout.yaxis.title.text == "score"
    assert [trace.name for trace in figure.data if trace.name] == ["baseline, validation"]
    assert [shape.x0 for shape in figure.layout.shapes] == [pytest.approx(noted)]
    (exhibit,) = [it for it in exhibits(tables).shown if it.name == "curves-baseline"]
    assert [panel for panel, _ in exhibit.panels] == ["score"]
    assert "Solid: validation, measured" in exhibit.caption
    assert "mean step of the best checkpoint" in exhibit.caption
    assert exhibit.notes == ()


@pytest.mark.slow
def test_without_a_training_split_there_is_no_over_fitting_to_tell(tables):
    with pytest.raises(ResultsError, match="nothing is measured both on train and on val"):
        _ = tables.overfitting
    html = page(tables, exhibits(tables))
    assert "<h2>Learning curves</h2>" in html
    assert "ver-fitting" not in html


def test_published_numbers_are_compared_in_the_metrics_own_numbers(tables):
    data = published_data(tables)
    ((variant, number, published, *_),) = [row for grid in GRIDS["published"](tables) for row in grid.rows]

    assert data.axis == "score"
    assert [(row.label, row.published) for row in data.rows] == [("baseline, test", 0.71)]
    assert (variant, number, published) == ("baseline", "test score", "0.7100")


def test_tables_say_nothing_that_training_did_not_note(tables):
    cells, variants = (GRIDS[name](tables)[0] for name in ("cells", "variants"))
    headings = [column.heading for column in cells.columns]

    assert headings == ["variant", "seed", "status", "val score", "test score", "best step", "cost", "cell"]
    assert "parameters" not in [column.heading for column in variants.columns]
    assert cells.notes == ("Metrics as training reports it.",)
    assert [name for name, _ in provenance(tables)] == [
        "study run", "command", "cells", "seeds", "cost", "device", "versions", "commit",
        "varied between seeds", "held constant", "horizon",
        "looks at the effects", "last cell finished", "differs from the study as declared",
    ][: len(provenance(tables))]  # fmt: skip
    assert methods(tables).startswith("Test score as training reports it; batch-norm against baseline on 10 of 10")


@pytest.mark.slow
def test_the_page_speaks_of_nothing_but_this_study(tables, tmp_path):
    written = write_report(tables, tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in written}
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", written[0].read_text(), flags=re.DOTALL)

    assert "tables/effects.csv" in names
    assert "tables/overfitting.csv" not in names
    assert "figures/curves-baseline-score.png" in names
    for foreign in ("accuracy", "nats", "parameters", "epochs?", r"\d points", r"\[points", "None", "nan"):
        assert not re.search(rf"\b{foreign}\b", text), foreign
    assert "%]" not in text
    assert "[]" not in text


@pytest.mark.slow
def test_every_figure_of_both_goals_can_be_drawn_twice(tables):
    shown = [data for exhibit in exhibits(tables).shown for _, data in exhibit.ids()]
    assert len(shown) > 8
    for data in shown:
        json.dumps(json.loads(draw(data).to_json()), allow_nan=False)
        assert png(data).startswith(b"\x89PNG")


def test_the_answer_for_programs_names_metric_and_goal(tables, goal):
    answer = json.loads(json.dumps(effects_json(tables.results), allow_nan=False))
    first = answer["effects"][0]

    assert answer["metric"] == "test/score"
    assert (first["metric"], first["goal"], first["unit"], first["higher_is_better"]) == (
        "test/score", goal, "raw", goal == "maximize"
    )  # fmt: skip
    assert answer["headline"]["variant"] == "batch-norm"


def test_commands_report_what_the_study_reports(tmp_path, goal):
    synthetic_store(tmp_path, scored_plan(goal, designs=("add-one",), seeds=2, only=("batch-norm",)))

    def run(*arguments):
        result = CliRunner().invoke(cli, [*arguments, "--study", f"scored-{goal}", "--store", str(tmp_path)])
        assert result.exit_code == 0, result.output
        return result.stdout

    _, heading, first, *_ = run("results").splitlines()
    assert re.split(r"\s{2,}", heading) == [
        "variant", "seed", "status", "val score", "test score", "best step", "seconds", "cell"
    ]  # fmt: skip
    assert re.match(r"baseline +0  finished +0\.\d{4} +0\.\d{4} +\d+ ", first)
    rows = json.loads(run("export", "--table", "effects", "--format", "json"))
    assert [row["metric"] for row in rows] == ["test/score"]
    rows = json.loads(run("export", "--table", "effects", "--format", "json", "--metric", "val/score"))
    assert [row["metric"] for row in rows] == ["val/score"]


def test_a_reference_alone_is_shown_on_every_split(tmp_path, goal):
    study = scored_study(goal, changes=[], combinations=[], paths={})
    tables = synthetic_tables(tmp_path, synthetic_plan(study=study, profile="standard", seeds=4))
    file = io.StringIO()
    print_effects(Screen(file=file, width=100), tables.results)
    score = tables.results["test/score"]

    assert "As training reports it; mean and sd over seeds 0, 1, 2, 3:" in file.getvalue()
    assert re.search(rf"^test +{score.mean():.4f} ± {score.std():.4f}$", file.getvalue(), re.MULTILINE)
    assert "training" not in file.getvalue().replace("As training", "")


MIXED = declared_metrics(
    {
        "train/error": {"goal": "minimize"},
        "val/error": {"goal": "minimize"},
        "val/f1": {"goal": "maximize", "unit": "percent"},
        "test/f1": {"goal": "maximize", "unit": "percent"},
        "test/error": {"goal": "minimize"},
    },
    "val/error",
    "test/f1",
)


@pytest.mark.parametrize(
    ("metric", "picked_by"),
    [
        ("test/f1", "val/error"),  # what is reported: by what selects, whatever its name
        ("test/error", "val/error"),  # another of the same split: by its twin
        ("val/f1", None),
        ("train/error", None),
        ("seconds", None),
    ],
)
def test_an_improvement_is_picked_by_another_number_than_the_one_reported(metric, picked_by):
    found = chooser(MIXED, MIXED[metric])
    assert (found and found.name) == picked_by


def test_a_study_that_selects_by_what_it_reports_picks_by_that():
    alone = Metrics(MIXED.all, "test/f1", "test/f1")
    assert chooser(alone, alone["test/f1"]) is None


def test_a_list_of_cells_shows_the_reported_quantity_what_selects_and_the_rest_of_the_reported_split():
    shown = shown_of_cells(MIXED)
    assert [it.name for it in shown] == ["val/f1", "test/f1", "val/error", "test/error"]
    assert list(short_headings(shown).values()) == ["val", "test", "val error", "test error"]


def mixed_frames():
    """Two cells without any facts; by hand. Seed 0 is best at step 2, seed 1 at its last step, 3."""
    plan = synthetic_plan(seeds=1, only=("batch-norm",))
    manifest = replace(plan.manifest(), metrics=MIXED)
    results = pd.DataFrame(
        {
            "variant": "a", "seed": [0, 1], "status": "finished", "num_steps": [3, 3],
            "train/error": [0.3, 0.2], "val/error": [0.4, 0.5], "val/f1": np.nan, "test/f1": 0.5, "test/error": 0.5,
        }
    )  # fmt: skip
    curves = pd.DataFrame(
        {
            "variant": "a", "seed": [0, 1, 0, 1, 0, 1], "step": [3, 3, 1, 1, 2, 2], "epoch": np.nan, "seconds": 1.0,
            "train/error": [0.1, 0.2, 0.5, 0.6, 0.3, 0.4], "val/error": [0.6, 0.5, 0.7, 0.9, 0.4, 0.8],
            "val/f1": np.nan, "test/f1": np.nan, "test/error": np.nan,
        }
    )  # fmt: skip
    results.attrs["manifest"] = curves.attrs["manifest"] = manifest
    return results, curves


def test_over_fitting_of_a_minimized_quantity_is_told_in_steps_and_its_own_numbers():
    results, curves = mixed_frames()
    table = overfitting_table(results, curves)
    (row,) = table.itertuples()

    assert (row.counted_in, row.best, row.best_min, row.best_max, row.end) == ("step", 2.5, 2, 3, 3)
    assert (row.gap_of, row.change_of) == ("val/error", "val/error")  # f1 is not known of the training split
    assert row.gap_best == pytest.approx((-0.1 - 0.3) / 2)
    assert row.gap_end == pytest.approx((-0.5 - 0.3) / 2)
    assert row.held_out_change == pytest.approx((0.2 + 0) / 2)
    assert row.training_change == pytest.approx((-0.2 + 0) / 2)
    said = describe_overfitting(table, "a", "mine")
    assert said.startswith("mine: the best checkpoint came at step 2 of 3 (mean over 2 seeds; 2 to 3).")
    assert "Training error minus validation error was -0.200 there and -0.400 at the end." in said
    assert said.endswith("training error changed by -0.100, validation error by +0.100.")


def test_a_best_step_that_was_noted_goes_before_what_the_curves_say():
    results, curves = mixed_frames()
    assert best_validations(results, curves)["step"].to_dict() == {("a", 0): 2, ("a", 1): 3}

    noted = results.assign(best_step=pd.array([1, None], dtype="Int64"))
    assert best_validations(noted, curves)["step"].to_dict() == {("a", 0): 1, ("a", 1): 3}


def test_curves_of_two_splits_differ_by_dash_and_the_one_that_selects_is_solid():
    _, curves = mixed_frames()
    data = curves_data(curves, ["a"])

    assert [(curve.split, curve.dash) for curve in data.curves] == [("training", "dot"), ("validation", "solid")]
    assert (data.axis, data.x_axis, data.best) == ("error", "step", {"a": 2.5})
    with pytest.raises(ResultsError, match="no learning curves of 'f1'; there are of: error"):
        curves_data(curves, ["a"], "f1")


def test_many_quantities_are_cut_to_a_few_with_what_selects_among_them():
    every = tuple(Metric.declared(f"val/q{index}", "minimize") for index in range(MOST_QUANTITIES + 3))
    _, curves = mixed_frames()
    curves = curves.assign(**{metric.name: 1.0 for metric in every})
    last = every[-1].name
    curves.attrs["manifest"] = replace(curves.attrs["manifest"], metrics=Metrics(every, last, last))
    assert logged_quantities(curves) == ("q0", "q1", "q2", "q6")


def test_what_a_trainer_notes_survives_csv(tmp_path):
    tables = synthetic_tables(tmp_path, scored_plan("minimize", designs=("add-one",), seeds=2, only=("batch-norm",)))
    facts = {
        "words": pd.array(["a", "", "null", "x,y"], dtype="str"),
        "whole": pd.array([1, None, -3, 4], dtype="Int64"),
        "number": [1.5, np.nan, 1e-9, 2.0],
        "truth": pd.array([True, None, False, True], dtype="boolean"),
    }
    frame = tables.results.assign(**facts)
    path = tmp_path / "cells.csv"
    path.write_bytes(write_frame(frame, "csv"))

    pd.testing.assert_frame_equal(read_csv(path), frame, check_exact=True)


def test_rows_and_tables_of_another_metric_have_its_unit(tables):
    slow = Tables(tables.results, load_curves=tables.load_curves, metric="seconds")
    rows = effect_rows(slow.families["add-one"], slow.variants)

    assert slow.subject.unit == "s"
    assert slow.headline.sentence.count(" s [") >= 1
    assert rows[0].value.startswith(f"{slow.variants['mean'].iloc[0]:.1f} ± ")
    assert forest_data(slow).axis == "effect on seconds [s]"


def test_the_trainer_reads_back_equal():
    assert Scored.from_json(Scored("minimize").to_json()) == Scored("minimize") != Scored("maximize")


@pytest.mark.slow
def test_a_training_that_logs_nothing_has_a_report_without_curves(tmp_path, goal):
    tables = synthetic_tables(tmp_path / "store", scored_plan(goal, designs=("add-one",), seeds=6))
    silent = Tables(tables.results, load_curves=lambda: tables.curves.iloc[:0])
    reasons = {it.title: it.reason for it in exhibits(silent).left_out}

    html = write_report(silent, tmp_path / "report")[0].read_text()

    assert reasons["learning curves of the baseline"].startswith("there are no learning curves of 'baseline'")
    assert '<section id="curves">' not in html
    assert '<section id="effects">' in html


def test_a_quantity_that_selects_without_being_logged_leaves_the_curves_without_a_mark():
    results, curves = mixed_frames()
    manifest = replace(curves.attrs["manifest"], metrics=Metrics(MIXED.all, "val/f1", "test/f1"))
    results.attrs["manifest"] = curves.attrs["manifest"] = manifest

    assert best_validations(results, curves).empty
    assert curves_data(curves, ["a"]).best == {"a": 2.5}  # where the drawn quantity is best


def test_cells_of_which_some_count_epochs_are_drawn_by_steps():
    _, curves = mixed_frames()
    partly = curves.assign(epoch=[1.0, np.nan, 1.0, 1.0, 1.0, 1.0])
    assert curves_data(partly, ["a"]).x_axis == "step"
    assert curves_data(curves.assign(epoch=curves["step"] / 2), ["a"]).x_axis == "epoch"
