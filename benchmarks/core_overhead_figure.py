"""The figure `core`: cells a second of a training that does nothing, trained and delivered to MLflow, beside peers."""

import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.core_overhead import WORKERS
from benchmarks.processes import together
from benchmarks.report import Figure
from benchmarks.sample import Contender, Line, OnSample, Sample, facts, ratio, side_by_side, values
from benchmarks.workload import Request

MOST_CELLS = 1_000
MORE = 10  # times as many cells, once: memory should not follow
TRAINED, DELIVERED, COMMAND = "harness, trained", "harness, delivered", "harness, a command"


def measure_core(request: Request, on_sample: OnSample) -> Figure:
    """Cells a second of the harness, by its two clocks, and trials a second of peers, without and with MLflow."""
    scratch, num_cells = request.workload.scratch, max(4, min(request.largest, MOST_CELLS) // 2 * 2)
    ours = Contender(
        TRAINED,
        "a function of the user's, MLflow following: from the first cell's start to the last one's end, each event and "
        "result synced to the disk; `delivered`: until MLflow has everything, and the study's summary",
        partial(_by_harness, scratch, num_cells),
    )
    command = Contender(
        COMMAND,
        "the same by a shell script of one line: a process a cell, which talks by a file",
        partial(_by_harness, scratch, num_cells, is_command=True),
    )
    untracked, tracked = _optuna(scratch, num_cells), _optuna(scratch, num_cells, is_tracked=True)
    rays = [_ray(scratch, num_cells), _ray(scratch, num_cells, is_tracked=True)] if find_spec("ray") else []
    contenders = [ours, command, untracked, tracked, *rays]
    samples = side_by_side(contenders, request.rounds, on_sample)
    samples |= {DELIVERED: [Sample(float(it.facts["delivered_a_second"])) for it in samples[TRAINED]]}
    pairs = [(TRAINED, it.name) for it in (untracked, *rays[:1])] + [
        (DELIVERED, it.name) for it in (tracked, *rays[1:])
    ]
    lines = [Line(name, "cells/s", values(samples, name)) for name in (TRAINED, DELIVERED, COMMAND)]
    lines += [Line(it.name, "trials/s", values(samples, it.name)) for it in contenders[2:]]
    lines += [ratio(samples, mine, theirs) for mine, theirs in pairs]
    lines.append(Line("harness, until the first cell starts", "s", facts(samples, TRAINED, "start_seconds")))
    few = facts(samples, TRAINED, "peak_rss_bytes")
    lines.append(Line(f"peak memory of the command, {num_cells:,} cells", "MB", tuple(it / 1e6 for it in few)))
    if num_cells == MOST_CELLS:
        more = _by_harness(scratch, MORE * num_cells).facts["peak_rss_bytes"]
        lines.append(Line(f"peak memory of the command, {MORE * num_cells:,} cells", "MB", (more / 1e6,)))
    title = f"a training that does nothing: {num_cells:,} cells, {WORKERS} processes, MLflow on SQLite"
    return Figure("core", title, lines, contenders, samples)


def _optuna(scratch: Path, num_trials: int, *, is_tracked: bool = False) -> Contender:
    name = "optuna, an MLflow run a trial" if is_tracked else "optuna"
    how = "an MLflow run with parameters and both metrics in each objective" if is_tracked else "no tracking"
    meaning = f"random search, a study in a journal file that {WORKERS} processes share; {how}; imports are not timed"
    return Contender(name, meaning, partial(_by_optuna, scratch, num_trials, is_tracked))


def _ray(scratch: Path, num_trials: int, *, is_tracked: bool = False) -> Contender:
    name = "ray tune, with MLflow" if is_tracked else "ray tune"
    how = "its own callback for MLflow" if is_tracked else "no tracking"
    meaning = f"the function API on a grid, {WORKERS} CPUs; {how}; the start of Ray is not timed"
    return Contender(name, meaning, partial(_by_ray, scratch, num_trials, is_tracked))


def _by_harness(scratch: Path, num_cells: int, *, is_command: bool = False) -> Sample:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        arguments = (Path(folder), num_cells, is_command)
        (found,) = together("benchmarks.core_overhead:train_by_harness", arguments, processes=1, threads=None).facts
    delivered = num_cells / found["delivered_seconds"]
    return Sample(num_cells / found["trained_seconds"], found | {"delivered_a_second": delivered})


def _by_optuna(scratch: Path, num_trials: int, is_tracked: bool) -> Sample:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        together("benchmarks.core_overhead:prepare_optuna", (Path(folder),), processes=1, threads=None)
        arguments = (Path(folder), num_trials // WORKERS, is_tracked)
        return _trials_a_second("benchmarks.core_overhead:train_by_optuna", arguments, WORKERS)


def _by_ray(scratch: Path, num_trials: int, is_tracked: bool) -> Sample:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return _trials_a_second("benchmarks.core_overhead:train_by_ray", (Path(folder), num_trials, is_tracked), 1)


def _trials_a_second(work: str, arguments: Sequence[object], processes: int) -> Sample:
    done = together(work, arguments, processes=processes, threads=None)
    trials = done.total("trials")
    return Sample(trials / done.seconds, {"trials": trials, "seconds": done.seconds})
