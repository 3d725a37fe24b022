"""`harness results`: every cell of a study, a row each."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from harness.cli.options import json_option, store_option
from harness.store.cells import Cells

TEXTS = ("variant", "status", "cell")  # to the left; the other columns are numbers
COLUMNS = ("variant", "seed", "status", "train", "val", "test", "test loss", "best epoch", "seconds", "cell")


@click.command()
@click.option("--study", help="A study's name or file, or the id of a study run; the latest run that fits is shown.")
@click.option("--profile", help="Only study runs of this profile.")
@click.option("--list", "list_runs", is_flag=True, help="List the study runs in the store.")
@store_option
@json_option
def results(study: str | None, profile: str | None, list_runs: bool, store: Path, as_json: bool) -> None:
    """Print every cell of a study run, a row each: the six numbers at the best validation loss."""
    cells = Cells(store.absolute())
    if list_runs or study is None:
        _list_runs(cells)
        return
    from harness.store.load import load_results

    table = load_results(study, store=cells.root, profile=profile)
    if as_json:
        sys.stdout.write(table.to_json(orient="records", indent=1) + "\n")
        return
    click.echo(f"study run {table.attrs['manifest']['id']}, {len(table)} cells")
    rows = [_texts({str(name): value for name, value in row.items()}) for row in table.to_dict("records")]
    for line in _aligned([list(COLUMNS), *rows]):
        click.echo(line)


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    """The lines of a table. Not rich's: that takes a millisecond a row, and there may be 10,000."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(COLUMNS, row, widths, strict=True)
        yield "  ".join(it.ljust(width) if name in TEXTS else it.rjust(width) for name, it, width in cells).rstrip()


def _texts(row: dict[str, Any]) -> list[str]:
    numbers = [row[name] for name in ("train_accuracy", "val_accuracy", "test_accuracy", "test_loss")]
    return [
        row["variant"],
        str(row["seed"]),
        row["status"],
        *("-" if math.isnan(number) else f"{number:.4f}" for number in numbers),
        "-" if math.isnan(row["best_epoch"]) else f"{row['best_epoch']:.1f}",
        "-" if math.isnan(row["seconds"]) else f"{row['seconds']:.0f}",
        row["key"],
    ]


def _list_runs(cells: Cells) -> None:
    manifests = cells.manifests()
    if not manifests:
        click.echo(f"{cells.root}: no study run yet. `harness ablate --study task3 --profile quick` makes one.")
    for name, manifest in manifests.items():
        keys = {key for variant in manifest["variants"] for key in variant["cells"].values()}
        ended = sum(cells.result(key) is not None for key in keys)
        click.echo(f"{name}: {len(manifest['variants'])} variants, {ended} of {len(keys)} cells ended")
        click.echo(f"    {manifest['command']}")
