"""Whose learning curves a report shows: the baseline, the best variant, before and after the biggest improvement, and
with and without dropout (figures 1 to 4 of the report that the built-in studies repeat)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.errors import ResultsError
from harness.report.tables import Tables
from harness.stats.overview import summary


@dataclass(frozen=True)
class CurveChoice:
    """The variants of one figure.

    Attributes:
        labels: variant -> what the legend calls it, where that is not its name.
    """

    name: str
    title: str
    variants: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def best_variant(tables: Tables) -> str | None:
    """The variant with the best mean validation accuracy: chosen by validation, whatever is reported."""
    frame = summary(tables.results, metric="val_accuracy").dropna(subset="mean")
    ranked = frame.sort_values(["mean", "variant"], ascending=[False, True])
    return str(ranked["variant"].iloc[0]) if len(ranked) else None


def _baseline(tables: Tables) -> CurveChoice:
    return CurveChoice("baseline", "Learning curves of the baseline", ("baseline",))


def _best(tables: Tables) -> CurveChoice:
    best = best_variant(tables)
    if best is None:
        raise ResultsError("no cell has finished yet.")
    if best == "baseline":
        raise ResultsError("the baseline has the best validation accuracy; its curves are shown.")
    return CurveChoice("best", f"Learning curves of the best variant, {best}", (best,))


def _biggest(tables: Tables) -> CurveChoice:
    change, family = tables.headline.variant, tables.main_family
    if change is None or family is None:
        raise ResultsError("there is no change with an estimate yet.")
    variant, reference = family.sides[change]
    return CurveChoice("biggest", f"Before and after the biggest improvement, {change}", (reference, variant))


def _dropout(tables: Tables) -> CurveChoice:
    """Out of a full combination where there is one, else in a path, else alone."""
    order = {"leave-one-out": 0, "path": 1, "add-one": 2}
    trained = {*tables.curves["variant"]}
    found = [
        (order[family.kind], change, sides)
        for family in tables.families.values()
        if family.kind in order
        for change, sides in family.sides.items()
        if change.startswith("dropout") and {*sides} <= trained
    ]
    if not found:
        raise ResultsError("no change named dropout was trained on both sides of a comparison.")
    place, change, (variant, reference) = min(found, key=lambda it: it[:2])
    labels = {0: {reference: f"{variant} without {change}"}, 1: {reference: f"before {change}"}}
    return CurveChoice("dropout", f"With and without {change}", (reference, variant), labels.get(place, {}))


# What the figure is, for the list of those that are left out -> how its variants are found.
CHOICES: Mapping[str, Callable[[Tables], CurveChoice]] = {
    "learning curves of the baseline": _baseline,
    "learning curves of the best variant": _best,
    "before and after the biggest improvement": _biggest,
    "with and without dropout": _dropout,
}
