"""The page of a report: one HTML file that needs no network, in light and dark, from 400 pixels up.

plotly.js is in the page once; everything else is text. What stands in the page is decided in `exhibits.py`,
`display.py` and `summary.py`; this module puts it together with the template `page.html.j2` of this package.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from plotly.offline import get_plotlyjs

from harness.errors import ResultsError
from harness.report.display import GRIDS, Grid, effects_grid, seeds_grid
from harness.report.exhibits import Exhibit, Exhibits
from harness.report.figures import draw
from harness.report.formats import html_table
from harness.report.look import DARK, LIGHT
from harness.report.plot_parts import template
from harness.report.summary import methods, provenance, warnings
from harness.report.tables import Tables

LONG_ROWS = 25  # a longer table is folded away
MOST_ROWS = 300  # a table of the page; the files have all
MOST_SEEDS = 40  # columns of the table with every seed


@dataclass(frozen=True)
class Section:
    """One part of the page; empty ones are left out."""

    id: str
    title: str
    exhibits: Sequence[Mapping[str, Any]]
    tables: Sequence[Mapping[str, Any]]


def page(tables: Tables, shown: Exhibits, beside: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        shown: as `exhibits` gives them.
        beside: relative paths of the files that stand beside the page.
    """
    figures = {name: draw(data) for exhibit in shown.shown for name, data in exhibit.ids()}
    heights = {name: int(figure.layout.height) for name, figure in figures.items()}
    # The page sets the template by the reader's mode and the height by the element, so that both can change.
    plain = {name: json.loads(figure.to_json()) for name, figure in figures.items()}
    for figure in plain.values():
        del figure["layout"]["template"], figure["layout"]["height"]
    themes = {"light": template(LIGHT), "dark": template(DARK)}
    manifest = tables.manifest
    return (
        _environment()
        .from_string(_part("page.html.j2"))
        .render(
            version=version("harness"),
            study=manifest["study"],
            title=manifest["title"],
            profile=manifest["profile"],
            facts=_facts(tables),
            headline=tables.headline.sentence,
            warnings=warnings(tables),
            sections=_sections(tables, shown, heights),
            methods=methods(tables),
            provenance=provenance(tables),
            left_out=shown.left_out,
            files=beside,
            style=_part("page.css"),
            script=_part("page.js"),
            plotly=get_plotlyjs(),
            figures=_embedded({"figures": plain, "themes": themes}),
        )
    )


def _facts(tables: Tables) -> list[str]:
    num_seeds, variants = tables.results["seed"].nunique(), tables.variants
    return [
        f"{num_seeds} seed{'s' * (num_seeds != 1)}",
        f"{len(variants)} variants",
        f"{sum(variants['n_ok'])} of {sum(variants['n'])} cells finished",
    ]


def _sections(tables: Tables, shown: Exhibits, heights: Mapping[str, int]) -> list[Section]:
    families = tables.families.values()
    by_kind = {
        kinds: [effects_grid(family, tables.variants) for family in families if family.kind in kinds]
        for kinds in (("add-one", "combinations"), ("leave-one-out",), ("path",), ("pairs", "factorial", "fractional"))
    }
    singles, without, paths, together = by_kind.values()
    parts: list[tuple[str, str, Sequence[Exhibit], Sequence[Grid]]] = [
        ("effects", "Effects", shown.starting("effects-add-one", "effects-combinations"), singles),
        ("leave-one-out", "Inside the full combination", shown.starting("effects-leave", "add-one-against"), without),
        ("path", "Step by step", shown.starting("path"), paths),
        ("interactions", "Acting together", shown.starting("interactions"), [*_acting_together(tables), *together]),
        ("curves", "Learning curves and over-fitting", shown.starting("curves"), GRIDS["overfitting"](tables)),
        ("cost", "Cost", shown.starting("cost"), []),
        ("published", "Published numbers", shown.starting("published"), GRIDS["published"](tables)),
        ("variants", "Every variant and seed", (), [*GRIDS["variants"](tables), _seeds(tables)]),
    ]
    return [
        Section(
            name,
            title,
            [_exhibit(it, heights) for it in exhibits],
            [_table(grid) for grid in grids if grid.rows],
        )
        for name, title, exhibits, grids in parts
        if exhibits or any(grid.rows for grid in grids)
    ]


def _acting_together(tables: Tables) -> list[Grid]:
    """Interactions and Shapley values where the designs for them have run."""
    grids: list[Grid] = []
    for name in ("interactions", "shapley"):
        try:
            grids += GRIDS[name](tables)
        except ResultsError:  # said among the figures that are left out
            continue
    return grids


def _seeds(tables: Tables) -> Grid:
    grid = seeds_grid(tables)
    if len(grid.columns) <= MOST_SEEDS + 1:
        return grid
    note = f"{len(grid.columns) - 1 - MOST_SEEDS} more seeds are in the files beside this page."
    rows = tuple(row[: MOST_SEEDS + 1] for row in grid.rows)
    return Grid(grid.title, grid.columns[: MOST_SEEDS + 1], rows, notes=(*grid.notes, note))


def _exhibit(exhibit: Exhibit, heights: Mapping[str, int]) -> Mapping[str, Any]:
    panels = [{"id": name, "height": heights[name]} for name, _ in exhibit.ids()]
    return {"title": exhibit.title, "caption": exhibit.caption, "panels": panels}


def _table(grid: Grid) -> Mapping[str, Any]:
    more = len(grid.rows) - MOST_ROWS
    if more > 0:
        note = f"{more} more rows are in the files beside this page."
        grid = Grid(grid.title, grid.columns, grid.rows[:MOST_ROWS], grid.bold, (*grid.notes, note))
    return {"title": grid.title, "html": html_table(grid), "is_long": len(grid.rows) > LONG_ROWS}


def _embedded(value: Any) -> str:
    """JSON that can stand in a script element: `</script>` in a text must not end it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _part(name: str) -> str:
    return files("harness.report").joinpath(name).read_text(encoding="utf-8")
