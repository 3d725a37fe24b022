"""Who is alive, and who may go first: locks that die with their process, wherever the storage of a search is.

Each worker (a process that searches) holds a lock of its own for as long as it lives. Its trials are those of a living
worker while that lock is held; when it is free, they are nobody's and are taken over at once. Optuna's heartbeat says
the same after minutes of silence, and of `study.optimize` only. SQLite: file locks beside the database, released by the
kernel. PostgreSQL: advisory locks of a session, released by the server when the connection is gone.
"""

import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from harness.files.locks import is_locked, locked

# PostgreSQL notices within a minute and a half that a machine with a worker has gone away without a word.
KEEPALIVE = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 15, "tcp_keepalives_count": 4}


class Locks(Protocol):
    """`me` is this worker's name; it is alive until `close`."""

    me: str

    def exclusive(self) -> AbstractContextManager[None]:
        """Waits until no other worker on this storage is inside."""

    def is_alive(self, worker: str) -> bool: ...

    def close(self) -> None: ...


class FileLocks:
    """For processes on one machine (or on a file system whose locks reach across machines)."""

    def __init__(self, folder: Path) -> None:
        self.me = _worker_name()
        self._folder = folder
        self._mine = ExitStack()
        self._mine.enter_context(locked(folder / self.me))

    def exclusive(self) -> AbstractContextManager[None]:
        return locked(self._folder / "exclusive")

    def is_alive(self, worker: str) -> bool:
        if is_locked(self._folder / worker):
            return True
        (self._folder / worker).unlink(missing_ok=True)  # the names of the dead do not come back
        return False

    def close(self) -> None:
        (self._folder / self.me).unlink(missing_ok=True)
        self._mine.close()


class PostgresLocks:
    """For every process that reaches the database.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: from every method, where the connection cannot be made or is lost.
    """

    def __init__(self, url: str) -> None:
        import sqlalchemy

        self.me = _worker_name()
        self._sql, self._failures = sqlalchemy.text, sqlalchemy.exc.SQLAlchemyError
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
        self._connection = engine.connect()
        for name, value in KEEPALIVE.items():
            self._connection.execute(self._sql(f"SET {name} = {value}"))
        self._call("pg_advisory_lock", self.me)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        self._call("pg_advisory_lock", "exclusive")
        try:
            yield
        finally:
            self._call("pg_advisory_unlock", "exclusive")

    def is_alive(self, worker: str) -> bool:
        if worker == self.me:  # the server would give us our own lock twice
            return True
        if not self._call("pg_try_advisory_lock", worker):
            return True
        self._call("pg_advisory_unlock", worker)
        return False

    def close(self) -> None:
        with suppress(self._failures):  # the connection is lost, and the locks with it
            self._connection.execute(self._sql("SELECT pg_advisory_unlock_all()"))
        self._connection.close()

    def _call(self, function: str, name: str) -> bool | None:
        number = int.from_bytes(hashlib.sha256(f"harness search {name}".encode()).digest()[:8], signed=True)
        return bool(self._connection.execute(self._sql(f"SELECT {function}(:number)"), {"number": number}).scalar())


def _worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
