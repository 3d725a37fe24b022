"""Training on a CUDA device: microseconds a step by everybody, cells an hour, and where a cell's time goes."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.processes import together
from benchmarks.report import Figure
from benchmarks.sample import (
    Aim,
    Contender,
    Line,
    OnSample,
    Sample,
    Samples,
    facts,
    fastest,
    ratio,
    side_by_side,
    values,
)
from benchmarks.training_figures import throughput
from benchmarks.workload import Request, Workload, write_images

SECONDS = 4.0  # of steps
FLOORS = {
    "eager": "forward, backward and step on one resident batch: autocast, channels-last",
    "graph": "the same, captured in a CUDA graph",
    "compile": "the same through torch.compile; compiling is not timed",
    "reduce-overhead": "the same through torch.compile(mode='reduce-overhead')",
}
VARIANTS = ("baseline", "optimizer-adamax", "augment-gentle", "augment-harsh", "batch-norm", "model-1")
WORKERS = {"": (1, 4), ", MPS": (4, 8, 12)}
CELLS_A_WORKER = 4
LIGHTNING_IMAGES, LIGHTNING_EPOCHS = 12_500, 2


def measure_steps(request: Request, on_sample: OnSample) -> Figure:
    """Microseconds a step."""
    workload = _on_cuda(request)
    contenders = [
        *(
            _stepper(f"floor, {way}", meaning, "floor_steps", (workload, "baseline", way))
            for way, meaning in FLOORS.items()
        ),
        _stepper(
            "resident loop",
            "images on the device, the network in bfloat16, shuffled by the device, as fast CIFAR programs are written",
            "resident_steps",
            (workload, "baseline"),
        ),
        *(
            _stepper(
                f"harness, {variant}",
                "the harness's own step, with images, augmentation and sums, replayed as a graph",
                "harness_steps",
                (workload, variant),
                "graph",
            )
            for variant in VARIANTS
        ),
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [Line(it.name, "us/step", values(samples, it.name)) for it in contenders]
    for variant in VARIANTS:
        name = f"harness, {variant}"
        pairs = zip(facts(samples, name, "eager"), values(samples, name), strict=True)
        aim = Aim("at_least", 2.0) if variant == "baseline" else None
        lines.append(Line(f"{name}: eager / graph", "ratio", tuple(above / below for above, below in pairs), aim))
    lines += [ratio(samples, f"floor, {way}", "harness, baseline") for way in FLOORS]
    return Figure("cuda-steps", "one optimizer step of 64 images on CUDA", lines, contenders, samples)


def _stepper(
    name: str, meaning: str, function: str, arguments: tuple[Any, ...], fact: str = "microseconds"
) -> Contender:
    def measure() -> Sample:
        (found,) = together(f"benchmarks.cuda_steps:{function}", (*arguments, SECONDS), processes=1, threads=1).facts
        return Sample(found[fact], found)

    return Contender(name, meaning, measure)


def measure_cuda(request: Request, on_sample: OnSample) -> Figure:
    """Images a second by a floor, Lightning and studies of several workers, with and without MPS; one cell's time."""
    workload = _on_cuda(request)
    contenders = [
        Contender("graph floor", "one process: the floor of `cuda-steps`, captured", partial(_graph_floor, workload)),
        Contender(
            "cell",
            "images a second of a cell in a process that has trained another before; its facts tell cold and warm",
            partial(_cell, workload),
        ),
        *_lightning(workload),
        *(
            Contender(
                f"study, {workers} workers{service}",
                f"{CELLS_A_WORKER} cells a worker as `harness ablate` trains them, all with the same number of epochs: "
                "starting workers, importing, files and MLflow included",
                partial(_study, workload, workers, service),
            )
            for service, numbers in WORKERS.items()
            if not service or shutil.which("nvidia-cuda-mps-control")
            for workers in numbers
        ),
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [Line(it.name, "images/s", values(samples, it.name)) for it in contenders]
    studies = [name for name in samples if name.startswith("study")]
    for name in studies:
        lines.append(Line(name, "cells/h", facts(samples, name, "cells_an_hour")))
        lines.append(Line(f"{name}: device memory, contexts too", "GB", facts(samples, name, "device_gb")))
    best = fastest(samples, studies)
    lines.append(ratio(samples, best, "graph floor", Aim("at_least", 1.2)))
    if lightnings := [name for name in samples if name.startswith("lightning")]:
        lines.append(ratio(samples, best, fastest(samples, lightnings), Aim("at_least", 3.0)))
    lines += [Line(f"cell, {state}", "s", facts(samples, "cell", f"{state}_seconds")) for state in ("cold", "warm")]
    lines += [
        Line(f"cell, warm: share of {part}", "%", _share(samples, f"{part}_seconds"))
        for part in ("steps", "validation", "checkpoint", "files")
    ]
    title = f"{workload.num_images:,} images, {workload.epochs} epochs on CUDA"
    return Figure("cuda", title, lines, contenders, samples)


def _on_cuda(request: Request) -> Workload:
    workload = request.workload
    if not workload.device.startswith("cuda"):
        raise SystemExit("python -m benchmarks: these figures are of a CUDA device: --device cuda")
    if not workload.cache.exists():
        write_images(workload)
    return workload


def _graph_floor(workload: Workload) -> Sample:
    arguments = (workload, "baseline", "graph", SECONDS)
    (found,) = together("benchmarks.cuda_steps:floor_steps", arguments, processes=1, threads=1).facts
    return Sample(1e6 * workload.settings("baseline").training.batch_size / found["microseconds"], found)


def _cell(workload: Workload) -> Sample:
    (found,) = together("benchmarks.cells:train_cold_and_warm", (workload, "baseline"), processes=1, threads=1).facts
    batch_size = workload.settings("baseline").training.batch_size
    return Sample(found["num_steps"] * batch_size / found["warm_seconds"], found)


def _share(samples: Samples, fact: str) -> tuple[float, ...]:
    pairs = zip(facts(samples, "cell", fact), facts(samples, "cell", "warm_seconds"), strict=True)
    return tuple(100 * part / whole for part, whole in pairs)


def _lightning(whole: Workload) -> list[Contender]:
    if find_spec("lightning") is None:
        return []
    workload = replace(whole, num_images=min(whole.num_images, LIGHTNING_IMAGES), epochs=LIGHTNING_EPOCHS)
    if not workload.cache.exists():
        write_images(workload)
    return [
        Contender(
            f"lightning, {processes} processes",
            f"Trainer bf16-mixed, channels-last, no loader processes, a cell each; {workload.num_images:,} images, "
            f"{workload.epochs} epochs",
            partial(
                throughput, "benchmarks.lightning_trainer:train_lightning", (workload, "baseline", 0), processes, 1
            ),
        )
        for processes in (1, 8)
    ]


def _study(workload: Workload, workers: int, service: str) -> Sample:
    count = CELLS_A_WORKER * workers
    arguments = (workload, "baseline", count, workers)
    with _mps() if service else nullcontext(), _device_memory() as used:
        done = together("benchmarks.cells:train_study", arguments, processes=1, threads=None)
    ours = {"cells_an_hour": 3600 * count / done.seconds, "device_gb": max(used), "seconds": done.seconds}
    return Sample(done.total("images") / done.seconds, dict(done.facts[0]) | ours)


@contextmanager
def _mps() -> Iterator[None]:
    """NVIDIA's Multi-Process Service, of this command alone: kernels of several processes run at the same time."""
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        names = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ |= names
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True)
        try:
            yield
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, check=False)
            for name in names:
                del os.environ[name]


@contextmanager
def _device_memory() -> Iterator[list[float]]:
    """Memory of the device in use by anybody, in GB, about twice a second."""
    used, is_over = [0.0], threading.Event()
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]

    def look() -> None:
        while not is_over.wait(0.5):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
            used.extend(float(it) * 2**20 / 1e9 for it in said[:1] if it.isdigit())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield used
    finally:
        is_over.set()
        thread.join()
