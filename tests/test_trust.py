"""What stands in a store is believed where the harness wrote it, and a store of which a part is wrong still works."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from commands import COMMANDS, Commands
from fakes import result_of
from test_cli import TINY
from tracked import a_manifest, a_result, a_store, cells_of, start, validate

from harness.api.confirmation import fresh_seeds
from harness.api.work import Work, plan_work, save_manifest
from harness.cli import cli
from harness.errors import StoreError
from harness.execution.provenance import provenance
from harness.report.summary import warnings
from harness.report.tables import Tables
from harness.store.cells import Cells
from harness.store.load import load_results
from harness.store.result import sealed
from harness.tracking.check import check_tracking
from harness.tracking.database import explained
from harness.tracking.ledger import open_ledger
from harness.tracking.tracking import sync
from harness.trainers.images.trainer import METRICS

pytestmark = pytest.mark.slow

BASELINE, OTHER = cells_of(), cells_of({"model.batch_norm": True})


def call(*arguments):
    return CliRunner().invoke(cli, [str(it) for it in arguments])


def end(cells, several):
    for cell in several:
        start(cells, cell)
        validate(cells, cell, 100)
        cells.write_result(a_result(cell))


def spoil(cells, cell, **fields):
    path = cells.folder(cell.key) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def store(tmp_path):
    """Two study runs of two cells each, all of which have ended; those of `second` are not those of `first`."""
    uri, cells = a_store(tmp_path / "mlruns")
    for name, several in {"first": BASELINE, "second": OTHER}.items():
        end(cells, several)
        cells.write_manifest(a_manifest({"baseline": several}, study=name))
    return uri, cells


def edited(path, cells):
    spoil(cells, BASELINE[1], metrics={"test/accuracy": 99.5})


def of_another_seed(path, cells):
    path.write_text(json.dumps(sealed(replace(cells.result(BASELINE[1].key), seed=7))))


def of_another_cell(path, cells):
    path.write_bytes((cells.folder(BASELINE[0].key) / "result.json").read_bytes())


def of_a_newer_version(path, cells):
    spoil(cells, BASELINE[1], format=9)


def cut_off(path, cells):
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("spoiled", "why"),
    [
        (edited, "its checksum does not fit its content"),
        (of_another_seed, "its seed is 7, that of the cell is 1"),
        (of_another_cell, f"it is the result of cell {BASELINE[0].key}"),
        (of_a_newer_version, "its result has format 9, this harness reads up to 2. Install the version that wrote it"),
        (cut_off, "no result that can be believed"),
    ],
)
def test_a_result_that_cannot_be_believed_is_a_row_without_numbers_that_says_why(store, spoiled, why):
    _, cells = store
    spoiled(cells.folder(BASELINE[1].key) / "result.json", cells)

    table = load_results("first", store=cells.root)
    assert list(table["status"]) == ["finished", "refused"]
    assert why in table["reason"][1]
    assert str(cells.root) not in table["reason"][1], "a report is read elsewhere"
    assert table.loc[1, [*METRICS.names, "num_steps"]].isna().all()

    answer = call("results", "--study", "first", "--store", cells.root)
    assert (answer.exit_code, "99.5" in answer.output) == (0, False), answer.output
    assert f"baseline seed 1: refused: {table['reason'][1]}"[:80] in answer.output

    (warning,) = [it for it in warnings(Tables(table, load_curves=pd.DataFrame)) if "believed" in it]
    assert "1 result of these cannot be believed, and no number of theirs is used: baseline seed 1." in warning
    assert why in warning

    listed = call("results", "--list", "--store", cells.root)
    assert listed.exit_code == 0, listed.output
    assert "first-quick-1a2b3c4d: 1 variant, 1 of 2 cells ended" in listed.output
    assert why in listed.output


def test_one_bad_cell_concerns_no_other_study_run(store):
    uri, cells = store
    spoil(cells, BASELINE[1], seed=7)

    assert set(load_results("second", store=cells.root)["status"]) == {"finished"}
    with pytest.raises(StoreError, match=BASELINE[1].key):
        sync(uri, cells.root)
    (cells.folder(BASELINE[1].key) / "result.json").unlink()
    (cells.folder(BASELINE[1].key) / "journal.jsonl").unlink()
    waiting = sync(uri, cells.root).delivered
    assert waiting <= 1, "the second study run was delivered while the first one was refused"


@pytest.mark.parametrize("content", [b"", b"3f2a", bytes(range(256)), None])
def test_a_store_whose_name_is_damaged_or_lost_keeps_it(store, content):
    uri, cells = store
    sync(uri, cells.root)
    path = cells.root / "store-id"
    name = path.read_text()
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    assert sync(uri, cells.root).delivered == 0, "every run was made a second time"
    assert path.read_text() == name


def test_a_result_that_was_moved_away_is_trained_again(store):
    _, cells = store
    spoil(cells, BASELINE[1], seed=7)
    (cells.folder(BASELINE[1].key) / "result.json").unlink()

    assert list(load_results("first", store=cells.root)["status"]) == ["finished", "missing"]
    assert Cells(cells.root).result(BASELINE[1].key) is None


def test_a_lost_folder_of_a_cell_that_had_ended_is_found(store):
    uri, cells = store
    assert sync(uri, cells.root).delivered
    shutil.rmtree(cells.folder(BASELINE[1].key))
    (found,) = [it for it in check_tracking(uri, cells, cells.manifests().values()) if it.is_wrong]

    assert f"had ended and can be found no more: {BASELINE[1].key}." in str(found)
    assert "Put the folders back" in str(found)


@pytest.fixture
def ended(tmp_path, monkeypatch) -> Work:
    """A study in the working folder, one study run of which has ended, its numbers made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("tiny.yaml").write_text(TINY)
    work = plan_work("tiny.yaml", only=["batch-norm"], seeds=4)
    for cell in work.plan.cells:
        work.cells.open(cell)
        work.cells.write_result(result_of(cell, 0.5 + cell.seed / 100 + 0.1 * cell.settings.model.batch_norm))
    save_manifest(work)
    return work


def no_room(monkeypatch):
    monkeypatch.setattr(Cells, "free_bytes", lambda cells: 0)


def no_database(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///tiny.yaml")


@pytest.mark.parametrize("obstacle", [no_room, no_database])
@pytest.mark.parametrize("command", [["ablate"], ["aa", "--seeds", "4"], ["search", "--trials", "3"], ["confirm"]])
def test_a_refused_request_leaves_no_study_run_behind(ended, monkeypatch, obstacle, command):
    before = ended.cells.manifests()
    obstacle(monkeypatch)

    elsewhere = [] if command == ["confirm"] else ["--epochs", "2"]  # which would be another study run
    answer = call(*command, "--study", "tiny.yaml", *elsewhere)

    assert answer.exit_code == 2, answer.output
    assert ended.cells.manifests() == before


def test_the_study_run_that_has_results_is_shown_and_said(ended):
    empty = plan_work("tiny.yaml", epochs=2)
    save_manifest(empty)
    said = f"note: shown is {ended.plan.id}, the latest that has results. There are also: {empty.plan.id}"

    assert set(load_results("tiny")["status"]) == {"finished"}
    for command in (["results"], ["export", "--table", "cells"], ["report", "--output", "page"]):
        answer = call(*command, "--study", "tiny")
        assert answer.exit_code == 0, answer.output
        assert said in answer.stderr
        assert said not in answer.stdout
    asked = call("results", "--study", empty.plan.id)
    assert "missing" in asked.output
    assert "note:" not in asked.output


def test_of_a_file_the_study_run_with_its_baseline_is_shown_and_another_one_is_said(ended):
    file = Path("tiny.yaml")
    before = file.read_text()
    file.write_text(before.replace("max_epochs: 1", "max_epochs: 2"))
    said = (
        f"note: tiny.yaml has another baseline now than {ended.plan.id}, which is shown: training.max_epochs 1, now 2."
    )

    for command in (["results"], ["export", "--table", "cells"], ["report", "--output", "page"]):
        assert said in call(*command, "--study", "tiny.yaml").stderr
    later = plan_work("tiny.yaml", only=["batch-norm"], seeds=2)
    cell = later.plan.cells[0]
    later.cells.open(cell)
    later.cells.write_result(result_of(cell, 0.5))
    save_manifest(later)
    assert load_results("tiny.yaml").attrs["manifest"].id == later.plan.id
    file.write_text(before)
    assert load_results("tiny.yaml").attrs["manifest"].id == ended.plan.id
    assert "another baseline" not in call("results", "--study", "tiny.yaml").stderr


def test_where_no_study_run_has_results_the_latest_is_shown(ended):
    for cell in ended.plan.cells:
        ended.cells.forget_result(cell.key)
    save_manifest(empty := plan_work("tiny.yaml", epochs=2))

    answer = call("results", "--study", "tiny")
    assert f"shown is {empty.plan.id}, the latest; none of them has results" in answer.stderr


def test_aa_leaves_the_command_of_the_study_run_as_it_is(ended):
    with ended.cells.updating_manifest(ended.plan.id):
        ended.cells.write_manifest(replace(ended.cells.manifests()[ended.plan.id], command="harness ablate --mine"))

    answer = call("aa", "--study", "tiny.yaml", "--seeds", "4")

    assert "A/A of baseline" in answer.output, answer.output
    assert ended.cells.manifests()[ended.plan.id].command == "harness ablate --mine"


def test_a_damaged_manifest_is_set_aside_by_the_command_that_makes_it_again(ended, caplog):
    path = ended.cells.root / "studies" / f"{ended.plan.id}.json"
    path.write_text(path.read_text()[:100])
    other = plan_work("tiny.yaml", epochs=2)
    save_manifest(other)
    assert set(ended.cells.manifests()) == {other.plan.id}

    answer = call("ablate", "--study", "tiny.yaml", "--only", "batch-norm", "--seeds", "4", "--executor", "here")

    assert answer.exit_code == 0, answer.output
    assert set(load_results("tiny")["status"]) == {"finished"}
    (aside,) = path.parent.glob("*.damaged-*")
    assert len(aside.read_text()) == 100
    assert any(aside.name in it.message for it in caplog.records)


def test_a_manifest_of_a_newer_version_is_never_set_aside(ended):
    path = ended.cells.root / "studies" / f"{ended.plan.id}.json"
    newer = json.dumps(json.loads(path.read_text()) | {"format": 99})
    path.write_text(newer)

    with pytest.raises(StoreError, match="format 99"):
        save_manifest(ended)
    assert path.read_text() == newer


def test_fresh_seeds_are_fresh_although_the_manifest_that_names_them_is_damaged(ended):
    path = ended.cells.root / "studies" / f"{ended.plan.id}.json"
    path.write_text("garbage")

    assert fresh_seeds(ended.cells, 2) == (4, 5)


def command(*arguments, **options):
    """The real command in a process of its own."""
    line = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(line, check=False, stderr=subprocess.PIPE, **options)


SHOWN = (["ablate", "--study", "tiny.yaml", "--only", "batch-norm", "--seeds", "4"], ["results", "--study", "tiny"])


PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


@pytest.fixture(scope="module", params=[PLAIN, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}])
def with_few_characters(request):
    commands = Commands(os.environ | request.param)
    yield commands
    commands.close()


@pytest.mark.parametrize("arguments", SHOWN)
def test_a_terminal_that_lacks_characters_gets_the_whole_table(ended, arguments, with_few_characters):
    answer = with_few_characters.run(*arguments, cwd=Path.cwd(), env={"HARNESS_CACHE": "cache"})

    assert (answer.returncode, answer.stderr) == (0, b"")
    assert b"batch-norm" in answer.stdout


@pytest.mark.parametrize("arguments", [*SHOWN, ["export", "--study", "tiny"], ["studies"], ["--help"]])
def test_full_standard_output_is_a_sentence_and_exit_code_2(ended, arguments):
    with open("/dev/full", "w") as full:
        answer = command(*arguments, stdout=full)

    assert answer.returncode == 2, answer.stderr.decode()
    assert answer.stderr.decode().startswith("error: standard output cannot be written (No space left on device).")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", SHOWN)
def test_standard_output_that_is_closed_is_no_failure(ended, arguments):
    answer = COMMANDS.run(*arguments, cwd=Path.cwd(), env={"HARNESS_CACHE": "cache"}, is_closed=True)

    assert (answer.returncode, answer.stderr) == (0, b"")


def test_two_files_of_one_name_are_told_apart(ended):
    """`other.yaml` calls its study `tiny`, too: its own run is shown where it is asked for, and both are named."""
    Path("other.yaml").write_text(TINY.replace("max_epochs: 1", "max_epochs: 2"))
    other = plan_work("other.yaml", only=["batch-norm"], seeds=2)
    for cell in other.plan.cells:
        other.cells.open(cell)
        other.cells.write_result(result_of(cell, 0.1))
    save_manifest(other)

    for file, manifest in {"tiny.yaml": ended.plan.id, "other.yaml": other.plan.id}.items():
        answer = call("results", "--study", file)
        assert answer.stdout.startswith(f"study run {manifest},"), answer.output
    asked = call("ablate", "--study", "tiny.yaml", "--only", "batch-norm", "--dry-run")
    assert "other.yaml is another file whose study is called tiny" in " ".join(asked.output.split())


@pytest.mark.parametrize("problem", ["database or disk is full", "disk I/O error"])
def test_a_full_disk_is_no_reason_to_delete_anything(tmp_path, problem):
    with pytest.raises(StoreError, match="Make room there") as caught, open_ledger(tmp_path / "ledger.db", "a"):
        raise sqlite3.OperationalError(problem)
    assert "elete" not in str(caught.value)
    assert "Make room" in str(explained(sqlite3.OperationalError(problem), "sqlite:///mlflow.db"))


def test_no_diff_keeps_no_diff(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DIFF", "1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    (tmp_path / "file").write_text("before")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "file").write_text("after")

    assert "after" in str(provenance("harness", folder=tmp_path)["diff"])
    assert call("plan", "--study", "task3", "--profile", "quick", "--no-diff", "--store", tmp_path).exit_code == 0
    kept = provenance("harness", folder=tmp_path)
    assert (kept["diff"], kept["dirty"]) == ("", True)
