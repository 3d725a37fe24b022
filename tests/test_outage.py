"""`harness ablate` while the tracking server is gone: for a while, or for good."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tracked import history, mlflow_runs
from tracking_server import MlflowServer, wait_until

from harness.store.cells import Cells

pytestmark = pytest.mark.slow

OUTAGE_SECONDS = 20
STUDY = """
name: outage
title: A study whose tracking server fails
baseline:
  data: {kind: shapes, train_images: 1000, test_images: 200}
  model: {filters: [4, 8, 8]}
  training: {max_epochs: 8, precision: float32, patience: 100}
changes:
  - {name: dropout, summary: a stream of its own, overrides: {model.dropout: 0.3}}
profiles: {standard: {seeds: 2}}
"""
NUM_VALIDATIONS = 16  # of a cell


@pytest.fixture
def server(tmp_path):
    (tmp_path / "server").mkdir()
    running = MlflowServer(tmp_path / "server")
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def study(tmp_path, server):
    """`harness ablate`, one cell at a time, with the server as its tracking; killed where the test ends before it."""
    (tmp_path / "study.yaml").write_text(STUDY)
    process = harness(tmp_path, server, "ablate", "--study", "study.yaml", "--jobs", "1", "--device", "cpu")
    try:
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.communicate()


def harness(folder: Path, server: MlflowServer, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from harness.cli import main; main()", *arguments]
    variables = os.environ | {"HARNESS_CACHE": str(folder / "cache"), "MLFLOW_TRACKING_URI": server.address}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=variables, text=True, **pipes)


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return " ".join(output.split())


def num_validations(folder: Path) -> int:
    """Over all cells, as their journals say."""
    cells = Cells(folder / "mlruns")
    keys = [key for it in cells.manifests().values() for variant in it.variants for key in variant.cells.values()]
    return sum(event["event"] == "validation" for key in keys for event in cells.events(key))


def assert_everything_was_delivered_once(server, folder):
    runs = mlflow_runs(server.address, folder / "mlruns", "outage")
    assert {kind: {run.info.status for run in several} for kind, several in runs.items()} == {
        kind: {"FINISHED"} for kind in ("study", "variant", "cell")
    }
    assert len(runs["cell"]) == 4
    for run in runs["cell"]:
        for metric in ("val/loss", "val/accuracy", "train/loss"):
            steps = [step for step, _ in history(server.address, run.info.run_id, metric)]
            assert len(steps) == NUM_VALIDATIONS
            assert steps == sorted(set(steps))


@pytest.mark.ordeal
def test_an_outage_of_the_server_costs_no_metric(server, study, tmp_path):
    """The worker is held for most of it, so that the outage is in the middle whatever the machine's speed."""
    wait_until(lambda: bool(mlflow_runs(server.address, tmp_path / "mlruns", "outage").get("cell")), seconds=60)
    server.stop()
    began, num_before = time.monotonic(), num_validations(tmp_path)
    assert study.poll() is None
    wait_until(lambda: num_validations(tmp_path) > num_before, seconds=60)
    worker = max(psutil.Process(study.pid).children(recursive=True), key=lambda it: it.memory_info().rss)
    worker.suspend()
    time.sleep(OUTAGE_SECONDS - (time.monotonic() - began))
    assert study.poll() is None
    server.start()
    worker.resume()
    output = finish(study)
    assert output.count("Training goes on; what happens meanwhile is delivered later.") == 1
    assert "wait for the tracking server" not in output, output
    assert_everything_was_delivered_once(server, tmp_path)


@pytest.mark.ordeal
def test_a_server_that_stays_away_does_not_keep_a_study_from_its_end(server, study, tmp_path):
    wait_until(lambda: bool(mlflow_runs(server.address, tmp_path / "mlruns", "outage").get("cell")), seconds=60)
    server.stop()
    output = finish(study)
    assert "events wait for the tracking server" in output
    assert "dropout" in output  # the table of effects
    assert num_validations(tmp_path) == 4 * NUM_VALIDATIONS
    server.start()
    assert "MLflow has everything" in finish(harness(tmp_path, server, "sync"))
    assert_everything_was_delivered_once(server, tmp_path)
