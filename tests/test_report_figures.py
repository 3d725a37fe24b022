import json
import math
import struct
from dataclasses import replace

import pandas as pd
import pytest
from synthetic import Numbers, synthetic_plan, synthetic_tables

import harness.report.effect_data as effect_data
import harness.report.line_data as line_data
from harness.errors import ResultsError
from harness.report.curve_choice import best_variant
from harness.report.curve_data import Curves, curves_data
from harness.report.effect_data import MOST_HEAT_TEXTS, Heat, forest_data, heat_data, pairs_data, waterfall_data
from harness.report.estimate import Estimate
from harness.report.exhibits import exhibits
from harness.report.figure_data import costs_data, published_data
from harness.report.figures import (
    add_one_against_leave_one_out,
    draw,
    effect_against_cost,
    forest,
    interaction_heatmap,
    learning_curves,
    observed_against_published,
    waterfall,
)
from harness.report.html import content
from harness.report.line_data import Branch, champion_line
from harness.report.look import DARK, DOWN, LIGHT, NEUTRAL, UP, VARIANT_COLOURS, variant_colours
from harness.report.pictures import png

CHANGES = ("batch-norm", "optimizer-adamax", "kernel-7", "dropout-0.2", "model-1", "filters-128-256-512")


# Two proposals were kept, one proven and one on one run; one was refuted, one failed.
LINE = champion_line("tiny-main", "test score [%]", 2, 50.0, [
    Branch("wider", "proven", "better", 50.0, Estimate(53.0, 52.0, 54.0), 1),
    Branch("faster", "refuted", "worse", 52.5, Estimate(51.0, 50.0, 52.0)),
    Branch("broken", "refuted", "it fails", 52.5, Estimate(math.nan, math.nan, math.nan)),
    Branch("lucky", "unproven", "one run", 52.5, Estimate(56.0, math.nan, math.nan), 2),
], [50.0, 52.5, 53.0])  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    plan = synthetic_plan(
        designs=("add-one", "combinations", "leave-one-out:model-1", "path"), seeds=10, profile="standard", only=CHANGES
    )
    return synthetic_tables(tmp_path_factory.mktemp("store"), plan, Numbers(outcomes={("kernel-7", 1): "diverged"}))


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    plan = synthetic_plan(designs=("pairs",), seeds=2, only=("batch-norm", "optimizer-adamax", "kernel-7"))
    return synthetic_tables(tmp_path_factory.mktemp("store"), plan, Numbers(seed_sd=0, noise=0))


@pytest.fixture(scope="module")
def shown(tables, paired):
    """Every figure that there is."""
    judged = replace(paired, load_lines=lambda: [LINE])
    found = [*exhibits(tables).shown, *named(paired, "interactions"), *named(judged, "champions-tiny-main")]
    return {name: data for exhibit in found for name, data in exhibit.ids()}


def named(tables, name):
    return [exhibit for exhibit in exhibits(tables).shown if exhibit.name == name]


def curve_frame(losses):
    """Learning curves with these validation losses by seed, two validations an epoch; everything else constant."""
    rows = [
        ("a", seed, step + 1, (step + 1) / 2, 1.0, 0.5, loss, 0.6, 1.0)
        for seed, values in losses.items()
        for step, loss in enumerate(values)
    ]
    names = ["variant", "seed", "step", "epoch", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "seconds"]
    frame = pd.DataFrame(rows, columns=names).assign(**{"test/loss": math.nan, "test/accuracy": math.nan})
    frame.attrs["manifest"] = synthetic_plan(seeds=1, only=("batch-norm",)).manifest()
    return frame


def test_the_forest_has_every_seed_in_points(tables):
    data = forest_data(tables)
    results = tables.results.set_index(["variant", "seed"])["test/accuracy"]

    assert data.axis == "effect on test accuracy [points]"
    for row in data.rows:
        expected = [(seed, 100 * (results[row.label, seed] - results["baseline", seed])) for seed, _ in row.seeds]
        assert row.seeds == tuple((seed, pytest.approx(value)) for seed, value in expected)
        assert row.estimate.mean == pytest.approx(sum(value for _, value in row.seeds) / len(row.seeds))
        assert row.estimate.low < row.estimate.mean < row.estimate.high
    by_label = {row.label: row for row in data.rows}
    assert [seed for seed, _ in by_label["kernel-7"].seeds] == [0, 2, 3, 4, 5, 6, 7, 8, 9]


def test_the_forest_is_drawn_best_first_and_coloured_by_what_is_supported(tables):
    figure = forest(tables.results)
    labels = list(figure.layout.yaxis.ticktext)
    top_first = figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    colours = {trace.name: trace.marker.color for trace in figure.data}

    assert labels == list(tables.families["add-one"].effects["variant"])
    assert top_first
    assert colours["improves (adjusted, .05)"] == UP
    assert colours["hurts (adjusted, .05)"] == DOWN
    assert len(figure.data[0].x) == 5 * 10 - 1  # points: five changes, ten seeds, one of them diverged


@pytest.mark.slow
def test_a_large_forest_keeps_the_largest_effects_and_says_how_many_are_left_out(tables, monkeypatch):
    monkeypatch.setattr(effect_data, "MOST_ROWS", 2)
    data = forest_data(tables)
    largest = tables.families["add-one"].effects.sort_values("mean", key=abs)["variant"].tail(2)

    assert {row.label for row in data.rows} == set(largest)
    assert data.omitted == 3
    assert "The 3 smallest effects are left out" in named(tables, "effects-add-one")[0].caption


def test_a_curve_is_the_mean_over_seeds_as_long_as_half_of_them_train():
    # Four seeds; two stop after two validations, one after three.
    losses = {0: [2.0, 1.0], 1: [4.0, 3.0], 2: [3.0, 2.0, 9.0], 3: [3.0, 2.0, 7.0, 5.0]}
    data = curves_data(curve_frame(losses), ["a"], "loss")
    (validation,) = [curve for curve in data.curves if curve.split == "validation"]

    assert validation.x == (0.5, 1.0, 1.5)
    assert validation.mean == pytest.approx((3.0, 2.0, 8.0))
    assert validation.n == (4, 4, 2)
    sd = math.sqrt(2 / 3)
    assert (validation.low[0], validation.high[0]) == pytest.approx((3 - sd, 3 + sd))
    assert data.best == {"a": 1.0}  # every seed is lowest at its second validation
    assert (data.axis, data.x_axis) == ("loss [nats]", "epoch")


def test_one_seed_has_a_curve_and_no_band():
    figure = learning_curves(curve_frame({0: [2.0, 1.0, 1.5]}), ["a"])
    assert [trace.fill for trace in figure.data] == [None, None]


def test_curves_in_percent_and_by_dash_as_well_as_by_colour(tables):
    figure = learning_curves(tables.curves, ["baseline", "batch-norm"], "accuracy")
    lines = {trace.name: trace.line for trace in figure.data if trace.name}

    assert figure.layout.yaxis.title.text == "accuracy [%]"
    assert max(figure.data[-1].y) > 50
    assert {name: line.dash for name, line in lines.items()} == {
        "baseline, training": "dot",
        "baseline, validation": "solid",
        "batch-norm, training": "dot",
        "batch-norm, validation": "solid",
    }
    assert lines["baseline, training"].color == NEUTRAL
    assert lines["batch-norm, training"].color == lines["batch-norm, validation"].color == VARIANT_COLOURS[0]


@pytest.mark.slow
def test_published_curves_are_drawn_beside_ours(tables):
    """The second validation of Model 1, as printed in task3's study: 67.42% after one epoch."""
    (exhibit,) = named(tables, "curves-published-model-1-with-dropout")
    accuracy = dict(exhibit.panels)["accuracy"]
    (theirs,) = [curve for curve in accuracy.curves if curve.is_published and curve.split == "validation"]
    drawn = {trace.name: trace.mode for trace in draw(accuracy).data if trace.name}

    assert (theirs.x[1], theirs.mean[1], len(theirs.x)) == (1.0, pytest.approx(67.42), 9)
    assert drawn["model-1, validation"] == "lines"
    assert drawn["model-1, validation, published"] == drawn["model-1, training, published"] == "lines+markers"
    assert "Crosses: published, a single run." in exhibit.caption
    assert [line for line in exhibit.notes if line.startswith("Published of model-1: Model 1 with dropout, from the")]
    # Of the path, this run has other steps than the published figure.
    reasons = {it.title: it.reason for it in exhibits(tables).left_out}
    assert "optimizer-adamax+filters-64-128-256+batch-norm" in reasons["Figure 3, beside ours"]


def test_a_variant_without_curves_is_named():
    with pytest.raises(ResultsError, match="no learning curves of 'b'"):
        curves_data(curve_frame({0: [1.0]}), ["b"])


def test_a_change_alone_stands_beside_the_same_change_inside_the_combination(tables):
    data = pairs_data(tables)
    alone = tables.families["add-one"].effects.set_index("variant")["mean"]
    inside = tables.families["leave-one-out:model-1"].effects.set_index("variant")["mean"]

    assert {row.label for row in data.rows} == set(alone.index) & set(inside.index)
    for row in data.rows:
        assert row.added.mean == pytest.approx(100 * alone[row.label])
        assert row.left_out.mean == pytest.approx(100 * inside[row.label])
    assert "left out of model-1" in [trace.name for trace in add_one_against_leave_one_out(tables.results).data]


def test_the_waterfall_goes_from_the_baseline_to_the_end_of_the_path(tables):
    data = waterfall_data(tables)
    means = tables.variants.set_index("variant")["mean"]

    assert (data.start, data.steps[0].before) == ("baseline", pytest.approx(100 * means["baseline"]))
    for step, after in zip(data.steps, data.steps[1:], strict=False):
        assert step.after == pytest.approx(after.before)
    for step in data.steps:
        assert step.after - step.before == pytest.approx(step.effect.mean)
    figure = waterfall(tables.results)
    assert figure.layout.xaxis.title.text == "test accuracy [%]"
    assert list(figure.data[1].base) == [step.before for step in data.steps]


def test_a_line_goes_on_where_a_champion_is_and_branches_to_where_a_proposal_was_measured():
    figure = draw(LINE)
    by_name = {trace.name: trace for trace in figure.data}
    trunk = list(zip(by_name["champion, on fresh seeds"].x, by_name["champion, on fresh seeds"].y, strict=True))
    assert trunk == [(50, 0), (50, 1), (52.5, 1), (52.5, 2), (52.5, 3), (52.5, 4), (53, 4)]
    assert {name: list(by_name[name].x) for name in ("proven", "refuted", "unproven", "failed")} == {
        "proven": [53],
        "refuted": [51],
        "unproven": [56],  # what it showed on its one run; the line goes on at 53
        "failed": [52.5],
    }
    assert [by_name[name].marker.color for name in ("proven", "refuted", "unproven")] == [UP, DOWN, NEUTRAL]
    assert {(it.x0, it.x1, it.y0) for it in figure.layout.shapes} == {(50, 53, 1), (52.5, 51, 2), (52.5, 56, 4)}
    assert figure.layout.yaxis.ticktext[1:3] == ("wider  (champion 1)", "faster")


@pytest.mark.slow
def test_every_figure_has_a_place_on_the_page(tables, paired):
    judged = replace(paired, load_lines=lambda: [LINE])
    for it in (tables, judged):
        found = exhibits(it)
        text = content(it, found).html
        assert [name for exhibit in found.shown for name, _ in exhibit.ids() if f'id="figure-{name}"' not in text] == []


def test_a_long_line_keeps_its_champions_and_the_latest_proposals(monkeypatch):
    monkeypatch.setattr(line_data, "MOST_ROWS", 3)
    found = champion_line("long", "", 2, 50.0, LINE.branches, [50.0, 52.5, 53.0])
    assert [it.label for it in found.branches] == ["wider", "broken", "lucky"]
    assert (found.levels, found.omitted) == ((52.5, 52.5, 53.0), 1)


def test_the_heat_map_is_symmetric_and_holds_the_planted_interaction(paired):
    data = heat_data(paired)
    by_pair = {(a, b): data.values[y][x] for y, a in enumerate(data.changes) for x, b in enumerate(data.changes)}

    assert by_pair["batch-norm", "optimizer-adamax"] == pytest.approx(-0.8)
    assert by_pair["optimizer-adamax", "batch-norm"] == pytest.approx(-0.8)
    assert by_pair["kernel-7", "batch-norm"] == pytest.approx(0, abs=1e-9)
    assert all(math.isnan(by_pair[name, name]) for name in data.changes)
    assert len(interaction_heatmap(paired.results).data[0].z) == 2  # the lower triangle


def test_a_large_heat_map_writes_only_the_numbers_that_are_supported(tmp_path):
    changes = tuple(f"c{index}" for index in range(MOST_HEAT_TEXTS + 1))
    values = tuple(tuple(1.0 for _ in changes) for _ in changes)
    verdicts = tuple(tuple("hurts" if {x, y} == {0, 3} else "inconclusive" for x in range(11)) for y in range(11))

    texts = draw(Heat("interaction [points]", 2, True, changes, values, verdicts, 0)).data[0].text
    small = draw(Heat("interaction [points]", 2, True, changes[:3], values[:3], verdicts[:3], 0)).data[0].text

    assert [(y, x) for y, line in enumerate(texts) for x, text in enumerate(line) if text] == [(2, 0)]  # c3 and c0
    assert [text for line in small for text in line if text] == ["+1.00"] * 3


def test_a_best_value_is_beaten_by_nothing_that_costs_about_as_little(tables):
    by_label = {point.label: point for point in costs_data(tables, "seconds").rows}

    assert by_label["batch-norm"].cost == pytest.approx(1.15, rel=0.1)
    assert by_label["batch-norm"].is_best_value
    assert not by_label["dropout-0.2"].is_best_value  # as cheap as adamax, and helps less
    assert not by_label["filters-128-256-512"].is_best_value  # model-1 is cheaper and helps more
    assert not by_label["kernel-7"].is_best_value
    figure = effect_against_cost(tables.results, "parameters")
    assert figure.layout.xaxis.title.text == "number of parameters, times the baseline's"
    assert figure.layout.yaxis.title.text == "effect on test accuracy [points]"


def test_published_numbers_stand_beside_ours_in_percent(tables):
    data = published_data(tables)
    by_label = {row.label: row for row in data.rows}
    ours = tables.variants.set_index("variant").loc["model-1", "mean"]

    assert by_label["model-1, test"].published == pytest.approx(77.42)
    assert by_label["model-1, test"].ours.mean == pytest.approx(100 * ours)
    assert by_label["model-1, test"].one_more[0] < by_label["model-1, test"].ours.low
    assert not any(label.startswith("model-2") for label in by_label)  # it has not run
    assert [trace.name for trace in observed_against_published(tables.results, "loss").data][-1] == "published"


@pytest.mark.parametrize(
    ("function", "design"),
    [(pairs_data, "leave-one-out"), (waterfall_data, "path"), (heat_data, "pairs"), (forest_data, "add-one")],
)
def test_a_figure_whose_design_did_not_run_names_it(tmp_path, function, design):
    other = {"add-one": "path"}.get(design, "add-one")
    tables = synthetic_tables(tmp_path, synthetic_plan(designs=(other,), seeds=2, only=("batch-norm", "dropout-0.2")))
    with pytest.raises(ResultsError, match=rf"design.*{design}"):
        function(tables, "add-one") if function is forest_data else function(tables)


@pytest.mark.slow
def test_every_figure_of_the_report_is_chosen_by_what_the_results_hold(tables, tmp_path):
    names = [exhibit.name for exhibit in exhibits(tables).shown]
    assert names == [
        "effects-add-one",
        "effects-combinations",
        "effects-leave-one-out-model-1",
        "path-report",
        "add-one-against-leave-one-out",
        "curves-baseline",
        "curves-best",
        "curves-biggest",
        "curves-published-model-1-with-dropout",
        "curves-dropout",
        "cost",
        "published",
    ]
    assert [it.title for it in exhibits(tables).left_out] == [
        "Figure 3, beside ours",  # this path has other steps
        "pairwise interactions",
        "test examples gained and lost",  # there are no pictures of them
    ]

    few = exhibits(synthetic_tables(tmp_path, synthetic_plan(seeds=2, only=("kernel-7",))))
    assert {it.title: "design" in it.reason for it in few.left_out} == {
        "waterfall of the path": True,
        "add-one against leave-one-out": True,
        "pairwise interactions": True,
        "test examples gained and lost": False,
        "learning curves of the best variant": False,  # the baseline is the best
    }


@pytest.mark.slow
def test_dropout_is_shown_inside_the_full_combination_where_that_was_trained(tables, tmp_path):
    (inside,) = named(tables, "curves-dropout")
    assert {curve.label for curve in inside.panels[0][1].curves} == {"model-1", "model-1 without dropout-0.2"}

    alone = synthetic_tables(tmp_path, synthetic_plan(seeds=2, only=("dropout-0.2",)))
    (outside,) = named(alone, "curves-dropout")
    assert {curve.label for curve in outside.panels[0][1].curves} == {"baseline", "dropout-0.2"}


def test_a_variant_has_one_colour_in_all_figures_of_a_report(tables):
    found = [data for exhibit in exhibits(tables).shown for _, data in exhibit.panels if isinstance(data, Curves)]
    drawn = {(curve.variant, data.colours[curve.variant]) for data in found for curve in data.curves}

    assert len(found) == 10
    assert len(drawn) == len({variant for variant, _ in drawn}) == len({colour for _, colour in drawn}) >= 4


def test_the_best_variant_is_chosen_by_validation(tables):
    means = tables.results.groupby("variant")["val/accuracy"].mean()
    assert best_variant(tables) == means.idxmax()


@pytest.mark.slow
def test_every_figure_is_valid_json_with_a_unit_on_its_axes_and_no_colour_of_paper_or_ink(shown):
    assert len(shown) > 10
    for name, data in shown.items():
        figure = json.loads(draw(data).to_json())
        titles = [figure["layout"][axis]["title"].get("text", "") for axis in ("xaxis", "yaxis")]
        assert name == "interactions" or any("[" in title or "times" in title for title in titles), name
        del figure["layout"]["template"]
        fixed = json.dumps(figure, allow_nan=False)
        assert not any(colour in fixed for theme in (LIGHT, DARK) for colour in (theme.paper, theme.ink)), name
        assert len(fixed) < 200_000, name
    assert draw(data).to_json() == draw(data).to_json()


@pytest.mark.slow
def test_every_figure_is_a_png_of_a_readable_size_and_the_same_bytes_twice(shown):
    for name, data in shown.items():
        picture = png(data)
        width, height = struct.unpack(">II", picture[16:24])
        assert picture.startswith(b"\x89PNG"), name
        assert width == 1050, name
        assert 150 < height < 2000, name
    assert png(data) == picture


def test_colours_of_variants_are_consistent_and_leave_the_baseline_neutral():
    assert variant_colours(["batch-norm", "baseline", "kernel-3"]) == {
        "baseline": NEUTRAL,
        "batch-norm": VARIANT_COLOURS[0],
        "kernel-3": VARIANT_COLOURS[1],
    }


@pytest.mark.parametrize("colour", [NEUTRAL, UP, DOWN, *VARIANT_COLOURS])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_every_colour_keeps_a_contrast_of_three_to_one_on_both_papers(colour, theme):
    # WCAG 2.1, success criterion 1.4.11.
    lighter, darker = sorted((_luminance(colour), _luminance(theme.paper)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 3


def _luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_an_estimate_without_interval_is_drawn_as_a_point(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(seeds=1, only=("batch-norm",)))
    data = forest_data(tables)

    estimate = data.rows[0].estimate
    assert estimate.mean == pytest.approx(data.rows[0].seeds[0][1])
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert json.loads(draw(data).to_json())["data"][1]["error_x"]["array"] == [None]
    assert png(data)
