"""The figure `cluster`: what Ray costs beside worker processes, and how images reach its nodes."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median

from benchmarks.cluster_overhead import CHECKPOINT_BYTES, STEPS
from benchmarks.processes import together
from benchmarks.report import Figure
from benchmarks.sample import Aim, Contender, Line, OnSample, Sample, Samples, facts, side_by_side, values
from benchmarks.workload import Request, write_images

NUM_CELLS, DRIVEN_CELLS = 40, 300
VALIDATIONS = 14  # of a baseline cell, each with a checkpoint: seven epochs
# Of a baseline cell: seven epochs of 45,000 images, at 1,813 a second (results/2026-11-24-amd-epyc-winograd.json).
BASELINE_SECONDS = 174.0
IMAGES = 163_000  # 600 MB, with a fifth as many for tests
CELLS_A_NODE = 4


def measure_cluster(request: Request, on_sample: OnSample) -> Figure:
    """Gaps, calls and images; `--images` says how many of the last, and all else is of a fixed size."""
    scratch, num_images = request.workload.scratch, request.cluster_images or IMAGES
    contenders = [
        Contender(name, meaning, partial(_train, scratch, name == "ray"))
        for name, meaning in {
            "processes": f"two workers, {NUM_CELLS} cells that log and save {STEPS} times; seconds from a worker's end "
            "of one to its start of the next",
            "ray": "the same on a cluster of three nodes on this machine, two cells at a time",
        }.items()
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = list(chain.from_iterable(_calls(samples, it.name) for it in contenders))
    share = tuple(_cost(ray, own) / BASELINE_SECONDS for own, ray in zip(*samples.values(), strict=True))
    lines.append(
        Line(f"what Ray adds to a baseline cell of {BASELINE_SECONDS:g} s", "share", share, Aim("at_most", 0.02))
    )
    driver = Contender(
        "driver",
        f"milliseconds of its CPU for one of {DRIVEN_CELLS} cells that log once, on two workers of a cluster",
        partial(_drive, scratch),
    )
    samples |= side_by_side([driver], 1, on_sample)
    lines.append(Line("driver: CPU a cell", "ms", values(samples, driver.name)))
    lines.append(Line("driver: cells", "cells/s", facts(samples, driver.name, "cells_a_second")))
    carried = Contender(
        "images",
        f"seconds until a node had them, of two with empty caches and two workers each, {CELLS_A_NODE} cells a node",
        partial(_carry, request, num_images),
    )
    samples |= side_by_side([carried], 1, on_sample)
    lines += list(_images(samples[carried.name][0]))
    return Figure("cluster", "Ray beside processes; images", lines, [*contenders, driver, carried], samples)


def _train(scratch: Path, on_ray: bool) -> Sample:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        arguments = (Path(folder), NUM_CELLS, on_ray)
        work = "benchmarks.cluster_overhead:train_small_cells"
        (found,) = together(work, arguments, processes=1, threads=None).facts
    medians = {name: median(found[name]) for name in ("gaps", "logged", "saved")}
    return Sample(medians["gaps"], medians | {"longest": max(found["gaps"])})


def _drive(scratch: Path) -> Sample:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        arguments = (Path(folder), DRIVEN_CELLS)
        (found,) = together("benchmarks.cluster_overhead:drive_cluster", arguments, processes=1, threads=None).facts
    rate = {"cells_a_second": found["cells"] / found["seconds"]}
    return Sample(1000 * found["driver_cpu_seconds"] / found["cells"], found | rate)


def _cost(ray: Sample, own: Sample) -> float:
    """Seconds that Ray adds to a cell of so many validations and checkpoints."""
    between, logged, saved = (float(ray.facts[it]) - float(own.facts[it]) for it in ("gaps", "logged", "saved"))
    return between + VALIDATIONS * (logged + saved)


def _calls(samples: Samples, name: str) -> Iterator[Line]:
    yield Line(f"{name}: from a cell's end to the next one's start", "ms", _ms(values(samples, name)))
    yield Line(f"{name}: the longest of these", "ms", _ms(facts(samples, name, "longest")))
    yield Line(f"{name}: run.log", "ms", _ms(facts(samples, name, "logged")))
    yield Line(f"{name}: run.saving, {CHECKPOINT_BYTES / 1e6:g} MB", "ms", _ms(facts(samples, name, "saved")))


def _ms(seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(1000 * it for it in seconds)


def _carry(request: Request, num_images: int) -> Sample:
    workload = replace(request.workload, num_images=num_images, scratch=request.workload.scratch / "carried")
    write_images(workload)
    try:
        with tempfile.TemporaryDirectory(dir=workload.scratch) as folder:
            arguments = (workload, Path(folder), CELLS_A_NODE)
            work = "benchmarks.cluster_overhead:carry_images"
            (found,) = together(work, arguments, processes=1, threads=None).facts
    finally:
        shutil.rmtree(workload.scratch)
    return Sample(median(found["seconds"]), found)


def _images(sample: Sample) -> Iterator[Line]:
    found = sample.facts
    times = tuple(it / found["bytes"] for it in found["fetched_bytes"])
    yield Line("images", "MB", (found["bytes"] / 1e6,))
    yield Line("images: nodes that fetched them", "", (float(len(times)),))
    yield Line("images: times that a node fetched them", "", times, Aim("at_most", 1))
    yield Line("images: until a node had them", "s", tuple(found["seconds"]))
