"""`harness init`: the databases of tracking and search made ready."""

from pathlib import Path

import click

from harness.cli.options import store_option
from harness.errors import StoreError


@click.command()
@store_option
def init(store: Path) -> None:
    """Make the databases of MLflow and Optuna ready, before services or several processes use them.

    $MLFLOW_TRACKING_URI and $HARNESS_OPTUNA_STORAGE name other databases than those of the store. A single `harness
    ablate`, `search` or `ui` does this by itself.
    """
    from harness.urls import masked

    tracking, storage = make_ready(store.absolute())
    click.echo(f"tracking  {masked(tracking)}\nsearch    {masked(storage)}")


def make_ready(root: Path) -> tuple[str, str]:
    """The URIs of tracking and of the search's storage, both ready.

    Raises:
        StoreError: there is no such folder, and it cannot be made.
        TrackingError: one of the databases cannot be used.
    """
    from harness.search.storage import open_storage, resolve_storage
    from harness.tracking import init, resolve_uri

    tracking, storage = resolve_uri(None, root), resolve_storage(None, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"--store {root}: cannot be made ({error.strerror}). Name another folder.") from None
    init(tracking, root)
    with open_storage(storage):
        return tracking, storage
