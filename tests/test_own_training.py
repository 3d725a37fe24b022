"""Training of the user's own, as a function and as a script: one contract for both, and what a study of it may say."""

import os
import time
from pathlib import Path

import pytest
from own import STUDY, TRAINERS, results_of, start_study, train_study, write_study

from harness.api.work import plan_work, prepare
from harness.errors import StudyError
from harness.execution.runner import run
from harness.study.load import load_study
from harness.trainers import sources
from harness.trainers.code import Folder
from harness.trainers.run import CHECKPOINT
from harness.trainers.sources import read_sources

pytestmark = pytest.mark.slow  # scripts are started
KINDS = list(TRAINERS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_cell_is_trained_with_its_settings_and_seed(tmp_path, kind):
    work, results = train_study(write_study(tmp_path / "study", kind), tmp_path / "store")

    assert {result.status for result in results.values()} == {"finished"}
    baseline, wide, flagged = (results[name, 0] for name in ("baseline", "wide", "flagged"))
    assert wide.metrics["test/score"] == pytest.approx(2 * baseline.metrics["test/score"])  # twice the width
    # Each of four steps adds 0.25 and keeps nine tenths: 0.25 * (1 + 0.9 + 0.81 + 0.729), a tenth of it reported.
    assert flagged.metrics["test/score"] - baseline.metrics["test/score"] == pytest.approx(0.085975)
    assert baseline.metrics != results["baseline", 1].metrics
    assert baseline.metrics["val/score"] == pytest.approx(10 * baseline.metrics["test/score"])
    first = work.plan.variants[0].cells[0].key
    assert [it.step for it in work.cells.validations(first)] == [1, 2, 3, 4]
    assert not (work.cells.folder(first) / CHECKPOINT).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_on_any_step_it_goes_on_and_ends_with_the_same_numbers(tmp_path, kind):
    path = write_study(tmp_path / "study", kind, pause=0.03)
    _, straight = train_study(path, tmp_path / "straight")
    work = plan_work(path, store=tmp_path / "killed", device="cpu")

    def num_validations():
        events = (event for cell in work.plan.cells for event in work.cells.events(cell.key))
        return sum(event["event"] == "validation" for event in events)

    for _ in range(3):  # each within a cell, whose first step is in a checkpoint, or a step later
        enough, process = num_validations() + 2, start_study(path, work.cells.root)
        while process.poll() is None and num_validations() < enough:
            time.sleep(0.002)
        process.kill()
        process.wait()
    finish(path, work.cells.root)

    assert {place: dict(it.metrics) for place, it in results_of(work).items()} == {
        place: dict(it.metrics) for place, it in straight.items()
    }
    starts = [event["event"] for cell in work.plan.cells for event in work.cells.events(cell.key)]
    assert "resumed" in starts  # it was killed within a cell, after a checkpoint
    facts = {result.facts.get("settings_unread", result.facts.get("settings_unseen")) for result in straight.values()}
    assert facts == {"never"}


def finish(path: Path, store: Path) -> None:
    process = start_study(path, store)
    assert process.wait(60) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_code_that_is_edited_while_a_study_trains_does_not_run_before_it_is_planned(tmp_path, kind):
    path = write_study(tmp_path / "study", kind)
    work = plan_work(path, store=tmp_path / "store", device="cpu")
    prepare(work, work.plan.cells)
    helper = tmp_path / "study" / "mathematics.py"
    helper.write_text(helper.read_text().replace("0.9", "0.0"))

    run(work.plan.cells, work.cells, devices=["cpu"], provenance={}, executor="here")
    _, straight = train_study(write_study(tmp_path / "copy", kind), tmp_path / "other")

    found = {place: dict(result.metrics) for place, result in results_of(work).items()}
    assert found == {place: dict(result.metrics) for place, result in straight.items()}
    edited = plan_work(path, store=tmp_path / "store", device="cpu")
    assert not {cell.key for cell in edited.plan.cells} & {cell.key for cell in work.plan.cells}
    _, after = train_study(path, tmp_path / "store")
    assert after["baseline", 0].metrics != found["baseline", 0]


def test_a_comment_costs_nothing_and_a_pinned_version_hides_edits(tmp_path):
    path = write_study(tmp_path / "study")
    before = plan_work(path, store=tmp_path, device="cpu").plan.cells
    helper = tmp_path / "study" / "mathematics.py"

    helper.write_text("# a comment\n\n" + helper.read_text().replace("score * 0.9", "(score*0.9)"))
    assert plan_work(path, store=tmp_path, device="cpu").plan.cells == before
    helper.write_text(helper.read_text().replace("0.9", "0.8"))
    assert plan_work(path, store=tmp_path, device="cpu").plan.cells != before

    pinned = {**TRAINERS["function"], "sources": {"pinned": "v3"}}
    path = write_study(tmp_path / "study", trainer=pinned)
    before = plan_work(path, store=tmp_path, device="cpu").plan.cells
    helper.write_text(helper.read_text().replace("0.9", "0.8"))
    assert plan_work(path, store=tmp_path, device="cpu").plan.cells == before
    assert dict(before[0].fingerprints) == {"sources": "pinned:v3"}
    assert "pinned as 'v3'" in load_study(path).trainer.notes[0]


def test_the_same_values_have_one_key_however_they_are_written(tmp_path):
    one = write_study(tmp_path / "one", baseline=STUDY["baseline"] | {"rate": 1.0})
    two = write_study(tmp_path / "two", baseline=STUDY["baseline"] | {"rate": {"default": 1, "max": 2.0}})

    keys = [plan_work(path, store=tmp_path, device="cpu").plan.variants[0].cells[0].key for path in (one, two)]

    assert keys[0] == keys[1]


BAD_STUDIES = {
    "select and report are missing": ({"select": None, "report": None}, ["select: required", "report: required"]),
    "no metrics": ({"metrics": None}, ["metrics: required"]),
    "unknown metric": ({"select": "val/scor"}, ["select: unknown metric 'val/scor'. Did you mean 'val/score'?"]),
    "no module": ({"trainer": {"function": "trainin:train"}}, ["no module trainin in", "expected trainin.py there"]),
    "no function": ({"trainer": {"function": "training"}}, ["trainer.function: expected 'module:function'"]),
    "unknown key": ({"trainer": {"function": "training:train", "source": []}}, ["Did you mean 'sources'?"]),
    "glob that matches nothing": (
        {"trainer": {"function": "training:train", "sources": ["conf/*.yaml"]}},
        ["trainer.sources: 'conf/*.yaml' matches no file in"],
    ),
    "sources outside": (
        {"trainer": {"function": "training:train", "sources": ["../*.py"]}},
        ["reaches outside the study's folder"],
    ),
    "type changes": (
        {"changes": [{"name": "a", "overrides": {"rate": "fast"}}]},
        ["change 'a': rate: expected a number, as the baseline's 0.5 is, not 'fast'."],
    ),
    "a truth value is no number": (
        {"changes": [{"name": "a", "overrides": {"steps": True}}]},
        ["steps: expected a whole number, as the baseline's 4 is, not True."],
    ),
    "a part where a whole number stands": (
        {"changes": [{"name": "a", "overrides": {"steps": 0.5}}]},
        ["as the baseline's 4 is, not 0.5. For any number write 4.0 in the baseline."],
    ),
    "nothing where something stands": (
        {"changes": [{"name": "a", "overrides": {"steps": None}}]},
        ["not None. To allow it write {default: 4, choices: [4, null]} in the baseline, with all others."],
    ),
    "unknown setting": (
        {"changes": [{"name": "a", "overrides": {"model.widht": 3}}]},
        ["unknown setting 'model.widht'. Did you mean 'model.width'?"],
    ),
    "out of bounds": (
        {"baseline": STUDY["baseline"] | {"steps": {"default": 0, "min": 1}}},
        ["baseline.steps: expected at least 1, not 0."],
    ),
    "no choice": (
        {
            "baseline": STUDY["baseline"] | {"opt": {"default": "sgd", "choices": ["sgd", "adam"]}},
            "changes": [{"name": "a", "overrides": {"opt": "adm"}}],
        },
        ["opt: 'adm' is none of 'sgd', 'adam'."],
    ),
    "settings that are no model": (
        {"settings": "training:train"},
        ["is no pydantic model or dataclass"],
    ),
    "command that is no list": ({"trainer": {"command": "python script.py"}}, ["trainer.command: expected a list"]),
    "unknown placeholder": (
        {"trainer": {"command": ["python", "script.py", "{rat}"]}},
        ["the command's placeholder {rat} is no setting. Did you mean 'rate'?"],
    ),
    "no program": ({"trainer": {"command": ["./train.sh"], "sources": ["*.py"]}}, ["./train.sh is no program"]),
    "code that nobody can see": ({"trainer": {"command": ["true"]}}, ["an edit of its code would go unnoticed"]),
    "two kinds": ({"trainer": {"command": ["true"], "function": "training:train"}}, ["trainer: expected images"]),
    "seconds that are none": (
        {"trainer": {"command": ["python", "script.py"], "timeout_seconds": "1h"}},
        ["trainer.timeout_seconds: expected a number above 0, not '1h'."],
    ),
}


@pytest.mark.parametrize(("study", "said"), BAD_STUDIES.values(), ids=BAD_STUDIES)
def test_what_is_wrong_with_a_study_is_said_before_anything_runs(tmp_path, study, said):
    path = write_study(tmp_path / "study", **study)

    with pytest.raises(StudyError) as error:
        plan_work(path, store=tmp_path / "store", device="cpu")

    for sentence in said:
        assert sentence in str(error.value)
    assert not (tmp_path / "store").exists()


def test_half_a_snapshot_is_made_whole_and_a_whole_one_is_in_use_from_now_on(tmp_path):
    (tmp_path / "code").mkdir()
    for name in ("main.py", "more.py"):
        (tmp_path / "code" / name).write_text("x = 1")
    found, folder = read_sources(Folder(tmp_path / "code"), globs=["*.py"]), tmp_path / "snapshot"
    found.write_snapshot(folder)
    (folder / "more.py").unlink()  # as a `gc` that was killed left it
    found.write_snapshot(folder)
    assert sorted(it.name for it in folder.iterdir()) == ["main.py", "more.py"]

    os.utime(folder, (0, 0))
    found.write_snapshot(folder)
    assert time.time() - folder.stat().st_mtime < 60


def test_a_snapshot_that_another_process_wrote_at_this_moment_stays(tmp_path, monkeypatch):
    """It may train from it already."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("x = 1")
    found, folder = read_sources(Folder(tmp_path / "code"), globs=["*.py"]), tmp_path / "snapshot"

    first = []

    def beside(path, real=sources.temporary_beside):
        monkeypatch.undo()
        found.write_snapshot(folder)
        first.append(folder.stat().st_ino)
        return real(path)

    monkeypatch.setattr(sources, "temporary_beside", beside)
    found.write_snapshot(folder)

    assert [folder.stat().st_ino] == first
    assert [it.name for it in tmp_path.iterdir() if it.name.startswith(".")] == []
