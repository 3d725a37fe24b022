"""How p-values, seeds and missing cells are written in sentences; numbers of a metric are `harness.metrics`' matter."""

import math
from collections.abc import Iterable, Sequence


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


def format_p(p: float) -> str:
    """Three digits, "<0.0001" below, "n/a" where there is no p."""
    if math.isnan(p):
        return "n/a"
    return "<0.0001" if p < 1e-4 else f"{p:.3g}"
