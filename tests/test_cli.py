"""The command line: answers at once, says what is wrong, never prints a traceback for what a user can fix."""

import json
import resource
import statistics
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from own import write_study
from schemas import fitting

from harness.api import training
from harness.api.training import Placebos
from harness.cli import COMMANDS, cli, main

TINY = """
name: tiny
title: A study of seconds
baseline:
  data: {kind: shapes, train_images: 200, test_images: 50}
  model: {filters: [2, 2, 2]}
  training: {max_epochs: 1, precision: float32}
changes:
  - {name: batch-norm, summary: batch normalization, overrides: {model.batch_norm: true}}
  - {name: explosive, summary: diverges, overrides: {optimizer.learning_rate: 1e30}}
profiles: {standard: {seeds: 2}}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def call(*arguments: str):
        return CliRunner().invoke(cli, [str(it) for it in arguments])

    return call


def median_seconds(*arguments: str) -> float:
    """Processor time of a command, start of the interpreter included: the clock of a busy machine says little."""
    script = str(Path(sys.executable).parent / "harness")

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([script, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    once()
    return statistics.median(once() for _ in range(5))


@pytest.mark.slow
def test_help_answers_within_350_ms_and_a_plan_within_a_second():
    assert median_seconds("--help") < 0.35
    assert median_seconds("plan", "--study", "task3") < 1.0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run, name):
    answer = run(name, "--help")

    assert answer.exit_code == 0, answer.output
    assert "Usage:" in answer.output


def test_a_reader_that_has_gone_is_no_failure():
    """1 would mean that cells failed."""
    command = [sys.executable, "-m", "harness", "conv", "same", "--kernel", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_an_unknown_command_gets_a_suggestion(run):
    answer = run("ablat")

    assert answer.exit_code == 2
    assert "Did you mean 'ablate'?" in answer.output


def test_windows_is_refused_in_one_sentence_before_anything_of_posix_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.startswith("error: harness does not run on Windows itself")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study", "task33"], "unknown study 'task33'. Did you mean 'task3'?"),
        (["--study", "missing.yaml"], "missing.yaml: no such file"),
        (["--study", "tiny.yaml", "--only", "batchnorm"], "Did you mean 'batch-norm'?"),
        (["--study", "tiny.yaml", "--profile", "quik"], "has no profile 'quik'"),
        (["--study", "tiny.yaml", "--seeds", "ten"], "--seeds ten: expected a count such as 10"),
        (["--study", "tiny.yaml", "--seeds", "1,1"], "a seed stands twice"),
        (["--study", "tiny.yaml", "--data", "shape"], "Did you mean 'shapes'?"),
        (["--study", "tiny.yaml", "--data", "image-folder:nowhere"], "nowhere"),
        (["--study", "tiny.yaml", "--device", "tpu"], "unknown device"),
        (["--study", "tiny.yaml", "--design", "add-on"], "Did you mean 'add-one'?"),
    ],
)
def test_what_a_user_can_fix_is_one_message_and_exit_code_2(run, arguments, message):
    answer = run("ablate", *arguments)

    assert answer.exit_code == 2
    assert message in answer.output
    assert "Traceback" not in answer.output
    assert not Path("mlruns").exists(), "nothing was started"


def test_a_precision_that_the_device_lacks_is_refused_before_anything_starts(run):
    rounded = "  - {name: rounded, summary: TF32, overrides: {training.precision: tf32}}\nprofiles"
    Path("rounded.yaml").write_text(TINY.replace("profiles", rounded))
    answer = run("ablate", "--study", "rounded.yaml", "--device", "cpu")
    assert answer.exit_code == 2
    assert "training.precision: tf32 is a format of CUDA devices" in answer.output
    assert "(variant rounded)" in answer.output
    assert not Path("mlruns").exists(), "nothing was started"


def test_names_may_be_listed_or_given_one_by_one(run):
    def planned(*options):
        return run("plan", "--study", "task3", "--data", "shapes", "--json", *options).stdout

    listed = planned("--design", "add-one,path", "--skip", "batch-norm,kernel-3,model-1,model-2")
    skipped = (option for name in ("batch-norm", "kernel-3", "model-1", "model-2") for option in ("--skip", name))
    assert json.loads(listed)["num_cells"]
    assert planned("--design", "add-one", "--design", "path", *skipped) == listed


def test_a_file_tracking_uri_is_refused_with_the_next_step(run, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")

    answer = run("ablate", "--study", "tiny.yaml")

    assert answer.exit_code == 2
    assert "sqlite" in answer.output
    assert "Traceback" not in answer.output


@pytest.mark.parametrize("command", ["init", "sync"])
def test_a_store_that_cannot_be_made_is_refused_in_a_sentence(run, command):
    answer = run(command, "--store", "tiny.yaml/store")

    assert answer.exit_code == 2, answer.output
    assert "tiny.yaml/store" in answer.output
    assert "Traceback" not in answer.output


def test_a_relative_store_is_refused_in_a_folder_that_is_thrown_away(run, monkeypatch, tmp_path):
    """`ray job submit` sets the variable, and runs commands in such a folder."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")

    answer = run("ablate", "--study", "tiny.yaml", "--dry-run")

    assert answer.exit_code == 2, answer.output
    assert "--store mlruns: `ray job submit` runs this command in a folder that is thrown away" in answer.output
    assert run("ablate", "--study", "tiny.yaml", "--dry-run", "--store", str(tmp_path / "kept")).exit_code == 0


def test_sync_makes_no_store_where_there_is_none(run):
    answer = run("sync", "--store", "mlrun")

    assert answer.exit_code == 2, answer.output
    assert "mlrun: no such folder" in answer.output
    assert not Path("mlrun").exists()


def test_everything_wrong_with_a_file_is_said_at_once(run, tmp_path):
    (tmp_path / "bad.yaml").write_text(TINY.replace("filters:", "filtres:").replace("seeds: 2", "seeds: 0"))

    answer = run("validate", "bad.yaml")

    assert answer.exit_code == 2
    assert "unknown key 'filtres'. Did you mean 'filters'?" in answer.output
    assert "seeds" in answer.output


@pytest.mark.parametrize(("kind", "is_noted"), [("script", False), ("handled", True), ("function", False)])
def test_a_command_that_names_no_seed_is_noted(run, tmp_path, kind, is_noted):
    write_study(tmp_path, kind)

    validated, planned = run("validate", "own.yaml"), run("plan", "--study", "own.yaml")
    notes = fitting("plan", run("plan", "--study", "own.yaml", "--json").output)["notes"]

    assert validated.exit_code == planned.exit_code == 0, validated.output + planned.output
    for texts in ([validated.output], [planned.output], notes):
        assert any("the command names no {seed}, so the seed reaches" in text for text in texts) == is_noted


def test_plan_counts_each_distinct_cell_once(run):
    plan = fitting("plan", run("plan", "--study", "task3", "--profile", "quick", "--json").output)

    keys = [key for variant in plan["variants"] for key in variant["cells"].values()]
    assert plan["num_cells"] == len(set(keys)) == len(keys) == 16 * 3


@pytest.mark.slow
def test_a_plan_says_what_its_seeds_can_show(run):
    few = json.loads(run("plan", "--study", "task3", "--seeds", "7", "--json").output)
    many = json.loads(run("plan", "--study", "task3", "--seeds", "20", "--json").output)

    assert few["smallest_detectable_effect"] > many["smallest_detectable_effect"] > 0
    assert not few["difference_sd_is_measured"]
    assert "with power 0.8 after correction for 15 comparisons" in " ".join(
        run("plan", "--study", "task3").output.split()
    )


def test_seeds_auto_takes_as_many_as_the_effect_needs(run):
    plan = json.loads(run("plan", "--study", "task3", "--seeds", "auto", "--mde", "0.5", "--json").output)
    fewer = json.loads(run("plan", "--study", "task3", "--seeds", str(len(plan["seeds"]) - 1), "--json").output)

    assert plan["smallest_detectable_effect"] <= 0.005 < fewer["smallest_detectable_effect"]
    refused = run("plan", "--study", "task3", "--seeds", "auto")
    assert refused.exit_code == 2
    assert "--mde EFFECT" in refused.output
    assert "in points" in refused.output


def test_a_dry_run_has_no_effects_to_tell_and_names_who_says_what_would_be_trained(run):
    answer = run("ablate", "--study", "tiny.yaml", "--dry-run", "--json")
    assert answer.exit_code == 2
    assert "`harness plan --json` says what would be" in answer.output


def test_a_dry_run_trains_nothing_and_writes_nothing(run):
    answer = run("ablate", "--study", "tiny.yaml", "--dry-run")

    assert answer.exit_code == 0, answer.output
    assert "6 to train" in answer.output
    assert not Path("mlruns").exists()


@pytest.mark.slow
def test_ablate_trains_once_then_reads_and_a_diverged_cell_is_an_outcome(run):
    first = run("ablate", "--study", "tiny.yaml", "--executor", "here")
    second = run("ablate", "--study", "tiny.yaml", "--executor", "here")
    listed = fitting("results", run("results", "--study", "tiny", "--json").output)["cells"]

    assert first.exit_code == second.exit_code == 1, first.output
    assert "2 of 6 cells failed; 4 are saved" in first.output
    assert "loss is not finite" in first.output
    assert "--retry-failed" in first.output
    assert "6 done, 0 to train" in second.output
    by_file = fitting("results", run("results", "--study", "tiny.yaml", "--json").output)
    assert by_file["cells"] == listed
    assert {row["status"] for row in listed if row["variant"] == "explosive"} == {"diverged"}
    assert {row["status"] for row in listed if row["variant"] != "explosive"} == {"finished"}


@pytest.mark.slow
def test_a_study_run_that_was_deleted_while_it_was_waited_for_is_there_again(run, monkeypatch):
    real = training.followed

    @contextmanager
    def after_a_delete(tracking, cells, manifest, *more, **options):
        with real(tracking, cells, manifest, *more, **options) as follower:  # that is when it was waited for
            cells.remove_manifest(manifest.id)
            yield follower

    monkeypatch.setattr(training, "followed", after_a_delete)
    answer = run("ablate", "--study", "tiny.yaml", "--only", "batch-norm", "--executor", "here")

    assert answer.exit_code == 0, answer.output
    assert fitting("results", run("results", "--study", "tiny", "--json").output)["cells"]


def test_a_study_run_that_was_deleted_while_it_was_trained_is_shown_all_the_same(run, monkeypatch):
    monkeypatch.setattr("harness.cli.ablate.train_plan", lambda console, work, *more: Placebos(work))
    answer = run("ablate", "--study", "tiny.yaml")

    assert not list(Path("mlruns").glob("studies/*.json"))
    assert (answer.exit_code, "batch-norm" in answer.output) == (0, True), answer.output


@pytest.mark.slow
def test_a_cell_that_another_study_trained_is_read_not_trained(run, tmp_path):
    run("ablate", "--study", "tiny.yaml", "--executor", "here", "--only", "batch-norm")
    (tmp_path / "other.yaml").write_text(TINY.replace("name: tiny", "name: other"))

    answer = run("ablate", "--study", "other.yaml", "--executor", "here", "--only", "batch-norm")

    assert "4 done, 0 to train" in answer.output
