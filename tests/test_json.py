"""What `--json` prints is what the documented schema of the command says, whatever the outcome."""

import json
import math
from collections.abc import Iterator

import click
import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from own import train_study, write_study
from repository import RATE, START, TinyRepository
from schemas import fitting, schemas
from test_judge import METRICS, NOISY

from harness.api.work import save_manifest
from harness.cli import cli
from harness.cli.as_json import print_json


def said(*words, code=0, whole=True):
    """What a command prints, which fits its schema and is JSON to the letter."""
    done = CliRunner().invoke(cli, [str(it) for it in (*words, "--json")])
    assert done.exit_code == code, done.output
    told = fitting(words[0], done.stdout)
    assert not whole or set(told) == set(schemas()[words[0]]["properties"]), "a field that the page does not name"
    return told


def printing_json(group: click.Group, above: str = "") -> Iterator[str]:
    """Every command that has `--json`."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from printing_json(command, f"{name} ")
        elif command and any("--json" in it.opts for it in command.params):
            yield above + name


def test_every_command_that_prints_json_has_a_schema_and_a_format():
    assert {*schemas()} == {*printing_json(cli)}
    for schema in schemas().values():
        Draft202012Validator.check_schema(schema)
        assert "format" in schema["required"]


def test_a_number_that_json_has_no_word_for_is_null(capsys):
    print_json({"inf": math.inf, "rows": ({"nan": math.nan, 3: np.float64(0.5)},)})
    assert json.loads(capsys.readouterr().out) == {"format": 1, "inf": None, "rows": [{"nan": None, "3": 0.5}]}


def test_study_runs_are_listed_as_documented(tmp_path):
    work, _ = train_study(write_study(tmp_path / "own"), tmp_path / "mlruns")
    save_manifest(work)
    (run,) = said("results", "--list", "--store", tmp_path / "mlruns", whole=False)["runs"]
    assert (run["study"], run["num_variants"], run["num_cells"], run["num_ended"]) == ("own", 4, 8, 8)


@pytest.mark.ordeal
@pytest.mark.slow
def test_every_verdict_of_judge_and_its_line_are_as_documented(tmp_path):
    baseline = {"gain": 0.0, "luck": 0, "unread": 1}
    path = write_study(tmp_path / "own", function=NOISY, baseline=baseline, metrics=METRICS, changes=[])
    where = ("--study", path, "--store", tmp_path / "mlruns")

    def judged(*words, code):
        told = said("judge", *where, "--device", "cpu", *words, code=code)
        return told["verdict"], told["repeated"], told["promoted"]

    better = ("--set", "gain=4", "--set", "luck=1", "--promote")
    assert judged(*better, code=0) == ("keep", False, 1)
    assert judged(*better, code=0) == ("keep", True, 1)
    assert judged("--set", "gain=101", code=1)[0] == "discard"  # it fails, and has no gain
    same = ("--set", "gain=4", "--set", "luck=1", "--set", "unread=1")
    assert judged(*same, code=1)[0] == "discard"  # the champion itself
    assert judged("--set", "gain=4.5", "--set", "luck=2", "--seeds", "3", code=3)[0] == "undecided"
    assert judged("--set", "gain=9", "--set", "luck=3", "--explore", code=0)[0] == "keep"
    verdicts = [it["verdict"] for it in said("lineage", *where)["steps"]]
    assert verdicts == ["proven", "refuted", "unproven", "unproven"]


@pytest.mark.slow
def test_study_prune_and_the_lineage_of_a_log_are_as_documented(tmp_path):
    repository = TinyRepository(tmp_path / "project", profiles={"standard": {"seeds": 2}})
    rate = repository.commit("Double the rate", RATE)
    start = repository.commit("Start", START, onto=rate)
    log = "commit\tscore\tstatus\tdescription\n" + "".join(
        f"{it}\t{number}\tkeep\twhat\n" for number, it in enumerate((repository.base, rate, start))
    )
    (tmp_path / "log.tsv").write_text(log)
    study, store = repository.folder / "own.yaml", ("--store", tmp_path / "mlruns")

    ranged = said("study", f"{repository.base}..{start}", "--study", study, "--output", tmp_path / "a.yaml", *store)
    asked = ("--from", tmp_path / "log.tsv", "--study", study, "--output", tmp_path / "b.yaml", "--budget", "40")
    logged = said("study", *asked, *store)
    ablate = ["ablate", "--study", tmp_path / "b.yaml", "--executor", "here", "--seeds", "2", *store]
    done = CliRunner().invoke(cli, [str(it) for it in ablate])
    assert done.exit_code == 0, done.output
    steps = said("lineage", "--study", tmp_path / "b.yaml", "--log", tmp_path / "log.tsv", *store)["steps"]
    pruned = said("prune", "--study", tmp_path / "b.yaml", "--delta", "1", "--seeds", "4", "--device", "cpu",
                  "--patches", tmp_path / "patches", *store)  # fmt: skip

    assert [set(it) for it in ranged["changes"]] == [{"name", "commits", "needs"}] * 2
    assert [it["claimed"] for it in logged["changes"]] == [1, 1]
    assert logged["budget"]
    assert [it["claimed"] for it in steps] == [1, 1]
    assert pruned["patches"]
