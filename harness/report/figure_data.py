"""Learning curves, costs and published numbers as plain values in the units of people: the data step of their figures.

Effects are in `effect_data.py`; how a figure is drawn is in `figures.py` (plotly) and `pictures.py` (matplotlib).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.errors import ResultsError
from harness.report.effect_data import Estimate, Forest, Heat, Pairs, Waterfall, effect_axis, estimate_of
from harness.report.look import variant_colours
from harness.report.tables import Tables, rows_of
from harness.report.units import unit_of

SAME_COST = 1.2  # training times that differ by less differ by accident as often as not
LEAST_SHARE = 0.5  # a mean curve is drawn as far as this share of the seeds trained


@dataclass(frozen=True)
class Curve:
    """One variant on one split: mean and mean -/+ sd over the seeds that trained so far; `n` of them at each epoch.

    Attributes:
        label: what the legend calls the variant.
    """

    variant: str
    label: str
    split: str
    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: tuple[int, ...]


@dataclass(frozen=True)
class Curves:
    """Learning curves of a few variants.

    Attributes:
        best: variant -> mean epoch of the lowest validation loss.
        colours: variant -> colour.
    """

    axis: str
    curves: tuple[Curve, ...]
    best: Mapping[str, float]
    colours: Mapping[str, str]


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
    cost_axis: str
    axis: str
    points: tuple[CostPoint, ...]


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
    rows: tuple[PublishedRow, ...]


def curves_data(
    curves: pd.DataFrame,
    variants: Sequence[str],
    quantity: str = "loss",
    *,
    labels: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
) -> Curves:
    """Training and validation curves with a band of one sd over seeds; quantity is `loss` (nats) or `accuracy` (%).

    Seeds stop early at different epochs; a curve goes on as long as at least half of its seeds train.

    Args:
        labels: variant -> what the legend calls it; by default its name.
        colours: variant -> colour; a report gives one mapping to all of its figures.
    """
    assert quantity in ("loss", "accuracy"), quantity
    found: list[Curve] = []
    best: dict[str, float] = {}
    for variant in dict.fromkeys(variants):
        mine = curves[curves["variant"] == variant]
        if mine.empty:
            raise ResultsError(f"there are no learning curves of {variant!r}: none of its cells has been validated.")
        for split, prefix in (("training", "train"), ("validation", "val")):
            found.append(_curve(mine, variant, (labels or {}).get(variant, variant), split, f"{prefix}_{quantity}"))
        lowest = mine.loc[mine.dropna(subset="val_loss").groupby("seed")["val_loss"].idxmin()]
        best[variant] = float(lowest["epoch"].mean())
    unit = unit_of(f"val_{quantity}")
    axis = f"{'cross entropy' if quantity == 'loss' else 'accuracy'} [{unit.value}]"
    return Curves(axis, tuple(found), best, colours or variant_colours(variants))


def costs_data(tables: Tables, cost: str = "seconds") -> Costs:
    """What each variant brings against what it costs, beside the baseline; cost is `seconds` or `parameters`."""
    assert cost in ("seconds", "parameters"), cost
    unit = unit_of(tables.metric)
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
        (label, float(costs[variant] / costs[reference]), estimate_of(effect, unit), str(effect.verdict))
        for label, (variant, reference, effect) in rows.items()
        if costs[variant] > 0 and costs[reference] > 0
    ]
    points = tuple(
        CostPoint(label, factor, effect, verdict, _is_best_value(factor, effect.mean, found))
        for label, factor, effect, verdict in found
    )
    what = "training time of a cell" if cost == "seconds" else "number of parameters"
    return Costs(f"{what}, times the baseline's", effect_axis(unit), points)


def published_data(tables: Tables, quantity: str = "accuracy") -> PublishedNumbers:
    """Ours against published, accuracies in percent or losses in nats."""
    assert quantity in ("loss", "accuracy"), quantity
    rows = []
    for row in rows_of(tables.published):
        metric = str(row.metric)
        if metric.endswith(quantity) and int(row.n) > 0:
            unit = unit_of(metric)
            ours = Estimate(unit.scale(row.mean), unit.scale(row.low), unit.scale(row.high))
            one_more = (unit.scale(row.run_low), unit.scale(row.run_high))
            label = f"{row.variant}, {metric.partition('_')[0]}"
            rows.append(PublishedRow(label, unit.scale(row.published), ours, one_more))
    if not rows:
        raise ResultsError(f"no variant with a published {quantity} has a finished cell; see `published` in the study.")
    unit = unit_of(f"test_{quantity}")
    return PublishedNumbers(f"{quantity} [{unit.value}]", tuple(rows))


def _curve(mine: pd.DataFrame, variant: str, label: str, split: str, column: str) -> Curve:
    unit = unit_of(column)
    by_epoch = (mine[column] * unit.factor).groupby(mine["epoch"])
    frame = pd.DataFrame({"mean": by_epoch.mean(), "sd": by_epoch.std(), "n": by_epoch.count()})
    frame = frame[(frame["n"] > 0) & (frame["n"] >= LEAST_SHARE * mine["seed"].nunique())]
    sd = frame["sd"].fillna(0.0)
    return Curve(
        variant=variant,
        label=label,
        split=split,
        epochs=tuple(map(float, frame.index)),
        mean=tuple(frame["mean"]),
        low=tuple(frame["mean"] - sd),
        high=tuple(frame["mean"] + sd),
        n=tuple(map(int, frame["n"])),
    )


def _is_best_value(cost: float, effect: float, others: Sequence[tuple[str, float, Estimate, str]]) -> bool:
    return effect > 0 and not any(other <= SAME_COST * cost and it.mean > effect for _, other, it, _ in others)


FigureData = Forest | Curves | Pairs | Waterfall | Heat | Costs | PublishedNumbers
