"""`harness logs`: what a cell said while it trained, and why it failed."""

from pathlib import Path

import click

from harness.cli.options import complete_cell, store_option
from harness.cli.sentences import say
from harness.errors import ResultsError
from harness.store.cells import Cells
from harness.store.said import said


@click.command()
@click.argument("cell", shell_complete=complete_cell)
@store_option
def logs(cell: str, store: Path) -> None:
    """Print the logs of a cell: its journal in short, its output, and the traceback of its last failure.

    CELL is a cell's key, or the beginning of one; `harness results` lists them.
    """
    cells = Cells(store.absolute())
    say(said(cells, find_key(cells, cell)))


def find_key(cells: Cells, start: str) -> str:
    """The one key that begins like this. Raises ResultsError where there is none, or more than one."""
    folder = cells.root / "cells"
    found = sorted(it.name for it in folder.iterdir() if it.name.startswith(start)) if folder.is_dir() else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise ResultsError(f"{cells.root}: no cell {start!r}; `harness results --study NAME` lists them.")
    raise ResultsError(f"{len(found)} cells begin with {start!r}: {', '.join(found[:6])}; give more of the key.")
