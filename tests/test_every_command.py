"""Every command where little is as it should be: 40 columns, ASCII, no home that can be written, closed output."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Commands
from own import write_study
from test_cli import TINY

from harness.api.work import plan_work, save_manifest
from harness.cli import COMMANDS

from fakes import result_of  # isort: skip

pytestmark = pytest.mark.slow

STUDY = ("--study", "own.yaml")
ENDED = ("--study", "tiny.yaml")
# Command line -> exit code. `own.yaml` is trained by a function and has not ended; of `tiny.yaml` there are results.
LINES: dict[tuple[str, ...], int] = {
    ("ablate", *STUDY, "--only", "wide"): 0,
    ("worker", *STUDY, "--only", "wide"): 0,
    ("search", *STUDY, "--only", "wide", "--trials", "2"): 0,
    ("confirm", *ENDED, "--seeds", "1"): 2,  # too few
    ("aa", *STUDY, "--seeds", "4"): 0,
    ("aa", *ENDED, "--seeds", "4"): 2,  # images are kept in the home
    ("tune", *STUDY): 2,  # it names no nuisance settings
    ("compare", "tiny", "tiny"): 2,  # one study run
    ("gate", "--study", "own.yaml", "--baseline-ref", "main", "--max-drop", "1"): 2,  # no repository
    ("study", "v1..v2", "--study", "own.yaml"): 2,  # no repository
    ("prune", *STUDY, "--delta", "1"): 2,  # changes no code
    ("judge", "main", *STUDY): 2,  # no repository
    ("lineage", *STUDY): 2,  # nothing was judged
    ("mcp", *STUDY): 2,  # it declares no budget
    ("plan", *STUDY): 0,
    ("new", "mine"): 0,
    ("studies",): 0,
    ("changes",): 0,
    ("show", "own.yaml"): 0,
    ("validate", "own.yaml"): 0,
    ("results", "--list"): 0,
    ("results", *ENDED): 0,
    ("logs", "{key}"): 0,
    ("try", "own.yaml"): 0,
    ("export", *ENDED, "--table", "effects", "--format", "markdown"): 0,
    ("report", *ENDED, "--output", "page"): 0,
    ("claims",): 0,
    ("summary", *ENDED): 0,
    ("visualize", "filters", *ENDED): 2,  # no weights
    ("conv", "same", "--kernel", "3"): 0,
    ("ui",): 2,  # whose database is none
    ("init",): 0,
    ("sync",): 0,
    ("pack", "tiny"): 0,
    ("merge", "other"): 0,
    ("gc",): 0,
    ("delete", "tiny"): 0,
    ("check",): 0,
    ("doctor",): 0,
}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A working folder with two studies, a store in which one has ended, and another store."""
    folder = tmp_path_factory.mktemp("every")
    write_study(folder)
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        work = plan_work("tiny.yaml", only=["batch-norm"])
        for cell in work.plan.cells:
            work.cells.open(cell)
            work.cells.append(cell.key, {"event": "started", "step": 0})
            work.cells.write_result(result_of(cell, 0.5 + cell.seed / 100 + 0.1 * cell.settings.model.batch_norm))
        save_manifest(work)
        (folder / "key").write_text(work.plan.cells[0].key)
    shutil.copytree(folder / "mlruns", folder / "other")
    return folder


def test_the_lines_are_of_every_command():
    assert {line[0] for line in LINES} == set(COMMANDS)


@pytest.fixture(scope="module")
def commands(template) -> Iterator[Commands]:
    poor = {
        "COLUMNS": "40",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "HOME": str(template / "key" / "home"),
    }
    kept = {name: it for name, it in os.environ.items() if not name.startswith(("HARNESS_", "MLFLOW_", "XDG_"))}
    commands = Commands(kept | poor)
    yield commands
    commands.close()


@pytest.mark.parametrize("is_closed", [False, True], ids=["ascii", "closed"])
@pytest.mark.parametrize("line", LINES, ids=lambda line: "-".join(line[:2]).replace("/", ""))
def test_no_command_breaks_where_little_is_as_it_should_be(template, commands, tmp_path, line, is_closed):
    folder = tmp_path / "work"
    shutil.copytree(template, folder)
    words = [it.format(key=(folder / "key").read_text()) for it in line]
    more = {"MLFLOW_TRACKING_URI": "sqlite:///tiny.yaml"} if line == ("ui",) else {}
    done = commands.run(*words, cwd=folder, env=more, is_closed=is_closed)
    said = done.stderr.decode()
    assert "Traceback" not in said, said
    assert done.returncode == LINES[line], said + done.stdout.decode()
    is_file = line[0] == "export"  # whose bytes are UTF-8 anywhere
    assert is_file or (done.stdout + done.stderr).isascii()
