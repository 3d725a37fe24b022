"""Manifests: a study run as a frozen value that reads back equal, and grows by what later plans add."""

import copy
import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import DamagedError, StoreError
from harness.metrics import Metrics, declared_metrics
from harness.plan.extension import extended
from harness.plan.manifest import EARLIER, FORMAT, Manifest, RunComparison, RunVariant
from harness.store.cells import Cells
from harness.store.load import find_manifest

METRICS = declared_metrics({"val/loss": {"goal": "minimize"}, "test/f1": {"goal": "maximize"}}, "val/loss", "test/f1")


def variant(name="baseline", seeds=(0, 1), settings="s", **tags):
    changes = () if name == "baseline" else tuple(name.split("+"))
    return RunVariant(name, changes, f"about {name}", settings, {it: f"{name}-{settings}-{it}" for it in seeds}, tags)


def comparison(name):
    return RunComparison("add-one", name, name, "baseline")


def manifest(*variants, **given):
    return Manifest(
        **{
            "id": "mine-standard-12345678",
            "study": "mine",
            "title": "Mine",
            "profile": "standard",
            "exploratory": False,
            "metrics": METRICS,
            "trainer": {"kind": "function", "function": "digits:train"},
            "fingerprints": {"sources": "abc"},
            "baseline": {"lr": 0.1},
            "variants": variants or (variant(), variant("wide+deep")),
            "comparisons": (comparison("wide+deep"),),
            "notes": ("a note",),
            "published": ({"variant": "baseline", "metric": "test/f1", "value": 0.5, "source": "x"},),
            "declared": {"lr": 0.2},
            "command": "harness ablate",
        }
        | given
    )


@pytest.mark.parametrize(
    "whole",
    [
        manifest(),
        manifest(confirms="other", winner="wide", headline="wide is better"),
        manifest(variant(seeds=(3, 1), trial="7")),
        manifest(comparisons=(), notes=(), published=()),
    ],
)
def test_a_manifest_reads_back_equal_from_its_json(whole):
    data = json.loads(json.dumps(whole.to_json()))
    assert data["format"] == FORMAT
    assert Manifest.from_json(data) == whole


def test_what_only_a_confirmation_has_is_not_written_for_others():
    assert not {"confirms", "winner", "headline"} & manifest().to_json().keys()
    assert "tags" not in manifest().to_json()["variants"][0]


def test_the_metrics_of_a_manifest_keep_their_order_goals_and_roles():
    found = Manifest.from_json(json.loads(json.dumps(manifest().to_json()))).metrics
    assert isinstance(found, Metrics)
    assert (found.names, found.select, found.report) == (("val/loss", "test/f1"), "val/loss", "test/f1")
    assert found["val/loss"].goal == "minimize"


def test_a_variant_is_found_by_name():
    assert manifest().variant("wide+deep").changes == ("wide", "deep")
    assert manifest().variant("narrow") is None


def test_a_manifest_is_frozen_and_shared_by_the_tables_that_it_describes():
    whole = manifest()
    with pytest.raises(FrozenInstanceError):
        whole.title = "other"
    table = pd.DataFrame({"a": [1, 2]})
    table.attrs["manifest"] = whole
    assert table[table["a"] > 1].attrs["manifest"] is whole
    assert copy.deepcopy(table).attrs["manifest"] is whole


def test_seeds_variants_comparisons_and_notes_of_both_plans_add_up_in_the_order_of_seeds():
    first = manifest(variant(seeds=(2, 0)))
    added = manifest(variant(seeds=(1,)), variant("wide"), comparisons=(comparison("wide"),), notes=("b", "a note"))
    both = extended(first, added)
    assert list(both.variant("baseline").cells) == [0, 1, 2]
    assert both.variant("wide") == added.variant("wide")
    assert both.comparisons == (comparison("wide+deep"), comparison("wide"))
    assert both.notes == ("a note", "b")


def test_an_extension_keeps_what_is_there_and_is_the_same_twice():
    first, added = manifest(), manifest(variant("wide"), title="New title")
    both = extended(first, added)
    assert extended(both, added) == both
    assert both.title == "New title"  # of the later plan: the study's file may have been edited
    assert [it.name for it in both.variants] == ["baseline", "wide+deep", "wide"]


def seen(first):
    """The same, after a look at its seeds."""
    return first.looked_at((0, 1), "2026-11-01T12:00:00", "harness results")


def test_what_a_change_was_before_its_edit_stays_compared_where_it_was_looked_at():
    single, both = comparison("wide"), RunComparison("leave-one-out:all", "wide", "wide+deep", "deep")
    first = manifest(
        variant(),
        variant("wide", settings="1"),
        variant("deep", settings="2"),
        variant("wide+deep", settings="3"),
        comparisons=(single, comparison("deep"), both),
    )
    added = manifest(
        variant(), variant("wide", settings="4"), variant("wide+deep", settings="5"), comparisons=(single, both)
    )
    after = extended(seen(first), added, declared=("wide", "deep"))

    held = {it.name: (it.changes, it.settings) for it in after.variants}
    assert held == {
        "baseline": ((), "s"),
        "deep": (("deep",), "2"),
        "wide~1": (("wide~1",), "1"),
        "wide+deep~1": (("wide~1", "deep"), "3"),
        "wide": (("wide",), "4"),
        "wide+deep": (("wide", "deep"), "5"),
    }
    before = [it for it in after.comparisons if it.design == EARLIER]
    assert [(it.label, it.variant, it.reference) for it in before] == [
        ("wide~1", "wide~1", "baseline"),
        ("wide+deep~1 over deep", "wide+deep~1", "deep"),
    ]
    assert [it for it in after.comparisons if it not in before] == [single, comparison("deep"), both]
    assert extended(after, added, declared=("wide", "deep")) == after


def test_a_second_edit_is_another_attempt_and_an_edit_taken_back_is_none():
    def edited(settings, known):
        return extended(
            known, manifest(variant(), variant("wide", settings=settings), comparisons=(comparison("wide"),))
        )

    once = edited("2", seen(manifest(variant(), variant("wide", settings="1"), comparisons=(comparison("wide"),))))
    twice = edited("3", once)
    assert [(it.name, it.settings) for it in twice.variants[1:]] == [("wide~1", "1"), ("wide~2", "2"), ("wide", "3")]

    back = edited("1", twice)
    settings = {"baseline": "s", "wide": "1", "wide~2": "2", "wide~3": "3"}
    assert {it.name: it.settings for it in back.variants} == settings
    assert {it.variant for it in back.comparisons} == {"wide", "wide~2", "wide~3"}


def test_what_was_before_an_edit_is_compared_with_nothing_of_after_another_one():
    inside = RunComparison("leave-one-out:all", "wide", "wide+deep", "deep")
    greedy = RunComparison("path:greedy", "deep", "deep", "baseline")

    def plan(deep, both):
        variants = (variant(), variant("deep", settings=deep), variant("wide+deep", settings=both))
        return manifest(*variants, comparisons=(inside, greedy))

    once = extended(seen(plan("1", "a")), plan("1", "b"))
    twice = extended(once, plan("2", "c"))

    def before(it):
        return [(one.variant, one.reference) for one in it.comparisons if one.design == EARLIER]

    assert before(once) == [("wide+deep~1", "deep")]
    assert before(twice) == [("wide+deep~2", "deep~1"), ("wide+deep~1", "deep~1")]  # and no step that was chosen


def test_a_renamed_change_is_one_variant():
    first = manifest(
        variant(),
        variant("wide", seeds=(0,), settings="1"),
        variant("wide+deep", seeds=(0,), settings="2"),
        comparisons=(comparison("wide"), RunComparison("leave-one-out:all", "wide", "wide+deep", "deep")),
    )
    added = manifest(variant(), variant("broad", seeds=(1,), settings="1"), comparisons=(comparison("broad"),))
    after = extended(first, added, declared=("broad", "deep"))

    assert {it.name: list(it.cells) for it in after.variants} == {
        "baseline": [0, 1],
        "broad": [0, 1],
        "broad+deep": [0],
    }
    assert [(it.label, it.variant) for it in after.comparisons] == [("broad", "broad"), ("broad", "broad+deep")]
    twins = extended(first, added, declared=("broad", "wide", "deep"))  # both names are there
    assert [it.name for it in twins.variants] == ["baseline", "wide", "wide+deep", "broad"]


def test_cells_and_tags_of_a_variant_with_other_settings_are_dropped():
    first = manifest(variant("wide", seeds=(0, 1), settings="old", trial="1"))
    both = extended(first, manifest(variant("wide", seeds=(2,), settings="new", search="s")))
    assert both.variant("wide").cells == {2: "wide-new-2"}
    assert both.variant("wide").tags == {"search": "s"}


def test_tags_of_both_are_kept_where_the_settings_are_the_same():
    both = extended(manifest(variant("wide", trial="1")), manifest(variant("wide", search="s")))
    assert both.variant("wide").tags == {"trial": "1", "search": "s"}


def test_what_has_another_name_now_is_the_same_variant():
    before = manifest(variant("wide+deep", seeds=(0,)), comparisons=(comparison("wide+deep"),))
    renamed = replace(variant("wide+deep", seeds=(1,)), name="both")
    after = extended(before, manifest(renamed, comparisons=(comparison("both"),)))
    assert {it.name: list(it.cells) for it in after.variants} == {"both": [0, 1]}
    assert {it.variant for it in after.comparisons} == {"both"}
    named = manifest(replace(variant("wide+deep"), name="champion-1"))  # of a line: its names are its own
    assert [it.name for it in extended(named, manifest(renamed)).variants] == ["champion-1", "both"]


def test_two_study_runs_are_never_mixed():
    with pytest.raises(AssertionError):
        extended(manifest(), manifest(id="other"))


def test_the_folder_of_cells_keeps_manifests_the_oldest_first(tmp_path):
    cells = Cells(tmp_path)
    first, second = manifest(id="z"), manifest(id="a")
    for it in (first, second):
        cells.write_manifest(it)
    assert cells.manifests() == {"z": first, "a": second}
    assert list(cells.manifests()) == ["z", "a"]


@pytest.mark.parametrize("moment", ["before it is dated", "before it is read"])
def test_a_manifest_that_is_deleted_at_this_moment_is_there_no_more(tmp_path, monkeypatch, caplog, moment):
    cells = Cells(tmp_path)
    for name in ("a", "z"):
        cells.write_manifest(manifest(id=name))
    gone, target = tmp_path / "studies" / "z.json", Path.stat if moment == "before it is dated" else Path.read_bytes

    def deleted(path, *arguments, **options):
        if path == gone:
            gone.unlink(missing_ok=True)
        return target(path, *arguments, **options)

    monkeypatch.setattr(Path, target.__name__, deleted)
    assert list(cells.manifests()) == ["a"]
    assert "is no manifest" not in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data | {"variants": 3},
        lambda data: data | {"nonsense": 1},
        lambda data: {name: it for name, it in data.items() if name != "metrics"},
        lambda data: [data],
        lambda data: data | {"metrics": data["metrics"] | {"select": "val/nothing"}},
    ],
)
def test_a_damaged_manifest_is_named_and_its_cells_are_said_not_to_be_lost(tmp_path, damage):
    cells = Cells(tmp_path)
    cells.write_manifest(manifest())
    path = tmp_path / "studies" / f"{manifest().id}.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(DamagedError, match=r"mine-standard-12345678\.json: is no manifest.*Move it away.*not lost"):
        cells.manifest(manifest().id)


def spoil_with_garbage(path):
    path.write_bytes(b"\xff\x00garbage")


def spoil_with_depth(path):
    path.write_text("[" * 100_000)


def spoil_with_a_folder(path):
    path.unlink()
    path.mkdir()


def spoil_with_a_newer_format(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT + 1}))


@pytest.mark.parametrize(
    "spoil", [spoil_with_garbage, spoil_with_depth, spoil_with_a_folder, spoil_with_a_newer_format]
)
def test_a_manifest_that_cannot_be_read_is_named_once_and_the_others_are_read(tmp_path, caplog, spoil):
    cells = Cells(tmp_path)
    for name in ("good", "bad"):
        cells.write_manifest(manifest(id=name))
    spoil(tmp_path / "studies" / "bad.json")

    assert list(cells.manifests()) == list(cells.manifests()) == ["good"]
    assert [("bad" in it.message, it.levelname) for it in caplog.records] == [(True, "WARNING")]
    with pytest.raises(StoreError, match="bad"):
        find_manifest(cells, "bad")


def test_a_manifest_can_be_changed_in_part():
    assert replace(manifest(), headline="x").headline == "x"
