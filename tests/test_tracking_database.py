"""Where tracking lives: URIs, and databases that are made once, by whoever comes first."""

import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import sqlalchemy
from postgresql import free_port, fresh_database, postgresql_url
from tracked import a_manifest, a_store, cells_of, history, mlflow_runs, train

from harness.errors import TrackingError
from harness.store.cells import Cells
from harness.tracking import Tracking, database, init, resolve_uri
from harness.tracking.server import Server

pytestmark = pytest.mark.slow

NOBODY = 65534


@pytest.fixture(autouse=True)
def _no_tracking_uri_from_outside(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_an_explicit_uri_goes_before_the_environment_and_that_before_the_default(monkeypatch, tmp_path):
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert resolve_uri(None, tmp_path) == "http://tracking:5000"
    assert resolve_uri("https://other", tmp_path) == "https://other"


def test_a_database_file_stays_the_same_when_the_working_folder_changes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///runs/mlflow.db", Path("mlruns")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert resolve_uri(None, Path("mlruns")) == f"sqlite:///{tmp_path}/mlruns/mlflow.db"


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("postgresql://me@host/runs", "postgresql+psycopg://me@host/runs"),
        ("postgres://me@host/runs", "postgresql+psycopg://me@host/runs"),
        ("postgresql+psycopg2://me@host/runs", "postgresql+psycopg2://me@host/runs"),
    ],
)
def test_postgresql_gets_its_driver_written_out_unless_one_is_named(given, resolved, tmp_path):
    assert resolve_uri(given, tmp_path) == resolved


@pytest.mark.parametrize(
    "uri", ["file:///runs", "file:runs", "./mlruns", "/data/runs", "sqlite://", "sqlite:///:memory:"]
)
def test_folders_and_databases_in_memory_are_refused_with_what_to_use_instead(uri, tmp_path):
    with pytest.raises(TrackingError, match=r"sqlite:///.*mlflow\.db.*http://HOST:5000"):
        resolve_uri(uri, tmp_path)


def test_an_unknown_scheme_is_refused_without_showing_its_password(tmp_path):
    with pytest.raises(TrackingError, match="mysql:// is not supported") as caught:
        resolve_uri("mysql://me:secret@host/runs", tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["postgresql://me:se@cret@host/runs", "http://me:secret@host:port"])
def test_an_address_that_can_be_read_in_two_ways_is_refused_without_its_password(uri, tmp_path):
    with pytest.raises(TrackingError, match="write @ as %40") as caught:
        resolve_uri(uri, tmp_path)
    assert "cret" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named_with_the_one_that_is(tmp_path):
    with pytest.raises(TrackingError, match=r"driver that is not installed. Write postgresql://"):
        init("postgresql+psycopg2://me@127.0.0.1:9/runs", tmp_path)


def test_what_the_user_set_for_mlflow_is_left_alone(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    database.configure_mlflow()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "99"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_importing_the_store_does_not_import_mlflow():
    code = "import harness.tracking, sys; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_new_database_is_ready_and_does_not_make_readers_wait(tmp_path):
    uri, cells = a_store(tmp_path)
    init(uri, cells.root)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert file.execute("SELECT count(*) FROM experiments").fetchone() == (1,)


def _init_at_once(uri: str, root: Path, start: "threading.Barrier", failures: "multiprocessing.Queue[str]") -> None:
    start.wait()
    try:
        init(uri, root)
        failures.put("")
    except Exception as error:
        failures.put(repr(error))


def _failures_of_four(uri: str, root: Path) -> list[str]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store"])
    start, failures = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_init_at_once, args=(uri, root, start, failures)) for _ in range(4)]
    for worker in workers:
        worker.start()
    outcomes = [failures.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    return outcomes


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe"])
def test_a_special_file_is_left_alone(tmp_path, kind):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # as a device, of size 0; made here, in a folder of this test's own
    named = pipe if kind == "pipe" else tmp_path / "mlflow.db"
    if named != pipe:
        named.symlink_to(pipe)
    before = os.lstat(named)
    with pytest.raises(TrackingError, match=r"is no regular file .* left alone"):
        init(f"sqlite:///{named}", tmp_path)
    assert pipe.is_fifo()
    assert os.lstat(named).st_ino == before.st_ino


def test_four_processes_that_meet_a_fresh_sqlite_file_all_succeed(tmp_path):
    (tmp_path / ".mlflow.db.new").write_bytes(b"half a database, of a process that died while it made one")
    assert _failures_of_four(f"sqlite:///{tmp_path}/mlflow.db", tmp_path) == [""] * 4
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as file:
        assert file.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with postgresql_url() as url:
        yield url


def test_four_processes_that_meet_a_fresh_postgresql_database_all_succeed(postgresql, tmp_path):
    url = fresh_database(postgresql, "raced")
    assert _failures_of_four(url, tmp_path) == [""] * 4
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM alembic_version")).scalar() == 1


def test_a_study_is_delivered_to_postgresql_too(postgresql, tmp_path):
    url, cells, cell = fresh_database(postgresql, "delivered"), Cells(tmp_path), cells_of()[0]
    manifest = a_manifest({"baseline": [cell]})
    train(cells, cell)
    assert Tracking(url, tmp_path).project(manifest, cells).delivered == 4
    assert Tracking(url, tmp_path).project(manifest, cells).delivered == 0
    tree = mlflow_runs(url, tmp_path)
    assert [tree[kind][0].info.status for kind in ("study", "variant", "cell")] == ["FINISHED"] * 3
    assert history(url, tree["cell"][0].info.run_id, "val/loss") == [(100, 2.0), (200, 1.9000000000000001)]
    assert len(list((tmp_path / "artifacts").rglob("best.safetensors"))) == 1


def test_a_data_set_that_another_process_writes_at_this_moment_is_shared_with_it(postgresql, tmp_path):
    url, cells, cell = fresh_database(postgresql, "datasets"), Cells(tmp_path), cells_of()[0]
    train(cells, cell)
    Tracking(url, tmp_path).project(a_manifest({"baseline": [cell]}), cells)
    experiment = Server(url, tmp_path).experiment("task4")
    copied = f"INSERT INTO datasets SELECT 'theirs', {experiment}, name, digest, 'harness', '', '', '' FROM datasets"
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO datasets%'"
    )
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with ThreadPoolExecutor(1) as beside:
        with engine.begin() as other, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watching:
            other.execute(sqlalchemy.text(copied))
            ours = beside.submit(Tracking(url, tmp_path).project, a_manifest({"b": [cell]}, study="task4"), cells)
            while not ours.done() and not watching.execute(sqlalchemy.text(waits)).scalar():
                time.sleep(0.01)
        assert ours.result().delivered == 4
    with engine.connect() as connection:
        used = sqlalchemy.text("SELECT count(*) FROM inputs WHERE source_id = 'theirs'")
        assert connection.execute(used).scalar() >= 1


def test_a_postgresql_database_that_does_not_exist_says_so(postgresql, tmp_path):
    nowhere = sqlalchemy.make_url(postgresql).set(database="nowhere").render_as_string(hide_password=False)
    with pytest.raises(TrackingError, match=r"does not exist\. Create it"):
        init(nowhere, tmp_path)


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path):
    (tmp_path / "mlflow.db").write_text("dear diary, " * 100)
    with pytest.raises(TrackingError, match="is not an MLflow database"):
        init(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert (tmp_path / "mlflow.db").read_text().startswith("dear diary")


def test_what_a_killed_process_left_beside_a_database_that_was_moved_away_is_not_read_into_the_new_one(tmp_path):
    uri, path, log = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlflow.db", tmp_path / "mlflow.db-wal"
    init(uri, tmp_path)
    with closing(sqlite3.connect(path)) as writer:
        writer.executescript("CREATE TABLE extra (x); INSERT INTO extra VALUES (1)")
        written = log.read_bytes()  # SQLite removes it when the last one closes; a kill does not
    path.rename(tmp_path / "moved.db")
    log.write_bytes(written)
    init(uri, tmp_path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not database.execute("SELECT name FROM sqlite_master WHERE name = 'extra'").fetchall()


def test_nobody_imports_mlflow_beside_the_thread_that_does_it_ahead(monkeypatch):
    goes_on, seen = threading.Event(), []
    monkeypatch.setattr(database, "configure_mlflow", goes_on.wait)
    database.import_ahead()
    asking = threading.Thread(target=lambda: seen.append(database.tracking_failures()))
    asking.start()
    asking.join(0.2)
    assert not seen
    goes_on.set()
    asking.join(60)
    assert seen


def test_another_programs_database_gets_no_tables(tmp_path):
    path = tmp_path / "optuna.db"
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE alembic_version (version_num TEXT)")  # both programs call it that
        file.execute("CREATE TABLE trials (id INTEGER)")
    with pytest.raises(TrackingError, match="is not an MLflow database"):
        init(f"sqlite:///{path}", tmp_path)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM sqlite_master").fetchone() == (2,)


def test_a_locked_database_is_named_as_such(tmp_path, monkeypatch):
    uri, _ = a_store(tmp_path)
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="is locked by another program"):
            init(uri, tmp_path)


def test_a_database_of_another_mlflow_says_how_to_upgrade_it(tmp_path):
    uri, _ = a_store(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as file, file:
        file.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(TrackingError, match=f"mlflow db upgrade {uri}"):
        init(uri, tmp_path)


@contextmanager
def _without_root() -> Iterator[None]:
    """Root may write everywhere, so it steps down for a moment."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o555, 0o444), (0o777, 0o444)])
def test_a_read_only_database_says_where_rights_are_missing(tmp_path, folder_mode, file_mode):
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)  # pytest's folders are closed to others
    root = tmp_path / "store"
    uri, _ = a_store(root)
    (root / "mlflow.db").chmod(file_mode)
    root.chmod(folder_mode)
    try:
        with _without_root(), pytest.raises(TrackingError, match=r"is read-only for this user\. Give write rights"):
            init(uri, root)
    finally:
        root.chmod(0o755)


def test_a_postgresql_that_is_not_there_is_no_long_wait(tmp_path):
    with pytest.raises(TrackingError, match="does not answer"):
        init(f"postgresql+psycopg://me:secret@127.0.0.1:{free_port()}/runs", tmp_path)


def test_a_server_that_is_not_there_is_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"does not answer.*harness sync"):
        init(f"http://127.0.0.1:{free_port()}", tmp_path)


@pytest.mark.parametrize(("code", "sentence"), [(403, "--allowed-hosts"), (404, "not as an MLflow server")])
def test_a_server_that_refuses_says_what_to_check(code, sentence, tmp_path):
    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_error(code)

        def log_message(self, *args):
            pass

    with closing_server(HTTPServer(("127.0.0.1", 0), Refuse)) as address, pytest.raises(TrackingError, match=sentence):
        init(address, tmp_path)


@contextmanager
def closing_server(server: HTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_free_port_is_free():
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port())) != 0
