"""`harness results`: every cell of a study, a row each."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.api.looking import looked_at
from harness.cli.as_json import print_json
from harness.cli.grid import Column, print_grid
from harness.cli.options import complete_run, json_option, store_option
from harness.cli.progress import size
from harness.cli.screen import Screen
from harness.cli.sentences import say, tell
from harness.cli.which_run import say_which_run
from harness.errors import StoreError
from harness.store.cells import Cells
from harness.texts import counted

if TYPE_CHECKING:
    import pandas as pd

    from harness.store.usage import Usage

TEXTS = ("variant", "status", "cell")  # to the left; the other columns are numbers
NONE = "-"  # where there is no number
MOST_REASONS = 12
MOST_NAME = 30  # characters of a name on one line of a terminal


@click.command()
@click.option(
    "--study",
    help="A study's name or file, or the id of a study run; the latest run that fits is shown.",
    shell_complete=complete_run,
)
@click.option("--profile", help="Only study runs of this profile.")
@click.option("--list", "list_runs", is_flag=True, help="List the study runs in the store.")
@store_option
@json_option
def results(study: str | None, profile: str | None, list_runs: bool, store: Path, as_json: bool) -> None:
    """Print every cell of a study run, a row each: what the study measures, as it was logged."""
    cells = Cells(store.absolute())
    if list_runs or study is None:
        _list_runs(cells, as_json=as_json)
        return
    from harness.store.load import find_manifest

    table = looked_at(cells, find_manifest(cells, study, profile))
    say_which_run(cells, table.attrs["manifest"], study)
    if as_json:
        from harness.report.tables import records

        print_json({"run": table.attrs["manifest"].id, "cells": records(table)})
        return
    tell(f"study run {table.attrs['manifest'].id}, {counted(len(table), 'cell')}")
    columns = _columns(table)
    print_grid(Screen(), [_column(it) for it in columns], list(zip(*columns.values(), strict=True)))
    _say_reasons(table)


def _columns(table: "pd.DataFrame") -> dict[str, list[str]]:
    """What is printed of the cells, by heading."""
    from harness.report.best_steps import EPOCHS, STEPS
    from harness.report.display import short_headings, shown_of_cells
    from harness.store.load import metrics_of

    shown = short_headings(shown_of_cells(metrics_of(table)))
    columns = {"variant": _said(table["variant"]), "seed": _said(table["seed"]), "status": _said(table["status"])}
    columns |= {heading: _numbers(table[metric.name], metric.logged_digits) for metric, heading in shown.items()}
    best = next((it for it in (EPOCHS, STEPS) if it.best in table.columns), None)
    columns |= {f"best {best.unit}": _numbers(table[best.best], best.digits)} if best else {}
    is_short = not table["seconds"].max() >= 100  # NaN where none has ended
    return columns | {"seconds": _numbers(table["seconds"], int(is_short)), "cell": _said(table["key"])}


def _said(column: "pd.Series[Any]") -> list[str]:
    return [str(value) for value in column]


def _numbers(column: "pd.Series[float]", digits: int) -> list[str]:
    numbers = column.astype("float64")
    return [NONE if number != number else f"{number:.{digits}f}" for number in numbers]


def _column(heading: str) -> Column:
    is_text = heading in TEXTS
    return Column(heading, not is_text, is_optional=not is_text and heading != "seed", ease=MOST_NAME)


def _say_reasons(table: "pd.DataFrame") -> None:
    """Why cells have no number: those of one variant and reason together."""
    failed = table[~table["status"].isin(["finished", "missing"])]
    groups = list(failed.groupby(["variant", "status", "reason"], sort=False))
    for (variant, status, reason), cells in groups[:MOST_REASONS]:
        seeds = ", ".join(map(str, cells["seed"]))
        tell(f"{variant} seed{'s' * (len(cells) != 1)} {seeds}: {status}: {reason or 'no reason recorded'}")
    if len(groups) > MOST_REASONS:
        tell(f"... and {len(groups) - MOST_REASONS} more; --json has all.")
    if groups:
        tell(f"`harness logs {failed['key'].iloc[0]}` shows what the first of them said.")


def _list_runs(cells: Cells, *, as_json: bool) -> None:
    from harness.store.usage import Usage, cell_usage

    manifests = cells.manifests()
    usages: dict[str, Usage] = {}
    listed, console = list[dict[str, Any]](), Screen()
    if not manifests and not as_json:
        tell(f"{cells.root}: no study run yet. `harness ablate --study task3 --profile quick` makes one.")
    for name, manifest in manifests.items():
        seeds = {key: seed for variant in manifest.variants for seed, key in variant.cells.items()}
        ended, refused = 0, []
        for key, seed in seeds.items():
            try:
                ended += cells.result(key, seed=seed) is not None
            except StoreError as error:
                refused.append(str(error))
        usages |= {key: cell_usage(cells, key) for key in seeds.keys() - usages.keys()}
        taken = sum((usages[key] for key in seeds), Usage())
        if as_json:
            counts = {"num_variants": len(manifest.variants), "num_cells": len(seeds), "num_ended": ended}
            about = {"id": name, "study": manifest.study, "profile": manifest.profile, "command": manifest.command}
            listed.append({**about, **counts, "bytes": taken.total, "problems": refused})
            continue
        num_variants, num_cells = counted(len(manifest.variants), "variant"), counted(len(seeds), "cell")
        console.print(f"{name}: {num_variants}, {ended} of {num_cells} ended, {_taken(taken)}")
        say(f"    {manifest.command}")
        for problem in refused:
            tell(f"    {problem}")
    if as_json:
        print_json({"runs": listed})
    elif len(manifests) > 1:
        console.print(f"all cells of these study runs: {_taken(sum(usages.values(), Usage()))}")


def _taken(usage: "Usage") -> str:
    """`3.4 GB, of which 3.1 GB weights and other files of training`."""
    kept = f", of which {size(usage.kept)} weights and other files of training" if usage.kept else ""
    checkpoints = f", {size(usage.checkpoints)} checkpoints" if usage.checkpoints else ""
    return f"{size(usage.total)}{kept}{checkpoints}"
