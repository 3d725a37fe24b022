import io
import re

import pytest
from synthetic import Numbers, synthetic_plan, synthetic_tables

import harness.cli.table as table_module
from harness.cli.screen import Screen
from harness.cli.table import print_effects
from harness.report.rows import effect_rows

WIDTHS = (60, 80, 100, 160)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    plan = synthetic_plan(designs=("add-one", "leave-one-out:model-1", "path"), seeds=10, profile="standard")
    numbers = Numbers(outcomes={("kernel-7", 1): "diverged"})
    return synthetic_tables(tmp_path_factory.mktemp("store"), plan, numbers)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    plan = synthetic_plan(
        designs=("add-one", "pairs"), seeds=3, only=("batch-norm", "filters-128-256-512", "augment-gentle")
    )
    return synthetic_tables(tmp_path_factory.mktemp("store"), plan)


def printed(tables, width=None, **options):
    file = io.StringIO()
    console = Screen(file=file, width=width, force_terminal=width is not None, highlight=False, **options)
    print_effects(console, tables.results)
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_window(tables, width):
    assert max(map(len, printed(tables, width).splitlines())) <= width


@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_estimates_intervals_and_verdicts_are_whole_at_every_width(tables, width):
    lines = printed(tables, width).splitlines()
    for family in tables.families.values():
        for row in effect_rows(family, tables.variants):
            name = row.change[:8]
            assert any(name in line and row.effect in line and row.n in line for line in lines), row


def test_a_narrow_window_leaves_columns_out_and_names_them(tables):
    assert "A wider window also shows: p, p (adjusted), P(improve), cost of a cell." in printed(tables, 80)
    assert "A wider window also shows: test accuracy [%], p," in printed(tables, 60)
    assert "A wider window" not in printed(tables, 160)


def test_without_a_terminal_everything_is_there_in_plain_lines(tables):
    text = printed(tables)
    row = effect_rows(tables.families["add-one"], tables.variants)[1]

    assert "A wider window" not in text
    assert "\x1b" not in text
    assert not set("│┃━─") & set(text)
    (line,) = [line for line in text.splitlines() if line.startswith(f"{row.change} ") and row.effect in line]
    for cell in (row.n, row.value, row.effect, row.p, row.p_adjusted, row.p_improve, row.cost, row.verdict):
        assert cell in line
    assert tables.headline.sentence in text


def test_the_reference_comes_first_and_then_the_best(tables):
    lines = printed(tables, 160).splitlines()
    heading = next(index for index, line in enumerate(lines) if line.startswith("add-one:"))
    names = [line.split()[0] for line in lines[heading + 3 : heading + 5]]
    assert names == ["baseline", tables.families["add-one"].effects["variant"].iloc[0]]


def test_leave_one_out_says_that_the_accuracy_is_without_the_change(tables):
    text = printed(tables, 160)
    assert "leave-one-out:model-1: test accuracy, model-1 minus the variant without the change" in text
    assert "without it [%]" in text
    assert "path:report: test accuracy, variant minus the step before" in text


def test_missing_cells_are_said_below_the_table(tables):
    assert "kernel-7: 9 of 10 pairs complete (kernel-7 seed 1 diverged)." in printed(tables, 160)


def test_a_small_profile_is_called_exploratory_and_another_is_not(tables, small):
    assert "Exploratory: the profile 'quick' is too small for conclusions" in printed(small, 160)
    assert "Exploratory" not in printed(tables, 160)


def test_long_names_go_on_in_the_next_line_and_lose_nothing(small):
    lines = printed(small, 60).splitlines()
    first = next(index for index, line in enumerate(lines) if line == "augment-gentle") - 1
    assert re.match(r"(filters-128-256-512|batch-norm)\+ +3/3 ", lines[first])
    assert "filters-128-256-512+augment-gentle  3/3  " in printed(small, 80)
    whole = [
        line for line in printed(small).splitlines() if line.startswith("filters-128-256-512+augment-gentle  3/3 ")
    ]
    assert len(whole) == 1  # in a pipe, a row is a line


def test_brackets_of_units_are_not_taken_for_markup(tables):
    assert "[points]" in printed(tables, 100)
    assert "[%]" in printed(tables, 100)


def test_a_long_design_is_cut_after_a_number_of_rows_and_says_so(tables, monkeypatch):
    monkeypatch.setattr(table_module, "MOST_ROWS", 4)
    text = printed(tables, 100)
    assert "... and 11 more; `harness export --table effects` has all." in text
    assert "augment-harsh" not in text


def test_the_colours_of_the_terminal_follow_the_verdicts(tables):
    file = io.StringIO()
    print_effects(Screen(file=file, width=160, force_terminal=True, color_system="standard"), tables.results)
    lines = file.getvalue().splitlines()
    green = [line for line in lines if line.startswith("\x1b[32m")]
    red = [line for line in lines if line.startswith("\x1b[31m")]
    verdicts = list(tables.effects["verdict"])

    assert (len(green), len(red)) == (verdicts.count("improves"), verdicts.count("hurts"))
    assert green
    assert red


def test_a_study_without_changes_shows_what_its_baseline_reaches(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(study="task2", profile="standard", seeds=3))
    shown = printed(tables, 80)
    finished = tables.results
    title = "At the checkpoint with the lowest validation loss; mean and sd over seeds 0, 1, 2:"
    assert title in " ".join(shown.split())
    for part, prefix in (("training", "train"), ("validation", "val"), ("test", "test")):
        loss, accuracy = finished[f"{prefix}/loss"], 100 * finished[f"{prefix}/accuracy"]
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{part} ")]
        assert f"{loss.mean():.4f} ± {loss.std():.4f}" in line
        assert f"{accuracy.mean():.2f} ± {accuracy.std():.2f}" in line
