"""What carries a cell on Ray, beside worker processes: between two cells, at each thing that is told, and its images.

The trainings note their own times; who reads them pairs the cells of each worker.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.chaos.nodes import ray_nodes
from benchmarks.core_overhead import FUNCTION as IDLE
from benchmarks.core_overhead import STUDY, leave_the_user_alone
from benchmarks.processes import Facts, Ready
from benchmarks.workload import Workload
from harness.plan.cell import make_cells
from harness.store.cells import Cells
from harness.store.result import Result
from harness.trainers.images.trainer import ImageTrainer
from harness.trainers.run import Run

WORKERS = 2
STEPS = 8  # of a training; each logs and saves
CHECKPOINT_BYTES = 5_000_000  # of the baseline: weights and the optimizer's two states
FUNCTION = f"""
import os, time

def train(run):
    began, logged, saved = time.time(), [], []
    for step in range(1, {STEPS} + 1):
        start = time.perf_counter()
        run.log(step, **{{"val/score": run.settings.rate * run.settings.width}})
        middle = time.perf_counter()
        with run.saving() as path:
            path.write_bytes(bytes({CHECKPOINT_BYTES}))
        logged.append(middle - start)
        saved.append(time.perf_counter() - middle)
    run.note(worker=os.getpid(), logged=sum(logged) / len(logged), saved=sum(saved) / len(saved))
    run.note(began=began, left=time.time())
    run.finish(**{{"test/score": 1.0}})
"""


def train_small_cells(ready: Ready, folder: Path, num_cells: int, on_ray: bool) -> Facts:
    """Cells that do nothing but tell, on two workers.

    Returns:
        `gaps`: seconds between the end of a worker's training and the start of its next one; `logged`, `saved`: means
        of each cell, in seconds a call.
    """
    from harness.api.work import plan_work, prepare
    from harness.execution.executor import Demand
    from harness.execution.runner import run

    leave_the_user_alone()
    (folder / "telling.py").write_text(FUNCTION)
    study = {**STUDY, "trainer": {"function": "telling:train"}, "profiles": {"standard": {"seeds": num_cells // 2}}}
    (folder / "telling.yaml").write_text(json.dumps(study))
    work = plan_work(folder / "telling.yaml", device="cpu", jobs=WORKERS, store=folder / "mlruns")
    prepare(work, work.plan.cells)
    with ExitStack() as stack:
        nodes = stack.enter_context(ray_nodes({})) if on_ray else None
        ready()
        executor = f"ray:{nodes.address}" if nodes else "processes"
        options: Mapping[str, Any] = {"devices": ["cpu"] * WORKERS, "demand": Demand(most=WORKERS)}
        run(work.plan.cells, work.cells, provenance={}, executor=executor, **options)
    results = [work.cells.result(cell.key) for cell in work.plan.cells]
    facts = [it.facts for it in results if it is not None and it.is_finished]
    assert len(facts) == len(work.plan.cells)
    return {
        "gaps": _gaps(facts),
        "logged": [float(it["logged"]) for it in facts],
        "saved": [float(it["saved"]) for it in facts],
    }


def _gaps(facts: Sequence[Mapping[str, Any]]) -> list[float]:
    by_worker: dict[int, list[Mapping[str, Any]]] = {}
    for it in sorted(facts, key=lambda it: float(it["began"])):
        by_worker.setdefault(int(it["worker"]), []).append(it)
    return [float(b["began"]) - float(a["left"]) for those in by_worker.values() for a, b in pairwise(those)]


def drive_cluster(ready: Ready, folder: Path, num_cells: int) -> Facts:
    """Cells that log once, on two workers of a cluster; CPU of this process, the driver, as for all of `together`.

    The first tenth is not counted: workers start, and import.
    """
    from harness.api.work import plan_work, prepare
    from harness.execution.executor import Demand
    from harness.execution.runner import Progress, run

    leave_the_user_alone()
    (folder / "idle.py").write_text(IDLE)
    study = {**STUDY, "profiles": {"standard": {"seeds": num_cells // 2}}}
    (folder / "idle.yaml").write_text(json.dumps(study))
    work = plan_work(folder / "idle.yaml", device="cpu", jobs=WORKERS, store=folder / "mlruns")
    prepare(work, work.plan.cells)
    ends: list[tuple[float, float]] = []

    def note(progress: Progress) -> None:
        if progress.kind == "ended":
            ends.append((time.monotonic(), time.process_time()))

    with ray_nodes({}) as nodes:
        ready()
        options: Mapping[str, Any] = {"devices": ["cpu"] * WORKERS, "demand": Demand(most=WORKERS)}
        executor = f"ray:{nodes.address}"
        run(work.plan.cells, work.cells, provenance={}, executor=executor, on_progress=note, **options)
    first, last = ends[num_cells // 10], ends[-1]
    counted = num_cells - num_cells // 10 - 1
    return {"cells": counted, "seconds": last[0] - first[0], "driver_cpu_seconds": last[1] - first[1]}


class Carried(ImageTrainer):
    """Opens its images and ends; notes each file that its node fetches, and how long a supply took."""

    kind = "benchmarks.cluster_overhead:Carried"

    def train(self, run: Run) -> None:
        from harness.trainers.images.data.sources import load_images

        arrays = load_images(run.settings.data, cache=self.cache, fingerprint=run.fingerprints["data"])
        shown = dict.fromkeys(self.metrics.names, 0.5)
        run.log(1, epoch=1.0, **{name: it for name, it in shown.items() if not name.startswith("test/")})
        run.note(images=len(arrays.train_images), node=str(self.cache), worker=os.getpid())
        run.finish(**shown)

    def receive_supply(self, name: str, files: Mapping[str, Callable[[], memoryview]]) -> None:
        noted = self.cache / "fetched"

        def noting(file: str) -> Callable[[], memoryview]:
            def fetch() -> memoryview:
                content = files[file]()
                with noted.open("a") as lines:
                    lines.write(f"{file} {content.nbytes}\n")
                return content

            return fetch

        began = time.monotonic()
        super().receive_supply(name, {file: noting(file) for file in files})
        with (self.cache / "took").open("a") as lines:
            lines.write(f"{time.monotonic() - began}\n")


def carry_images(ready: Ready, workload: Workload, folder: Path, cells_a_node: int) -> Facts:
    """The workload's images to two nodes of two workers each, whose caches are their own and empty.

    Returns:
        `bytes` of the images; of each node, `fetched`: how many files, `fetched_bytes`, and `seconds`: of the worker
        that fetched them.
    """
    from harness.execution.executor import Demand
    from harness.execution.runner import run

    os.environ["HARNESS_CACHE"] = str(workload.cache)
    trainer = Carried()
    settings = workload.settings("baseline")
    todo = make_cells(trainer, settings, range(2 * cells_a_node), trainer.fingerprints(settings))
    source = trainer.supply(settings, dict(todo[0].fingerprints))
    assert source is not None
    cells = Cells(folder / "mlruns")
    with ray_nodes({}, num_nodes=0) as nodes:
        caches = [folder / f"node-{number}" for number in range(2)]
        for cache in caches:
            nodes.add(num_cpus=2, HARNESS_CACHE=str(cache))
        ready()
        run(todo, cells, devices=["cpu"], provenance={}, executor=f"ray:{nodes.address}", demand=Demand(most=4))
    results = [cells.result(cell.key) for cell in todo]
    assert all(isinstance(it, Result) and it.is_finished for it in results), results
    used = [it for it in caches if (it / "fetched").exists()]
    lines = [(it / "fetched").read_text().splitlines() for it in used]
    facts = {
        "bytes": sum(it.stat().st_size for it in source.iterdir()),
        "fetched": [len(it) for it in lines],
        "fetched_bytes": [sum(int(line.split()[1]) for line in it) for it in lines],
        "seconds": [max(map(float, (it / "took").read_text().split())) for it in used],
    }
    for cache in caches:
        shutil.rmtree(cache, ignore_errors=True)
    return facts
