"""Costs and published numbers as plain values as people read them: the data step of their figures.

Effects are in `effect_data.py`, learning curves in `curve_data.py`; how a figure is drawn is in `figures.py` (plotly)
and `pictures.py` (matplotlib).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import ResultsError
from harness.metrics import SECONDS
from harness.report.curve_data import Curves
from harness.report.effect_data import Forest, Heat, Pairs, Waterfall, effect_axis, estimate_of
from harness.report.estimate import Estimate
from harness.report.example_data import Gallery
from harness.report.line_data import ChampionLine
from harness.report.tables import Tables, rows_of
from harness.stats.values import PARAMETERS

# What a variant costs, as a column of the table of variants -> in words. Not every training knows all of them.
COSTS: Mapping[str, str] = {SECONDS.name: "training time of a cell", PARAMETERS: "number of parameters"}
SAME_COST = 1.2  # training times that differ by less differ by accident as often as not


@dataclass(frozen=True)
class CostPoint:
    """One variant; cost as a multiple of the baseline's. `is_best_value`: it helps, and none as cheap helps more."""

    label: str
    cost: float
    effect: Estimate
    verdict: str
    is_best_value: bool


@dataclass(frozen=True)
class Costs:
    """`is_maximized`: whether more of the effect is better, so that the best values are at the top."""

    cost_axis: str
    axis: str
    digits: int
    is_maximized: bool
    rows: tuple[CostPoint, ...]


@dataclass(frozen=True)
class PublishedRow:
    """`one_more`: where one more run of ours would land."""

    label: str
    published: float
    ours: Estimate
    one_more: tuple[float, float]


@dataclass(frozen=True)
class PublishedNumbers:
    axis: str
    digits: int
    rows: tuple[PublishedRow, ...]


def known_costs(tables: Tables) -> tuple[str, ...]:
    """The costs that these results can say, of COSTS."""
    return tuple(name for name in COSTS if (tables.variants[name].astype("float64") > 0).any())


def costs_data(tables: Tables, cost: str = SECONDS.name) -> Costs:
    """What each variant brings against what it costs, beside the baseline; cost is one of COSTS."""
    assert cost in COSTS, cost
    metric = tables.subject
    costs = tables.variants.set_index("variant")[cost].astype("float64")
    rows = {
        label: (family.sides[label][0], family.sides[label][1], effect)
        for family in tables.families.values()
        if family.reference == "baseline" and family.kind in ("add-one", "combinations")
        for effect in rows_of(family.effects)
        if effect.n > 0 and (label := str(effect.variant))
    }
    if not rows:
        raise ResultsError("nothing is compared with the baseline; `harness ablate --design add-one` does.")
    found = [
        (label, float(costs[variant] / costs[reference]), estimate_of(effect, metric), str(effect.verdict))
        for label, (variant, reference, effect) in rows.items()
        if costs[variant] > 0 and costs[reference] > 0
    ]
    if not found:
        raise ResultsError(f"no variant that is compared with the baseline says its {COSTS[cost]}.")
    gains = [(factor, metric.sign * effect.mean) for _, factor, effect, _ in found]
    marks = tuple(
        CostPoint(label, factor, effect, verdict, _is_best_value(factor, metric.sign * effect.mean, gains))
        for label, factor, effect, verdict in found
    )
    axis = f"{COSTS[cost]}, times the baseline's"
    return Costs(axis, effect_axis(metric), metric.digits, metric.is_maximized, marks)


def published_quantities(tables: Tables) -> tuple[str, ...]:
    """What the published numbers of variants that ran are of, what is reported first."""
    metrics = tables.metrics
    ran = {metrics[str(row.metric)].base for row in rows_of(tables.published) if row.n > 0}
    bases = dict.fromkeys((metrics.reporting.base, *(metric.base for metric in metrics)))
    return tuple(base for base in bases if base in ran)


def published_data(tables: Tables, quantity: str = "") -> PublishedNumbers:
    """Ours against published numbers of one quantity, such as `loss`; by default the one that the study reports."""
    metrics = tables.metrics
    quantity = quantity or metrics.reporting.base
    rows, shown = [], metrics.reporting
    for row in rows_of(tables.published):
        metric = metrics[str(row.metric)]
        if metric.base == quantity and int(row.n) > 0:
            shown = metric
            ours = Estimate(metric.scale(row.mean), metric.scale(row.low), metric.scale(row.high))
            one_more = (metric.scale(row.run_low), metric.scale(row.run_high))
            label = f"{row.variant}, {metric.split}"
            rows.append(PublishedRow(label, metric.scale(row.published), ours, one_more))
    if not rows:
        words = quantity.replace("_", " ")
        raise ResultsError(f"no variant with a published {words} has a finished cell; see `published` in the study.")
    return PublishedNumbers(shown.base_axis, shown.digits, tuple(rows))


def _is_best_value(cost: float, improvement: float, others: Sequence[tuple[float, float]]) -> bool:
    """Whether it helps, and none of the others (cost, improvement) that costs about as little helps more."""
    return improvement > 0 and not any(other <= SAME_COST * cost and gain > improvement for other, gain in others)


FigureData = Forest | Curves | Pairs | Waterfall | ChampionLine | Heat | Costs | PublishedNumbers | Gallery
