"""Writes whole runs into MLflow's tables, many in one transaction.

MLflow's client writes a run in seven requests, which ask the database some forty things: tens of milliseconds of
processor time, and a wait for the disk after each. A study that is delivered late has thousands of runs. The tables are
those that the installed MLflow declares; where they hold other columns than are known here, its client is used. A test
holds that the rows equal the client's. A server behind HTTP has no such way in.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.tracking.ledger import Entry
from harness.tracking.places import connected
from harness.tracking.run_image import Point, RunImage

Row = dict[str, Any]

NAME_TAG = "mlflow.runName"
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
            for table, row in _rows(entry, image, int(experiment), datasets):
                rows[table].append(row)
        for name, some in rows.items():
            if some:
                _insert(connection, tables[name], some)
        before_commit()


def _insert(connection: Any, table: Any, rows: Sequence[Row]) -> None:
    """Compiled once for all of them: SQLAlchemy looks at each row, which takes as long as the database does."""
    compiled = table.insert().compile(dialect=connection.dialect, column_keys=list(rows[0]))
    places = compiled.positiontup
    asked: list[Any] = list(rows) if places is None else [tuple(map(it.__getitem__, places)) for it in rows]
    connection.exec_driver_sql(compiled.string, asked)


def _tables() -> Mapping[str, Any]:
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.tracking.dbmodels import models  # noqa: F401 (declares the tables)

    tables: Mapping[str, Any] = Base.metadata.tables
    return tables


def _rows(
    entry: Entry, image: RunImage, experiment: int, datasets: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, Row]]:
    run = {"run_uuid": entry.run_id}
    yield (
        "runs",
        run
        | {
            "name": image.name,
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "user_id": "unknown",
            "status": image.status,
            "start_time": image.start_ms,
            "end_time": image.end_ms,
            "deleted_time": None,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": entry.artifact_uri,
            "experiment_id": experiment,
        },
    )
    for name, text in ({NAME_TAG: image.name} | entry.tags).items():
        yield "tags", run | {"key": name, "value": text}
    for name, text in image.params.items():
        yield "params", run | {"key": name, "value": text}
    for point in image.points:
        yield "metrics", run | _metric(point)
    for point in _latest(image.points):
        yield "latest_metrics", run | _metric(point)
    if image.dataset:
        edge = uuid.uuid4().hex
        yield (
            "inputs",
            {
                "input_uuid": edge,
                "source_type": "DATASET",
                "source_id": datasets[image.dataset.name, image.dataset.digest],
                "destination_type": "RUN",
                "destination_id": entry.run_id,
                "step": 0,
            },
        )
        yield "input_tags", {"input_uuid": edge, "name": "mlflow.data.context", "value": "training"}


def _metric(point: Point) -> Row:
    return {
        "key": point.key,
        "value": point.value,
        "timestamp": point.timestamp_ms,
        "step": point.step,
        "is_nan": False,
    }


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
    ids = {(name, digest): found for name, digest, found in connection.execute(asked)}
    for key in wanted.keys() - ids.keys():
        ids[key] = uuid.uuid4().hex
        row = {
            "dataset_uuid": ids[key],
            "experiment_id": experiment,
            "name": key[0],
            "digest": key[1],
            "dataset_source_type": "harness",
            "dataset_source": wanted[key].source,
            "dataset_schema": None,
            "dataset_profile": None,
        }
        connection.execute(table.insert(), [row])
    return ids
