"""What the page says is what the tables hold: its p-values, what stands, what was planned and looked at."""

import html
import re
from dataclasses import replace

import pytest
from synthetic import Numbers, synthetic_plan, synthetic_tables

from harness.plan.manifest import EARLIER, RunComparison
from harness.plan.registration import registration
from harness.report.exhibits import exhibits
from harness.report.html import page
from harness.report.summary import CLAIMS, methods
from harness.report.tables import rows_of
from harness.report.wording import format_p
from harness.stats.wording import format_p as format_in_a_sentence

pytestmark = pytest.mark.slow

CHANGES = ("batch-norm", "optimizer-adamax", "kernel-7", "dropout-0.2", "l2-1e-5")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two designs on ten of ten declared seeds, looked at twice, frozen; one cell diverged."""
    plan = synthetic_plan(designs=("add-one", "pairs"), seeds=10, profile="standard", only=CHANGES)
    numbers = Numbers(outcomes={("kernel-7", 1): "diverged"})
    made = synthetic_tables(tmp_path_factory.mktemp("store"), plan, numbers)
    manifest = replace(made.manifest, frozen=registration(made.manifest, "2026-01-01T00:00", mde=0.02))
    manifest = manifest.looked_at(range(6), "2026-01-02T00:00", "").looked_at(range(10), "2026-01-03T00:00", "")
    made.results.attrs["manifest"] = manifest
    return made


@pytest.fixture(scope="module")
def text(tables):
    return page(tables, exhibits(tables))


def rows_of_page(text, title):
    """The cells of one table of the page: a list a row, the heading first."""
    (table,) = re.findall(rf"<table>\s*<caption>{re.escape(title)}</caption>(.*?)</table>", text, flags=re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table, flags=re.DOTALL)
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows)
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in cells]


@pytest.mark.parametrize("design", ["add-one", "pairs"])
def test_the_p_values_of_the_page_are_those_of_the_table(tables, text, design):
    heading, _, *rows = rows_of_page(text, f"Effects, design {design}")
    raw, adjusted, verdict = (heading.index(it) for it in ("p", "p (adjusted)", "verdict"))
    held = tables.effects[tables.effects["design"] == design].set_index("change")
    assert [row[0] for row in rows] == list(held.index)
    for row in rows:
        mine = held.loc[row[0]]
        assert row[raw] == format_p(mine["p"])
        assert row[adjusted] == format_p(mine["p_adjusted"])
        assert row[verdict] == mine["verdict"]
    assert len({row[adjusted] for row in rows}) > 1


def test_those_of_the_interactions_too(tables, text):
    heading, *rows = rows_of_page(text, "Interactions: both together beyond the sum of each alone")
    held = tables.interactions.set_index("variant")
    assert {row[0]: row[heading.index("p (adjusted)")] for row in rows} == {
        name: format_p(p) for name, p in held["p_adjusted"].items()
    }


def test_the_headline_and_the_methods_name_the_p_of_the_table(tables, text):
    row = tables.effects[tables.effects["change"] == tables.headline.variant].iloc[0]
    p = f"{format_in_a_sentence(row['p_adjusted'])} after {row['correction']}"
    said = html.unescape(re.sub(r"<[^>]+>", "", text))
    assert p in tables.headline.sentence
    assert p in methods(tables)
    assert said.count(p) >= 2


def test_the_methods_say_what_was_planned_seen_missing_and_what_stands(tables):
    said = methods(tables)
    assert "Held constant: the test images, the training images and the split off for validation." in said
    assert "10 seeds were declared before the first cell." in said
    assert "What is tested was written down beforehand (2026-01-01T00:00); done as planned." in said
    assert "looked at 2 times, at 6, 10 seeds, which share one error of .05" in said
    over = tables.effects["corrected_over"].iloc[0]
    assert f"All {over} comparisons of 2 designs, interactions included, are corrected together" in said
    assert f"1 of {len(tables.results)} cells have no number." in said
    claimed = tables.effects[tables.effects["verdict"].isin(CLAIMS)].drop_duplicates(["variant", "reference"])
    stands = said.partition("Claims that stand: ")[2]
    words = {"improves": "improves on", "hurts": "is worse than", "equivalent": "is equivalent to"}
    listed = [f"{row.change} {words[row.verdict]} {row.reference}" for row in rows_of(claimed)]
    assert listed
    assert all(it in stands for it in listed[:12])


def test_what_was_done_otherwise_is_said(tables):
    manifest = replace(tables.manifest, frozen={**tables.manifest.frozen, "mde": 0.5})
    results = tables.results.copy()
    results.attrs["manifest"] = manifest
    assert "done what was written down was edited afterwards" in methods(replace(tables, results=results))


def test_what_a_change_was_before_its_edit_is_said_and_its_section_drawn(tables):
    change = next(it for it in tables.manifest.comparisons if it.reference == "baseline")
    results = tables.results.copy()
    before = RunComparison(EARLIER, "wider~1", change.variant, change.reference)
    results.attrs["manifest"] = replace(tables.manifest, comparisons=(*tables.manifest.comparisons, before))
    edited = replace(tables, results=results)

    assert "Edited after a look, and compared as it was before, too: wider~1." in methods(edited)
    assert EARLIER in edited.families
    assert "Before an edit" in {it.title for it in exhibits(edited).shown}
