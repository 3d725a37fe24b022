"""`harness compare`: which effects changed from one study run to another."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.api.comparing import Compared
from harness.api.comparing import compare as compare_runs
from harness.cli.as_json import print_json
from harness.cli.grid import Column, print_grid
from harness.cli.options import json_option, store_option
from harness.cli.screen import Screen

if TYPE_CHECKING:
    from harness.report.display import Grid


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--metric", help="Of which the effects are; by default what the first study reports.")
@click.option("--margin", type=click.FloatRange(0, min_open=True), help="Differences below it do not matter, as shown.")
@click.option(
    "--second-store",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The store of the second one; by default the same.",
)
@click.option("--markdown", is_flag=True, help="Print a Markdown table, as for a pull request.")
@json_option
@store_option
def compare(
    first: str,
    second: str,
    metric: str | None,
    margin: float | None,
    second_store: Path | None,
    markdown: bool,
    as_json: bool,
    store: Path,
) -> None:
    """Say which effects differ between two study runs: of other code, other data, other versions, or other studies.

    FIRST and SECOND are names of studies, their files, or ids of study runs (`harness results --list`). Effects that
    both have are compared, each with its interval; the differences are paired by the seeds that both runs have, and
    corrected over all of them.
    """
    found = compare_runs(first, second, metric=metric, margin=margin or 0.0, store=store, second_store=second_store)
    if as_json:
        print_json(_as_json(found))
        return
    grid = _grid(found)
    if markdown:
        from harness.report.formats import markdown as as_markdown

        click.echo(as_markdown(grid))
        return
    console = Screen()
    optional = (1, 2, 4, 5)
    columns = [Column(it.heading, it.is_number, place in optional) for place, it in enumerate(grid.columns)]
    print_grid(console, columns, grid.rows, title=grid.title)
    for note in grid.notes:
        console.print(note, style="dim")


def _grid(found: Compared) -> "Grid":
    from harness.report.display import Column as GridColumn
    from harness.report.display import Grid
    from harness.report.tables import rows_of
    from harness.report.wording import format_p

    metric = found.between.metric
    unit = f" [{metric.difference_unit}]" if metric.difference_unit else ""
    columns = (
        GridColumn("effect of", is_number=False), GridColumn(f"in the first{unit}"), GridColumn("in the second"),
        GridColumn("second − first"), GridColumn("n"), GridColumn("p (adjusted)"),
        GridColumn("verdict", is_number=False),
    )  # fmt: skip
    rows = tuple(
        (
            row.change, metric.format_estimate(row.first, row.first_low, row.first_high),
            metric.format_estimate(row.second, row.second_low, row.second_high),
            metric.format_estimate(row.difference, row.low, row.high),
            str(row.n), format_p(row.p_adjusted), row.verdict,
        )
        for row in rows_of(found.between.table)
    )  # fmt: skip
    return Grid(f"Effects in {found.first.id} and in {found.second.id}", columns, rows, notes=tuple(_notes(found)))


def _notes(found: Compared) -> list[str]:
    common, m = found.between.common_seeds, len(found.between.table)
    over = f"{found.between.correction} over {m} effect{'s' * (m != 1)}"
    if common:
        seeds = f"{len(common)} common seed{'s' * (len(common) != 1)}"
        notes = [f"Differences paired over {seeds}, with their 95% t interval; p by sign-flip, adjusted by {over}."]
    else:
        notes = [f"No two seeds in common: Welch's t test on the effects of single seeds; p adjusted by {over}."]
    notes += ["In each run stands its effect over all seeds that it has there."]
    notes += [f"Differs: {it}." for it in found.differing] or ["The two runs differ in nothing but their results."]
    notes += [f"Only in {name}: {', '.join(labels)}." for name, labels in found.alone.items() if labels]
    return notes


def _as_json(found: Compared) -> dict[str, Any]:
    from harness.report.tables import records

    return {
        "first": found.first.id,
        "second": found.second.id,
        "metric": found.between.metric.name,
        "common_seeds": list(found.between.common_seeds),
        "correction": found.between.correction,
        "effects": records(found.between.table),
        "differing": list(found.differing),
    }
