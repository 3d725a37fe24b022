"""Task 4: one epoch of a fine-tuned ResNet18 on images of 32x32 enlarged to 224x224, by the harness and by a textbook.

Both train `layer4` and `fc` by Adam in batches of 32, with two validations. Weights are random: they cost as much.
"""

import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.processes import Facts, Ready, Together, together
from benchmarks.report import Figure
from benchmarks.sample import Contender, Line, OnSample, Sample, facts, ratio, side_by_side, values
from benchmarks.workload import Request, Workload, write_images
from harness.study.load import load_study
from harness.trainers.images.machine import Precision
from harness.trainers.images.settings import Settings, with_overrides
from harness.trainers.run import Event

SIDE = 224
MOST_IMAGES = {"cpu": 1_112, "cuda": 50_000}  # a tenth of them is held out


def measure_task4(request: Request, on_sample: OnSample) -> Figure:
    """Seconds for one epoch of 1,000 training images, two validations included, and the peak of memory."""
    device, threads = request.workload.device, request.processes
    most = MOST_IMAGES[device.partition(":")[0]]
    workload = replace(request.workload, num_images=min(request.workload.num_images, most))
    write_images(workload)
    native = f"harness, {workload.precision}"
    precisions: dict[str, Precision] = {native: workload.precision} | {"harness, float32": "float32"}
    contenders = [
        Contender(
            name,
            f"a cell with {threads} threads; images stay 32x32 and are resized by the batch",
            partial(_measure, "benchmarks.task4:train_harness", (workload, precision, threads), threads),
        )
        for name, precision in precisions.items()
    ]
    usual = "each image resized by PIL in a DataLoader with 2 workers, float32, .item() each step; all threads"
    contenders.append(
        Contender("textbook", usual, partial(_measure, "benchmarks.task4_textbook:train_textbook", (workload,)))
    )
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [Line(it.name, "s per 1,000 images", values(samples, it.name)) for it in contenders]
    lines += [ratio(samples, "textbook", name) for name in precisions]
    for name in (it.name for it in contenders):
        busy = facts(samples, name, "cpu_seconds_per_1000")
        lines.append(Line(f"processor time, {name}", "s per 1,000 images", busy))
    for name in (it.name for it in contenders):
        peaks = tuple(value / 1e9 for value in facts(samples, name, "peak_bytes"))
        lines.append(Line(f"peak memory, {name}", "GB", peaks))
    title = f"task 4: ResNet18 at {SIDE} pixels, layer4 and fc train; {workload.num_images:,} images, one epoch"
    return Figure("task4", title, lines, contenders, samples)


def _measure(work: str, arguments: tuple[Any, ...], threads: int | None = None) -> Sample:
    """Seconds per 1,000 training images. Memory is that of the process that trains, without its loaders; processor time
    is with them, and says more than the wall's on a machine that others use."""
    done: Together = together(work, arguments, processes=1, threads=threads)
    seconds, images = done.largest("epoch_seconds"), done.total("images")
    peak = done.largest("device_peak_bytes") or done.largest("peak_rss_bytes")
    busy = 1000 * done.largest("epoch_cpu_seconds") / images
    numbers = {"images": images, "epoch_seconds": seconds, "cpu_seconds_per_1000": busy, "peak_bytes": peak}
    return Sample(1000 * seconds / images, numbers)


def settings_of(precision: Precision, threads: int, side: int) -> Settings:
    """Of the study's baseline, for one epoch from random weights on images of so many pixels a side."""
    overrides = {"model.weights": "none", "training.max_epochs": 1, "preprocessing.resize": side}
    overrides |= {"training.precision": precision, "training.threads": threads}
    return with_overrides(load_study("task4").baseline, overrides)


def train_harness(ready: Ready, workload: Workload, precision: Precision, threads: int, side: int = SIDE) -> Facts:
    """A whole cell; the time from its start to its second validation counts."""
    from benchmarks.bare import bare_run
    from harness.plan.cell import make_cells
    from harness.trainers.images import train as training
    from harness.trainers.images.trainer import ImageTrainer

    settings = settings_of(precision, threads, side)
    (cell,) = make_cells(ImageTrainer(workload.cache), settings, [0], workload.fingerprints)
    arrays = workload.images()
    moments: list[tuple[float, float]] = []
    begin = training._train

    def begin_by_the_clock(*arguments: Any) -> bool:
        moments.append(clocks())
        return begin(*arguments)

    def note(event: Event) -> None:
        if event["event"] == "validation":
            moments.append(clocks())

    with tempfile.TemporaryDirectory(dir=workload.scratch) as folder:
        ready()
        run = bare_run(cell, Path(folder), workload.device, note)
        with mock.patch.object(training, "_train", begin_by_the_clock):
            training.train_on(run, arrays)
    assert len(moments) >= 3, "start and two validations; three where the steps are an odd number"
    images = run.num_steps * settings.training.batch_size
    return {"images": images, **passed(moments[0], moments[-1]), "device_peak_bytes": device_peak(workload.device)}


def clocks() -> tuple[float, float]:
    """Wall and processor seconds, those of worker processes that have ended included."""
    times = os.times()
    return time.perf_counter(), times.user + times.system + times.children_user + times.children_system


def passed(start: tuple[float, float], end: tuple[float, float]) -> Facts:
    """What both clocks say of an epoch."""
    return {"epoch_seconds": end[0] - start[0], "epoch_cpu_seconds": end[1] - start[1]}


def device_peak(device: str) -> int:
    """Peak of the device's memory in tensors; 0 on a CPU."""
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.max_memory_allocated(torch.device(device))
