"""Learning curves as plain values as people read them: the data step of their figures.

Which variants a report shows is in `curve_choice.py`; how a figure is drawn is in `figures.py` (plotly) and
`pictures.py` (matplotlib).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.errors import ResultsError
from harness.metrics import Metric, Metrics
from harness.report.best_steps import EPOCHS, clock_of, first_best
from harness.report.look import variant_colours
from harness.store.load import metrics_of

LEAST_SHARE = 0.5  # a mean curve is drawn as far as this share of the seeds trained
MOST_QUANTITIES = 4  # whose learning curves stand side by side
SOLID = "solid"  # the split that selects
DASHES = ("dot", "dash", "dashdot", "longdash")  # of the splits that do not select, in the order of the metrics


@dataclass(frozen=True)
class Curve:
    """One variant on one split: mean and mean -/+ sd over the seeds that trained so far; `n` of them at each x.

    A published curve is a single run of somebody else's, without a band.

    Attributes:
        label: what the legend calls the variant.
        split: in words.
        dash: `solid` for the split that selects; the others have each their own.
        x: epochs or steps.
    """

    variant: str
    label: str
    split: str
    dash: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: tuple[int, ...]
    is_published: bool = False

    @property
    def words(self) -> str:
        """What the legend says."""
        return f"{self.label}, {self.split}{', published' if self.is_published else ''}"


@dataclass(frozen=True)
class Curves:
    """Learning curves of a few variants.

    Attributes:
        x_axis: what training is counted in: `epoch` or `step`.
        best: variant -> mean place of its best checkpoint.
        colours: variant -> colour.
    """

    axis: str
    x_axis: str
    digits: int
    curves: tuple[Curve, ...]
    best: Mapping[str, float]
    colours: Mapping[str, str]


def curves_data(
    curves: pd.DataFrame,
    variants: Sequence[str],
    quantity: str = "",
    *,
    labels: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    best: Mapping[str, float] | None = None,
    published: Sequence[Mapping[str, Any]] = (),
) -> Curves:
    """A quantity, such as `loss`, on each split that it was logged on, with a band of one sd over seeds.

    Seeds stop early at different epochs; a curve goes on as long as at least half of its seeds train.

    Args:
        quantity: what follows the slash in the names of metrics; by default the first that was logged.
        labels: variant -> what the legend calls it; by default its name.
        colours: variant -> colour; a report gives one mapping to all of its figures.
        best: variant -> place of its best checkpoint; by default where this quantity is best on the split that selects.
        published: curves as a manifest has them; those of these variants are drawn, too, where training is counted in
            epochs.

    Raises:
        ResultsError: a variant has no curves, there are none of this quantity, or each is a single point.
    """
    metrics = metrics_of(curves)
    shown = curves[curves["variant"].isin(variants)]
    for variant in variants:
        if variant not in set(shown["variant"]):
            raise ResultsError(f"there are no learning curves of {variant!r}: none of its cells has been validated.")
    drawn = _logged(shown, metrics, quantity)
    dashes = _dashes(drawn, metrics.selecting.split)
    clock, names = clock_of(shown), dict.fromkeys(variants)
    found = tuple(
        _curve(shown[shown["variant"] == variant], metric, clock.unit, (labels or {}).get(variant, variant), dash)
        for variant in names
        for metric, dash in zip(drawn, dashes, strict=True)
    )
    if all(len(curve.x) < 2 for curve in found):
        raise ResultsError(f"{drawn[0].base_words} was logged at one {clock.unit} only, so there is no curve to draw.")
    held_out = next((metric for metric, dash in zip(drawn, dashes, strict=True) if dash == SOLID), None)
    if best is None and held_out is not None:
        places = first_best(shown, held_out).groupby("variant")[clock.unit].mean()
        best = {str(variant): float(place) for variant, place in places.items()}
    printed = tuple(
        _published_curve(curve, metric, (labels or {}).get(curve["variant"], curve["variant"]), dash)
        for curve in published
        for metric, dash in zip(drawn, dashes, strict=True)
        if clock == EPOCHS and curve["variant"] in names and metric.name in curve["values"]
    )
    return Curves(
        axis=drawn[0].base_axis,
        x_axis=clock.unit,
        digits=drawn[0].digits,
        curves=found + printed,
        best={name: best[name] for name in names if best and name in best},
        colours=colours or variant_colours(variants),
    )


def logged_quantities(curves: pd.DataFrame) -> tuple[str, ...]:
    """What was logged while training, in the order of the metrics: at most MOST_QUANTITIES, what selects among them."""
    metrics = metrics_of(curves)
    logged = list(dict.fromkeys(metric.base for metric in metrics if curves[metric.name].notna().any()))
    first = sorted(logged, key=lambda base: base != metrics.selecting.base)[:MOST_QUANTITIES]
    return tuple(base for base in logged if base in first)


def _logged(shown: pd.DataFrame, metrics: Metrics, quantity: str) -> list[Metric]:
    """The metrics of one quantity that were logged, in the order of the metrics."""
    logged = [metric for metric in metrics if shown[metric.name].notna().any()]
    known = list(dict.fromkeys(metric.base for metric in logged))
    if not known:
        raise ResultsError("there are no learning curves: nothing was logged while training.")
    chosen = quantity or known[0]
    if chosen not in known:
        raise ResultsError(f"there are no learning curves of {chosen!r}; there are of: {', '.join(known)}.")
    return [metric for metric in logged if metric.base == chosen]


def _dashes(drawn: Sequence[Metric], selecting: str) -> list[str]:
    others = [metric for metric in drawn if metric.split != selecting]
    return [SOLID if metric.split == selecting else DASHES[others.index(metric) % len(DASHES)] for metric in drawn]


def _curve(mine: pd.DataFrame, metric: Metric, unit: str, label: str, dash: str) -> Curve:
    by_place = (mine[metric.name] * metric.factor).groupby(mine[unit])
    frame = pd.DataFrame({"mean": by_place.mean(), "sd": by_place.std(), "n": by_place.count()})
    frame = frame[(frame["n"] > 0) & (frame["n"] >= LEAST_SHARE * mine["seed"].nunique())]
    sd = frame["sd"].fillna(0.0)
    return Curve(
        variant=str(mine["variant"].iloc[0]),
        label=label,
        split=metric.split_words,
        dash=dash,
        x=tuple(map(float, frame.index)),
        mean=tuple(frame["mean"]),
        low=tuple(frame["mean"] - sd),
        high=tuple(frame["mean"] + sd),
        n=tuple(map(int, frame["n"])),
    )


def _published_curve(curve: Mapping[str, Any], metric: Metric, label: str, dash: str) -> Curve:
    values = tuple(metric.scale(value) for value in curve["values"][metric.name])
    ones, places = (1,) * len(values), tuple(map(float, curve["epochs"]))
    return Curve(curve["variant"], label, metric.split_words, dash, places, values, values, values, ones, True)
