"""Which figures a report has: chosen by what the results hold, each with its title and caption.

A figure whose data are not there is left out and named, with the design to run. Nothing is drawn here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pandas as pd

from harness.errors import ResultsError
from harness.report.curve_choice import CHOICES, CurveChoice
from harness.report.effect_data import MOST_HEAT_TEXTS, forest_data, heat_data, pairs_data, waterfall_data
from harness.report.figure_data import FigureData, costs_data, curves_data, published_data
from harness.report.look import variant_colours
from harness.report.overfitting import describe_overfitting
from harness.report.summary import deviations
from harness.report.tables import Family, Tables, rows_of

TOGETHER = ("pairs", "factorial", "fractional")  # designs whose variants hold several changes


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
    shown: list[Exhibit] = []
    left_out: list[LeftOut] = []
    chosen: dict[str, CurveChoice] = {}
    for title, choose in CHOICES.items():
        with _naming(title, left_out):
            chosen[title] = choose(tables)
    # Over all figures together: a variant has one colour in a report.
    colours = variant_colours(variant for choice in chosen.values() for variant in choice.variants)
    makers: list[tuple[str, Callable[[Tables], Exhibit]]] = [
        *_of_designs(tables),
        ("add-one against leave-one-out", _pairs),
        ("pairwise interactions", _heat),
        *((title, partial(_curves, choice=choice, colours=colours)) for title, choice in chosen.items()),
        ("effect against cost", _costs),
        ("observed against published", _published),
    ]
    for title, make in makers:
        with _naming(title, left_out):
            shown.append(make(tables))
    return Exhibits(tuple(shown), tuple(left_out))


@contextmanager
def _naming(title: str, left_out: list[LeftOut]) -> Iterator[None]:
    try:
        yield
    except ResultsError as error:
        left_out.append(LeftOut(title, str(error)))


def _of_designs(tables: Tables) -> Iterator[tuple[str, Callable[[Tables], Exhibit]]]:
    """A figure for each design whose comparisons stand for themselves; pairs and factorials have the heat map."""
    families = list(tables.families.values())
    for family in families:
        if family.kind == "path":
            yield f"waterfall of {family.design}", partial(_path, family=family)
        elif family.kind not in TOGETHER:
            yield f"effects of {family.design}", partial(_forest, family=family)
    if not any(family.kind == "path" for family in families):
        yield "waterfall of the path", partial(_path, family=None)


def exhibit_name(family: Family) -> str:
    """The name of the figure that shows one design."""
    return _slug(family.design) if family.kind == "path" else f"effects-{_slug(family.design)}"


def _forest(tables: Tables, family: Family) -> Exhibit:
    data = forest_data(tables, family.design)
    omitted = f" The {data.omitted} smallest effects are left out; the table has them." if data.omitted else ""
    minus = f"{family.full} minus itself without the change" if family.full else "variant minus baseline"
    titles = {"add-one": "Each change alone", "combinations": "Combinations", "confirm": "On fresh seeds"}
    return Exhibit(
        exhibit_name(family),
        f"Each change inside {family.full}" if family.full else titles.get(family.kind, family.design),
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


def _curves(tables: Tables, *, choice: CurveChoice, colours: Mapping[str, str]) -> Exhibit:
    panels = tuple(
        (quantity, curves_data(tables.curves, choice.variants, quantity, labels=choice.labels, colours=colours))
        for quantity in ("loss", "accuracy")
    )
    notes = (
        describe_overfitting(tables.overfitting, variant, choice.labels.get(variant, variant))
        for variant in choice.variants
    )
    caption = (
        "Mean over seeds, band: one sd. Solid: validation; dotted: training, measured while training. A curve goes on "
        "as long as half of the seeds train. Dashed vertical line: mean epoch of the best checkpoint."
    )
    return Exhibit(f"curves-{choice.name}", choice.title, panels, caption, tuple(filter(None, notes)))


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
