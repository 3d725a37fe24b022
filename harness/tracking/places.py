"""Where the artifacts of a store's runs lie: below the store, wherever it was moved or copied to.

MLflow keeps absolute addresses: a store that was moved would go on writing into its old place. `mend` notices a move,
by the place that it noted when it was last here, and rewrites the addresses in the database. What a server holds behind
HTTP has addresses of the server's own, which are left alone.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from harness.errors import StoreError
from harness.files.atomic import remove, write_atomically
from harness.files.locks import locked
from harness.tracking.ledger import noted_tag
from harness.urls import masked

STORE_TAG = "harness.store"
WAIT_SECONDS = 20.0  # for a writer of a SQLite database
# Of a transaction's connection: room in memory for all its pages (of 2,000 KiB they spill, to be written again) and for
# what a statement of many rows would need to be taken back; and so much in the log before it is folded into the file,
# where most pages have been written more than once by then.
_PRAGMAS = ("cache_size = -65536", "temp_store = memory", "wal_autocheckpoint = 16384")
_SQLITE = "sqlite:///"
# Tables of MLflow, and their columns that hold addresses of artifacts.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_OURS = f" AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = '{STORE_TAG}' AND value = :store)"


def store_id(root: Path) -> str:
    """The name of a store in MLflow. Made once, beside the cells: it stays theirs wherever they are copied to.

    One that is damaged or lost is what the ledger says of any run: another name would make every run a second time.
    """
    path = root / "store-id"
    if not (name := _name_in(path)):
        with locked(root / "tracking" / "lock"):
            if not (name := _name_in(path)):
                name = noted_tag(root / "tracking" / "ledger.db", STORE_TAG) or uuid.uuid4().hex[:12]
                write_atomically(path, name)
    return name


def _name_in(path: Path) -> str:
    """Empty where the file holds no name, or is not there."""
    try:
        text = path.read_bytes().decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
    return text if re.fullmatch(r"[0-9a-f]{12}", text) else ""


def target(uri: str, root: Path) -> str:
    """The name of a database or server in notes of the store: a file below the store keeps its name when both move."""
    with contextlib.suppress(ValueError):
        return f"{_SQLITE}./{_file(uri).relative_to(root.absolute())}"
    return masked(uri)


def artifacts_folder(root: Path) -> Path:
    return root.absolute() / "artifacts"


def local_folder(address: str) -> Path | None:
    """The folder of this machine behind an address of artifacts, or None where it is none."""
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def mend(uri: str, root: Path) -> None:
    """Makes the addresses in a database name the place where the store is now.

    A database below the store has moved with it: every address in it that begins with the old place is rewritten. In
    another one only what is this store's own: its runs, and the experiments and models whose old place is gone; files
    that stayed behind are linked or copied.

    Args:
        uri: of a database that `init` has made ready, as `resolve_uri` gives it.

    Raises:
        StoreError: the store cannot be read or written.
    """
    if uri.startswith("http"):
        return
    try:
        _mend(uri, root)
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be read or written ({error.strerror}).") from error


def _mend(uri: str, root: Path) -> None:
    notes, name, here = root / "tracking" / "places.json", target(uri, root), str(root.absolute())
    if _noted(notes).get(name) == here:
        return
    store = store_id(root)
    with locked(root / "tracking" / "lock"):
        known = _noted(notes)
        is_below = name.startswith(f"{_SQLITE}./")
        with connected(uri) as connection:
            old = known.get(name) or _old_place(connection, store, is_below=is_below)
            if old and old != here:
                _move(connection, store, Path(old), root, is_below=is_below)
        write_atomically(notes, json.dumps(known | {name: here}, indent=1))


def set_address(uri: str, run_id: str, address: str) -> None:
    """Writes the address of one run's artifacts into a database."""
    with connected(uri) as connection:
        connection.execute(
            statement("UPDATE runs SET artifact_uri = :address WHERE run_uuid = :run"),
            {"address": address, "run": run_id},
        )


def _file(uri: str) -> Path:
    if not uri.startswith(_SQLITE):
        raise ValueError(uri)
    return Path(uri.removeprefix(_SQLITE))


def _noted(path: Path) -> dict[str, str]:
    """Target -> the store's place when that was last used; a cache, which is looked up again where it is damaged."""
    try:
        noted = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): str(place) for name, place in noted.items()} if isinstance(noted, dict) else {}


@contextlib.contextmanager
def connected(uri: str) -> Iterator[Any]:
    """A transaction in MLflow's database, for what its client cannot say."""
    with _engine(uri).begin() as connection:
        for pragma in _PRAGMAS if uri.startswith(_SQLITE) else ():
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        yield connection


@contextlib.contextmanager
def kept_open(uri: str) -> Iterator[None]:
    """For many transactions one after another: SQLite folds its log into the file whenever the last connection closes,
    and here that is the block's end."""
    with contextlib.ExitStack() as open_files:
        if uri.startswith(_SQLITE):
            with contextlib.suppress(sqlite3.Error):  # whoever uses the database is told
                connection = open_files.enter_context(contextlib.closing(sqlite3.connect(_file(uri))))
                connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # opens the log
        yield


@functools.lru_cache(maxsize=4)
def _engine(uri: str) -> Any:
    """Without a pool: each transaction has a connection of its own."""
    import sqlalchemy

    patience = {"timeout": WAIT_SECONDS} if uri.startswith(_SQLITE) else {}  # as MLflow's, where others write
    return sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args=patience)


def statement(text: str) -> Any:
    import sqlalchemy

    return sqlalchemy.text(text)


def _old_place(connection: Any, store: str, *, is_below: bool) -> str | None:
    """The place of a store that has no note of it: as MLflow's own default experiment says it in a database below the
    store; else as any of the store's runs says it."""
    if is_below:
        found = connection.execute(
            statement("SELECT artifact_location FROM experiments WHERE experiment_id = 0")
        ).scalar()
        depth = 2  # artifacts/0
    else:
        asked = statement("SELECT artifact_uri FROM runs WHERE artifact_uri IS NOT NULL" + _OURS + " LIMIT 1")
        found = connection.execute(asked, {"store": store}).scalar()
        depth = 4  # artifacts/EXPERIMENT/RUN/artifacts
    folder = local_folder(found) if found else None
    if folder is None or len(folder.parts) <= depth or folder.parts[-depth] != "artifacts":
        return None
    return str(folder.parents[depth - 1])


def _move(connection: Any, store: str, old: Path, root: Path, *, is_below: bool) -> None:
    """Rewrites what begins with the old place's `artifacts`, written as an address or as a path."""
    before, after = old / "artifacts", artifacts_folder(root)
    is_all = is_below or not before.exists()
    if not is_below and before.exists():
        _bring_files(connection, before, after, store)
    for table, column in _ADDRESSES if is_all else [("runs", "artifact_uri")]:
        ours = _OURS if table == "runs" and not is_below else ""
        asked = statement(
            f"UPDATE {table} SET {column} = :after || substr({column}, :rest) "
            f"WHERE substr({column}, 1, :length) = :start" + ours
        )
        for start, replacement in ((before.as_uri(), after.as_uri()), (str(before), str(after))):
            length = len(start) + 1  # with the slash behind it
            values = {"after": f"{replacement}/", "start": f"{start}/", "length": length, "rest": length + 1}
            connection.execute(asked, values | ({"store": store} if ours else {}))


def _bring_files(connection: Any, before: Path, after: Path, store: str) -> None:
    """Artifacts of this store's runs that are not here yet, each run's as a whole: the database says where they were
    put."""
    asked = statement("SELECT artifact_uri FROM runs WHERE artifact_uri IS NOT NULL" + _OURS)
    for (address,) in connection.execute(asked, {"store": store}):
        folder = local_folder(address)
        if folder is None or before not in folder.parents or not folder.is_dir():
            continue
        new = after / folder.relative_to(before)
        if not new.exists():
            coming = new.with_name(f".{new.name}.part")  # one name, whose rest after a death is made again
            remove(coming)
            shutil.copytree(folder, coming, copy_function=_link)
            coming.rename(new)


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # another disk
        shutil.copy2(source, destination)
