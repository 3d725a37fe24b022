"""Planning reads the user's code and runs none of it: not a plug-in's module, nor the packages that it lies in."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import cli

STUDY = """\
name: x
baseline: {{model: {{kind: plugin, factory: '{factory}'}}, data: {{kind: shapes}}}}
changes:
  - {{name: a, overrides: {{optimizer.learning_rate: 0.1}}}}
"""
RUNS = "import pathlib\npathlib.Path('ran').touch()\nraise RuntimeError('this code was run')\n"


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in (Path("planned_"), Path("planned_/inner")):
        folder.mkdir()
        (folder / "__init__.py").write_text(RUNS)
    for file in ("planned_/inner/nets.py", "lone_.py"):
        Path(file).write_text(RUNS)


@pytest.mark.parametrize("command", [["validate", "s.yaml"], ["plan", "--study", "s.yaml"]])
@pytest.mark.parametrize("factory", ["planned_.inner.nets:make", "planned_.inner:make", "lone_:make"])
def test_a_plug_in_is_planned_without_running_its_code_or_its_packages(command, factory):
    Path("s.yaml").write_text(STUDY.format(factory=factory))
    answer = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    assert not Path("ran").exists()
    assert not {"planned_", "planned_.inner", "lone_"} & set(sys.modules)


@pytest.mark.parametrize("factory", ["planned_.missing:make", "planned_.inner.nets.deeper:make", "missing_.nets:make"])
def test_a_plug_in_that_is_not_there_is_refused(factory):
    Path("s.yaml").write_text(STUDY.format(factory=factory))
    answer = CliRunner().invoke(cli, ["plan", "--study", "s.yaml"], catch_exceptions=False)
    assert answer.exit_code == 2
    assert f"there is no file of a module {factory.partition(':')[0]!r}" in answer.output
