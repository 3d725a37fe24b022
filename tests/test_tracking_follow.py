"""Delivery beside training: through outages of a real server, and never in the way."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracked import a_manifest, a_store, cells_of, finish, history, mlflow_runs, start, train, validate
from tracking_server import MlflowServer, wait_until

from harness.store.cells import Cells
from harness.tracking import Tracking, follow, follower, sync

pytestmark = pytest.mark.slow

CELLS = cells_of()
MANIFEST = a_manifest({"baseline": CELLS})


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[MlflowServer]:
    running = MlflowServer(tmp_path_factory.mktemp("server"))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setattr(follower, "LONGEST_BACKOFF_SECONDS", 1.0)


def steps(uri: str, run: Any, key: str = "val/loss") -> list[int]:
    return [step for step, _ in history(uri, run.info.run_id, key)]


def test_a_server_that_never_comes_back_costs_no_training_and_sync_delivers_later(server, tmp_path):
    server.stop()
    cells, problems = Cells(tmp_path), []
    cells.write_manifest(MANIFEST)
    tracking = Tracking(server.address, tmp_path)
    with follow(tracking, cells, MANIFEST, on_problem=problems.append) as following:
        began = time.monotonic()
        train(cells, CELLS[0])
        assert time.monotonic() - began < 2.0
        wait_until(lambda: bool(problems))
    assert following.delivery.pending == 4
    assert "does not answer" in following.delivery.problem
    assert len(problems) == 1
    server.start()
    assert sync(server.address, tmp_path).delivered == 4
    (run,) = mlflow_runs(server.address, tmp_path)["cell"]
    assert run.info.status == "FINISHED"


@pytest.mark.ordeal
def test_an_outage_in_the_middle_loses_no_metric_and_repeats_none(server, tmp_path):
    server.start()
    cells, problems = Cells(tmp_path), []
    manifest = a_manifest({"baseline": CELLS}, study="outage")
    tracking = Tracking(server.address, tmp_path)

    def delivered() -> list[int]:
        runs = mlflow_runs(server.address, tmp_path, "outage")["cell"]
        return steps(server.address, runs[0]) if runs else []

    with cells.claim(CELLS[0]), follow(tracking, cells, manifest, on_problem=problems.append) as following:
        start(cells, CELLS[0])
        validate(cells, CELLS[0], 100)
        wait_until(lambda: delivered() == [100])
        server.stop()
        for step in (200, 300):
            validate(cells, CELLS[0], step)
        wait_until(lambda: bool(problems))
        server.start()
        validate(cells, CELLS[0], 400)
        wait_until(lambda: delivered() == [100, 200, 300, 400], seconds=60)
        finish(cells, CELLS[0], num_steps=400)
    assert len(problems) == 1
    assert (following.delivery.pending, following.delivery.problem) == (0, "")
    tree = mlflow_runs(server.address, tmp_path, "outage")
    assert [run.info.status for run in tree["cell"]] == ["FINISHED"]
    assert steps(server.address, tree["cell"][0], "train/accuracy") == [100, 200, 300, 400]
    client = MlflowClient(tracking_uri=server.address)
    files = {file.path for file in client.list_artifacts(tree["cell"][0].info.run_id)}
    assert files == {"settings.json", "uncommitted.diff", "best.safetensors"}
    weights = client.download_artifacts(tree["cell"][0].info.run_id, "best.safetensors", str(tmp_path))
    assert Path(weights).read_bytes() == b"weights of " + CELLS[0].key.encode()
    link = tracking.run_link(manifest, CELLS[0].key)
    assert link.url == f"{server.address}/#/experiments/{tree['cell'][0].info.experiment_id}/runs/{link.run_id}"


def test_a_request_that_is_repeated_on_its_way_leaves_no_twin(server, tmp_path):
    server.start()
    created: list[str] = []

    class LosesAnswers(BaseHTTPRequestHandler):
        """Passes everything on to the server, but loses its answer to the first `create run`."""

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            onward = http.client.HTTPConnection("127.0.0.1", server.port)
            headers = {"Content-Type": "application/json"}
            onward.request(self.command, self.path, body, headers)
            answer = onward.getresponse()
            payload = answer.read()
            onward.close()
            if self.path.endswith("/runs/create"):
                created.append(self.path)
                if len(created) == 1:
                    self.close_connection = True
                    return
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_PUT = do_POST  # noqa: N815

        def log_message(self, *args):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), LosesAnswers)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        cells = Cells(tmp_path)
        manifest = a_manifest({"baseline": CELLS}, study="twins")
        train(cells, CELLS[0])
        Tracking(f"http://127.0.0.1:{proxy.server_port}", tmp_path).project(manifest, cells)
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
    assert len(created) == 4  # study, its twin, variant, cell
    tree = mlflow_runs(server.address, tmp_path, "twins")
    assert [len(tree[kind]) for kind in ("study", "variant", "cell")] == [1, 1, 1]


def test_a_server_that_hangs_is_left_after_the_patience_is_used_up(tmp_path):
    cells = Cells(tmp_path)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        tracking = Tracking(f"http://127.0.0.1:{deaf.getsockname()[1]}", tmp_path)
        with follow(tracking, cells, MANIFEST, patience_seconds=0.5) as following:
            train(cells, CELLS[0])
            ended = time.monotonic()
        assert time.monotonic() - ended < 3.0
    assert following.delivery.pending == 4
    assert following.delivery.problem


def test_following_delivers_while_cells_train_and_says_running(tmp_path):
    uri, cells = a_store(tmp_path)
    Tracking(uri, tmp_path).project(MANIFEST, cells)  # so that the database is warm
    with follow(Tracking(uri, tmp_path), cells, MANIFEST) as following, cells.claim(CELLS[0]):
        start(cells, CELLS[0])
        validate(cells, CELLS[0], 100)
        wait_until(lambda: bool(mlflow_runs(uri, tmp_path)["cell"]))
        tree = mlflow_runs(uri, tmp_path)
        assert [tree[kind][0].info.status for kind in ("study", "variant", "cell")] == ["RUNNING"] * 3
        finish(cells, CELLS[0])
    assert following.delivery.delivered == 3
    assert following.delivery.pending == 0
    tree = mlflow_runs(uri, tmp_path)
    assert [tree[kind][0].info.status for kind in ("study", "variant", "cell")] == ["KILLED", "KILLED", "FINISHED"]


def test_an_exception_in_the_block_passes_and_what_happened_is_delivered(tmp_path):
    uri, cells = a_store(tmp_path)

    def interrupted() -> None:
        with follow(Tracking(uri, tmp_path), cells, MANIFEST):
            start(cells, CELLS[0])
            cells.append(CELLS[0].key, {"event": "interrupted", "signal": "SIGINT"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [run.info.status for run in mlflow_runs(uri, tmp_path)["cell"]] == ["KILLED"]


def test_a_mistake_of_our_own_in_tracking_does_not_stop_training(tmp_path, caplog):
    class Broken(Tracking):
        def deliveries(self, manifest, cells, keys=None):
            raise ZeroDivisionError("a mistake")
            yield

    problems: list[str] = []
    cells = Cells(tmp_path)
    with follow(Broken("sqlite:////nowhere", tmp_path), cells, MANIFEST, on_problem=problems.append) as following:
        train(cells, CELLS[0])
    assert following.delivery.pending == 4
    assert "a mistake" in following.delivery.problem
    assert len(problems) == 1
    assert "ZeroDivisionError" in caplog.text  # with its traceback, for us


def test_nothing_is_asked_of_the_server_while_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_LOOKS", 0.01)
    asked: list[object] = []

    class Counting(Tracking):
        def deliveries(self, manifest, cells, keys=None):
            asked.append(keys)
            yield 0

    cells = Cells(tmp_path)
    start(cells, CELLS[1])
    with follow(Counting("sqlite:////nowhere", tmp_path), cells, MANIFEST):
        wait_until(lambda: len(asked) == 1)
        time.sleep(0.3)  # thirty looks
        assert len(asked) == 1
        start(cells, CELLS[0])
        wait_until(lambda: len(asked) == 2)
        (cells.folder(CELLS[1].key) / "result.json").write_text(
            "{}"
        )  # written after its event, so that a look may fall between
        wait_until(lambda: len(asked) == 3)
    assert asked == [None, {CELLS[0].key}, {CELLS[1].key}, None]  # everything, what changed, everything


def test_a_study_that_grows_while_it_is_followed_is_delivered_whole_with_the_tags_of_its_variants(tmp_path):
    uri, cells = a_store(tmp_path)
    more = cells_of({"model.batch_norm": True})
    grown = a_manifest({"baseline": CELLS, "batch-norm": more})
    tagged = replace(grown.variants[1], tags={"harness.search": "a search", "harness.trial": "7"})
    grown = replace(grown, variants=(grown.variants[0], tagged))
    with follow(Tracking(uri, tmp_path), cells, MANIFEST) as following:
        train(cells, CELLS[0])
        following.extend(grown)
        train(cells, more[0])
        wait_until(
            lambda: any(run.info.run_name.startswith("batch-norm") for run in mlflow_runs(uri, tmp_path)["cell"])
        )
    assert following.delivery.pending == 0
    assert following.problem == ""
    tags = {run.data.tags["harness.variant"]: run.data.tags for run in mlflow_runs(uri, tmp_path)["cell"]}
    assert tags["batch-norm"]["harness.trial"] == "7"
    assert tags["batch-norm"]["harness.search"] == "a search"
    assert "harness.trial" not in tags["baseline"]


def test_of_a_study_run_with_many_variants_only_the_cells_that_are_followed_are_looked_at(tmp_path):
    uri, cells = a_store(tmp_path)
    other = cells_of({"model.batch_norm": True})
    both = a_manifest({"baseline": CELLS, "batch-norm": other})
    train(cells, other[0])
    with follow(Tracking(uri, tmp_path), cells, both, keys={it.key for it in CELLS}) as following:
        train(cells, CELLS[0])
    runs = mlflow_runs(uri, tmp_path)
    assert [it.info.run_name.partition(" ")[0] for it in runs["cell"]] == ["baseline"]
    assert following.delivery.pending == 0  # of those that are followed
    cells.write_manifest(both)
    assert sync(uri, tmp_path).delivered == 4  # the other cell's
