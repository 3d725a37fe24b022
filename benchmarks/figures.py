"""The figures: which contenders meet, which ratios are formed, which bounds they are to keep.

Bounds are those of the project's own aims for two cores with native bfloat16; elsewhere a ratio stands without its aim.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.commands import HARNESS, PYTHON, command_names, seconds_of
from benchmarks.growth import make_plan_of, plan_of, write_store
from benchmarks.processes import Facts, together
from benchmarks.report import Figure
from benchmarks.sample import Aim, Contender, Line, Sample, Samples, facts, fastest, ratio, side_by_side, values
from benchmarks.workload import Workload, write_images

OnSample = Callable[[str, Sample], None]
FULL_PROTOCOL_EPOCHS = 10
MOST_RESULTS = 10_000


@dataclass(frozen=True)
class Request:
    """How large the measurement is.

    Attributes:
        processes: as many single-thread processes, and workers of a study, as cores; on CUDA as asked for.
        study_cells: seeds of the study.
        largest: most cells that are planned.
        real: an image folder for the comparison of accuracies, or None.
        real_epochs: the most epochs of that comparison.
    """

    workload: Workload
    rounds: int
    processes: int
    study_cells: int
    largest: int
    real: Path | None
    real_epochs: int


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
    from benchmarks import cells, floor, textbook

    workload, many, is_baseline = request.workload, request.processes, variant == "baseline"
    all_ways = {f"{number} x {threads}": (number, threads) for number, threads in ((1, 1), (1, many), (many, 1))}
    ways = all_ways if is_baseline else {f"{many} x 1": (many, 1)}
    found = [
        Contender(
            f"floor {way}",
            f"one resident batch, no loading, no validation; {way} (processes x threads)",
            partial(throughput, floor.train_one_batch, (workload, variant, False), *shape),
        )
        for way, shape in ways.items()
    ]
    found.append(
        Contender(
            "floor with switches",
            f"the same, {many} x 1, under the harness's process switches (memory is kept, no denormals)",
            partial(throughput, floor.train_one_batch, (workload, variant, True), many, 1),
        )
    )
    if is_baseline:
        cell = partial(throughput, cells.train_one_cell, (workload, variant), 1, None)
        found.append(Contender("cell", "one cell end to end in one process: images, validations, files", cell))
    study = partial(throughput, cells.train_study, (workload, variant, request.study_cells, many), 1, None)
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
            partial(throughput, textbook.train_textbook, (workload, variant), 1, None),
        ),
    ]
    return found + _lightning(workload, variant, ways if not is_baseline else dict(list(all_ways.items())[1:]))


def _lightning(workload: Workload, variant: str, ways: dict[str, tuple[int, int]]) -> list[Contender]:
    if find_spec("lightning") is None:
        return []
    from benchmarks.lightning_trainer import train_lightning

    return [
        Contender(
            f"lightning {way}, {workers} loaders",
            f"Trainer bf16-mixed, channels-last; {way} (processes x threads), {workers} DataLoader workers each",
            partial(throughput, train_lightning, (workload, variant, workers), *shape),
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


def throughput(work: Callable[..., Facts], arguments: Sequence[Any], processes: int, threads: int | None) -> Sample:
    """Training images a second over all processes; validations take time and count for nothing."""
    done = together(work, arguments, processes=processes, threads=threads)
    images = done.total("images")
    numbers = {name for each in done.facts for name in each} - {"images"}
    return Sample(
        images / done.seconds, {"images": images, "seconds": done.seconds} | {it: done.largest(it) for it in numbers}
    )


def measure_overhead(request: Request, on_sample: OnSample) -> Figure:
    """What journal, checkpoints, weights and MLflow cost a baseline cell."""
    from benchmarks import cells

    workload, many = request.workload, request.processes
    contenders = [
        Contender(
            "cell",
            "a cell with all its files",
            partial(throughput, cells.train_one_cell, (workload, "baseline"), 1, None),
        ),
        Contender(
            "cell without files",
            "the same cell, no journal, checkpoint or weights written",
            partial(throughput, cells.train_without_files, (workload, "baseline"), 1, None),
        ),
        Contender(
            "study",
            f"{request.study_cells} cells; the parent's CPU time is that of MLflow (its import too) and of progress",
            partial(throughput, cells.train_study, (workload, "baseline", request.study_cells, many), 1, None),
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


def _percent(parts: Sequence[float], wholes: Sequence[float]) -> tuple[float, ...]:
    return tuple(100 * part / whole for part, whole in zip(parts, wholes, strict=True))


def measure_data(request: Request, on_sample: OnSample) -> Figure:
    """Whether an image costs the same in a large data set as in a small one."""
    from benchmarks import cells

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
            partial(throughput, cells.train_one_cell, (it, "baseline"), 1, None),
        )
        for it in workloads
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [Line(it.name, "images/s", values(samples, it.name)) for it in contenders]
    lines.append(ratio(samples, contenders[-1].name, contenders[0].name))
    return Figure("data", "growth with data size", lines, contenders, samples)


def measure_commands(request: Request, on_sample: OnSample) -> Figure:
    """Start-up: from the shell to the last line."""
    with tempfile.TemporaryDirectory(dir=request.workload.scratch) as store:
        run = partial(seconds_of, store=Path(store))
        quick = (*HARNESS, "plan", "--study", "task3", "--profile", "quick")
        contenders = [
            Contender("python", "an interpreter that does nothing", partial(run, PYTHON)),
            Contender("harness --help", "the list of commands", partial(run, (*HARNESS, "--help"))),
            Contender("harness plan", "`harness plan --study task3 --profile quick`", partial(run, quick)),
        ]
        contenders += [
            Contender(f"harness {name} --help", "imports of that command", partial(run, (*HARNESS, name, "--help")))
            for name in command_names()
        ]
        samples = side_by_side(contenders, request.rounds, on_sample)
    lines = [Line(it.name, "s", values(samples, it.name)) for it in contenders]
    lines += [ratio(samples, "harness --help", "python"), ratio(samples, "harness plan", "python")]
    return Figure("commands", "start-up of commands", lines, contenders, samples)


def measure_planning(request: Request, on_sample: OnSample) -> Figure:
    """Planning many cells, as a function and as a command."""
    sizes = [size for size in (100, 1_000, 10_000) if size < request.largest] + [request.largest]
    contenders = [
        Contender(f"plan {size}", "make_plan, every key, the manifest", partial(_planning, size)) for size in sizes
    ]
    with tempfile.TemporaryDirectory(dir=request.workload.scratch) as store:
        seeds = ",".join(map(str, plan_of(request.largest).seeds)) + ","
        command = (*HARNESS, "plan", "--study", "task3", "--data", "shapes", "--device", "cpu", "--seeds", seeds)
        name = f"harness plan, {request.largest} cells"
        contenders.append(
            Contender(
                name, "the command, start-up and printing included", partial(seconds_of, command, store=Path(store))
            )
        )
        samples = side_by_side(contenders, request.rounds, on_sample)
    aims = {f"plan {request.largest}": Aim("at_most", 3.0)} if request.largest == 100_000 else {}
    lines = [Line(it.name, "s", values(samples, it.name), aims.get(it.name)) for it in contenders]
    lines.append(_growth(samples, "plan {}", sizes))
    return Figure("planning", "planning", lines, contenders, samples)


def _planning(num_cells: int) -> Sample:
    return Sample(together(make_plan_of, (num_cells,), processes=1, threads=None).seconds)


def measure_results(request: Request, on_sample: OnSample) -> Figure:
    """`harness results` on stores of many cells."""
    largest = min(request.largest, MOST_RESULTS)
    sizes = [size for size in (100, 1_000) if size < largest] + [largest]
    with tempfile.TemporaryDirectory(dir=request.workload.scratch) as folder:
        contenders = []
        for size in sizes:
            store = Path(folder) / str(size)
            write_store(store, size)
            command = (*HARNESS, "results", "--study", "task3")
            meaning = "`harness results --study task3`, start-up included; files as warm as writing them left them"
            contenders.append(Contender(f"results of {size}", meaning, partial(seconds_of, command, store=store)))
        samples = side_by_side(contenders, request.rounds, on_sample)
    aims = {f"results of {MOST_RESULTS}": Aim("at_most", 10.0)}
    lines = [Line(it.name, "s", values(samples, it.name), aims.get(it.name)) for it in contenders]
    lines.append(_growth(samples, "results of {}", sizes))
    return Figure("results", "reading results", lines, contenders, samples)


def _growth(samples: Samples, name: str, sizes: Sequence[int]) -> Line:
    """Time a cell at the largest size over that at the smallest: 1 is linear growth, less is a fixed part."""
    largest, smallest = (
        [seconds / size for seconds in values(samples, name.format(size))] for size in (sizes[-1], sizes[0])
    )
    ratios = tuple(above / below for above, below in zip(largest, smallest, strict=True))
    return Line(f"time a cell, {sizes[-1]} cells / {sizes[0]} cells", "ratio", ratios)


def measure_accuracy(request: Request, on_sample: OnSample) -> Figure:
    """Test accuracy of the textbook loop in float32 and of the harness, on real images, a seed a round."""
    import numpy as np

    from benchmarks.accuracy import harness_accuracy, textbook_accuracy
    from harness.stats.intervals import t_interval

    assert request.real is not None
    cache, device = request.workload.scratch / "real", request.workload.device
    textbook, ours = "textbook, float32", f"harness, {request.workload.precision}"
    rest = (request.real, cache, device, request.real_epochs)
    contenders = [
        Contender(textbook, "test accuracy at the lowest validation loss", _accuracies(textbook_accuracy, rest, None)),
        Contender(ours, "the same of a cell with one thread", _accuracies(harness_accuracy, rest, 1)),
    ]
    samples = side_by_side(contenders, request.rounds, on_sample)
    differences = 100 * (np.array(values(samples, ours)) - np.array(values(samples, textbook)))
    low, high = t_interval(differences)
    lines = [Line(it.name, "fraction", values(samples, it.name)) for it in contenders]
    lines += [
        Line(f"mean of {ours} - {textbook}", "points", (float(differences.mean()),)),
        Line("95% t interval, low end", "points", (float(low),)),
        Line("95% t interval, high end", "points", (float(high),)),
    ]
    title = f"accuracy on real images, baseline, {request.rounds} seeds, at most {request.real_epochs} epochs"
    return Figure("accuracy", title, lines, contenders, samples)


def _accuracies(work: Callable[..., Facts], rest: tuple[Any, ...], threads: int | None) -> Callable[[], Sample]:
    """Seed 0 at the first call, seed 1 at the second, ..."""
    seeds = count()

    def measure() -> Sample:
        seed = next(seeds)
        done = together(work, (*rest, seed), processes=1, threads=threads)
        return Sample(done.total("test_accuracy"), {"seed": seed, "seconds": done.seconds})

    return measure


# In the order of measuring. `accuracy` needs real images, so that it is measured only where --real names them.
FIGURES: dict[str, Callable[[Request, OnSample], Figure]] = {
    "commands": measure_commands,
    "planning": measure_planning,
    "results": measure_results,
    "baseline": partial(measure_variant, variant="baseline"),
    "overhead": measure_overhead,
    "data": measure_data,
    "batch-norm": partial(measure_variant, variant="batch-norm"),
    "model-1": partial(measure_variant, variant="model-1"),
    "accuracy": measure_accuracy,
}
