"""Figures of commands: start-up, planning many cells, reading many results."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.commands import HARNESS, PYTHON, command_names, seconds_of
from benchmarks.growth import plan_of, write_store
from benchmarks.processes import together
from benchmarks.report import Figure
from benchmarks.sample import Aim, Contender, Line, OnSample, Sample, Samples, ratio, side_by_side, values
from benchmarks.workload import Request

MOST_RESULTS = 10_000


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
    both = (f"plan {request.largest}", name)
    aims = dict.fromkeys(both, Aim("at_most", 3.0)) if request.largest == 100_000 else {}
    lines = [Line(it.name, "s", values(samples, it.name), aims.get(it.name)) for it in contenders]
    lines.append(_growth(samples, "plan {}", sizes))
    return Figure("planning", "planning", lines, contenders, samples)


def _planning(num_cells: int) -> Sample:
    return Sample(together("benchmarks.growth:make_plan_of", (num_cells,), processes=1, threads=None).seconds)


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
