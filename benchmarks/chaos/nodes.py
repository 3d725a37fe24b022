"""A Ray cluster on this machine, a process tree a node: nodes can be killed, hung and added."""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A dead node is noticed within about eight seconds, not after a minute as by default.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
OBJECT_STORE_BYTES = 80_000_000


class Nodes:
    """The nodes of a cluster; the first is its head, to which the command belongs, and is left alone.

    Attributes:
        victims: nodes that live and may be troubled.
    """

    def __init__(self, cluster: Any, num_nodes: int) -> None:
        self._cluster = cluster
        self._hung: list[int] = []
        self._add(1 if num_nodes else 0, _system_config=HEALTH)  # a head alone trains nothing
        self.victims: list[Any] = []
        for _ in range(num_nodes):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, num_cpus: int = 1, **variables: str) -> None:
        """Args: variables: of this node's environment alone."""
        with _environment(variables):
            self.victims.append(self._add(num_cpus))

    def _add(self, num_cpus: int, **options: Any) -> Any:
        common = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        return self._cluster.add_node(num_cpus=num_cpus, **common, **options)

    def kill(self, node: Any, *, workers_too: bool) -> None:
        """Workers that are left are orphans, and must end by themselves."""
        self.victims.remove(node)
        self._cluster.worker_nodes.discard(node)
        daemon = _daemon(node)
        for pid in [daemon, *(descendants(daemon) if workers_too else ())]:
            _send(pid, signal.SIGKILL)

    def hang(self, node: Any) -> None:
        """Daemon and workers stop, as on a machine that hangs."""
        self.victims.remove(node)
        stopped = [_daemon(node), *descendants(_daemon(node))]
        self._hung += stopped
        for pid in stopped:
            _send(pid, signal.SIGSTOP)

    def wake(self) -> None:
        """What was hung goes on, whoever has given it up meanwhile."""
        for pid in self._hung:
            _send(pid, signal.SIGCONT)

    def clear_away(self) -> None:
        for pid in self._hung:
            _send(pid, signal.SIGKILL)


@contextmanager
def ray_nodes(variables: Mapping[str, str], num_nodes: int = 2) -> Iterator[Nodes]:
    """A head and two more nodes of one CPU each.

    Args:
        variables: of the environment of whatever trains there.
        num_nodes: besides the head; where there are none, the head has no CPU.
    """
    from ray.cluster_utils import Cluster

    with _environment({"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", **variables}):
        cluster, nodes = Cluster(), None
        try:
            nodes = Nodes(cluster, num_nodes)
            yield nodes
        finally:
            if nodes is not None:
                nodes.clear_away()
            cluster.shutdown()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def descendants(pid: int) -> list[int]:
    """Every process below one, as far as they live."""
    found: list[int] = []
    for child in _children(pid):
        found += [child, *descendants(child)]
    return found


def _children(pid: int) -> Sequence[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):  # each thread has those that it started
        with contextlib.suppress(OSError):
            found += [int(it) for it in thread.read_text().split()]
    return found


def _daemon(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
