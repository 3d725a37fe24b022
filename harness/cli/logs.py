"""`harness logs`: what a cell said while it trained, and why it failed."""

from pathlib import Path

import click

from harness.cli.options import store_option
from harness.cli.screen import say
from harness.errors import ResultsError
from harness.store.cells import Cells

SHOWN = ("stdout.log", "stderr.log")


@click.command()
@click.argument("cell")
@store_option
def logs(cell: str, store: Path) -> None:
    """Print the logs of a cell: its journal in short, its output, and the traceback of its last failure.

    CELL is a cell's key, or the beginning of one; `harness results` lists them.
    """
    cells = Cells(store.absolute())
    key = find_key(cells, cell)
    events = cells.events(key)
    result = cells.result(key)
    state = f"{result.status}{f': {result.reason}' if result.reason else ''}" if result else "has not ended"
    say(f"cell {key}: {state}")
    for event in events:
        if event["event"] != "validation":
            say(f"{event['time']}  {event['event']}{_detail(event)}")
    for name in SHOWN:
        path = cells.folder(key) / name
        if path.is_file() and path.stat().st_size:
            click.echo(f"\n== {name}")
            say(path.read_text(errors="replace").rstrip())
    traces = [event["traceback"] for event in events if event.get("traceback")]
    if traces:
        click.echo("\n== traceback of the last failure")
        say(traces[-1].rstrip())


def find_key(cells: Cells, start: str) -> str:
    """The one key that begins like this. Raises ResultsError where there is none, or more than one."""
    folder = cells.root / "cells"
    found = sorted(it.name for it in folder.iterdir() if it.name.startswith(start)) if folder.is_dir() else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise ResultsError(f"{cells.root}: no cell {start!r}; `harness results --study NAME` lists them.")
    raise ResultsError(f"{len(found)} cells begin with {start!r}: {', '.join(found[:6])}; give more of the key.")


def _detail(event: dict[str, object]) -> str:
    parts = [f"{name} {event[name]}" for name in ("step", "status", "reason", "signal") if event.get(name)]
    return f"  {', '.join(parts)}" if parts else ""
