"""Figures of training: speed by everybody, memory, the cost of files and tracking, growth with data.

Bounds are those of the project's own aims for two cores with native bfloat16; elsewhere a ratio stands without its aim.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.processes import Work, together
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
from benchmarks.workload import Request, Workload, write_images


def measure_variant(request: Request, on_sample: OnSample, variant: str) -> Figure:
    """Images a second of one variant, by everybody."""
    contenders = _trainers(request, variant)
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [Line(it.name, "images/s", values(samples, it.name)) for it in contenders]
    lines += _variant_ratios(request, variant, samples)
    if variant == "baseline":
        lines += _memory(samples)
    lines.append(_cells_an_hour(samples, request.study_cells))
    title = f"{variant}: {request.workload.num_images:,} images, {request.workload.epochs} epochs"
    return Figure(variant, title, lines, contenders, samples)


def _trainers(request: Request, variant: str) -> list[Contender]:
    """Everybody who trains this variant. For others than the baseline, peers in their best configuration only."""
    workload, many, is_baseline = request.workload, request.processes, variant == "baseline"
    ways = _ways((1, 1), (1, many), (many, 1)) if is_baseline else _ways((many, 1))
    found = [
        Contender(
            f"floor {way}",
            f"one resident batch, no loading, no validation; {way} (processes x threads)",
            partial(throughput, "benchmarks.floor:train_one_batch", (workload, variant, False), *shape),
        )
        for way, shape in ways.items()
    ]
    found.append(
        Contender(
            "floor with switches",
            f"the same, {many} x 1, under the harness's process switches (memory is kept, no denormals)",
            partial(throughput, "benchmarks.floor:train_one_batch", (workload, variant, True), many, 1),
        )
    )
    if is_baseline:
        cell = partial(throughput, "benchmarks.cells:train_one_cell", (workload, variant), 1, None)
        found.append(Contender("cell", "one cell end to end in one process: images, validations, files", cell))
    study = partial(throughput, "benchmarks.cells:train_study", (workload, variant, request.study_cells, many), 1, None)
    found += [
        Contender(
            "study",
            f"{request.study_cells} cells on {many} workers as `harness ablate` trains them: starting the workers, "
            "importing, files and MLflow included",
            study,
        ),
        Contender(
            "textbook",
            "PIL transforms, DataLoader with 2 workers, float32, .item() each step; one process, all threads",
            partial(throughput, "benchmarks.textbook:train_textbook", (workload, variant), 1, None),
        ),
    ]
    return found + _lightning(workload, variant, ways if not is_baseline else _ways((1, many), (many, 1)))


def _ways(*shapes: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """(processes, threads) by name; the same one twice, on one core, is one."""
    return {f"{processes} x {threads}": (processes, threads) for processes, threads in shapes}


def _lightning(workload: Workload, variant: str, ways: dict[str, tuple[int, int]]) -> list[Contender]:
    if find_spec("lightning") is None:
        return []
    return [
        Contender(
            f"lightning {way}, {workers} loaders",
            f"Trainer bf16-mixed, channels-last; {way} (processes x threads), {workers} DataLoader workers each",
            partial(throughput, "benchmarks.lightning_trainer:train_lightning", (workload, variant, workers), *shape),
        )
        for way, shape in ways.items()
        for workers in (0, 2)
    ]


def _variant_ratios(request: Request, variant: str, samples: Samples) -> list[Line]:
    has_aims = request.workload.device == "cpu" and request.workload.precision == "bfloat16" and request.processes == 2
    bounds = {"floor": 1.05, "lightning": 1.5, "textbook": 5.0} if variant == "baseline" else {"floor": 1.0}
    aims = {name: Aim("at_least", bound) for name, bound in bounds.items()} if has_aims else {}
    lines = [ratio(samples, "study", f"floor {request.processes} x 1", aims.get("floor"))]
    lines.append(ratio(samples, "study", "floor with switches"))
    lightnings = [name for name in samples if name.startswith("lightning")]
    if lightnings:
        lines.append(ratio(samples, "study", fastest(samples, lightnings), aims.get("lightning")))
    lines.append(ratio(samples, "study", "textbook", aims.get("textbook")))
    if "cell" in samples:
        lines.append(ratio(samples, "cell", "floor 1 x 1"))
        lines.append(ratio(samples, "study", "cell"))
    return lines


def _memory(samples: Samples) -> list[Line]:
    """Peaks of resident memory (of device memory on CUDA), in GB of 10^9 bytes; mapped image files count."""
    bound = Aim("at_most", 1.2)
    return [
        Line("peak memory of a cell", "GB", _gigabytes(samples, "cell", "worker_peak_bytes"), bound),
        Line("peak memory of a study's worker", "GB", _gigabytes(samples, "study", "worker_peak_bytes"), bound),
        Line("peak memory of a study's parent", "GB", _gigabytes(samples, "study", "parent_peak_bytes")),
        Line("peak memory of the textbook's parent", "GB", _gigabytes(samples, "textbook", "peak_rss_bytes")),
    ]


def _gigabytes(samples: Samples, name: str, fact: str) -> tuple[float, ...]:
    return tuple(size / 1e9 for size in facts(samples, name, fact))


def _cells_an_hour(samples: Samples, study_cells: int) -> Line:
    seconds = facts(samples, "study", "seconds")
    return Line("study: cells (seeds) of this length an hour", "1/h", tuple(study_cells * 3600 / it for it in seconds))


def throughput(work: Work, arguments: Sequence[Any], processes: int, threads: int | None) -> Sample:
    """Training images a second over all processes; validations take time and count for nothing."""
    done = together(work, arguments, processes=processes, threads=threads)
    images = done.total("images")
    numbers = {name for each in done.facts for name in each} - {"images"}
    return Sample(
        images / done.seconds, {"images": images, "seconds": done.seconds} | {it: done.largest(it) for it in numbers}
    )


def measure_overhead(request: Request, on_sample: OnSample) -> Figure:
    """What journal, checkpoints, weights and MLflow cost a baseline cell."""
    workload, many = request.workload, request.processes
    contenders = [
        Contender(
            "cell",
            "a cell with all its files",
            partial(throughput, "benchmarks.cells:train_one_cell", (workload, "baseline"), 1, None),
        ),
        Contender(
            "cell without files",
            "the same cell, no journal, checkpoint or weights written",
            partial(throughput, "benchmarks.cells:train_without_files", (workload, "baseline"), 1, None),
        ),
        Contender(
            "study",
            f"{request.study_cells} cells; the parent's CPU time is that of MLflow (its import too) and of progress",
            partial(
                throughput, "benchmarks.cells:train_study", (workload, "baseline", request.study_cells, many), 1, None
            ),
        ),
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    files = _percent(facts(samples, "cell", "file_seconds"), facts(samples, "cell", "seconds"))
    core_seconds = [many * seconds for seconds in facts(samples, "study", "seconds")]
    tracking = _percent(facts(samples, "study", "cpu_seconds"), core_seconds)
    both = tuple(map(sum, zip(files, tracking, strict=True)))
    lines = [
        ratio(samples, "cell", "cell without files"),
        Line("journal, checkpoints, weights: share of a cell's wall time", "%", files),
        Line("MLflow and progress: CPU share of the study's cores", "%", tracking),
        Line("both", "%", both, Aim("at_most", 2.0)),
    ]
    return Figure("overhead", "files and tracking, baseline", lines, contenders, samples)


def measure_estimate(request: Request, on_sample: OnSample) -> Figure:
    """Whether a study, whose cells stop early, takes as long as its plan says, once a cell a worker was measured."""
    workload, many = replace(request.workload, stops_early=True), request.processes
    num_cells = max(request.study_cells, 2 * many)

    def measure() -> Sample:
        arguments = (workload, "baseline", num_cells, many)
        (found,) = together("benchmarks.cells:estimate_study", arguments, processes=1, threads=None).facts
        return Sample(100 * abs(found["expected_seconds"] / found["seconds"] - 1), found)

    contenders = [
        Contender("estimate", f"{many} cells are measured, {num_cells - many} estimated and then trained", measure)
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [
        Line("estimate, off by", "%", values(samples, "estimate"), Aim("at_most", 20.0)),
        Line("expected", "s", facts(samples, "estimate", "expected_seconds")),
        Line("taken", "s", facts(samples, "estimate", "seconds")),
    ]
    return Figure("estimate", f"the estimate of a plan, {num_cells - many} baseline cells", lines, contenders, samples)


def _percent(parts: Sequence[float], wholes: Sequence[float]) -> tuple[float, ...]:
    return tuple(100 * part / whole for part, whole in zip(parts, wholes, strict=True))


def measure_convolutions(request: Request, on_sample: OnSample) -> Figure:
    """What the harness's own convolutions gain over PyTorch's, in cells that are otherwise the same."""
    workload = replace(request.workload, epochs=1)
    variants = ("baseline", "kernel-3", "batch-norm", "model-1")
    contenders = [
        Contender(
            f"{variant}, {whose}",
            f"one epoch of a cell without files, by {whose} convolutions",
            partial(throughput, "benchmarks.cells:train_without_files", (workload, variant, is_plain), 1, None),
        )
        for variant in variants
        for whose, is_plain in (("harness's", False), ("PyTorch's", True))
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [Line(it.name, "images/s", values(samples, it.name)) for it in contenders]
    lines += [ratio(samples, f"{variant}, harness's", f"{variant}, PyTorch's") for variant in variants]
    return Figure("convolutions", "the harness's convolutions beside PyTorch's", lines, contenders, samples)


def measure_data(request: Request, on_sample: OnSample) -> Figure:
    """Whether an image costs the same in a large data set as in a small one."""
    whole = replace(request.workload, epochs=1)
    sizes = [whole.num_images // 4, whole.num_images // 2, whole.num_images]
    workloads = [replace(whole, num_images=size) for size in sizes]
    for workload in workloads:
        if not workload.cache.exists():
            write_images(workload)
    contenders = [
        Contender(
            f"cell of {it.num_images} images",
            "one epoch, end to end",
            partial(throughput, "benchmarks.cells:train_one_cell", (it, "baseline"), 1, None),
        )
        for it in workloads
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [Line(it.name, "images/s", values(samples, it.name)) for it in contenders]
    lines.append(ratio(samples, contenders[-1].name, contenders[0].name))
    return Figure("data", "growth with data size", lines, contenders, samples)
