"""The page of a report: one HTML file that needs no network, in light and dark, from 400 pixels up.

plotly.js is in the page once; everything else is text. What stands in the page is decided in `exhibits.py`,
`display.py` and `summary.py`; this module puts it together with the template `page.html.j2` of this package,
of which `content.html.j2` is what the live page shows, too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plotly.offline import get_plotlyjs

from harness.errors import ResultsError
from harness.report.display import GRIDS, Grid, effects_grid, seeds_grid
from harness.report.exhibits import TOGETHER, Exhibit, Exhibits, exhibit_name
from harness.report.figures import draw
from harness.report.formats import html_table
from harness.report.look import DARK, LIGHT
from harness.report.plot_parts import template
from harness.report.summary import methods, provenance, warnings
from harness.report.tables import Tables
from harness.report.template import environment, part
from harness.version import harness_version

LONG_ROWS = 25  # a longer table is folded away
MOST_ROWS = 300  # a table of the page; the files have all
ELSEWHERE = ("leave-one-out", "path", *TOGETHER)  # designs with a section of their own
MOST_SEEDS = 40  # columns of the table with every seed

Block = Mapping[str, Any]  # what the template needs of one figure or one table


@dataclass(frozen=True)
class Section:
    """One part of the page; empty ones are left out."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Content:
    """What a page says below its title, for a page that has it already.

    Attributes:
        html: answer, warnings, contents, sections, methods. figures: for `drawReport` of `page.js`, plain values.
    """

    html: str
    figures: Mapping[str, Any]


def page(tables: Tables, shown: Exhibits, beside: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        shown: as `exhibits` gives them.
        beside: relative paths of the files that stand beside the page.
    """
    manifest, figures = tables.manifest, _figures(shown)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            version=harness_version(),
            study=manifest.study,
            title=manifest.title,
            profile=manifest.profile,
            facts=_facts(tables),
            style=part("page.css"),
            script=part("page.js"),
            plotly=get_plotlyjs(),
            figures=_embedded(figures),
            **_said(tables, shown, figures, beside),
        )
    )


def content(tables: Tables, shown: Exhibits) -> Content:
    """The page without its head and title."""
    figures = _figures(shown)
    html = environment().get_template("content.html.j2").render(_said(tables, shown, figures, ()))
    return Content(html, figures)


def _figures(shown: Exhibits) -> dict[str, Any]:
    """Every figure as plain values, and the templates of both modes: the page sets one, by the reader's mode."""
    drawn = {f"figure-{name}": draw(data) for exhibit in shown.shown for name, data in exhibit.ids()}
    plain = {name: json.loads(figure.to_json()) for name, figure in drawn.items()}
    for figure in plain.values():
        del figure["layout"]["template"]
    return {"figures": plain, "themes": {"light": template(LIGHT), "dark": template(DARK)}}


def _said(tables: Tables, shown: Exhibits, figures: Mapping[str, Any], beside: Sequence[str]) -> dict[str, Any]:
    """What `content.html.j2` needs."""
    heights = {name: int(figure["layout"]["height"]) for name, figure in figures["figures"].items()}
    # A confirmation on fresh seeds comes first; the estimate that led to it is in its sentence.
    sentences = " ".join([*tables.confirmations, tables.headline.sentence])
    first, _, more = sentences.partition(". ")
    return {
        "headline": f"{first}." if more else first,
        "more": more,
        "warnings": warnings(tables),
        "sections": _sections(tables, shown, heights),
        "methods": methods(tables),
        "provenance": provenance(tables),
        "left_out": shown.left_out,
        "files": _grouped(beside),
    }


def _facts(tables: Tables) -> list[str]:
    num_seeds, variants = tables.results["seed"].nunique(), tables.variants
    return [
        f"{num_seeds} seed{'s' * (num_seeds != 1)}",
        f"{len(variants)} variants",
        f"{sum(variants['n_ok'])} of {sum(variants['n'])} cells finished",
    ]


def _sections(tables: Tables, shown: Exhibits, heights: Mapping[str, int]) -> list[Section]:
    figures = {it.name: _exhibit(it, heights) for it in shown.shown}

    def of_kinds(*kinds: str) -> list[Block]:
        """Each design's figure, where it has one, with its table below; without kinds, of the designs left over."""
        blocks: list[Block] = []
        for family in tables.families.values():
            if family.kind in kinds or not (kinds or family.kind in ELSEWHERE):
                figure = figures.get(exhibit_name(family))
                blocks += [*([figure] if figure else []), _table(effects_grid(family, tables.variants))]
        return blocks

    def drawn(prefix: str) -> list[Block]:
        return [figure for name, figure in figures.items() if name.startswith(prefix)]

    def listed(grids: Sequence[Grid]) -> list[Block]:
        return [_table(grid) for grid in grids if grid.rows]

    overfitting = _told(tables, "overfitting")
    curves_title = "Learning curves" + " and over-fitting" * bool(overfitting)
    parts = [
        ("champions", "Judged one after another", drawn("champions-")),
        ("effects", "Effects", of_kinds()),
        ("leave-one-out", "Inside the full combination", [*of_kinds("leave-one-out"), *drawn("add-one-against")]),
        ("tuning", "Tuned", drawn("tuned-")),
        ("path", "Step by step", of_kinds("path")),
        (
            "interactions",
            "Acting together",
            [*drawn("interactions"), *listed(_acting_together(tables)), *of_kinds(*TOGETHER)],
        ),
        ("examples", "Example by example", [*drawn("examples"), *listed(_told(tables, "examples"))]),
        ("curves", curves_title, [*drawn("curves"), *listed(overfitting)]),
        ("cost", "Cost", drawn("cost")),
        ("published", "Published numbers", [*drawn("published"), *listed(GRIDS["published"](tables))]),
        ("variants", "Every variant and seed", listed([*GRIDS["variants"](tables), _seeds(tables)])),
    ]
    return [Section(name, title, blocks) for name, title, blocks in parts if blocks]


def _acting_together(tables: Tables) -> list[Grid]:
    """Interactions, Shapley values and average effects, where the designs for them have run."""
    kinds = {family.kind for family in tables.families.values()}
    names = ("interactions", "shapley", *(["marginal"] if kinds & {"factorial", "fractional", "screening"} else []))
    return [grid for name in names for grid in _told(tables, name)]


def _told(tables: Tables, name: str) -> Sequence[Grid]:
    """A table, where these results have it; what is missing is said among the figures that are left out."""
    try:
        return GRIDS[name](tables)
    except ResultsError:
        return []


def _seeds(tables: Tables) -> Grid:
    grid = seeds_grid(tables)
    if len(grid.columns) <= MOST_SEEDS + 1:
        return grid
    note = f"{len(grid.columns) - 1 - MOST_SEEDS} more seeds are in the files beside this page."
    rows = tuple(row[: MOST_SEEDS + 1] for row in grid.rows)
    return Grid(grid.title, grid.columns[: MOST_SEEDS + 1], rows, notes=(*grid.notes, note))


def _exhibit(exhibit: Exhibit, heights: Mapping[str, int]) -> Block:
    panels = [{"id": f"figure-{name}", "height": heights[f"figure-{name}"]} for name, _ in exhibit.ids()]
    return {"title": exhibit.title, "caption": exhibit.caption, "notes": exhibit.notes, "panels": panels}


def _table(grid: Grid) -> Block:
    more = len(grid.rows) - MOST_ROWS
    if more > 0:
        note = f"{more} more rows are in the files beside this page."
        grid = Grid(grid.title, grid.columns, grid.rows[:MOST_ROWS], grid.bold, (*grid.notes, note))
    return {"title": grid.title, "html": html_table(grid), "is_long": len(grid.rows) > LONG_ROWS}


def _embedded(value: Any) -> str:
    """JSON that can stand in a script element: `</script>` in a text must not end it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _grouped(files: Sequence[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables by name with a link a format; the figures in one group."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        folder, _, name = file.partition("/")
        stem, _, suffix = name.rpartition(".")
        group, text = (f"table {stem}", suffix) if folder == "tables" else ("figures", stem)
        groups.setdefault(group, []).append((text, file))
    return sorted(groups.items(), key=lambda item: item[0] == "figures")
