"""`harness search` from end to end: real training on drawn images, MLflow and Optuna beside it."""

import re
import shutil

import optuna
import pytest
from click.testing import CliRunner
from schemas import fitting
from tracked import a_store, mlflow_runs

from harness.cli import cli
from harness.search.storage import open_storage
from harness.stats import effects, marginal_effects
from harness.store.cells import Cells
from harness.store.load import load_results

pytestmark = pytest.mark.slow

# At a learning rate of 1e-4 the baseline learns next to nothing in an epoch; a sensible one is by far the most that any
# of these changes can do.
STUDY = """
name: reduced
title: A registry of three changes
baseline:
  data: {kind: shapes, train_images: 600, test_images: 100}
  model: {filters: [4, 8], kernel_size: 3, hidden_units: 16}
  optimizer: {name: sgd, learning_rate: 1e-4}
  training: {max_epochs: 1, batch_size: 16, precision: float32}
changes:
  - {name: learns, summary: a sensible learning rate, overrides: {optimizer: {name: adamax, learning_rate: 1e-2}}}
  - {name: dropout, summary: dropout of 60%, overrides: {model.dropout: 0.6}}
  - {name: flip, summary: flips, overrides: {augmentation.horizontal_flip: 0.5}}
profiles: {standard: {seeds: 2}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "reduced.yaml").write_text(STUDY)
    a_store(folder / "mlruns")
    return folder


@pytest.fixture
def call(folder, monkeypatch):
    return caller(folder, monkeypatch)


def caller(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HARNESS_CACHE", str(folder / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "HARNESS_OPTUNA_STORAGE", "HARNESS_STORE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        return CliRunner().invoke(cli, list(map(str, arguments)))

    return run


def searched(call, *options):
    answer = call("search", "--study", "reduced.yaml", "--trials", 6, "--executor", "here", "--json", *options)
    assert answer.exit_code == 0, answer.output
    return fitting("search", answer.stdout)


@pytest.fixture(scope="module")
def first(folder):
    """What the first search said, for the tests that look at what it left behind; then everything else was trained."""
    with pytest.MonkeyPatch.context() as patch:
        call = caller(folder, patch)
        said = searched(call)
        assert call("ablate", "--study", "reduced.yaml", "--design", "factorial", "--executor", "here").exit_code == 0
    return said


def test_a_search_names_the_change_that_the_full_factorial_names(folder, first):
    assert len(first["averaged"]) == 3
    factorial = load_results("reduced", store=folder / "mlruns")
    assert factorial["variant"].nunique() == 8

    averaged = marginal_effects(factorial, metric="val/accuracy").set_index("change")["mean"]
    alone = effects(factorial, variants=["learns", "dropout", "flip"], metric="val/accuracy").set_index("variant")[
        "mean"
    ]
    assert averaged.idxmax() == alone.idxmax() == "learns"
    named = {place: top["change"] for place, top in first["biggest"].items()}
    assert named == {"over_the_baseline": "learns", "out_of_the_best": "learns", "averaged": "learns"}


def test_the_same_search_again_trains_nothing_and_says_the_same(call, folder, first):
    def events():
        cells = Cells(folder / "mlruns")
        return {path.name: len(cells.events(path.name)) for path in (cells.root / "cells").iterdir()}

    before = events()
    again = searched(call)
    assert events() == before
    assert again == first


def test_trials_and_mlflow_runs_point_at_each_other(folder, first):
    with open_storage(f"sqlite:///{folder}/mlruns/optuna.db") as (storage, _):
        trials = optuna.load_study(study_name=first["search"], storage=storage).get_trials()
    runs = {
        run.info.run_id: run for run in mlflow_runs(f"sqlite:///{folder}/mlruns/mlflow.db", folder, "reduced")["cell"]
    }
    assert len(trials) >= 6
    for trial in trials:
        for seed, run_id in trial.user_attrs["mlflow runs"].items():
            tags = runs[run_id].data.tags
            assert tags["harness.search"] == first["search"]
            assert tags["harness.trial"] == str(trial.number)
            assert tags["harness.seed"] == seed
            assert tags["harness.cell_key"] == trial.user_attrs["cells"][seed]


def test_a_search_that_goes_on_counts_what_was_done_before(call, folder):
    a_store(folder / "continued")
    options = ("--study", "reduced.yaml", "--store", folder / "continued", "--executor", "here", "--seeds", 1, "--only")
    assert call("search", *options, "learns,flip", "--trials", 3).exit_code == 0

    answer = call("search", *options, "learns,flip", "--trials", 4, "--sampler", "brute-force")

    counts = [(int(ended), int(whole)) for ended, whole in re.findall(r"\[(\d+)/(\d+)\]", answer.output)]
    assert counts == [(4, 4)], answer.output


def test_people_read_a_table_sentences_and_what_to_do_next(call, folder, first):
    answer = call("search", "--study", "reduced.yaml", "--trials", 6, "--executor", "here")
    assert "change" in answer.output
    for sentence in first["sentences"]:
        assert sentence in answer.output
    best = first["best"]["variant"]
    assert f"harness confirm --study reduced.yaml --profile standard --variant {best}" in answer.output
    assert "test accuracy" not in answer.output


def test_a_storage_elsewhere_is_another_search_of_the_same_cells(call, folder, first):
    before = len(list((folder / "mlruns" / "cells").iterdir()))
    elsewhere = searched(call, "--storage", f"sqlite:///{folder}/else.db", "--sampler", "brute-force")
    assert (folder / "else.db").exists()
    assert elsewhere["search"] == first["search"]
    assert len(list((folder / "mlruns" / "cells").iterdir())) == before


def test_a_search_in_another_store_is_confirmed_from_there(call, folder, first):
    shutil.copytree(folder / "mlruns", folder / "a copy")
    answer = call("search", "--study", "reduced.yaml", "--trials", 6, "--executor", "here", "--store", "a copy")
    assert answer.exit_code == 0, answer.output
    assert "harness confirm --study reduced.yaml --profile standard --store 'a copy' --variant" in answer.output


def test_a_storage_that_cannot_be_used_leaves_no_study_run_behind(call, folder):
    (folder / "notes.txt").write_text("no database" * 100)
    options = ("--trials", 6, "--executor", "here", "--store", folder / "fresh", "--storage", "sqlite:///notes.txt")
    answer = call("search", "--study", "reduced.yaml", *options)
    assert answer.exit_code == 2, answer.output
    assert "not a database" in answer.output
    assert not (folder / "fresh").exists()


def test_the_budget_is_kept_and_the_rest_waits(call, folder):
    shutil.rmtree(folder / "other", ignore_errors=True)
    a_store(folder / "other")
    options = (
        "--study",
        "reduced.yaml",
        "--trials",
        6,
        "--store",
        folder / "other",
        "--executor",
        "here",
        "--seeds",
        1,
    )
    answer = call("search", *options, "--budget", "3s", "--epochs", 40)
    stopped = "The time was up" in answer.output or "no combination has a value yet" in answer.output
    assert stopped, answer.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "30"], "30: expected a number with s, m or h, such as 30m."),
        (["--budget", "0m"], "expected a number"),
        (["--sampler", "random"], "'tpe', 'gp', 'brute-force'"),
        (["--prune", "median"], "'none', 'wilcoxon', 'halving'"),
        (["--storage", "mysql://me:secret@host/db"], "postgresql://USER@HOST/DATABASE"),
        (["--only", "flipp"], "Did you mean 'flip'?"),
        (["--trials", "0"], "0 is not in the range"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_a_sentence(call, options, message):
    answer = call("search", "--study", "reduced.yaml", "--trials", 6, *options)
    assert answer.exit_code == 2
    assert message in " ".join(answer.output.split())
    assert "secret" not in answer.output


def test_a_study_without_changes_cannot_be_searched(call):
    answer = call("search", "--study", "task2", "--data", "shapes", "--trials", 3)
    assert answer.exit_code == 2
    assert "'task2' has no changes to search over" in answer.output
