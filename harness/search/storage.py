"""Where a search is kept: the storage of Optuna, and the one Optuna study in it that belongs to a space and its seeds.

By default an SQLite file beside the cells; PostgreSQL for many machines. Which trials there are is `trials.py`.
"""

import hashlib
import json
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import optuna

from harness.errors import TrackingError
from harness.metrics import Metric
from harness.search.choices import Prune
from harness.search.locks import FileLocks, Locks, PostgresLocks
from harness.search.space import Space
from harness.tracking.database import SQLITE, refuse_special_file, sqlite_path
from harness.urls import masked, url_problem

ENVIRONMENT = "HARNESS_OPTUNA_STORAGE"
METRIC = "metric"  # user attribute of the study: which metric a value is the mean of
WAIT_SECONDS = 60.0  # for a database file that another process writes to


def resolve_storage(explicit: str | None, root: Path) -> str:
    """The one storage of this process: `explicit`, or else $HARNESS_OPTUNA_STORAGE, or else `root`/optuna.db.

    Raises:
        TrackingError: neither an SQLite file nor PostgreSQL, or a URL that can be read in two ways.
    """
    default = f"{SQLITE}{(root / 'optuna.db').absolute()}"
    url = explicit or os.environ.get(ENVIRONMENT) or default
    scheme, _, rest = url.partition("://")
    if scheme.startswith("postgres") and (problem := url_problem(url)):
        raise TrackingError(f"storage of the search {masked(url)}: {problem}")
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"  # the bare scheme means another driver with each SQLAlchemy
    if scheme.startswith("postgresql+"):
        return url
    path = url.removeprefix(SQLITE)
    if url.startswith(SQLITE) and path and path != ":memory:":
        return f"{SQLITE}{Path(path).absolute()}"
    instead = f"Use a database file ({default}) or postgresql://USER@HOST/DATABASE."
    raise TrackingError(f"storage of the search {masked(url)}: not supported. {instead}")


@contextmanager
def open_storage(url: str) -> Iterator[tuple[optuna.storages.RDBStorage, Locks]]:
    """The storage, made ready by the first process that comes, and the locks of this worker.

    Args:
        url: as `resolve_storage` gives it.

    Raises:
        TrackingError: it cannot be used, or the tables of another program or of another Optuna are in it; also from
            within the block.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with ExitStack() as stack:
        with _explained(url, sqlite3.Error, OSError, ImportError):
            locks = stack.enter_context(closing(_locks(url)))
            with locks.exclusive():  # Optuna crashes where two processes make its tables at the same time
                storage = _ready(url)
            stack.callback(storage.engine.dispose)
        with _explained(url):
            yield storage, locks


def open_study(storage: optuna.storages.RDBStorage, space: Space, prune: Prune = "none") -> optuna.Study:
    """The Optuna study of this space; call it under the exclusive lock.

    Raises:
        TrackingError: there is one of this name whose values are of another metric, or go the other way.
    """
    name, metric, plan = study_name(space, prune), space.metric, space.plan
    study = optuna.create_study(storage=storage, study_name=name, direction=metric.goal, load_if_exists=True)
    _refuse_other_values(study, metric)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([_title(metric)])
    about = {"study": plan.study.name, "title": plan.study.title, "profile": plan.profile, "seeds": list(plan.seeds)}
    about[METRIC] = metric.name
    for key, value in about.items():
        study.set_user_attr(key, value)
    return study


def _refuse_other_values(study: optuna.Study, metric: Metric) -> None:
    """Optuna keeps the direction that it finds, without a word, and knows nothing of what a value means."""
    goal, (title,) = study.direction.name.lower(), study.metric_names or [_title(metric)]  # none where it is new
    found = study.user_attrs.get(METRIC, metric.name if title == _title(metric) else title)  # 0.1 noted the title only
    if (found, goal) != (metric.name, metric.goal):
        raise TrackingError(
            f"Optuna study {study.study_name!r} is made to {goal} {found}, but this search is to {metric.goal} "
            f"{metric.name}: name another --storage, or delete that study (`optuna delete-study`); no cell is lost."
        )


def _title(metric: Metric) -> str:
    """What the dashboard calls a value."""
    return f"mean {metric.words}"


def study_name(space: Space, prune: Prune) -> str:
    """Another space, other settings of a change or other seeds make another study: Optuna allows no choice to change,
    and the values of one study must mean the same; so must what a pruner compares."""
    plan = space.plan
    alone = [plan.make_variant(space.standing(name)) for name in space.changes]
    meaning: dict[str, Any] = {
        "recipe": plan.study.trainer.identity,
        "choices": {name: space.choices(name) for name in space.factors},
        "settings": [variant.settings_hash for variant in alone],
        "seeds": plan.seeds,
        "reports": "validations" if prune == "halving" else "seeds",
    }
    return f"{plan.id}-search-{hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:8]}"


@contextmanager
def _explained(url: str, *more: type[Exception]) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    failures: tuple[type[Exception], ...] = (SQLAlchemyError, optuna.exceptions.StorageInternalError, *more)
    try:
        yield
    except failures as error:
        reason = str(getattr(error, "orig", None) or error.__cause__ or error).strip().partition("\n")[0]
        raise TrackingError(
            f"{masked(url)}: the storage of the search cannot be used ({masked(reason)}). {_next_step(reason)} "
            f"--storage or ${ENVIRONMENT} names another one."
        ) from error


def _next_step(reason: str) -> str:
    if re.search(r"disk is full|no space left|disk i/o error", reason, re.IGNORECASE):
        return "Make room there; nothing that was saved is lost, and the same command continues."
    if re.search(r"not a database|malformed", reason):
        return "Move the file away, and a new one is made."
    if re.search(r"No module named|Can't load plugin", reason):
        return "Write postgresql://, for the driver that is installed."
    return "What was trained is saved; once it answers, the same command continues."


def _locks(url: str) -> Locks:
    path = sqlite_path(url)
    return FileLocks(path.with_name(f"{path.name}.locks")) if path else PostgresLocks(url)


def _ready(url: str) -> optuna.storages.RDBStorage:
    import sqlalchemy

    path = sqlite_path(url)
    if path:
        refuse_special_file(path)
        with closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as database:
            database.execute("PRAGMA journal_mode = wal")  # who reads (the dashboard) does not wait for who writes
    arguments: dict[str, Any] = {"connect_args": {"timeout": WAIT_SECONDS}} if path else {"pool_pre_ping": True}
    probe = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    tables = set(sqlalchemy.inspect(probe).get_table_names())
    if tables and "studies" not in tables:  # MLflow calls its version table like Optuna does: it would break both
        raise TrackingError(
            f"{masked(url)}: holds the tables of another program ({', '.join(sorted(tables)[:4])}, ...). The search "
            "needs a database of its own; a server can hold several."
        )
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=arguments)
    except RuntimeError as error:  # which Optuna raises for one reason only
        raise TrackingError(
            f"{masked(url)}: was made by another version of Optuna. Back it up, then run `optuna storage upgrade "
            f"--storage {masked(url)}` (it only goes forward: where the database is the newer one, install the Optuna "
            f"that made it). --storage or ${ENVIRONMENT} names another one."
        ) from error
    if path:
        storage.engine.dispose()  # from here on with connections that wait for the disk at checkpoints only: a power
        sqlalchemy.event.listen(storage.engine, "connect", _relax)  # cut may cost the last trials, which are retried
    return storage


def _relax(connection: sqlite3.Connection, record: object) -> None:
    connection.execute("PRAGMA synchronous = normal")
