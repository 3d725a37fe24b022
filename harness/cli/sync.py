"""`harness sync`: deliver to MLflow what it does not have yet."""

from pathlib import Path

import click

from harness.cli.options import store_option
from harness.errors import StoreError


@click.command()
@store_option
def sync(store: Path) -> None:
    """Bring MLflow up to the folder of cells: every study run, idempotently. $MLFLOW_TRACKING_URI names the server."""
    from harness.tracking import init, resolve_uri
    from harness.tracking import sync as deliver

    root = store.absolute()
    if not root.is_dir():
        raise StoreError(f"{root}: no such folder, so there is nothing to deliver. --store names another one.")
    uri = resolve_uri(None, root)
    init(uri, root)
    delivery = deliver(uri, root)
    click.echo(f"{delivery.delivered} events delivered; MLflow has everything that is in {root}.")
