"""Whose learning curves a report shows: the baseline, the best variant, before and after the biggest improvement, and
with and without dropout (figures 1 to 4 of the report that the built-in studies repeat)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from harness.errors import ResultsError
from harness.report.tables import Tables
from harness.stats.overview import summary

DROPOUT = "dropout"  # what changes that bring it are called


@dataclass(frozen=True)
class CurveChoice:
    """The variants of one figure.

    Attributes:
        name: of the figure's files.
        labels: variant -> what the legend calls it, where that is not its name.
    """

    name: str
    title: str
    variants: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def best_variant(tables: Tables) -> str | None:
    """The variant with the best mean of the metric that selects, whatever is reported."""
    metric = tables.metrics.selecting
    frame = summary(tables.results, metric=metric.name).dropna(subset="mean")
    ranked = frame.sort_values(["mean", "variant"], ascending=[not metric.is_maximized, True])
    return str(ranked["variant"].iloc[0]) if len(ranked) else None


def _baseline(tables: Tables) -> CurveChoice:
    return CurveChoice("baseline", "Learning curves of the baseline", ("baseline",))


def _best(tables: Tables) -> CurveChoice:
    best = best_variant(tables)
    if best is None:
        raise ResultsError("no cell has finished yet.")
    if best == "baseline":
        words = tables.metrics.selecting.words
        raise ResultsError(f"the baseline has the best {words}; its curves are shown.")
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
        if change.startswith(DROPOUT) and {*sides} <= trained
    ]
    if not found:
        raise ResultsError(f"no change named {DROPOUT} was trained on both sides of a comparison.")
    place, change, (variant, reference) = min(found, key=lambda it: it[:2])
    labels = {0: {reference: f"{variant} without {change}"}, 1: {reference: f"before {change}"}}
    return CurveChoice(DROPOUT, f"With and without {change}", (reference, variant), labels.get(place, {}))


def _published(tables: Tables, figure: str) -> CurveChoice:
    labels = {str(it["variant"]): str(it["label"]) for it in tables.manifest.published_curves if it["figure"] == figure}
    trained = tuple(name for name in labels if name in {*tables.curves["variant"]})
    if not trained:
        raise ResultsError(f"nothing that it shows has been trained: {', '.join(labels)}.")
    labels = {name: label for name, label in labels.items() if label}
    return CurveChoice(f"published-{slug(figure)}", f"{figure}, beside ours", trained, labels)


def slug(words: str) -> str:
    """For names of files and elements: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def choices(tables: Tables) -> Mapping[str, Callable[[Tables], CurveChoice]]:
    """What each figure is, for the list of those that are left out -> how its variants are found.

    With and without dropout only in studies with a change of that name; figures with published curves only in studies
    that have some.
    """
    found: dict[str, Callable[[Tables], CurveChoice]] = {
        "learning curves of the baseline": _baseline,
        "learning curves of the best variant": _best,
        "before and after the biggest improvement": _biggest,
    }
    for figure in dict.fromkeys(str(it["figure"]) for it in tables.manifest.published_curves):
        found[f"{figure}, beside ours"] = partial(_published, figure=figure)
    named = any(change.startswith(DROPOUT) for it in tables.manifest.variants for change in it.changes)
    return found | ({f"with and without {DROPOUT}": _dropout} if named else {})
