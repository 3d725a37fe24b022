"""Which figures a report has: chosen by what the results hold, each with its title and caption.

A figure whose data are not there is left out and named, with the design to run. Nothing is drawn here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from harness.errors import ResultsError
from harness.metrics import SECONDS
from harness.plan.manifest import EARLIER
from harness.report.best_steps import best_places, clock_of
from harness.report.curve_choice import CurveChoice, choices
from harness.report.curve_data import SOLID, Curves, curves_data, logged_quantities
from harness.report.effect_data import MOST_HEAT_TEXTS, forest_data, heat_data, pairs_data, waterfall_data
from harness.report.example_data import CLEAREST, gallery_data
from harness.report.figure_data import (
    FigureData,
    costs_data,
    known_costs,
    published_data,
    published_quantities,
)
from harness.report.line_data import VERDICTS, ChampionLine
from harness.report.look import variant_colours
from harness.report.overfitting import describe_overfitting
from harness.report.summary import deviations
from harness.report.tables import Family, Tables
from harness.report.tuning_data import budgets_data, tuned_pairs_data

TOGETHER = ("pairs", "factorial", "fractional", "screening")  # designs whose variants hold several changes


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
    for title, choose in choices(tables).items():
        with _naming(title, left_out):
            chosen[title] = choose(tables)
    # Over all figures together: a variant has one colour in a report.
    colours = variant_colours(variant for choice in chosen.values() for variant in choice.variants)
    makers: list[tuple[str, Callable[[Tables], Exhibit]]] = [
        *_of_designs(tables),
        ("add-one against leave-one-out", _pairs),
        *([("tuned beside untuned", _tuned), ("expected best against budget", _budgets)] if tables.tuning else []),
        *((f"line of champions {line.name}", partial(_champions, line=line)) for line in tables.lines),
        ("pairwise interactions", _heat),
        *((title, partial(_curves, choice=choice, colours=colours)) for title, choice in chosen.items()),
        ("effect against cost", _costs),
        ("test examples gained and lost", _gallery),
        *([("observed against published", _published)] if tables.manifest.published else []),
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


_TITLES = {
    "add-one": "Each change alone",
    "combinations": "Combinations",
    "confirm": "On fresh seeds",
    EARLIER: "Before an edit",
}


def _forest(tables: Tables, family: Family) -> Exhibit:
    data = forest_data(tables, family.design)
    omitted = f" The {data.omitted} smallest effects are left out; the table has them." if data.omitted else ""
    minus = (
        f"{family.full} minus itself without the change"
        if family.full
        else f"variant minus {family.reference or 'baseline'}"
    )
    return Exhibit(
        exhibit_name(family),
        f"Each change inside {family.full}" if family.full else _TITLES.get(family.kind, family.design),
        (("", data),),
        f"{minus.capitalize()}, paired by seed. Large marks: mean with its 95% t interval; small grey points: single "
        "seeds. Blue and orange: supported after correction; grey: not, or too few seeds to tell." + omitted,
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
        f"The effect of each change added to the baseline, and of the same change {data.sides[1]}, with 95% t "
        "intervals. A gap between the two is interaction: the change does more, or less, beside the others.",
    )


def _tuned(tables: Tables) -> Exhibit:
    return Exhibit(
        "tuned-beside-untuned",
        "Tuned beside untuned",
        (("", tuned_pairs_data(tables)),),
        "The effect of each change with every variant's own settings, and with every variant, the baseline too, at the "
        "best of its trials, with 95% t intervals. What helps only untuned makes up for the baseline's settings.",
    )


def _budgets(tables: Tables) -> Exhibit:
    return Exhibit(
        "tuned-budgets",
        "Expected best against budget",
        (("", budgets_data(tables)),),
        "What the best of so many trials is expected to reach in the reported metric, chosen by the selected one; mean "
        "over seeds, band: one sd. Lines that cross: which change is ahead depends on how long one tunes.",
    )


def _champions(tables: Tables, *, line: ChampionLine) -> Exhibit:
    counted = {it: sum(branch.verdict == it for branch in line.branches if branch.champion) for it in VERDICTS}
    omitted = f" {line.omitted} earlier proposals that were not kept are left out." if line.omitted else ""
    return Exhibit(
        f"champions-{_slug(line.name)}",
        f"The line of champions {line.name}",
        (("", line),),
        "From the top: each proposal that `harness judge` measured, beside the champion of then (grey line), with the "
        "95% t interval of its gain. Where one became the champion the line goes on at that champion's mean on fresh "
        "seeds: the gain by which it was kept is a lucky one. Diamond: proven; square: refuted; circle: unproven, also "
        "where it was kept on one run; cross: it failed." + omitted,
        (f"Of {sum(counted.values())} champions, " + ", ".join(f"{counted[it]} {it}" for it in VERDICTS) + ".",),
    )


_HEAT_COLOURS = {
    True: "Blue: more than the sum; orange: less.",
    False: "Blue: less than the sum, which is better; orange: more.",
}


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
        f"What two changes do together beyond the sum of what each does alone. {_HEAT_COLOURS[data.is_maximized]} "
        "Empty: not trained." + numbers + omitted,
    )


def _curves(tables: Tables, *, choice: CurveChoice, colours: Mapping[str, str]) -> Exhibit:
    best = best_places(tables.results, tables.curves, clock_of(tables.curves))
    published = [it for it in tables.manifest.published_curves if it["variant"] in choice.variants]
    drawn = partial(
        curves_data,
        tables.curves,
        choice.variants,
        labels=choice.labels,
        colours=colours,
        best=best,
        published=published,
    )
    # Without any quantity, `curves_data` says why.
    panels = tuple((quantity, drawn(quantity=quantity)) for quantity in logged_quantities(tables.curves) or ("",))
    notes: list[str] = []
    with suppress(ResultsError):  # over-fitting cannot be told of every training
        for variant in choice.variants:
            notes.append(describe_overfitting(tables.overfitting, variant, choice.labels.get(variant, variant)))
    if any(curve.is_published for _, data in panels for curve in data.curves):
        notes += [f"Published of {it['variant']}: {it['figure']}, {it['source']}." for it in published]
    return Exhibit(
        f"curves-{choice.name}", choice.title, panels, _curves_caption(panels[0][1]), tuple(filter(None, notes))
    )


_DASHES = {SOLID: "Solid", "dot": "dotted", "dash": "dashed", "dashdot": "dash-dotted", "longdash": "long dashes"}


def _curves_caption(data: Curves) -> str:
    lines = {curve.dash: curve.split for curve in data.curves}
    said = "; ".join(f"{words}: {lines[dash]}" for dash, words in _DASHES.items() if dash in lines)
    lowest = f" Dashed vertical line: mean {data.x_axis} of the best checkpoint." if data.best else ""
    printed = " Crosses: published, a single run." if any(curve.is_published for curve in data.curves) else ""
    return (
        f"Mean over seeds, band: one sd. {said[:1].upper()}{said[1:]}, measured while training. A curve goes on as long"
        f" as half of the seeds train.{lowest}{printed}"
    )


def _costs(tables: Tables) -> Exhibit:
    panels = tuple((cost, costs_data(tables, cost)) for cost in known_costs(tables) or (SECONDS.name,))
    return Exhibit(
        "cost",
        "Effect against cost",
        panels,
        "Cost as a multiple of the baseline's, on a logarithmic axis; effects with 95% t intervals. Named: variants "
        "that help, and that none beats that costs about as little (up to a fifth more).",
    )


def _gallery(tables: Tables) -> Exhibit:
    data = gallery_data(tables)
    return Exhibit(
        "examples",
        f"Test examples that {data.change} gains and loses",
        (("", data),),
        f"Of {data.num_examples:,} test examples, {data.num_gained:,} are right in more of the {data.num_seeds} seeds "
        f"with {data.change} than with {data.reference}, {data.num_lost:,} in fewer. Shown: the {CLEAREST} clearest of "
        "each, with their class and the seeds that got them right, without and with the change. Chosen by their "
        "results: they illustrate, and prove nothing.",
    )


def _published(tables: Tables) -> Exhibit:
    # Without any, `published_data` says why.
    panels = tuple((it, published_data(tables, it)) for it in published_quantities(tables) or ("",))
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


def _slug(design: str) -> str:
    return design.replace(":", "-").replace(".", "-")
