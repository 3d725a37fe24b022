"""`harness results`: every cell of a study, a row each."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from harness.cells import Cells
from harness.cli.options import json_option, store_option


@click.command()
@click.option("--study", help="A study's name, or the id of one study run; the latest run that fits is shown.")
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
    from harness.load import load_results

    table = load_results(study, store=cells.root, profile=profile)
    if as_json:
        sys.stdout.write(table.to_json(orient="records", indent=1) + "\n")
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("variant", "seed", "status", "train", "val", "test", "test loss", "best epoch", "s", "cell"):
        shown.add_column(column, justify="left" if column in ("variant", "status", "cell") else "right", no_wrap=True)
    for row in table.itertuples():
        accuracies = (row.train_accuracy, row.val_accuracy, row.test_accuracy, row.test_loss)
        numbers = [f"{value:.4f}" if value == value else "-" for value in accuracies]
        best = f"{row.best_epoch:.1f}" if row.best_epoch == row.best_epoch else "-"
        shown.add_row(row.variant, str(row.seed), row.status, *numbers, best, f"{row.seconds:.0f}", row.key)
    console = Console(highlight=False)
    console.print(f"study run {table.attrs['manifest']['id']}, {len(table)} cells", style="bold")
    console.print(shown)


def _list_runs(cells: Cells) -> None:
    manifests = cells.manifests()
    if not manifests:
        click.echo(f"{cells.root}: no study run yet. `harness ablate --study task3 --profile quick` makes one.")
    for name, manifest in manifests.items():
        keys = {key for variant in manifest["variants"] for key in variant["cells"].values()}
        ended = sum(cells.result(key) is not None for key in keys)
        click.echo(f"{name}: {len(manifest['variants'])} variants, {ended} of {len(keys)} cells ended")
        click.echo(json.dumps(manifest["command"])[1:-1])
