"""Ray clusters on this machine, a process tree a node, for tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def ray_cluster(*cpus: int) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` with a node for each number, which is that of its CPUs; `address` is its head's.

    A dead node is noticed within seconds, not after a minute as by default.
    """
    from ray.cluster_utils import Cluster

    health = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 2000}
    cluster = Cluster()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so; else they wait for the machine
    usual = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), usual]))  # for nodes: fakes
    try:
        for index, count in enumerate(cpus):
            head = {"_system_config": {**health, "health_check_failure_threshold": 3}} if index == 0 else {}
            cluster.add_node(num_cpus=count, object_store_memory=80_000_000, include_dashboard=False, **head)
        yield cluster
    finally:
        os.environ["PYTHONPATH"] = usual
        cluster.shutdown()
