"""The figures of effects as plain values as people read them: the data step that both drawers share.

`figures.py` draws these with plotly for the page and for notebooks, `pictures.py` with matplotlib as PNG. A figure
whose data are not in the results raises ResultsError, and the message names the design to run. Curves, costs and
published numbers are in `figure_data.py`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.errors import ResultsError
from harness.metrics import Metric
from harness.report.estimate import MOST_ROWS, Estimate
from harness.report.tables import Family, Tables, rows_of
from harness.stats.values import metric_values

MOST_CHANGES = 20  # of the interaction heat map
MOST_HEAT_TEXTS = 10  # changes of a heat map that has room for every number


@dataclass(frozen=True)
class ForestRow:
    """One comparison: its estimate, and every seed's difference as (seed, difference)."""

    label: str
    estimate: Estimate
    seeds: tuple[tuple[int, float], ...]
    verdict: str


@dataclass(frozen=True)
class Forest:
    """Effects of one design, the best first. `omitted`: how many smaller ones there was no room for.

    Attributes:
        digits: after the decimal point, where a number is written; the same in every figure.
    """

    design: str
    axis: str
    digits: int
    rows: tuple[ForestRow, ...]
    omitted: int


@dataclass(frozen=True)
class Pair:
    """One change in two designs, or otherwise compared in two ways."""

    label: str
    added: Estimate
    left_out: Estimate


@dataclass(frozen=True)
class Pairs:
    """Two estimates of each change side by side, such as of add-one and leave-one-out.

    Attributes:
        sides: what the first (`added`) and the second (`left_out`) are called.
    """

    sides: tuple[str, str]
    axis: str
    digits: int
    rows: tuple[Pair, ...]


@dataclass(frozen=True)
class Step:
    """One step of a path, from the level before it to the level after it, both over the step's complete pairs."""

    label: str
    before: float
    after: float
    effect: Estimate
    verdict: str


@dataclass(frozen=True)
class Waterfall:
    design: str
    start: str
    axis: str
    digits: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Heat:
    """Interactions of pairs of changes: a symmetric matrix, NaN where a pair was not trained.

    Attributes:
        is_maximized: whether more is better, so that it has the colour of an improvement.
    """

    axis: str
    digits: int
    is_maximized: bool
    changes: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    verdicts: tuple[tuple[str, ...], ...]
    omitted: int


def forest_data(tables: Tables, design: str = "") -> Forest:
    """The effects of a design (by default the first) with every seed's difference."""
    family = find_family(tables, design)
    metric = tables.subject
    measured = [row for row in rows_of(family.effects) if row.n > 0]
    if not measured:
        raise ResultsError(
            f"design {family.design}: no comparison has a seed with both sides yet; run the study again."
        )
    largest = sorted(measured, key=lambda row: -abs(float(row.mean)))[:MOST_ROWS]
    kept = {str(row.variant) for row in largest}
    seeds = _differences(tables, family, kept, metric)
    rows = tuple(
        ForestRow(str(row.variant), estimate_of(row, metric), tuple(seeds[str(row.variant)]), str(row.verdict))
        for row in measured
        if row.variant in kept
    )
    return Forest(family.design, effect_axis(metric), metric.digits, rows, len(measured) - len(rows))


def pairs_data(tables: Tables) -> Pairs:
    """Each change added to the baseline beside the same change left out of a combination."""
    added = find_family(tables, "add-one")
    metric = tables.subject
    first = find_family(tables, "leave-one-out")
    alone = {str(row.variant): row for row in rows_of(added.effects) if row.n > 0}
    rows = [
        Pair(str(row.variant), estimate_of(alone[str(row.variant)], metric), estimate_of(row, metric))
        for row in rows_of(first.effects)
        if row.n > 0 and row.variant in alone
    ]
    if not rows:
        raise ResultsError(f"{first.design} and add-one have no change in common; run both on the same changes.")
    rows.sort(key=lambda row: -metric.sign * row.added.mean)
    sides = ("added to the baseline", f"left out of {first.full}")
    return Pairs(sides, effect_axis(metric), metric.digits, tuple(rows))


def waterfall_data(tables: Tables, design: str = "path") -> Waterfall:
    """The steps of a path, each from the level before to the level after."""
    family = find_family(tables, design)
    metric = tables.subject
    steps = tuple(
        Step(
            str(row.variant),
            metric.scale(row.reference_mean),
            metric.scale(row.variant_mean),
            estimate_of(row, metric),
            str(row.verdict),
        )
        for row in rows_of(family.effects)
        if row.n > 0
    )
    if not steps:
        raise ResultsError(f"design {family.design}: no seed has finished on both sides of a step yet.")
    start = next(iter(family.sides.values()))[1]
    return Waterfall(family.design, start, metric.axis, metric.digits, steps)


def heat_data(tables: Tables) -> Heat:
    """Interactions of every pair that was trained with both of its changes alone."""
    metric, frame = tables.subject, tables.interactions
    rows = {frozenset(str(row.variant).split(" x ")): row for row in rows_of(frame) if row.n > 0}
    named = [change for it in tables.manifest.variants if len(it.changes) == 1 for change in it.changes]
    paired = [name for name in named if any(name in pair for pair in rows)]
    changes = sorted(paired, key=lambda name: -_largest(name, rows.items()))[:MOST_CHANGES]
    changes = [name for name in named if name in changes]
    cells = [[rows.get(frozenset((a, b))) if a != b else None for b in changes] for a in changes]
    return Heat(
        axis="interaction" + bracketed(metric.difference_unit),
        digits=metric.digits,
        is_maximized=metric.is_maximized,
        changes=tuple(changes),
        values=tuple(tuple(metric.scale(cell.mean) if cell else math.nan for cell in line) for line in cells),
        verdicts=tuple(tuple(str(cell.verdict) if cell else "" for cell in line) for line in cells),
        omitted=len(paired) - len(changes),
    )


def find_family(tables: Tables, design: str) -> Family:
    """A design by its name, or by its kind where it has an argument (`path` finds `path:report`); "" is the first."""
    for name, family in tables.families.items():
        if design in ("", name, family.kind):
            return family
    study = tables.manifest.asked or tables.manifest.study
    wanted = design or "add-one"
    raise ResultsError(
        f"these results hold no design {wanted}; `harness ablate --study {study} --design {wanted}` trains it."
    )


def effect_axis(metric: Metric) -> str:
    return f"effect on {metric.difference_axis}"


def bracketed(unit: str) -> str:
    """` [points]`, to stand behind a word; nothing where there is no unit."""
    return f" [{unit}]" if unit else ""


def estimate_of(row: Any, metric: Metric) -> Estimate:
    """The estimate of one row of a table of effects, as people read it."""
    return Estimate(metric.scale(row.mean), metric.scale(row.low), metric.scale(row.high))


def _differences(
    tables: Tables, family: Family, labels: set[str], metric: Metric
) -> dict[str, list[tuple[int, float]]]:
    """Every seed's difference, by label."""
    values = metric_values(tables.results, metric.name)
    found = {}
    for label in labels:
        variant, reference = (values.numbers[values.require(name)] for name in family.sides[label])
        pairs = zip(values.seeds, variant - reference, strict=True)
        found[label] = [(seed, metric.scale(difference)) for seed, difference in pairs if math.isfinite(difference)]
    return found


def _largest(name: str, rows: Iterable[tuple[frozenset[str], Any]]) -> float:
    return max(abs(float(row.mean)) for pair, row in rows if name in pair)
