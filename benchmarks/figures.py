"""The figures by name, in the order of measuring, and the one that needs real images."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from benchmarks.command_figures import measure_commands, measure_planning, measure_results
from benchmarks.processes import Work, together
from benchmarks.report import Figure
from benchmarks.sample import Contender, Line, OnSample, Sample, side_by_side, values
from benchmarks.task4 import measure_task4
from benchmarks.training_figures import measure_data, measure_estimate, measure_overhead, measure_variant
from benchmarks.workload import Request


def measure_accuracy(request: Request, on_sample: OnSample) -> Figure:
    """Test accuracy of the textbook loop in float32 and of the harness, on real images, a seed a round."""
    import numpy as np

    from harness.stats.intervals import t_interval

    assert request.real is not None
    cache, device = request.workload.scratch / "real", request.workload.device
    textbook, ours = "textbook, float32", f"harness, {request.workload.precision}"
    rest = (request.real, cache, device, request.real_epochs)
    contenders = [
        Contender(
            textbook,
            "test accuracy at the lowest validation loss",
            _accuracies("benchmarks.accuracy:textbook_accuracy", rest, None),
        ),
        Contender(
            ours, "the same of a cell with one thread", _accuracies("benchmarks.accuracy:harness_accuracy", rest, 1)
        ),
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


def _accuracies(work: Work, rest: tuple[Any, ...], threads: int | None) -> Callable[[], Sample]:
    """Seed 0 at the first call, seed 1 at the second, ..."""
    seeds = count()

    def measure() -> Sample:
        seed = next(seeds)
        done = together(work, (*rest, seed), processes=1, threads=threads)
        return Sample(done.total("test_accuracy"), {"seed": seed, "seconds": done.seconds})

    return measure


# `accuracy` needs real images, so that it is measured only where --real names them.
FIGURES: dict[str, Callable[[Request, OnSample], Figure]] = {
    "commands": measure_commands,
    "planning": measure_planning,
    "results": measure_results,
    "baseline": partial(measure_variant, variant="baseline"),
    "overhead": measure_overhead,
    "estimate": measure_estimate,
    "data": measure_data,
    "batch-norm": partial(measure_variant, variant="batch-norm"),
    "model-1": partial(measure_variant, variant="model-1"),
    "task4": measure_task4,
    "accuracy": measure_accuracy,
}
