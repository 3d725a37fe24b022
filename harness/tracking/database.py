"""Where tracking lives: the tracking URI, and a database or server behind it that can be used.

Three kinds: an SQLite file (the default), a PostgreSQL database, an MLflow server. `init` makes a new database ready,
once, however many processes start at the same time: MLflow 3.17 itself does not, two of three crash on a fresh one
(mlflow/store/tracking/sqlalchemy_store.py calls its initialiser without its lock). Runs and metrics do not belong here.
"""

import logging
import os
import re
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from harness.errors import TrackingError, UnreachableError
from harness.files.locks import locked
from harness.tracking.places import mend
from harness.urls import masked, url_problem

SQLITE = "sqlite:///"
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it calls out over the internet when imported
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default, 7, blocks for four minutes when a server is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
LOCK_NUMBER = 0x6861726E657373  # of PostgreSQL's advisory lock, "harness" in ASCII
WAIT_SECONDS = 5.0  # for a locked database, and for a connection


def resolve_uri(explicit: str | None, root: Path) -> str:
    """The one tracking URI of this process: `explicit`, or else $MLFLOW_TRACKING_URI, or else `root`/mlflow.db.

    An SQLite path becomes absolute (a change of the working folder must not change the database); PostgreSQL gets its
    driver written out, `postgresql+psycopg://`, because the bare scheme means another driver with each SQLAlchemy.

    Raises:
        TrackingError: a plain folder, which MLflow no longer writes to, a scheme that is not supported, or a URL that
            can be read in two ways.
    """
    default = f"{SQLITE}{(root / 'mlflow.db').absolute()}"
    uri = explicit or os.environ.get("MLFLOW_TRACKING_URI") or default
    scheme, separator, rest = uri.partition("://")
    if scheme.startswith(("postgres", "http")) and (problem := url_problem(uri)):
        raise TrackingError(f"tracking URI {masked(uri)}: {problem}")
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    if scheme.startswith("postgresql+") or scheme in ("http", "https"):
        return uri
    path = uri.removeprefix(SQLITE)
    if uri.startswith(SQLITE) and path and path != ":memory:":
        return f"{SQLITE}{Path(path).absolute()}"
    instead = f"Use a database file ({default}), postgresql://USER@HOST/DATABASE, or a server (http://HOST:5000)."
    if uri.startswith("sqlite"):
        raise TrackingError(f"tracking URI {uri}: names no file that outlives this process. {instead}")
    if uri.startswith("file:") or not separator:
        raise TrackingError(f"tracking URI {uri}: MLflow no longer writes to plain folders. {instead}")
    raise TrackingError(f"tracking URI {masked(uri)}: {scheme}:// is not supported. {instead}")


def sqlite_path(uri: str) -> Path | None:
    """The file behind a resolved URI, or None where it is not SQLite."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def init(uri: str, root: Path) -> None:
    """Makes sure that the database can be used, and creates it where there is none; safe in many processes at once.

    SQLite: made under another name and renamed, so that a death in the middle leaves nothing; in WAL mode, so that
    readers do not wait for writers. PostgreSQL: under an advisory lock. A server: asked one question. Where the
    store was moved since it was last used, the addresses of its artifacts are mended (`places.py`).

    Args:
        uri: as `resolve_uri` gives it.
        root: the store's folder; artifacts of MLflow's own default experiment go below it.

    Raises:
        TrackingError: read-only, locked, no database, of another MLflow, another program's, or unreachable.
    """
    configure_mlflow()
    _wait_for_import()
    path = sqlite_path(uri)
    try:
        if path:
            _init_sqlite(path, root)
        elif uri.startswith("postgresql"):
            _init_postgresql(uri, root)
        else:
            from mlflow import MlflowClient

            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        mend(uri, root)
    except Exception as error:
        if isinstance(error, (*tracking_failures(), sqlite3.Error, OSError, ImportError)):
            raise explained(error, uri) from error
        raise


def configure_mlflow() -> None:
    """Sets what MLflow reads from the environment, unless the user did; to be called before its first import."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow.store.db.utils", "alembic"):  # a line for each migration, a traceback for each locked moment
        logging.getLogger(name).setLevel(logging.CRITICAL)


def import_ahead() -> None:
    """Begins to import MLflow, about two seconds of work, in the background; whoever needs it waits for the rest."""

    def work() -> None:
        configure_mlflow()
        with suppress(Exception):  # whoever needs it is told
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    thread = threading.Thread(target=work, name="harness-import", daemon=True)
    thread.start()
    _importing.append(thread)  # whoever waits can join one that was started only


_importing: list[threading.Thread] = []


def _wait_for_import() -> None:
    """Two threads that import MLflow at once get half of its modules, and errors that hide the real one."""
    for thread in _importing:
        thread.join()


def tracking_failures() -> tuple[type[Exception], ...]:
    """What a tracking call raises when the database or server is at fault."""
    _wait_for_import()
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError


def explained(error: BaseException, uri: str) -> TrackingError:
    """The failure as one sentence about this URI and a second one with the next step."""
    where, text = masked(uri), str(getattr(error, "orig", None) or error)
    for pattern, sentence in SENTENCES:
        if re.search(pattern, text, re.IGNORECASE):
            kind = UnreachableError if sentence == NO_ANSWER else TrackingError
            return kind(f"{where}: {sentence.format(where=where)}")
    first_line = masked(text).strip().partition("\n")[0]
    return TrackingError(f"{where}: tracking failed: {first_line}. `harness doctor` looks at it from all sides.")


ELSEWHERE = "choose another database with MLFLOW_TRACKING_URI"
NO_ANSWER = (
    "does not answer. Start it, or check address and network; cells that are trained meanwhile are delivered later "
    "(`harness sync`)."
)
SENTENCES = (
    (
        r"readonly database|permission denied|operation not permitted|read-only file system",
        f"is read-only for this user. Give write rights there (SQLite: to the file and its folder), or {ELSEWHERE}.",
    ),
    (
        r"disk is full|no space left|disk i/o error",
        f"the disk is full. Make room, or {ELSEWHERE}; nothing that was saved is lost.",
    ),
    (
        r"database (table )?is locked",
        f"is locked by another program for more than {WAIT_SECONDS:.0f} s. Close what holds it open for writing "
        "(a database browser, a backup) and run the same command again.",
    ),
    (
        r"not a database|malformed|another program",
        f"is not an MLflow database. Move it away, and a new one is made; or {ELSEWHERE}.",
    ),
    (
        r"out-of-date database schema|can't locate revision",
        "was made by another version of MLflow. Back it up, then run `mlflow db upgrade {where}` (it only goes "
        "forward: where the database is the newer one, install the MLflow that made it).",
    ),
    (r"unable to open database file|not a directory|is a directory", f"cannot be opened as a file; {ELSEWHERE}."),
    (
        r"error code 40[13]",
        "the server refuses this client. Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and that the "
        "server's --allowed-hosts lists this address with its port.",
    ),
    (r"error code 404", f"answers, but not as an MLflow server. Check the address, or {ELSEWHERE}."),
    (r"database \".*\" does not exist", "the database does not exist. Create it with `createdb`."),
    (
        r"no module named|can't load plugin",
        "names a driver that is not installed. Write postgresql://, for the one that is.",
    ),
    (r"authentication failed|no password supplied", "the database refuses this user. Check name and password."),
    (r"connection|timed out|timeout|max retries|resolve|refused", NO_ANSWER),
)


def _init_sqlite(path: Path, root: Path) -> None:
    refuse_special_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists() or path.stat().st_size == 0:
            fresh = path.with_name(f".{path.name}.new")
            fresh.unlink(missing_ok=True)  # of a process that died here
            _make_tables(f"{SQLITE}{fresh}", root)
            for log in ("-wal", "-shm"):  # of the one that was moved away: SQLite would read them into this one
                path.with_name(f"{path.name}{log}").unlink(missing_ok=True)
            fresh.replace(path)
        with closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as database:
            _refuse_strangers({name for (name,) in database.execute("SELECT name FROM sqlite_master")})
            database.execute("PRAGMA journal_mode = wal")
            database.execute("BEGIN IMMEDIATE")
            database.execute("PRAGMA user_version = 0")  # a write, taken back: proves that one is possible
            database.rollback()
        _make_tables(f"{SQLITE}{path}", root)  # checks the version of an older database


def refuse_special_file(path: Path) -> None:
    """Raises TrackingError for a device, a pipe or a socket: its size is 0, but it is no new database to be made."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        what = "is no regular file (a device, a pipe or a socket), so it is left alone"
        raise TrackingError(f"{path}: {what}; {ELSEWHERE}.")


def _init_postgresql(uri: str, root: Path) -> None:
    import sqlalchemy

    arguments: dict[str, Any] = {"connect_timeout": round(WAIT_SECONDS)}
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args=arguments)
    with engine.connect() as connection:  # the lock goes with the connection, also when this process dies
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({LOCK_NUMBER})"))
        _refuse_strangers(set(sqlalchemy.inspect(connection).get_table_names()))
        _make_tables(uri, root)


def _make_tables(uri: str, root: Path) -> None:
    """Tables in an empty database; in one with tables, a check that they are of this MLflow."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, str((root / "artifacts").absolute()))  # type: ignore[no-untyped-call]
    store.engine.dispose()


def _refuse_strangers(tables: set[str]) -> None:
    """Optuna also calls its version table `alembic_version`: MLflow would add its tables there and break both."""
    if tables and "experiments" not in tables:
        raise sqlite3.DatabaseError(f"another program's tables: {', '.join(sorted(tables)[:5])}")
