"""What has been delivered to which run: a small SQLite file, so that nothing is sent twice and little is looked up.

It is a cache. Where it is lost or damaged, `tracking.py` reads from the server what is there and writes it again; where
an entry is not `settled`, a delivery was under way when its process died, and the server is asked before more is sent.
"""

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

from harness.errors import StoreError

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    target TEXT, key TEXT, study_id TEXT, cell_key TEXT, run_id TEXT, entry TEXT, PRIMARY KEY (target, key)
);
CREATE INDEX IF NOT EXISTS by_study ON runs (target, study_id);
CREATE INDEX IF NOT EXISTS by_cell ON runs (target, cell_key);
"""


class Known(NamedTuple):
    """What there is in memory of each run of a study run, which may have ten thousands: a tenth of an `Entry`."""

    run_id: str
    settled: bool
    format: int
    state: str
    start_ms: int
    end_ms: int
    journal_bytes: int
    num_events: int
    has_params: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run and what it has got.

    Attributes:
        key: identity of the run (`RunImage.key`).
        run_id, experiment: MLflow's ids.
        settled: False while a delivery is under way.
        format: of the projection that was delivered (`run_image.FORMAT`).
        state: of the image that was delivered last.
        start_ms: of a cell; 0 for variants and studies.
        end_ms: as delivered, 0 while it runs.
        journal_bytes, num_events: how much of the cell's journal the delivery covered.
        num_points, digest: how many metric points, and a hash over them (`RunImage.digest`).
        status: MLflow's.
        tags: as delivered.
        artifacts: version by name.
    """

    key: str
    study_id: str
    cell_key: str = ""
    run_id: str = ""
    experiment: str = ""
    artifact_uri: str = ""
    settled: bool = False
    format: int = 1  # where the entry does not say it: 0.1 wrote none
    state: str = ""
    start_ms: int = 0
    end_ms: int = 0
    journal_bytes: int = 0
    num_events: int = 0
    num_points: int = 0
    digest: str = ""
    has_params: bool = False
    has_dataset: bool = False
    status: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)

    def known(self) -> Known:
        return Known(
            self.run_id,
            self.settled,
            self.format,
            sys.intern(self.state),
            self.start_ms,
            self.end_ms,
            self.journal_bytes,
            self.num_events,
            self.has_params,
        )


_FIELDS = tuple(it.name for it in fields(Entry))


class Ledger:
    """The entries of one target (a tracking URI). Open while it is used, by `open_ledger`; each write is durable."""

    def __init__(self, connection: sqlite3.Connection, target: str) -> None:
        self._connection, self._target = connection, target

    def get(self, key: str) -> Entry | None:
        return next(self._select("key = ?", key), None)

    def of_study(self, study_id: str) -> Iterator[Entry]:
        """One after another: all at once would be much memory."""
        return self._select("study_id = ?", study_id)

    def all(self) -> list[Entry]:
        return list(self._select("'' = ?", ""))

    def of_cell(self, cell_key: str) -> list[Entry]:
        """The runs of one cell in every study, in the order in which they were entered."""
        return list(self._select("cell_key = ?", cell_key))

    def put(self, entry: Entry) -> Entry:
        values = (self._target, entry.key, entry.study_id, entry.cell_key, entry.run_id, _text(entry))
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET run_id = excluded.run_id, "
            "entry = excluded.entry",
            values,
        )
        return entry

    def put_all(self, entries: Iterable[Entry]) -> None:
        """All of them or none."""
        self._connection.execute("BEGIN")
        try:
            for entry in entries:
                self.put(entry)
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    def unsettle(self, entry: Entry) -> Entry:
        """To be called before anything is sent: a death from here on makes the next process ask the server."""
        return self.put(replace(entry, settled=False))

    def drop(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._connection.execute("DELETE FROM runs WHERE target = ? AND key = ?", (self._target, key))

    def _select(self, condition: str, value: str) -> Iterator[Entry]:
        rows = self._connection.execute(
            f"SELECT entry FROM runs WHERE target = ? AND {condition} ORDER BY rowid", (self._target, value)
        )
        return (Entry(**json.loads(text)) for (text,) in rows)


@contextmanager
def open_ledger(path: Path, target: str, *, formerly: str = "") -> Iterator[Ledger]:
    """The ledger in this file, made if need be; one that is no database any more is replaced by an empty one.

    Args:
        target: whose entries. formerly: what an earlier version called the same target.

    Raises:
        StoreError: the file cannot be read or written.
    """
    try:
        with closing(_connect(path)) as connection:
            if formerly not in ("", target):
                connection.execute("UPDATE OR IGNORE runs SET target = ? WHERE target = ?", (target, formerly))
            yield Ledger(connection, target)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be used ({error}). {_next_step(error)}") from error


def noted_tag(path: Path, tag: str) -> str:
    """What any run that the ledger in this file knows has for a tag; empty where there is none to be read."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("SELECT entry FROM runs ORDER BY rowid DESC LIMIT 1").fetchone() or ("{}",)
            return str(json.loads(found).get("tags", {}).get(tag, ""))
    except (sqlite3.Error, ValueError):
        return ""


def _text(entry: Entry) -> str:
    return json.dumps({name: getattr(entry, name) for name in _FIELDS})


def _next_step(error: sqlite3.Error) -> str:
    """What mends it: a full disk is no damage, and neither is a file that somebody else holds."""
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return "Make room there; nothing that was saved is lost, and the same command continues."
    if "locked" in text or "readonly" in text or "unable to open" in text:
        return "Give this user write rights there, and close what holds it open; then the same command continues."
    return "Move it away: it is made again from MLflow's runs."


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _prepared(path)
    except sqlite3.OperationalError:  # locked, read-only, disk full: not damage
        raise
    except sqlite3.DatabaseError:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _prepared(path)


def _prepared(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=20.0, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA synchronous = normal")  # a power cut may cost the last entries: MLflow is asked then
        connection.executescript(SCHEMA)
    except Exception:
        connection.close()
        raise
    return connection
