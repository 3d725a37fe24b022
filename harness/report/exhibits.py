"""Which figures a report has: chosen by what the results hold, each with its title and caption.

A figure whose data are not there is left out and named, with the design to run. Nothing is drawn here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import pandas as pd

from harness.errors import ResultsError
from harness.report.effect_data import MOST_HEAT_TEXTS, forest_data, heat_data, pairs_data, waterfall_data
from harness.report.figure_data import FigureData, costs_data, curves_data, published_data
from harness.report.overfitting import describe_overfitting
from harness.report.summary import deviations
from harness.report.tables import Family, Tables, rows_of
from harness.stats.overview import summary


@dataclass(frozen=True)
class Exhibit:
    """One figure of the report.

    Attributes:
        name: of its elements and files, such as `curves-baseline`.
        panels: what is drawn side by side: (name, data); the name says what of the figure it is, "" for the only one.
        caption: what one sees, and how to read it.
        notes: what the figure says, in numbers.
    """

    name: str
    title: str
    panels: tuple[tuple[str, FigureData], ...]
    caption: str
    notes: tuple[str, ...] = ()

    def ids(self) -> Iterator[tuple[str, FigureData]]:
        """A name for each panel that is unique in the report."""
        for panel, data in self.panels:
            yield (f"{self.name}-{panel}" if panel else self.name), data


@dataclass(frozen=True)
class LeftOut:
    """A figure that these results cannot have, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class Exhibits:
    shown: tuple[Exhibit, ...]
    left_out: tuple[LeftOut, ...]


def exhibits(tables: Tables) -> Exhibits:
    """Every figure that the results allow, in the order of the report."""
    families = list(tables.families.values())
    paths: list[Family | None] = [family for family in families if family.kind == "path"]
    makers: list[tuple[str, Callable[[Tables], Exhibit]]] = [
        (f"effects of {family.design}", partial(_forest, family=family))
        for family in families
        if family.kind in ("add-one", "combinations", "leave-one-out")
    ]
    makers += [("waterfall of the path", partial(_path, family=family)) for family in paths or [None]]
    makers += [
        ("add-one against leave-one-out", _pairs),
        ("pairwise interactions", _heat),
        ("learning curves of the baseline", _curves_of_baseline),
        ("learning curves of the best variant", _curves_of_best),
        ("before and after the biggest improvement", _curves_of_biggest),
        ("with and without dropout", _curves_of_dropout),
        ("effect against cost", _costs),
        ("observed against published", _published),
    ]
    shown, left_out = [], []
    for title, make in makers:
        try:
            shown.append(make(tables))
        except ResultsError as error:
            left_out.append(LeftOut(title, str(error)))
    return Exhibits(tuple(shown), tuple(left_out))


def exhibit_name(family: Family) -> str:
    """The name of the figure that shows one design."""
    return _slug(family.design) if family.kind == "path" else f"effects-{_slug(family.design)}"


def best_variant(tables: Tables) -> str | None:
    """The variant with the best mean validation accuracy: chosen by validation, whatever is reported."""
    frame = summary(tables.results, metric="val_accuracy").dropna(subset="mean")
    return (
        None if frame.empty else str(frame.sort_values(["mean", "variant"], ascending=[False, True])["variant"].iloc[0])
    )


def _forest(tables: Tables, family: Family) -> Exhibit:
    data = forest_data(tables, family.design)
    omitted = f" The {data.omitted} smallest effects are left out; the table has them." if data.omitted else ""
    minus = f"{family.full} minus itself without the change" if family.full else "variant minus baseline"
    titles = {"add-one": "Each change alone", "combinations": "Combinations"}
    return Exhibit(
        exhibit_name(family),
        titles.get(family.kind, f"Each change inside {family.full}"),
        (("", data),),
        f"{minus.capitalize()}, paired by seed. Large marks: mean with its 95% t interval; small grey points: single "
        "seeds. Blue and orange: supported after Holm's correction; grey: not, or too few seeds to tell." + omitted,
    )


def _path(tables: Tables, family: Family | None) -> Exhibit:
    data = waterfall_data(tables, family.design if family else "path")
    return Exhibit(
        _slug(data.design),
        f"The path {data.design.partition(':')[2]}, step by step",
        (("", data),),
        f"Each bar goes from the mean before a step to the mean after it, from {data.start} at the top; the thin line "
        "is the 95% t interval of the step. The numbers beside the names are the steps' effects.",
    )


def _pairs(tables: Tables) -> Exhibit:
    data = pairs_data(tables)
    return Exhibit(
        "add-one-against-leave-one-out",
        "What a change brings alone, and inside the full combination",
        (("", data),),
        f"The effect of each change added to the baseline, and of the same change inside {data.full}, with 95% t "
        "intervals. A gap between the two is interaction: the change does more, or less, beside the others.",
    )


def _heat(tables: Tables) -> Exhibit:
    data = heat_data(tables)
    if len(data.changes) < 3:
        raise ResultsError(
            "fewer than three changes were trained in pairs; `harness ablate --design pairs` trains all."
        )
    omitted = f" {data.omitted} further changes are left out; the table has them." if data.omitted else ""
    numbers = "" if len(data.changes) <= MOST_HEAT_TEXTS else " Numbers stand where the corrected test supports one."
    return Exhibit(
        "interactions",
        "Pairwise interactions",
        (("", data),),
        "What two changes do together beyond the sum of what each does alone. Blue: more than the sum; orange: less. "
        "Empty: not trained." + numbers + omitted,
    )


def _curves_of_baseline(tables: Tables) -> Exhibit:
    return _curves(tables, "baseline", "Learning curves of the baseline", ["baseline"])


def _curves_of_best(tables: Tables) -> Exhibit:
    best = best_variant(tables)
    if best is None:
        raise ResultsError("no cell has finished yet.")
    if best == "baseline":
        raise ResultsError("the baseline has the best validation accuracy; its curves are shown.")
    return _curves(tables, "best", f"Learning curves of the best variant, {best}", [best])


def _curves_of_biggest(tables: Tables) -> Exhibit:
    change, family = tables.headline.variant, tables.main_family
    if change is None or family is None:
        raise ResultsError("there is no change with an estimate yet.")
    variant, reference = family.sides[change]
    return _curves(tables, "biggest", f"Before and after the biggest improvement, {change}", [reference, variant])


def _curves_of_dropout(tables: Tables) -> Exhibit:
    """Out of a full combination where there is one, else in a path, else alone."""
    order = {"leave-one-out": 0, "path": 1, "add-one": 2}
    found = [
        (order[family.kind], label, sides)
        for family in tables.families.values()
        if family.kind in order
        for label, sides in family.sides.items()
        if label.startswith("dropout") and {*sides} <= {*tables.curves["variant"]}
    ]
    if not found:
        raise ResultsError("no change named dropout was trained on both sides of a comparison.")
    place, label, (variant, reference) = min(found, key=lambda it: it[:2])
    labels = {reference: f"{variant} without {label}"} if place == 0 else {reference: f"before {label}"}
    return _curves(tables, "dropout", f"With and without {label}", [reference, variant], labels if place < 2 else {})


def _curves(
    tables: Tables, name: str, title: str, variants: list[str], labels: Mapping[str, str] = MappingProxyType({})
) -> Exhibit:
    panels = tuple(
        (quantity, curves_data(tables.curves, variants, quantity, labels)) for quantity in ("loss", "accuracy")
    )
    notes = (
        describe_overfitting(tables.overfitting, variant).replace(variant, labels.get(variant, variant), 1)
        for variant in variants
    )
    caption = (
        "Mean over seeds, band: one sd. Solid: validation; dotted: training, measured while training. A curve goes on "
        "as long as half of the seeds train. Dashed vertical line: mean epoch of the best checkpoint."
    )
    return Exhibit(f"curves-{name}", title, panels, caption, tuple(filter(None, notes)))


def _costs(tables: Tables) -> Exhibit:
    panels = tuple((cost, costs_data(tables, cost)) for cost in ("seconds", "parameters"))
    return Exhibit(
        "cost",
        "Effect against cost",
        panels,
        "Cost as a multiple of the baseline's, on a logarithmic axis; effects with 95% t intervals. Named: variants "
        "that help, and that none beats that costs about as little (up to a fifth more).",
    )


def _published(tables: Tables) -> Exhibit:
    panels = tuple((quantity, published_data(tables, quantity)) for quantity in _published_quantities(tables.published))
    if not panels:
        published_data(tables, "accuracy")  # says why there is none
    differing = deviations(tables)
    note = f"Not the published experiment, so the numbers need not agree: {differing}." if differing else ""
    return Exhibit(
        "published",
        "Observed against published",
        panels,
        "Published numbers are single runs: compare them with the grey bars, where one more run of ours would land, "
        "rather than with the interval of our mean.",
        (note,) if note else (),
    )


def _published_quantities(published: pd.DataFrame) -> list[str]:
    ran = [str(row.metric) for row in rows_of(published) if row.n > 0]
    return [quantity for quantity in ("accuracy", "loss") if any(metric.endswith(quantity) for metric in ran)]


def _slug(design: str) -> str:
    return design.replace(":", "-").replace(".", "-")
