"""`harness new`: from an empty folder to a table by two commands; what is there already stays as it is."""

import json
import subprocess
from pathlib import Path

import pytest
from commands import harness

from harness.api import new
from harness.api.new import FRAMEWORKS, new_study
from harness.errors import OutputError, StudyError
from harness.study.load import load_study
from harness.study.resolved import resolved_study
from harness.study.yaml_file import write_yaml
from harness.trainers.code import Folder
from harness.trainers.sources import read_sources


def run(folder: Path, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = harness(*arguments, cwd=folder, env={"COLUMNS": "200", "HARNESS_CACHE": str(folder / "cache")})
    assert done.returncode == code, done.stdout + done.stderr
    return done


KINDS = ["function", "script", "lightning", "transformers"]
CHANGES = {"norm", "wide", "momentum-0.5", "momentum-0.9", "scaled"}
OF_TEXTS = {"wide", "cosine", "warm-up", "lr-0.003", "lr-0.01"}


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param in FRAMEWORKS:
        pytest.importorskip(request.param)
    return request.param


def options_of(kind):
    return [] if kind == "function" else [f"--{kind}"]


@pytest.mark.ordeal
@pytest.mark.slow
def test_two_commands_lead_from_an_empty_folder_to_a_table(tmp_path, kind):
    options, epochs = options_of(kind), ["--set", "epochs=2"] if kind in FRAMEWORKS else []
    written = run(tmp_path, "new", "my-study", *options).stdout
    table = run(tmp_path, "ablate", "--study", "my-study.yaml", "--seeds", "2", *epochs).stdout

    assert {"my-study.yaml", "train_my_study.py"} == {it.name for it in tmp_path.iterdir()} - {"mlruns", "cache"}
    assert "harness ablate --study my-study.yaml" in written
    rows = [line.split()[:2] for line in table.split("verdict\n", 1)[1].splitlines() if "/" in line]
    assert {name for name, _ in rows} == {"baseline"} | (OF_TEXTS if kind == "transformers" else CHANGES)
    assert {finished for _, finished in rows} == {"2/2"}
    metric = {"transformers": "cosine: test loss"}.get(kind, "norm: test accuracy")
    assert f"on-top:{metric}, variant minus" in table


@pytest.mark.ordeal
@pytest.mark.slow
def test_the_first_try_finds_nothing_wrong(tmp_path, kind):
    run(tmp_path, "new", "x", *options_of(kind))
    tried = json.loads(run(tmp_path, "try", "x.yaml", "--json").stdout)
    assert (tried["resume"], tried["repeat_difference"], tried["ignores_seed"]) == ("identical", 0.0, False)
    assert tried["unread"] == tried["unseen"] == []


def test_what_is_written_loads_and_is_valid_when_shown(tmp_path, kind):
    study, training = new_study("3-layers", folder=tmp_path, kind=kind)
    loaded = load_study(study)
    assert (loaded.name, loaded.trainer.kind) == ("3-layers", "command" if kind == "script" else "function")
    assert {it.name: it.needs for it in loaded.changes if it.needs} in ({"scaled": ("norm",)}, {"warm-up": ("cosine",)})
    assert list(read_sources(Folder(tmp_path), modules=[training.stem]).files) == ["train_3_layers.py"]
    shown = tmp_path / "shown.yaml"
    shown.write_text(write_yaml(resolved_study(study)))
    assert load_study(shown) == loaded


@pytest.mark.parametrize("there", ["mine.yaml", "train_mine.py"])
def test_nothing_is_overwritten_and_nothing_else_is_written(tmp_path, kind, there):
    (tmp_path / there).write_text("precious")
    with pytest.raises(OutputError, match=f"{there}: is there already, and nothing was written"):
        new_study("mine", folder=tmp_path, kind=kind)
    assert [it.name for it in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_that_is_not_installed_is_named_with_the_way_to_it(tmp_path, monkeypatch, framework):
    monkeypatch.setattr(new, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=rf'{framework} is not installed: pip install "harness\[{framework}\]"'):
        new_study("mine", folder=tmp_path, kind=framework)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"mine.yaml: cannot be written \(No such file or directory\)"):
        new_study("mine", folder=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "My", "a b", "x.yaml", "a/b", "../a", "baseline", "-a", "a--b", "ä"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(StudyError, match="is no name for a study; expected small letters and digits joined by -"):
        new_study(name, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_says_so_in_a_sentence(tmp_path):
    run(tmp_path, "new", "x")
    again = run(tmp_path, "new", "x", code=2)
    assert again.stderr == (
        "error: x.yaml and train_x.py: are there already, and nothing was written. Choose another name, or another "
        "folder.\n"
    )
