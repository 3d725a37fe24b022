"""`harness sync`: deliver to MLflow what it does not have yet."""

from pathlib import Path

import click

from harness.cells import Cells
from harness.cli.options import store_option


@click.command()
@store_option
def sync(store: Path) -> None:
    """Bring MLflow up to the folder of cells: every study run, idempotently. $MLFLOW_TRACKING_URI names the server."""
    from harness.store import sync as deliver

    delivery = deliver(Cells(store.absolute()))
    click.echo(f"{delivery.delivered} events delivered, {delivery.pending} still wait.")
    if delivery.pending:
        raise SystemExit(1)
