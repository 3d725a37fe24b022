"""How numbers, seeds and missing cells are written in sentences.

Statistics are fractions everywhere. A caller that writes for people (the report, the command line) asks for
`unit="points"`, and only the words change.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

Unit = Literal["fraction", "points"]


def describe_seeds(seeds: Iterable[int]) -> str:
    """Seeds in ascending order, runs shortened: "0-4, 7"."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def describe_cells(cells: Sequence[object], limit: int = 6) -> str:
    """The first cells in words, and how many there are beyond."""
    more = f" and {len(cells) - limit} more" if len(cells) > limit else ""
    return ", ".join(map(str, cells[:limit])) + more


def format_difference(value: float, metric: str, unit: Unit = "fraction") -> str:
    """A signed difference with its unit: "+0.0116", "+1.16 points", "-0.0312 nats", "+12.3 seconds"."""
    return _number(value, metric, unit, signed=True) + _unit_of(metric, unit)


def format_value(value: float, metric: str, unit: Unit = "fraction") -> str:
    """A value with its unit: "0.7421", "74.21 points"."""
    return _number(value, metric, unit, signed=False) + _unit_of(metric, unit)


def format_interval(low: float, high: float, metric: str, unit: Unit = "fraction", *, signed: bool = True) -> str:
    """Bounds without unit: it stands beside an estimate that has one. "no interval" where there is none."""
    if math.isnan(low) or math.isnan(high):
        return "no interval"
    return f"{_number(low, metric, unit, signed=signed)}, {_number(high, metric, unit, signed=signed)}"


def format_p(p: float) -> str:
    """Three digits, "<0.0001" below, "n/a" where there is no p."""
    if math.isnan(p):
        return "n/a"
    return "<0.0001" if p < 1e-4 else f"{p:.3g}"


def metric_words(metric: str) -> str:
    """The metric as a reader would say it: validation accuracy, peak memory bytes."""
    return metric.replace("val_", "validation_").replace("_", " ")


def _number(value: float, metric: str, unit: Unit, *, signed: bool) -> str:
    if metric.endswith("accuracy") and unit == "points":
        digits, value = 2, 100 * value
    else:
        digits = 4 if metric.endswith(("accuracy", "loss")) else 1
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _unit_of(metric: str, unit: Unit) -> str:
    if metric.endswith("accuracy"):
        return " points" if unit == "points" else ""
    if metric.endswith("loss"):
        return " nats"
    return " seconds" if metric == "seconds" else " bytes"
