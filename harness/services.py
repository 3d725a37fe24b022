"""Web services as child processes: started together, waited for, watched, and stopped together.

What `harness ui` shows: the page of the studies, the MLflow server and the Optuna dashboard, all on loopback only,
because none of them asks who is there and the dashboard can delete studies. Whole installations for several people are
`docker-compose.yml`'s matter.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from harness.errors import TrackingError
from harness.guard import Guard

HOST = "127.0.0.1"
READY_SECONDS = 120.0  # the MLflow server takes 7 s on an idle machine
STOP_SECONDS = 5.0
POLL_SECONDS = 0.2
MOST_BLOCKS = 20  # of ports that are tried
SHOWN_LINES = 15  # of the log of a service that died


@dataclass(frozen=True, slots=True)
class Service:
    """How to start one service, and how to see that it works.

    Attributes:
        name: for people.
        address: the page for people.
        probe: an address that answers 200 when the service and the database behind it work.
        environment: variables besides those of this process.
    """

    name: str
    command: tuple[str, ...]
    address: str
    probe: str
    environment: Mapping[str, str] = field(default_factory=dict)


def live_page(root: Path, port: int, links: Sequence[tuple[str, str]]) -> Service:
    """The page of the studies in a store; reads the folder of cells, needs no database.

    Args:
        links: name and address of the services beside it, for people.
    """
    command = [sys.executable, "-m", "harness.live.serve", str(root), "--host", HOST, "--port", str(port)]
    command += [part for name, address in links for part in ("--link", name, address)]
    address = f"http://{HOST}:{port}"
    return Service("Studies", tuple(command), f"{address}/", f"{address}/healthy")


def mlflow_server(uri: str, root: Path, port: int) -> Service:
    """The MLflow server with its pages, over a database that `harness.tracking.init` has made ready.

    Args:
        uri: of the database; passed in the environment, for a password would show in the list of processes.
        root: the store's folder; the server writes uploaded artifacts to its `artifacts`.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--allowed-hosts", f"{HOST}:*,localhost:*", "--artifacts-destination", str(root / "artifacts")]
    command += ["--uvicorn-opts", "--log-level warning"]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes and 800 MB for what is not used here
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    address = f"http://{HOST}:{port}"
    probe = f"{address}/api/2.0/mlflow/experiments/search?max_results=1"
    return Service("MLflow", tuple(command), address, probe, environment)


def optuna_dashboard(url: str, port: int) -> Service:
    """The Optuna dashboard behind `harness.search.serve`, over a database that has Optuna's tables: it makes none.

    Args:
        url: of the database; a password goes into the environment, for the dashboard takes the URL as an argument only.
    """
    url, environment = without_password(url)
    command = (sys.executable, "-m", "harness.search.serve", url, "--host", HOST, "--port", str(port))
    address = f"http://{HOST}:{port}"
    return Service("Optuna dashboard", command, f"{address}/dashboard/", f"{address}/api/studies", environment)


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """A database URL that may be seen in a list of processes, and the variable in which PostgreSQL's client library
    finds the password."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    asked = [value for name, value in query if name == "password"]
    if not parts.password and not asked:
        return url, {}
    password = asked[-1] if asked else unquote(parts.password or "")  # the driver lets the query win
    bare = parts
    if parts.password:
        bare = bare._replace(netloc=f"{parts.username}@{parts.netloc.rpartition('@')[2]}")
    if asked:
        bare = bare._replace(query=urlencode([pair for pair in query if pair[0] != "password"], safe="/:"))
    return urlunsplit(bare), {"PGPASSWORD": password}


def free_port(preferred: int) -> int:
    """The preferred port where nobody listens there, else one that the system gives.

    Another process may take it before the service does; the service then dies, and `running` says so.
    """
    return next(port for port in (preferred, 0) if _is_free(port)) or _given()


def ports(first: int, count: int, *, is_asked: bool) -> list[int]:
    """Ports one after another, the same each time as long as nobody else has them.

    Args:
        is_asked: whether the user named the first: then no other will do. Else a block further on is taken, ten ports
            away, where one of them is taken.

    Raises:
        TrackingError: somebody listens on one of those that were asked for, or there is no free block.
    """
    for start in range(first, first + (1 if is_asked else 10 * MOST_BLOCKS), 10):
        taken = [port for port in range(start, start + count) if not _is_free(port)]
        if not taken:
            return list(range(start, start + count))
    if is_asked:
        listed = " and ".join(map(str, taken))
        raise TrackingError(
            f"--port {first}: somebody listens on {listed} already. Name another; {count} are taken in a row."
        )
    raise TrackingError(f"no free ports on {HOST} from {first} on; name another with --port.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed one's port is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _given() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    services: Sequence[Service], on_ready: Callable[[Service], None] = lambda service: None
) -> Iterator["Running"]:
    """Starts the services, waits until each answers, and stops all of them at the end of the block, however it ends;
    a SIGKILL of this process ends them, too (`guard.py`).

    Args:
        on_ready: is told of each service as soon as it answers.

    Raises:
        TrackingError: a service died or did not answer in time; the message ends with the last lines of its log.
    """
    started: list[_Started] = []
    guard = Guard(STOP_SECONDS)
    try:
        for service in services:
            started.append(_start(service))
            guard.watch(started[-1].process.pid)
        everything = Running(started)
        everything.wait_until_ready(on_ready)
        yield everything
    finally:
        _stop(started)
        guard.close()


@dataclass(frozen=True, slots=True)
class _Started:
    service: Service
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def died(self) -> TrackingError:
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").splitlines()[-SHOWN_LINES:]
        said = "\n".join(["It said:", *lines]) if lines else "It said nothing."
        return TrackingError(f"{self.service.name} ended with exit code {self.process.returncode}. {said}")


@dataclass(frozen=True, slots=True)
class Running:
    """Services that run; made by `running`."""

    started: Sequence[_Started]

    def wait_until_ready(self, on_ready: Callable[[Service], None]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        waiting = list(self.started)
        while waiting:
            self.check()
            ready = [it for it in waiting if answers(it.service.probe)]
            for it in ready:
                waiting.remove(it)
                on_ready(it.service)
            if waiting and time.monotonic() > deadline:
                names = " and ".join(it.service.name for it in waiting)
                raise TrackingError(
                    f"{names} did not answer within {READY_SECONDS:.0f} s; try again on an idle machine."
                )
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Raises TrackingError if a service has died."""
        for it in self.started:
            if it.process.poll() is not None:
                raise it.died()

    def wait(self) -> None:
        """Returns never; raises TrackingError when a service dies, or what interrupts this process."""
        while True:
            self.check()
            time.sleep(POLL_SECONDS)


def answers(address: str) -> bool:
    """Whether a GET gives status 200."""
    return fetched(address) is not None


def fetched(address: str) -> bytes | None:
    """What a GET gives, or None where it gives no status 200. Proxies are passed by: the address is this machine's."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=5) as response:
            return bytes(response.read()) if response.status == 200 else None
    except (OSError, HTTPException):  # refused, reset, timed out, another status, half an answer
        return None


def experiment_pages(server: str, count: int) -> list[tuple[str, str]]:
    """Name and page of the experiments that were last written to, on an MLflow server.

    The direct way to the runs: MLflow 3.17 opens an experiment on its pages for language models, where there are none,
    until somebody chooses "Model training" there (delete this when it goes by the kind of the experiment again).
    """
    query = urlencode({"max_results": count + 1, "order_by": "last_update_time DESC"})
    answer = json.loads(fetched(f"{server}/api/2.0/mlflow/experiments/search?{query}") or "{}")
    return [
        (it["name"], f"{server}/#/experiments/{it['experiment_id']}/runs?workflowType=machine_learning")
        for it in answer.get("experiments", [])
        if it["name"] != "Default"
    ][:count]


def _start(service: Service) -> _Started:
    log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
    process = subprocess.Popen(
        service.command,
        env=os.environ | service.environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches this process only, and the service's own children can be found
    )
    return _Started(service, process, log)


def _stop(started: Sequence[_Started]) -> None:
    """Ends every service with its children: asked first, then killed. A second Ctrl-C must not leave half of them."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        for it in started:
            _signal_group(it.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for it in started:
            while _signal_group(it.process.pid, None) and time.monotonic() < deadline:
                it.process.poll()  # reaps it, so that its group can end
                time.sleep(POLL_SECONDS / 4)
            _signal_group(it.process.pid, signal.SIGKILL)
            it.process.wait()
            it.log.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_group(leader: int, number: int | None) -> bool:
    """Whether the group of processes was there to get the signal; None only asks."""
    try:
        os.killpg(leader, number or 0)
    except ProcessLookupError:
        return False
    return True
