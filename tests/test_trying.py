"""`harness try`, and the code that it watches over: what is followed, what is hashed, what an edit makes of a study."""

import sys

import pytest
from click.testing import CliRunner
from own import FUNCTION, TRAINERS, write_study
from schemas import fitting

from harness.api.trying import try_study
from harness.cli import cli
from harness.errors import StudyError
from harness.store.tried import read_tried
from harness.trainers.code import Folder
from harness.trainers.sources import read_sources

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_sound_training_is_found_sound(tmp_path, kind):
    trial = try_study(write_study(tmp_path / "study", kind, pause=0.05), store=tmp_path / "store", device="cpu")

    assert (trial.resume, trial.repeat_difference, trial.ignores_seed) == ("identical", 0.0, False)
    assert (*trial.unread, *trial.unseen) == ("never",)
    assert trial.is_sound
    assert trial.num_steps == 4
    assert read_tried(tmp_path / "store", "own", trial.fingerprints) == trial
    assert read_tried(tmp_path / "store", "own", {"sources": "other"}) is None
    assert not (tmp_path / "store" / "cells").exists()


def test_percents_that_are_logged_as_percents_are_noted(tmp_path):
    large = FUNCTION.replace('state["score"] / 10', '10 * state["score"]')
    assert large != FUNCTION
    trial = try_study(write_study(tmp_path / "study", function=large), store=tmp_path, device="cpu")
    (note,) = [it for it in trial.sentences() if "percent" in it]
    assert note.startswith("test/score is ")
    assert trial.is_sound


FLAWED = {
    "ignores its seed": ('random.Random(run.seed_for("draw", step))', 'random.Random(f"draw {step}")'),
    "other numbers each time": ('random.Random(run.seed_for("draw", step))', "random.Random()"),
    "starts again": ("if run.saved() else", "if False else"),
    "differs": ('{"step": 0, "score": 0.0}', '{"step": 0, "score": 0.0}\\n    bonus = 0.01 if run.saved() else 0.0'),
    "saves nothing": (
        "        with run.saving() as path:\\n            path.write_text(json.dumps(state))\\n",
        "",
    ),
}


def flawed(tmp_path, flaw):
    old, new = (text.replace("\\n", "\n") for text in FLAWED[flaw])
    assert old in FUNCTION
    code = FUNCTION.replace(old, new)
    if flaw == "differs":
        code = code.replace('"val/score": state["score"]}', '"val/score": state["score"] + bonus}')
    if flaw == "starts again":  # as the harness sees it: the checkpoint could not be used
        code = code.replace("    for step", "    if run.saved():\n        run.restarted('damaged')\n    for step")
    return write_study(tmp_path / "study", function=code, pause=0.05)


@pytest.mark.ordeal
@pytest.mark.parametrize(
    ("flaw", "said", "code"),
    [
        ("ignores its seed", "your training ignores the seed: two seeds gave the same bits", 1),
        ("other numbers each time", "the same seed twice: differs by up to", 1),  # so a continued one differs, too
        ("starts again", "resume: starts again (what it saved was not used)", 0),
        ("differs", "resume: differs (killed after step", 1),
        ("saves nothing", "resume: starts again (training saved no checkpoint)", 0),
    ],
)
def test_what_is_wrong_with_a_training_is_said(tmp_path, flaw, said, code):
    done = CliRunner().invoke(
        cli, ["try", str(flawed(tmp_path, flaw)), "--store", str(tmp_path / "store"), "--device", "cpu"]
    )

    assert said in " ".join(done.output.split()), done.output
    assert done.exit_code == code, done.output


def test_a_training_that_fails_is_an_error_with_its_traceback(tmp_path):
    path = write_study(tmp_path / "study", function="def train(run):\n    raise KeyError('beans')\n")

    with pytest.raises(StudyError, match=r"(?s)seed 0: failed: KeyError: 'beans'.*Traceback.*training.py"):
        try_study(path, store=tmp_path / "store", device="cpu")


def test_what_was_found_can_be_read_by_a_program(tmp_path):
    arguments = ["try", str(write_study(tmp_path / "study")), "--store", str(tmp_path), "--json", "--set", "steps=6"]

    done = CliRunner().invoke(cli, arguments)

    found = fitting("try", done.stdout)
    assert (found["num_steps"], found["resume"], found["unread"]) == (6, "identical", ["never"])


# -- whose code -------------------------------------------------------------------------------------------------------


def write(folder, **files):
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_closure_follows_every_kind_of_import_inside_the_folder(tmp_path):
    write(
        tmp_path,
        main="import a\nfrom pack import b\ndef f():\n    import late\n    importlib.import_module('by_name')\n",
        a="import json, numpy\nfrom pack.sub.deep import x",
        late="",
        by_name="",
        pack__b="from . import c\nfrom .sub import deep",
        pack__c="from ..a import y",
        pack__sub__deep="",
        unused="",
    )
    for package in ("pack", "pack/sub"):
        (tmp_path / package / "__init__.py").write_text("")

    found = read_sources(Folder(tmp_path), modules=["main"])

    assert set(found.files) == {
        *("main.py", "a.py", "late.py", "by_name.py", "pack/__init__.py", "pack/b.py", "pack/c.py"),
        *("pack/sub/__init__.py", "pack/sub/deep.py"),
    }
    assert found.notes == ()


def test_an_import_by_a_computed_name_is_noted_with_its_place(tmp_path):
    write(tmp_path, main="import importlib\nname = 'x'\nimportlib.import_module(name)\n")

    (note,) = read_sources(Folder(tmp_path), modules=["main"]).notes

    assert note.startswith("main.py:3 imports by a computed name")


def test_a_script_in_a_folder_imports_its_neighbours(tmp_path):
    write(tmp_path, scripts__train="import neighbour", scripts__neighbour="import top", top="")

    assert set(read_sources(Folder(tmp_path), globs=["scripts/train.py"]).files) == {
        *("scripts/train.py", "scripts/neighbour.py", "top.py")
    }


def test_files_that_are_no_python_count_byte_by_byte(tmp_path):
    (tmp_path / "a.yaml").write_text("x: 1\n")
    before = read_sources(Folder(tmp_path), globs=["*.yaml"]).fingerprint

    (tmp_path / "a.yaml").write_text("x: 1 # a comment\n")

    assert read_sources(Folder(tmp_path), globs=["*.yaml"]).fingerprint != before


def test_a_file_that_is_no_python_is_said_at_once_with_its_place(tmp_path):
    write(tmp_path, main="import broken", broken="def f(:\n")

    with pytest.raises(StudyError, match=r"broken.py: cannot be read \(invalid syntax"):
        read_sources(Folder(tmp_path), modules=["main"])


def test_the_harness_itself_is_no_code_of_the_users(tmp_path):
    write(tmp_path, main="import harness", harness__other="")
    (tmp_path / "harness" / "__init__.py").write_text("")

    assert set(read_sources(Folder(tmp_path), modules=["main"]).files) == {"main.py"}


def test_an_edit_between_two_runs_is_said_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # the snapshot gets a `__pycache__`, as everywhere
    path = write_study(tmp_path / "study", pause=0.0)
    arguments = [
        "ablate",
        "--study",
        str(path),
        "--store",
        str(tmp_path / "store"),
        "--device",
        "cpu",
        "--executor",
        "here",
    ]
    arguments += ["--skip", "ignored"]
    first = CliRunner().invoke(cli, arguments)
    assert first.exit_code == 0, first.output
    helper = tmp_path / "study" / "mathematics.py"
    helper.write_text(helper.read_text().replace("0.9", "0.8"))

    second = CliRunner().invoke(cli, arguments)

    said = " ".join(second.output.split())
    assert "has 6 ended cells, but the code was edited since (mathematics.py), so every cell is trained anew" in said
    assert "edited" not in CliRunner().invoke(cli, arguments).output
