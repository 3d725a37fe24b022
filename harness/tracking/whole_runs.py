"""Writes whole runs into MLflow's tables, many in one transaction.

MLflow's client writes a run in seven requests, which ask the database some forty things: tens of milliseconds of
processor time, and a wait for the disk after each. A study that is delivered late has thousands of runs. The tables are
those that the installed MLflow declares; where they hold other columns than are known here, its client is used. A test
holds that the rows equal the client's. A server behind HTTP has no such way in.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from harness.tracking.ledger import Entry
from harness.tracking.places import connected
from harness.tracking.run_image import Point, RunImage

Row = tuple[Any, ...]  # its table's COLUMNS; tuples and no mappings: there are a hundred and more a run

NAME_TAG = "mlflow.runName"
VALUES_AT_ONCE = 30_000  # in a statement; SQLite takes 32,766
DATASET_EDGE = ("mlflow.data.context", "training")
COLUMNS = {
    "runs": "run_uuid name source_type source_name entry_point_name user_id status start_time end_time deleted_time "
    "source_version lifecycle_stage artifact_uri experiment_id",
    "tags": "key value run_uuid",
    "params": "key value run_uuid",
    "metrics": "key value timestamp step is_nan run_uuid",
    "latest_metrics": "key value timestamp step is_nan run_uuid",
    "datasets": "dataset_uuid experiment_id name digest dataset_source_type dataset_source dataset_schema "
    "dataset_profile",
    "inputs": "input_uuid source_type source_id destination_type destination_id step",
    "input_tags": "input_uuid name value",
}


def are_known() -> bool:
    """Whether the installed MLflow keeps runs in tables as they are known here."""
    try:
        tables = _tables()
    except (ImportError, AttributeError, KeyError):
        return False
    return all({it.name for it in tables[name].columns} == set(known.split()) for name, known in COLUMNS.items())


def keys_there(uri: str, experiment: str, tag: str, keys: Collection[str]) -> set[str]:
    """Those of the keys that a run of the experiment has as this tag; runs in the trash have none."""
    from sqlalchemy import select

    tags, runs = _tables()["tags"], _tables()["runs"]
    asked = (
        select(tags.c.value)
        .join(runs, runs.c.run_uuid == tags.c.run_uuid)
        .where(tags.c.key == tag, tags.c.value.in_(keys))
        .where(runs.c.experiment_id == int(experiment), runs.c.lifecycle_stage == "active")
    )
    with connected(uri) as connection:
        return set(connection.execute(asked).scalars())


def write(
    uri: str, experiment: str, runs: Sequence[tuple[Entry, RunImage]], *, before_commit: Callable[[], None]
) -> None:
    """Writes runs that are not there: all of them, or none where the database or `before_commit` fails.

    Args:
        runs: an entry has the id, the tags and the place of artifacts that its run gets.
    """
    tables = _tables()
    with connected(uri) as connection:
        datasets = _datasets(connection, int(experiment), [image for _, image in runs])
        rows: dict[str, list[Row]] = {name: [] for name in COLUMNS}
        for entry, image in runs:
            _add_rows(rows, entry, image, int(experiment), datasets)
        for name, some in rows.items():
            _insert(connection, tables[name], COLUMNS[name].split(), some)
        before_commit()


def _insert(
    connection: Any, table: Any, columns: Sequence[str], rows: Sequence[Row], *, unless_there: bool = False
) -> None:
    """Many rows a statement, which a database takes at once and away from Python.

    Args:
        unless_there: leaves out rows that another process has written since we looked, where it would fail.
    """
    end = " ON CONFLICT DO NOTHING" if unless_there else ""
    names = connection.dialect.identifier_preparer
    into = f"INSERT INTO {names.format_table(table)} ({', '.join(map(names.quote, columns))}) VALUES "
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    row = f"({', '.join([mark] * len(columns))})"
    for some in _parts(rows, VALUES_AT_ONCE // len(columns)):
        connection.exec_driver_sql(into + ", ".join([row] * len(some)) + end, tuple(chain.from_iterable(some)))


def _parts(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _tables() -> Mapping[str, Any]:
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.tracking.dbmodels import models  # noqa: F401 (declares the tables)

    tables: Mapping[str, Any] = Base.metadata.tables
    return tables


def _add_rows(
    rows: Mapping[str, list[Row]],
    entry: Entry,
    image: RunImage,
    experiment: int,
    datasets: Mapping[tuple[str, str], str],
) -> None:
    """The rows of one run, by table."""
    run = entry.run_id
    place = (None, "", "active", entry.artifact_uri, experiment)
    times = (image.status, image.start_ms, image.end_ms)
    rows["runs"].append((run, image.name, "UNKNOWN", "", "", "unknown", *times, *place))
    rows["tags"] += [(name, text, run) for name, text in ({NAME_TAG: image.name} | entry.tags).items()]
    rows["params"] += [(name, text, run) for name, text in image.params.items()]
    rows["metrics"] += [(name, value, time, step, False, run) for name, value, time, step in image.points]
    latest = _latest(image.points)
    rows["latest_metrics"] += [(name, value, time, step, False, run) for name, value, time, step in latest]
    if image.dataset:
        edge, dataset = uuid.uuid4().hex, datasets[image.dataset.name, image.dataset.digest]
        rows["inputs"].append((edge, "DATASET", dataset, "RUN", run, 0))
        rows["input_tags"].append((edge, *DATASET_EDGE))


def _latest(points: Iterable[Point]) -> Iterable[Point]:
    """Of each metric, its value at the greatest step: what lists of runs show."""
    latest: dict[str, Point] = {}
    for it in points:
        known = latest.get(it.key)
        if known is None or (it.step, it.timestamp_ms, it.value) > (known.step, known.timestamp_ms, known.value):
            latest[it.key] = it
    return latest.values()


def _datasets(connection: Any, experiment: int, images: Iterable[RunImage]) -> dict[tuple[str, str], str]:
    """Ids of the data sets of these runs, by name and digest, made if need be: an experiment has each once."""
    from sqlalchemy import select

    table = _tables()["datasets"]
    wanted = {(it.dataset.name, it.dataset.digest): it.dataset for it in images if it.dataset}
    if not wanted:
        return {}
    asked = select(table.c.name, table.c.digest, table.c.dataset_uuid).where(table.c.experiment_id == experiment)

    def known() -> dict[tuple[str, str], str]:
        return {(name, digest): found for name, digest, found in connection.execute(asked)}

    there = known()
    missing = [it for key, it in wanted.items() if key not in there]
    if not missing:
        return there
    rows = [(uuid.uuid4().hex, experiment, it.name, it.digest, "harness", it.source, None, None) for it in missing]
    _insert(connection, table, COLUMNS["datasets"].split(), rows, unless_there=True)
    return known()
