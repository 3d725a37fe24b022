import io
import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from synthetic import Numbers, synthetic_plan, synthetic_store
from tracked import mlflow_runs

import harness
from harness.cli import cli
from harness.cli.export import FORMATS as OFFERED_FORMATS
from harness.cli.export import TABLES as OFFERED_TABLES
from harness.report.formats import FORMATS
from harness.report.tables import TABLES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    plan = synthetic_plan(seeds=3, only=("batch-norm", "kernel-7"))
    synthetic_store(root, plan, Numbers(outcomes={("kernel-7", 2): "failed"}))
    return root


def run(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def export(store, *arguments, code=0):
    return run("export", "--study", "task3", "--store", store, *arguments, code=code)


def test_the_command_offers_every_format_and_every_table():
    assert set(OFFERED_FORMATS) == set(FORMATS)
    assert set(OFFERED_TABLES) == set(TABLES)


def test_the_default_is_every_cell_as_csv_on_standard_output(store):
    table = pd.read_csv(io.StringIO(export(store).stdout))

    assert len(table) == 9
    assert table["test/accuracy"].between(0.5, 1).sum() == 8  # fractions; one cell failed
    assert set(table["seed"]) == {0, 1, 2}


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_holds_what_standard_output_would(store, form, tmp_path):
    path = tmp_path / "below" / "table"
    written = export(store, "--table", "effects", "--format", form, "--output", path)

    assert written.stdout == ""
    assert path.read_bytes() == export(store, "--table", "effects", "--format", form).stdout_bytes


def test_an_exported_parquet_file_is_the_table_of_the_library(store, tmp_path):
    export(store, "--format", "parquet", "--output", tmp_path / "cells.parquet")
    expected = harness.load_results("task3", store=store)

    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "cells.parquet"), expected, check_exact=True)


def test_another_metric_is_exported_in_its_own_unit(store):
    rows = json.loads(export(store, "--table", "effects", "--metric", "val/loss", "--format", "json").stdout)
    assert {row["metric"] for row in rows} == {"val/loss"}
    assert "effect [nats]" in export(store, "--table", "effects", "--metric", "val/loss", "--format", "markdown").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "cells.xlsx"], ".xlsx is no format that there is; a name ends in .csv,"),
        (["--metric", "accuracy", "--table", "effects"], "unknown metric 'accuracy'. Did you mean"),
        (["--table", "shapley"], "`harness ablate --design factorial` trains one"),
        (["--table", "effect"], "'effect' is not one of"),
        (["--metric", "val/loss"], "--metric: the table cells has every metric"),
        (["--format", "xlsx"], "'xlsx' is not one of"),
        (["--profile", "standard"], "no results of study 'task3' with profile 'standard'"),
        (["--output", "/dev/null/x"], "--output /dev/null/x: cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_said_with_exit_code_2(store, arguments, said):
    result = export(store, *arguments, code=2)
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_an_unknown_study_is_named_with_those_there_are(store):
    result = run("export", "--study", "tusk3", "--store", store, code=2)
    assert "no results of study 'tusk3'. Did you mean 'task3'?" in result.stderr


def test_report_writes_its_files_and_prints_the_answer(store, tmp_path):
    result = run("report", "--study", "task3", "--store", store, "--output", tmp_path / "report")

    assert (tmp_path / "report" / "report.html").stat().st_size > 4_000_000
    assert "The biggest single improvement cannot be named yet." in result.stdout
    num_files = sum(path.is_file() for path in (tmp_path / "report").rglob("*"))
    assert f"{num_files - 1} tables and figures beside it" in result.stdout


@pytest.mark.ordeal
def test_a_report_is_kept_with_the_studys_mlflow_run(store, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    from harness.tracking import resolve_uri

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = ("report", "--study", "task3", "--store", store, "--output", tmp_path / "report")
    assert "The report waits for MLflow: it has no run of this study yet." in run(*arguments).stderr
    run("sync", "--store", store)

    def logged(path):
        (study,) = mlflow_runs(uri, store)["study"]
        client = MlflowClient(tracking_uri=uri)
        return Path(client.download_artifacts(study.info.run_id, path, str(tmp_path))).read_bytes()

    uri = resolve_uri(None, store)
    first = (tmp_path / "report" / "report.html").read_bytes()
    assert logged("report/report.html") == first
    assert logged("report/figures/effects-add-one.png").startswith(b"\x89PNG")
    assert "waits" not in run(*arguments, "--metric", "val/accuracy").stderr
    assert logged("report/report.html") == (tmp_path / "report" / "report.html").read_bytes() != first


def test_a_report_goes_nowhere_where_nothing_can_be_written(store, tmp_path):
    (tmp_path / "file").write_text("kept")
    result = run("report", "--study", "task3", "--store", store, "--output", tmp_path / "file", code=2)

    assert "cannot be written" in result.stderr
    assert (tmp_path / "file").read_text() == "kept"
