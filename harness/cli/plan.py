"""`harness plan`: what a study would train, and what that would take."""

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from harness.cli.options import Planned, json_option, plan_options, planned
from harness.cli.progress import duration, size
from harness.cli.training import unfinished
from harness.estimate import Estimate


@click.command()
@plan_options
@json_option
def plan(as_json: bool, **request: Any) -> None:
    """Say what a study would train: variants, cells, how many are done, expected time, disk."""
    work = planned(**request)
    todo, expected = unfinished(work)
    if as_json:
        sys.stdout.write(json.dumps(_as_json(work, len(todo), expected), indent=1) + "\n")
        return
    console = Console(highlight=False)
    console.print(_variants_table(work))
    console.print(
        f"{len(work.plan.cells)} distinct cells, {len(work.plan.cells) - len(todo)} done, {len(todo)} to train; about "
        f"{duration(expected.seconds)} on {len(work.devices)} x {work.device} ({_basis(expected)}) and "
        f"{size(expected.disk_bytes)} of disk ({size(work.cells.free_bytes())} free)."
    )
    for note in work.plan.notes:
        console.print(f"note: {note}", style="dim")


def _variants_table(work: Planned) -> Table:
    plan = work.plan
    title = f"{plan.study.title} ({plan.study.name}, profile {plan.profile}{', exploratory' * plan.exploratory})"
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("variant", overflow="fold")
    table.add_column("what", overflow="fold")
    table.add_column("done", justify="right")
    for variant in plan.variants:
        done = sum(work.cells.result(cell.key) is not None for cell in variant.cells)
        table.add_row(variant.name, variant.summary, f"{done}/{len(variant.cells)}")
    return table


def _basis(expected: Estimate) -> str:
    return f"from {expected.measured} measured cells" if expected.measured else "a guess: nothing was measured here yet"


def _as_json(work: Planned, num_todo: int, expected: Estimate) -> dict[str, Any]:
    plan = work.plan
    return plan.manifest() | {
        "seeds": list(plan.seeds),
        "num_variants": len(plan.variants),
        "num_cells": len(plan.cells),
        "num_done": len(plan.cells) - num_todo,
        "num_todo": num_todo,
        "expected_seconds": expected.seconds,
        "expected_from_measured_cells": expected.measured,
        "disk_bytes": expected.disk_bytes,
        "device": work.device,
        "workers": len(work.devices),
    }
