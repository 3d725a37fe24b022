"""The harness itself: a real cell end to end, and a study as `harness ablate` trains it.

Nothing is switched off. A cell reads its images, trains, validates, writes journal, checkpoints, best weights and
result. A study starts its worker processes, imports what they need, and delivers everything to MLflow.
"""

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

from benchmarks.bare import bare_run
from benchmarks.processes import Facts, Ready, peak_rss_bytes
from benchmarks.workload import Workload
from harness.api.work import Work, save_manifest, unfinished
from harness.cli.training import train_plan
from harness.execution.executor import Demand
from harness.execution.here import run_one
from harness.plan.cell import make_cells
from harness.plan.plan import make_plan
from harness.store.cells import Cells
from harness.store.result import Result
from harness.study.load import make_study
from harness.study.study import Study
from harness.trainers.images.settings import Settings
from harness.trainers.images.trainer import ImageTrainer

# What the folder of cells writes: specification, journal, result, the checkpoint's new name. Timed in a process of its
# own, which ends with it.
FILE_WRITERS = ((Cells, "open"), (Cells, "append"), (Cells, "write_result"), (Cells, "keep_checkpoint"))


def train_one_cell(ready: Ready, workload: Workload, variant: str) -> Facts:
    """One cell in this process, with `file_seconds`: what journal, checkpoints and best weights took of its time."""
    from harness.trainers.images import train as training

    settings = workload.settings(variant)
    (cell,) = make_cells(ImageTrainer(workload.cache), settings, [0], workload.fingerprints)
    watch = Stopwatch()
    for owner, name in FILE_WRITERS:
        setattr(owner, name, watch.timed(getattr(owner, name)))
    for name in ("save_checkpoint", "write_file"):
        setattr(training, name, watch.timed(getattr(training, name)))
    with _store(workload) as cells:
        ready()
        run_one(cell, cells, device=workload.device, provenance={})
        result = _finished(cells.result(cell.key))
    return {
        "images": result.num_steps * settings.training.batch_size,
        "cell_seconds": result.seconds,
        "file_seconds": watch.seconds,
        "worker_peak_bytes": result.peak_memory_bytes or 0,
    }


def train_cold_and_warm(ready: Ready, workload: Workload, variant: str) -> Facts:
    """One cell twice in this process: with the start of CUDA and of its libraries, and without; and where the time of
    the second went, in seconds. Each part waits for the device before and after it."""
    import torch

    from harness.trainers.images import train as training

    parts = {"validation": "_validate", "checkpoint": "_save"}
    settings = workload.settings(variant)
    cold, warm = make_cells(ImageTrainer(workload.cache), settings, [0, 1], workload.fingerprints)
    ready()
    found: Facts = {}
    for name, cell in {"cold": cold, "warm": warm}.items():
        watches = {part: Stopwatch() for part in (*parts, "files")}
        with _store(workload) as cells, ExitStack() as patches:
            if name == "warm":
                for part, function in parts.items():
                    timed = _alone(getattr(training, function), watches[part], torch.cuda.synchronize)
                    patches.enter_context(patch.object(training, function, timed))
                for owner, function in FILE_WRITERS:
                    timed = watches["files"].timed(getattr(owner, function))
                    patches.enter_context(patch.object(owner, function, timed))
            began = time.perf_counter()
            run_one(cell, cells, device=workload.device, provenance={})
            found[f"{name}_seconds"] = time.perf_counter() - began
            result = _finished(cells.result(cell.key))
            found |= {"num_steps": result.num_steps, "step_mode": result.facts.get("step_mode", "eager")}
    found |= {f"{part}_seconds": watch.seconds for part, watch in watches.items()}
    found["steps_seconds"] = found["warm_seconds"] - found["validation_seconds"] - found["checkpoint_seconds"]
    return found


def _alone(function: Callable[..., Any], watch: "Stopwatch", wait: Callable[[], None]) -> Callable[..., Any]:
    """The function, timed from when the device has done what it was given before until it has done the function's."""

    def whole(*arguments: Any) -> Any:
        answer = function(*arguments)
        wait()
        return answer

    def call(*arguments: Any) -> Any:
        wait()
        return watch.timed(whole)(*arguments)

    return call


def train_without_files(ready: Ready, workload: Workload, variant: str, is_plain: bool = False) -> Facts:
    """The same cell with no journal, no checkpoint and no weights written; `is_plain`: by PyTorch's convolutions."""
    from harness.trainers.images import train as training

    if is_plain:
        training.winograd_pays = lambda: False
    settings = workload.settings(variant)
    (cell,) = make_cells(ImageTrainer(workload.cache), settings, [0], workload.fingerprints)
    for name in ("_save", "write_file"):
        setattr(training, name, lambda *arguments: None)
    ready()
    run = bare_run(cell, workload.scratch, workload.device)
    training.train_on(run, workload.images())
    return {"images": run.num_steps * settings.training.batch_size}


def train_study(ready: Ready, workload: Workload, variant: str, num_cells: int, workers: int) -> Facts:
    """A study of so many seeds of one variant, by the code behind `harness ablate`, tracked in SQLite.

    Besides images it tells `start_seconds` (until the first cell begins), `images_a_second` (from then to the last
    cell's end), `cell_seconds` (the sum over cells) and the peak memory of the largest worker and of the process that
    feeds them and MLflow.
    """
    with _store(workload) as cells:
        work = _planned(workload, variant, num_cells, workers, cells)
        ready()
        began = time.time()
        _ablate(work)
        peak = peak_rss_bytes()
        results = [_finished(cells.result(cell.key)) for cell in work.plan.cells]
        first, last = _span(cells, work)
    images = sum(it.num_steps for it in results) * workload.settings(variant).training.batch_size
    return {
        "images": images,
        "start_seconds": first - began,
        "images_a_second": images / (last - first),
        "cell_seconds": sum(it.seconds for it in results),
        "worker_peak_bytes": max(it.peak_memory_bytes or 0 for it in results),
        "parent_peak_bytes": peak,
    }


def _span(cells: Cells, work: Work) -> tuple[float, float]:
    """When the first cell began and the last one ended, in seconds since the epoch, by their journals."""
    times = [
        datetime.fromisoformat(event["time"]).timestamp()
        for cell in work.plan.cells
        for event in cells.events(cell.key)
        if event["event"] in ("started", "ended")
    ]
    return min(times), max(times)


def estimate_study(ready: Ready, workload: Workload, variant: str, num_cells: int, workers: int) -> Facts:
    """Trains a cell a worker, asks how long the other cells will take, and trains them: both numbers in seconds."""
    with _store(workload) as cells:
        _ablate(_planned(workload, variant, workers, workers, cells))
        work = _planned(workload, variant, num_cells, workers, cells)
        ready()
        began = time.monotonic()
        expected = _ablate(work)
        return {"expected_seconds": expected, "seconds": time.monotonic() - began}


def _planned(workload: Workload, variant: str, num_cells: int, workers: int, cells: Cells) -> Work:
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # the user's server is none of our business
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # as the command does
    os.environ["HARNESS_CACHE"] = str(workload.cache)  # for workers, which make a trainer of their own
    plan = make_plan(
        _study_of(workload.settings(variant), num_cells),
        fingerprints=lambda settings: workload.fingerprints,
        device=workload.device.partition(":")[0],
    )
    assert len(plan.cells) == num_cells
    return Work(plan, cells, workload.device, (workload.device,) * workers, demand=Demand(most=workers))


def _ablate(work: Work) -> float:
    """Trains what is missing; gives how long that was expected to take, in seconds."""
    todo, expected = unfinished(work)
    train_plan(Console(file=io.StringIO()), work, todo, lambda: save_manifest(work), expected)
    return expected.seconds


def _study_of(settings: Settings, num_cells: int) -> Study:
    """A study without changes: its cells are those of the baseline, one a seed."""
    tree = {
        "name": "benchmark",
        "title": "Cells of one variant",
        "baseline": settings.tree(),
        "changes": [],
        "profiles": {"standard": {"seeds": num_cells}},
    }
    return make_study(tree)


def _finished(result: Result | None) -> Result:
    assert result is not None
    assert result.is_finished, result.reason
    return result


class Stopwatch:
    """Adds up the wall time of calls; a timed call within a timed call counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added."""

        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            self._depth += 1
            try:
                return function(*arguments, **options)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - began

        return call


@contextmanager
def _store(workload: Workload) -> Iterator[Cells]:
    """A new store, removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="store-", dir=workload.scratch))
    try:
        yield Cells(root.absolute())
    finally:
        shutil.rmtree(root, ignore_errors=True)
