"""The documentation: it builds without a dead link, needs nothing from elsewhere, and what it says to type works."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import pytest
from browser import chromium, wait_for_text

from harness.cli import COMMANDS, cli
from harness.stats.family import VERDICTS
from harness.study.load import load_study

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402


def typed(text):
    """Every `harness ...` line of a page: in blocks of shell, indented, or between back quotes."""
    lines = re.findall(r"^(?:    )?(harness [^\n]+)$", text, re.MULTILINE) + re.findall(r"`(harness [a-z][^`]*)`", text)
    return [re.split(r"\s{3,}|  #", line)[0].strip() for line in lines]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists_with_its_options(page):
    for line in typed(page.read_text()):
        words = [it for it in shlex.split(line.replace("...", ""))[1:] if it not in ("|", "--help")]
        assert words[0] in COMMANDS, line
        command, context = cli.get_command(None, words[0]), click.Context(cli)
        while isinstance(command, click.Group):
            words = words[1:]
            if not words or words[0].isupper():
                break
            command = command.get_command(context, words[0])
            assert command, line
        known = {name for it in command.params for name in (*it.opts, *it.secondary_opts)}
        options = {it.partition("=")[0] for it in words[1:] if it.startswith("-")}
        assert options <= known, line


def test_pages_do_name_commands():
    assert sum(len(typed(page.read_text())) for page in PAGES) > 25


@pytest.mark.ordeal
@pytest.mark.slow
def test_the_first_five_minutes_work_as_they_are_written(tmp_path):
    """Every block of shell of the first page, one after the other, in an empty folder."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL)
    assert len(blocks) >= 5
    script = "set -e\nharness() { " + shlex.quote(sys.executable) + ' -m harness "$@"; }\n' + "".join(blocks)
    known = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "report" / "report.html").stat().st_size > 1e6


@pytest.mark.ordeal
@pytest.mark.slow
def test_the_page_on_loops_works_as_it_is_written(tmp_path):
    """Its blocks of shell, one after the other, beside the examples."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "loops.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    python = shlex.quote(sys.executable)
    known = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    script = f'set -e\nharness() {{ {python} -m harness "$@"; }}\npython() {{ {python} "$@"; }}\n' + "".join(blocks)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Chosen: screening: 80 variants x 10 seeds = 800 cells" in done.stdout
    assert "Of 1 that became champion, 0 proven, 1 unproven, 0 refuted." in done.stdout


OWN = {"forest.yaml": "all-features", "script.yaml": "nesterov", "net.yaml": "wide"}  # and a change of each


@pytest.mark.ordeal
@pytest.mark.slow
@pytest.mark.parametrize("study", OWN)
def test_a_training_that_is_brought_in_runs_as_it_is_written(tmp_path, study):
    """Of each complete pair of files on the page: the files, alone in a folder, the baseline and one change."""
    if study == "net.yaml":
        pytest.importorskip("lightning")
    blocks = re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', (ROOT / "docs" / "own.md").read_text(), re.DOTALL)
    assert {name for name, _ in blocks if name.endswith(".yaml")} == set(OWN)
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "harness", "ablate", "--study", study, "--seeds", "0,", "--only", OWN[study]]
    known = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--jobs", "1"], cwd=tmp_path, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "placebo" not in done.stdout + done.stderr


RECIPE = """
trainer: {function: "digits:train"}
metrics:
  val/accuracy: {goal: maximize}
  test/accuracy: {goal: maximize}
select: val/accuracy
report: test/accuracy
baseline: {learning_rate: 0.05, optimizer: sgd}
"""


def test_the_recipe_for_optimizers_is_a_study(tmp_path):
    block, tags = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    shutil.copy(ROOT / "examples" / "digits" / "digits.py", tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE + block + tags)
    names = [it.name for it in load_study(tmp_path / "recipe.yaml").changes]
    assert names == ["sgd-0.01", "sgd-0.03", "sgd-0.1", "adam-0.0003", "adam-0.001", "adam-0.003"]


def test_the_reference_has_every_command_and_every_setting():
    from harness.trainers.images.settings import Settings
    from harness.trees import flatten

    commands, settings = generate.commands(), generate.settings()
    assert {f"## harness {name}" for name in COMMANDS} <= set(commands.splitlines())
    paths = set(flatten(Settings().model_dump()))
    assert len(paths) > 25
    assert {path for path in paths if f"| `{path}` |" not in settings} == set()
    assert "| `model.dropout` | `0.0` | float, ≥ 0, < 1 | probability of zeroing a hidden unit" in settings


def test_the_reference_of_a_study_has_every_key_with_its_meaning():
    rows = [line.split(" | ") for line in generate.study().splitlines() if line.startswith("| `")]
    keys = {row[0].strip("| `") for row in rows}
    assert {"tags", "note", "changes.needs", "profiles.looks", "published.value", "nuisance.log"} <= keys
    assert [row[0] for row in rows if not row[3].strip(" |")] == []


def test_what_may_be_claimed_names_every_verdict_as_the_table_does():
    _, section = (ROOT / "docs" / "claims.md").read_text().split("\n## The verdicts\n")
    rows = re.findall(r"^\| ([^|]+) \|", section.partition("\n## ")[0], flags=re.MULTILINE)
    assert Counter(it for row in rows[1:] for it in row.split(", ")) == Counter(VERDICTS)


def test_the_gallery_has_every_file_of_every_example():
    page = generate.gallery()
    files = [path for path in (ROOT / "examples").glob("*/*") if path.suffix in (".py", ".yaml")]
    assert len(files) >= 10
    assert [path for path in files if path.read_text().splitlines()[-1] not in page] == []
    for picture in re.findall(r"\]\((gallery/[^)]+)\)", page):
        assert (ROOT / "docs" / picture).is_file()


@pytest.mark.slow
@pytest.mark.ordeal
def test_the_site_builds_strictly_takes_nothing_from_elsewhere_and_is_searched_from_its_folder(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    known = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= 9
    for page in pages:
        text = page.read_text()
        assert re.findall(r"""<(?:script|img|iframe)[^>]*src=["'](?:https?:)?//""", text) == []
        assert re.findall(r"""<link[^>]*rel=["']stylesheet["'][^>]*href=["'](?:https?:)?//""", text) == []
    with chromium() as page:
        page.get((tmp_path / "site" / "index.html").as_uri())
        field = page.find_element("css selector", "input.md-search__input")
        field.click()
        field.send_keys("westfall")
        wait_for_text(page, "matching documents", "Westfall-Young")
