"""Passwords of databases and servers while the whole of it runs: study, search, report, `harness ui`.

They stand in the environment of the user's own shell. Everything else is searched for them: the command line of every
process that a command starts, what commands print, every file of store and report, and every row of the databases.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from own import write_study
from postgresql import fresh_database, postgresql_url
from test_services import harness_ui
from tracking_server import MlflowServer

from harness.cli import cli

pytestmark = pytest.mark.slow

SECRETS = ("hunter2hunter2", "Tr0ub4dor", "ghp-16C7e42F292c")
TRAINING = """
import os
import harness

def train(run: harness.Run) -> None:
    known = [os.environ[name] for name in ("MLFLOW_TRACKING_URI", "HARNESS_OPTUNA_STORAGE")]
    if run.settings.flag:
        raise OSError(f"cannot reach {known[0]} nor {known[1]}")
    run.note(where=known[0])
    run.log(1, **{"val/score": run.settings.model.width / 10})
    run.finish(**{"test/score": run.settings.model.width / 10})
"""
REQUEST = ["--study", "own.yaml", "--device", "cpu", "--jobs", "2", "--skip", "ignored"]


def found_in(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


class Commands:
    """Runs commands in a folder with these addresses in the environment, and looks at each process that they start.

    Attributes:
        seen: command lines; said: what was printed.
    """

    def __init__(self, folder: Path, tracking: str, storage: str) -> None:
        self.folder, self.seen, self.said = folder, set[str](), ""
        self.addresses = {"MLFLOW_TRACKING_URI": tracking, "HARNESS_OPTUNA_STORAGE": storage}

    def run(self, *arguments: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())", *arguments],
            cwd=self.folder,
            env=os.environ | self.addresses,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with self.watching(process.pid):
            said, _ = process.communicate(timeout=300)
        self.said += said
        return process.returncode

    @contextmanager
    def watching(self, pid: int) -> Iterator[None]:
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(0.05):
                self.look(pid)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def look(self, pid: int) -> None:
        try:
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                self.seen.add(" ".join(process.cmdline()))
        except psutil.Error:
            pass


def files_with_secrets(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [str(path.relative_to(folder)) for path in files if found_in(path.read_bytes().decode("latin-1"))]


def rows_of(url: str) -> str:
    """Everything that a database holds, as one text."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        return "\n".join(str(row) for name in tables for row in connection.exec_driver_sql(f'SELECT * FROM "{name}"'))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = MlflowServer(tmp_path_factory.mktemp("server"))
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.mark.ordeal
def test_passwords_of_databases_stay_where_the_user_put_them(tmp_path):
    write_study(tmp_path, function=TRAINING)
    with postgresql_url() as url:
        runs, trials = (fresh_database(url, name) for name in ("secret_runs", "secret_trials"))
        with_password = runs.replace("://harness@", f"://harness:{SECRETS[0]}@")
        in_query = f"{trials}{'&' if '?' in trials else '?'}password={SECRETS[1]}"
        assert SECRETS[0] in with_password, "this server asks another user"
        commands = Commands(tmp_path, with_password, in_query)

        assert commands.run("ablate", *REQUEST) == 1  # the flagged cells fail, with both addresses in their reason
        assert commands.run("search", *REQUEST, "--trials", "3") in (0, 1)
        for arguments in (["results", "--study", "own"], ["sync"], ["doctor"], ["report", "--study", "own.yaml"]):
            commands.run(*arguments)
        failed = next(tmp_path.glob("mlruns/cells/*/result.json"))
        commands.run("logs", failed.parent.name)
        with harness_ui(tmp_path / "mlruns", **commands.addresses) as (process, lines):
            commands.look(process.pid)
            commands.said += "\n".join(lines)
        kept = rows_of(runs) + rows_of(trials)

    assert "cannot reach" in commands.said
    assert any("mlflow" in it and "server" in it for it in commands.seen)
    assert any("harness.search.serve" in it for it in commands.seen)
    assert "harness.status" in kept
    assert found_in("\n".join(commands.seen)) == []
    assert found_in(commands.said) == []
    assert found_in(kept) == []
    assert files_with_secrets(tmp_path) == []


@pytest.mark.ordeal
def test_the_token_of_a_server_stays_where_the_user_put_it(tmp_path, server):
    write_study(tmp_path, function=TRAINING)
    address = f"http://{SECRETS[2]}@127.0.0.1:{server.port}"
    commands = Commands(tmp_path, address, f"sqlite:///{tmp_path}/optuna.db")

    for arguments in (["ablate", *REQUEST], ["sync"], ["doctor"]):
        commands.run(*arguments)

    kept = rows_of(f"sqlite:///{server.folder}/mlflow.db")
    assert "harness.status" in kept
    assert found_in(kept) == []
    assert found_in("\n".join(commands.seen)) == []
    assert found_in(commands.said) == []
    assert files_with_secrets(tmp_path) == []


@pytest.mark.ordeal
@pytest.mark.parametrize(
    "address",
    [
        f"http://127.0.0.1:PORT?access_token={SECRETS[1]}",
        f"http://127.0.0.1:PORT/?api_key={SECRETS[1]}",
        f"https://{SECRETS[2]}@127.0.0.1:PORT",
    ],
)
def test_an_address_that_mlflow_cannot_use_is_named_without_its_secret(tmp_path, server, address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("PORT", str(server.port)))
    write_study(tmp_path, function=TRAINING)

    for arguments in (["ablate", *REQUEST], ["doctor"]):
        answer = CliRunner().invoke(cli, arguments)
        assert answer.exit_code in (1, 2), answer.output
        assert "***" in answer.output
        assert found_in(answer.output) == []
        assert isinstance(answer.exception, SystemExit), answer.exception
