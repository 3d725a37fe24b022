"""`harness sync`: deliver to MLflow what it does not have yet."""

import gc
import sys
import time
from pathlib import Path

import click

from harness.cli.options import store_option
from harness.cli.sentences import tell
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
    gc.freeze()  # MLflow's 300,000 objects stay: to look through them again and again is a tenth of the time
    delivery = deliver(uri, root, on_progress=_Said())
    tell(f"{delivery.delivered} events delivered; MLflow has everything that is in {root}.")


class _Said:
    """Says on standard error how far it is: on a terminal in one line, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._seconds = 0.5 if self._is_terminal else 10.0
        self._next = time.monotonic() + self._seconds
        self._has_said = False

    def __call__(self, done: int, total: int) -> None:
        is_over = done == total
        if time.monotonic() < self._next and not (is_over and self._has_said):
            return
        end = "\n" if is_over or not self._is_terminal else "\r"
        click.echo(f"{done:,} of {total:,} cells{end}", nl=False, err=True)
        self._has_said, self._next = True, time.monotonic() + self._seconds
