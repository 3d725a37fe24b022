"""The figure `scale`: what one driver takes for many cells of no seconds, on 64 slots that answer at once."""

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.processes import together
from benchmarks.report import Figure
from benchmarks.sample import Contender, Line, OnSample, Sample, Samples, facts, side_by_side, values
from benchmarks.workload import Request

SLOTS = 64
MOST_TRACKED = 2_000  # cells: MLflow takes its time


def measure_scale(request: Request, on_sample: OnSample) -> Figure:
    """The driver's CPU, memory and cells a second, at two sizes; and with MLflow, on fewer cells."""
    few, tracked = max(20, request.largest // 100), max(20, min(request.largest // 2, MOST_TRACKED))
    contenders = [_driver(request.workload.scratch, it) for it in dict.fromkeys((few, request.largest))]
    followed = _driver(request.workload.scratch, tracked, is_tracked=True)
    samples = side_by_side([*contenders, followed], request.rounds, on_sample)
    lines = [line for it in contenders for line in _lines(samples, it.name)]
    delivered = tuple(tracked / it for it in facts(samples, followed.name, "delivered_seconds"))
    lines += [
        *_lines(samples, followed.name),
        Line(f"{followed.name}: delivered", "cells/s", delivered),
        Line(f"{followed.name}: CPU until delivered", "s", facts(samples, followed.name, "delivered_cpu_seconds")),
    ]
    if len(contenders) > 1:
        lines.append(_growth(samples, [it.name for it in contenders], (few, request.largest)))
    return Figure("scale", f"one driver, {SLOTS} simulated slots", lines, [*contenders, followed], samples)


def _driver(scratch: Path, num_cells: int, *, is_tracked: bool = False) -> Contender:
    how = "MLflow following, until it has everything" if is_tracked else "nothing follows"
    name = f"{num_cells:,} cells, MLflow following" if is_tracked else f"{num_cells:,} cells"
    meaning = f"cells a second of a driver that claims, journals, syncs and ends each; {how}"
    return Contender(name, meaning, partial(_drive, scratch, num_cells, is_tracked))


def _drive(scratch: Path, num_cells: int, is_tracked: bool) -> Sample:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        arguments = (folder, num_cells, SLOTS, is_tracked)
        (found,) = together("benchmarks.simulated:drive", arguments, processes=1, threads=None).facts
    finally:
        shutil.rmtree(folder)
    return Sample(num_cells / found["trained_seconds"], found)


def _lines(samples: Samples, name: str) -> Sequence[Line]:
    cpu, cells = facts(samples, name, "trained_cpu_seconds"), facts(samples, name, "cells")
    return [
        Line(f"{name}: trained", "cells/s", values(samples, name)),
        Line(f"{name}: CPU", "s", cpu),
        Line(f"{name}: CPU a cell", "ms", tuple(1000 * it / count for it, count in zip(cpu, cells, strict=True))),
        Line(f"{name}: peak memory", "MB", tuple(it / 1e6 for it in facts(samples, name, "peak_rss_bytes"))),
    ]


def _growth(samples: Samples, names: Sequence[str], sizes: Sequence[int]) -> Line:
    """CPU a cell at the larger size over that at the smaller one: 1 is linear."""
    small, large = (
        [it / size for it in facts(samples, name, "trained_cpu_seconds")]
        for name, size in zip(names, sizes, strict=True)
    )
    ratios = tuple(above / below for above, below in zip(large, small, strict=True))
    return Line(f"CPU a cell, {sizes[1]:,} cells / {sizes[0]:,} cells", "ratio", ratios)
