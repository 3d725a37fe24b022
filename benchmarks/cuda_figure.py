"""Training on a CUDA device: microseconds a step by everybody, cells an hour, and where a cell's time goes."""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
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
    values,
)
from benchmarks.training_figures import throughput
from benchmarks.workload import Request, Workload, write_images

FLOOR_SECONDS, STEP_SECONDS = 10.0, 4.0  # of steps, by the floors and by each way of the harness
START_SECONDS = 10.0  # of a process that imports PyTorch and starts CUDA, about, where it was slow
COMPILE_SECONDS = 20.0
FLOORS = {
    "eager": "forward, backward and step on one resident batch: autocast, channels-last",
    "graph": "the same, captured in a CUDA graph",
    "reduce-overhead": "the same through torch.compile(mode='reduce-overhead'); compiling is not timed",
}
VARIANTS = ("baseline", "optimizer-adamax", "augment-gentle", "augment-harsh", "batch-norm", "model-1")
# Workers, cells and seconds, about (start-up included), with and without MPS.
STUDIES = {"": ((1, 3, 27.0), (4, 12, 50.0)), ", MPS": ((4, 12, 45.0), (12, 24, 75.0))}
LIGHTNING_IMAGES, LIGHTNING_EPOCHS = 12_500, 2


@dataclass(frozen=True)
class Timed(Contender):
    """A contender that takes so many seconds, about: it is left out where they are not left."""

    seconds: float = 0.0


def step_contenders(workload: Workload) -> list[Timed]:
    """Of `cuda-steps`."""
    return [
        *(
            _stepper(
                f"floor, {way}",
                meaning,
                "floor_steps",
                (workload, "baseline", way, FLOOR_SECONDS),
                START_SECONDS + FLOOR_SECONDS + COMPILE_SECONDS * (way not in ("eager", "graph")),
            )
            for way, meaning in FLOORS.items()
        ),
        _stepper(
            "resident loop",
            "images on the device, the network in bfloat16, shuffled by the device, as fast CIFAR programs are written",
            "resident_steps",
            (workload, "baseline", FLOOR_SECONDS),
            START_SECONDS + FLOOR_SECONDS,
        ),
        *(
            _stepper(
                f"harness, {variant}",
                "the harness's own step, with images, augmentation and sums, replayed as a graph",
                "harness_steps",
                (workload, variant, STEP_SECONDS),
                START_SECONDS + 2 * STEP_SECONDS,
                "graph",
            )
            for variant in VARIANTS
        ),
    ]


def measure_steps(request: Request, on_sample: OnSample) -> Figure:
    """Microseconds a step."""
    workload = _on_cuda(request)
    samples, contenders, title = _measured(step_contenders(workload), request, on_sample)
    lines = [Line(it.name, "us/step", values(samples, it.name)) for it in contenders]
    for name in (it.name for it in contenders if it.name.startswith("harness, ")):
        pairs = zip(facts(samples, name, "eager"), values(samples, name), strict=True)
        aim = Aim("at_least", 2.0) if name == "harness, baseline" else None
        lines.append(Line(f"{name}: eager / graph", "ratio", tuple(above / below for above, below in pairs), aim))
    if "harness, baseline" in samples:
        floors = [it.name for it in contenders if it.name.startswith("floor, ")]
        lines += [ratio(samples, name, "harness, baseline") for name in floors]
    return Figure("cuda-steps", f"one optimizer step of 64 images on CUDA{title}", lines, contenders, samples)


def _measured(
    contenders: Sequence[Timed], request: Request, on_sample: OnSample
) -> tuple[dict[str, list[Sample]], list[Timed], str]:
    """Samples, whose they are, and in words who was left out: for lack of time, or since it does not work here."""
    samples: dict[str, list[Sample]] = {}
    left_out: list[str] = []
    for number in range(request.rounds):
        ours = [it for it in contenders if number == 0 or it.name in samples]
        if number and time.monotonic() + sum(it.seconds for it in ours) > request.ends_at:
            break
        for it in ours:
            if not number and time.monotonic() + it.seconds > request.ends_at:
                left_out.append(f"{it.name} (no time)")
                continue
            try:
                sample = it.measure()
            except (RuntimeError, OSError) as error:
                if number:  # a round that is not whole counts for nobody
                    raise
                left_out.append(f"{it.name} ({str(error).strip().splitlines()[-1]})")
                continue
            samples.setdefault(it.name, []).append(sample)
            on_sample(it.name, sample)
    measured = [it for it in contenders if it.name in samples]
    return samples, measured, f"; left out: {', '.join(left_out)}" if left_out else ""


def _stepper(
    name: str, meaning: str, function: str, arguments: tuple[Any, ...], seconds: float, fact: str = "microseconds"
) -> Timed:
    def measure() -> Sample:
        (found,) = together(f"benchmarks.cuda_steps:{function}", arguments, processes=1, threads=1).facts
        return Sample(found[fact], found)

    return Timed(name, meaning, measure, seconds)


def cuda_contenders(workload: Workload) -> list[Timed]:
    """Of `cuda`."""
    return [
        Timed(
            "graph floor",
            "one process: the floor of `cuda-steps`, captured",
            partial(_graph_floor, workload),
            START_SECONDS + FLOOR_SECONDS,
        ),
        Timed(
            "cell",
            "images a second of a cell in a process that has trained another before; its facts tell cold and warm",
            partial(_cell, workload),
            START_SECONDS + 10.0,
        ),
        *(
            Timed(
                f"study, {workers} workers{service}",
                f"{count} cells as `harness ablate` trains them, all with the same number of epochs: starting workers, "
                "importing, files and MLflow included",
                partial(_study, workload, workers, count, service),
                seconds,
            )
            for service, numbers in STUDIES.items()
            if not service or shutil.which("nvidia-cuda-mps-control")
            for workers, count, seconds in numbers
        ),
        *_lightning(workload),
    ]


def measure_cuda(request: Request, on_sample: OnSample) -> Figure:
    """Images a second by a floor, Lightning and studies of several workers, with and without MPS; one cell's time."""
    workload = _on_cuda(request)
    samples, contenders, left_out = _measured(cuda_contenders(workload), request, on_sample)
    lines = [Line(it.name, "images/s", values(samples, it.name)) for it in contenders]
    studies = [name for name in samples if name.startswith("study")]
    for name in studies:
        lines += [
            Line(f"{name}: cells an hour", "cells/h", facts(samples, name, "cells_an_hour")),
            Line(f"{name}: memory of the device", "GB", facts(samples, name, "device_gb")),
            Line(f"{name}: until its first cell begins", "s", facts(samples, name, "start_seconds")),
            Line(f"{name}: from then to its last cell's end", "images/s", facts(samples, name, "images_a_second")),
        ]
    if studies:
        best = fastest(samples, studies)
        if "graph floor" in samples:
            lines.append(ratio(samples, best, "graph floor", Aim("at_least", 1.2)))
        if lightnings := [name for name in samples if name.startswith("lightning")]:
            lines.append(ratio(samples, best, fastest(samples, lightnings), Aim("at_least", 3.0)))
    if "cell" in samples:
        lines += [Line(f"cell, {state}", "s", facts(samples, "cell", f"{state}_seconds")) for state in ("cold", "warm")]
        lines += [
            Line(f"cell, warm: share of {part}", "%", _share(samples, f"{part}_seconds"))
            for part in ("steps", "validation", "checkpoint", "files")
        ]
    title = f"{workload.num_images:,} images, {workload.epochs} epochs on CUDA{left_out}"
    return Figure("cuda", title, lines, contenders, samples)


def _on_cuda(request: Request) -> Workload:
    workload = request.workload
    if not workload.device.startswith("cuda"):
        raise SystemExit("python -m benchmarks: these figures are of a CUDA device: --device cuda")
    if not workload.cache.exists():
        write_images(workload)
    return workload


def _graph_floor(workload: Workload) -> Sample:
    arguments = (workload, "baseline", "graph", FLOOR_SECONDS)
    (found,) = together("benchmarks.cuda_steps:floor_steps", arguments, processes=1, threads=1).facts
    return Sample(1e6 * workload.settings("baseline").training.batch_size / found["microseconds"], found)


def _cell(workload: Workload) -> Sample:
    (found,) = together("benchmarks.cells:train_cold_and_warm", (workload, "baseline"), processes=1, threads=1).facts
    batch_size = workload.settings("baseline").training.batch_size
    return Sample(found["num_steps"] * batch_size / found["warm_seconds"], found)


def _share(samples: Samples, fact: str) -> tuple[float, ...]:
    pairs = zip(facts(samples, "cell", fact), facts(samples, "cell", "warm_seconds"), strict=True)
    return tuple(100 * part / whole for part, whole in pairs)


def _lightning(whole: Workload) -> list[Timed]:
    if find_spec("lightning") is None:
        return []
    workload = replace(whole, num_images=min(whole.num_images, LIGHTNING_IMAGES), epochs=LIGHTNING_EPOCHS)
    if not workload.cache.exists():
        write_images(workload)
    return [
        Timed(
            f"lightning, {processes} processes",
            f"Trainer bf16-mixed, channels-last, no loader processes, a cell each; {workload.num_images:,} images, "
            f"{workload.epochs} epochs",
            partial(
                throughput, "benchmarks.lightning_trainer:train_lightning", (workload, "baseline", 0), processes, 1
            ),
            2 * START_SECONDS + 5.0,
        )
        for processes in (1, 8)
    ]


def _study(workload: Workload, workers: int, count: int, service: str) -> Sample:
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
