"""What 0.1 wrote is read with the same numbers; what a later version writes is refused, and nothing is called damaged.

`format_1/` holds one cell and a part of the manifest of `harness ablate --study task3 --profile quick`, as 0.1 left
them; numbers that are expected here are copied from these files.
"""

import json
import math
import shutil
from pathlib import Path

import pytest
from fakes import cells_for, result_of

from harness.errors import HarnessError, StoreError
from harness.plan.cell import Cell
from harness.plan.manifest import Manifest, RunComparison
from harness.store.cells import Cells
from harness.store.load import curves_table, load_results
from harness.store.result import Result
from harness.study.load import load_study
from harness.trainers.images.trainer import METRICS, ImageTrainer

FILES = Path(__file__).parent / "format_1"
KEY = "986db6293db16f6e"


def written(name):
    return json.loads((FILES / name).read_text())


@pytest.fixture
def cells(tmp_path):
    """A store as 0.1 left it."""
    shutil.copytree(FILES, tmp_path / "cells" / KEY)
    (tmp_path / "studies").mkdir()
    (tmp_path / "cells" / KEY / "manifest.json").rename(tmp_path / "studies" / "task3-quick-37d3bb5a.json")
    return Cells(tmp_path)


def test_a_result_has_the_same_numbers():
    result = Result.from_json(written("result.json"))
    assert result.metrics == {
        "train/loss": 0.6926739903736349,
        "train/accuracy": 0.7341666666666666,
        "val/loss": 0.7730659911755811,
        "val/accuracy": 0.7225,
        "test/loss": 0.7833435236615949,
        "test/accuracy": 0.6925,
    }
    assert result.facts == {
        "best_step": 420,
        "best_epoch": 7.5,
        "num_epochs": 8.0,
        "parameters": 50138,
        "precision": "bfloat16",
        "threads": 1,
        "data_fingerprint": "e785761bdf9e2d59",
    }
    assert (result.key, result.seed, result.status) == (KEY, 0, "finished")
    assert (result.num_steps, result.seconds, result.peak_memory_bytes) == (448, 3.163655225000184, 515637248)
    assert (result.device, result.versions) == ("cpu: Intel(R) Xeon(R) Processor", "torch 2.15.0+cu132")
    assert (result.dirty, result.finished_at) == (False, "2026-11-25T07:00:23.224+00:00")


def test_every_number_of_a_result_is_somewhere():
    result = Result.from_json(written("result.json"))
    kept = result.to_json() | {name.replace("/", "_"): it for name, it in result.metrics.items()} | dict(result.facts)
    assert {name: kept[name] for name in written("result.json")} == written("result.json")


def test_a_result_without_numbers_has_none():
    numbers = [name for name in written("result.json") if name.startswith(("train_", "val_", "test_", "best_"))]
    diverged = written("result.json") | dict.fromkeys(numbers) | {"status": "diverged", "reason": "loss is not finite"}
    result = Result.from_json(diverged)
    assert (result.status, result.reason, result.metrics) == ("diverged", "loss is not finite", {})
    assert not {"best_step", "best_epoch"} & result.facts.keys()


def test_a_result_that_was_read_is_written_in_todays_format_and_stays_the_same():
    result = Result.from_json(written("result.json"))
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_specification_is_the_same_cell():
    cell = Cell.from_json(written("spec.json"))
    assert (cell.key, cell.seed, cell.trainer) == (KEY, 0, ImageTrainer())
    assert cell.settings.identity() == written("spec.json")["settings"]  # which knew nothing of `settings.ADDED`
    assert Cell.from_json(cell.to_json()) == cell


def test_validations_have_the_same_numbers(cells):
    found = cells.validations(KEY)
    assert [it.step for it in found] == list(range(28, 449, 28))
    assert (found[0].epoch, found[0].seconds) == (0.5, 0.2507032700000309)
    assert found[0].metrics == {
        "train/loss": 2.301554892744337,
        "train/accuracy": 0.10770089285714286,
        "val/loss": 2.3013961762189865,
        "val/accuracy": 0.085,
    }


def test_a_manifest_says_what_was_left_unsaid():
    manifest = Manifest.from_json(written("manifest.json"))
    assert manifest.metrics == METRICS
    assert manifest.trainer == ImageTrainer().to_json()
    assert [it.name for it in manifest.variants] == ["baseline", "optimizer-adamax", "batch-norm"]
    assert manifest.variant("baseline").cells == {0: KEY, 1: "bae4578799375b10", 2: "f5f9d83c280403a4"}
    assert manifest.comparisons[0] == RunComparison("add-one", "optimizer-adamax", "optimizer-adamax", "baseline")
    assert [it["metric"] for it in manifest.published] == ["train/loss", "val/accuracy", "test/accuracy"]
    assert [it["value"] for it in manifest.published] == [0.8677, 0.7413, 0.7422]
    assert (manifest.baseline, manifest.exploratory) == (written("manifest.json")["baseline"], True)
    assert (manifest.confirms, manifest.winner, manifest.headline) == ("", "", "")
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_a_confirmation_says_whose_it_is():
    confirmation = {"confirms": "task3-quick-37d3bb5a", "winner": "batch-norm", "headline": "batch-norm: better"}
    found = Manifest.from_json(written("manifest.json") | confirmation)
    assert (found.confirms, found.winner, found.headline) == tuple(confirmation.values())


def test_published_numbers_are_those_of_todays_study():
    manifest = Manifest.from_json(written("manifest.json"))
    assert list(manifest.published) == [it.model_dump() for it in load_study("task3").published[:3]]


def test_results_and_curves_of_a_store_are_tables_as_of_today(cells):
    table = load_results("task3", store=cells.root)
    assert list(table["status"]) == ["finished"] + ["missing"] * 8
    assert table["test/accuracy"][0] == 0.6925
    assert table["test/accuracy"].isna().sum() == 8
    assert (table["parameters"][0], table["precision"][0]) == (50138, "bfloat16")
    curves = curves_table(cells, table.attrs["manifest"])
    assert list(curves["step"]) == list(range(28, 449, 28))
    assert math.isnan(curves["test/loss"][0])


def test_a_checkpoint_of_0_1_is_not_taken_for_something_that_training_kept(tmp_path):
    cells, (cell,) = Cells(tmp_path), cells_for(1)
    old = cells.open(cell) / "checkpoint.pt"
    old.write_bytes(b"x")
    assert cells.kept_files(cell.key) == []
    cells.write_result(result_of(cell))
    assert not old.exists()


@pytest.mark.parametrize(
    "read",
    [
        lambda cells: cells.result(KEY),
        lambda cells: cells.spec(KEY),
        lambda cells: cells.manifest("task3-quick-37d3bb5a"),
        lambda cells: load_results("task3", store=cells.root),
    ],
)
def test_a_newer_format_is_refused_with_both_versions_and_nobody_is_told_to_delete_it(cells, read):
    for path in cells.root.rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3, "news": {"from": "later"}}))
    with pytest.raises(
        StoreError, match=r"has format 3, this harness reads up to 2\. Install the version that"
    ) as error:
        read(cells)
    (line,) = str(error.value).splitlines()
    assert "not damaged" in line or "nothing is damaged" in line
    assert not any(word in line.lower() for word in ("delete", "remove", "move it", "again"))


def test_a_cell_of_another_recipe_is_another_cell_and_no_mistake_of_ours(cells):
    path = cells.folder(KEY) / "spec.json"
    other = json.loads(path.read_text()) | {"key": "0123456789abcdef", "recipe": 0}
    path.write_text(json.dumps(other))
    with pytest.raises(
        HarnessError, match=rf"cell 0123456789abcdef: .*recipe 0 there, 1 here\), as cell {KEY}\."
    ) as error:
        cells.spec(KEY)
    assert isinstance(error.value, StoreError)


def test_settings_that_this_version_does_not_know_are_an_error_of_the_user(cells):
    path = cells.folder(KEY) / "spec.json"
    other = json.loads(path.read_text())
    other["settings"]["optimizer"]["nesterov"] = True
    path.write_text(json.dumps(other))
    with pytest.raises(HarnessError, match=r"cell 986db6293db16f6e: .*optimizer\.nesterov: unknown key"):
        cells.spec(KEY)
