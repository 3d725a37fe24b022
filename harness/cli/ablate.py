"""`harness ablate`: train what a study needs, then print the table of effects."""

import json
import sys
from typing import Any

import click
from rich.console import Console

from harness.cli.greedy import walk_greedy_path
from harness.cli.options import Planned, json_option, plan_options, planned
from harness.cli.training import announce, check_device, explain_failures, save_manifest, train_plan, unfinished
from harness.execution.provenance import command_line
from harness.store.cells import Cells


@click.command()
@plan_options
@click.option("--greedy", is_flag=True, help="Then walk a path: at each step the change that helps most on validation.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
@click.option("--retry-failed", is_flag=True, help="Train cells again that failed or diverged.")
@click.option("--in-process", is_flag=True, help="Train in this process, one cell after another (for debugging).")
@json_option
@click.pass_context
def ablate(
    ctx: click.Context,
    /,
    greedy: bool,
    dry_run: bool,
    retry_failed: bool,
    in_process: bool,
    as_json: bool,
    **request: Any,
) -> None:
    """Train every cell that a study needs and print which changes helped.

    Cells that have ended are read, never trained again, whichever study trained them. Stop it in any way, at any
    moment: the same command continues.
    """
    console = Console(stderr=as_json, highlight=False)
    work = planned(**request)
    if retry_failed and not dry_run:
        _forget_failed(work)
    todo, expected = unfinished(work)
    announce(console, work, todo, expected)
    if dry_run:
        return
    check_device(work, todo)
    train_plan(console, work, todo, save_manifest(work), expected, in_process=in_process)
    if greedy:
        work = walk_greedy_path(console, work, only=request["only"], skip=request["skip"])
    # The table shows what was asked for, not all that the study run holds.
    show_table(console, work.cells, work.plan.manifest(command_line()), as_json=as_json)
    if explain_failures(console, work):
        ctx.exit(1)


def show_table(console: Console, cells: Cells, manifest: dict[str, Any], *, as_json: bool) -> None:
    """The effects of each design, as a table for people or as JSON on standard output."""
    from harness.store.load import results_table

    table = results_table(cells, manifest)
    if as_json:
        from harness.report.tables import effects_json

        sys.stdout.write(json.dumps(effects_json(table), indent=1) + "\n")
    else:
        from harness.cli.table import print_effects

        print_effects(console, table)


def _forget_failed(work: Planned) -> None:
    for cell in work.plan.cells:
        result = work.cells.result(cell.key)
        if result and not result.is_finished:
            work.cells.forget_result(cell.key)
