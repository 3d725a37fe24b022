"""`harness ablate`: train what a study needs, then print the table of effects."""

import json
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from harness.cell import Cell
from harness.cells import Cells
from harness.cli.options import Planned, json_option, plan_options, planned
from harness.cli.progress import RunProgress, duration, size
from harness.errors import StoreError
from harness.estimate import Estimate, estimate
from harness.plan import extend_manifest
from harness.provenance import command_line, provenance
from harness.results import Result
from harness.runner import Event, run

if TYPE_CHECKING:
    from harness.store import Tracking

SPARE_BYTES = 500_000_000  # for the tracking database, logs and the image cache


@click.command()
@plan_options
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
@click.option("--retry-failed", is_flag=True, help="Train cells again that failed or diverged.")
@click.option("--in-process", is_flag=True, help="Train in this process, one cell after another (for debugging).")
@json_option
@click.pass_context
def ablate(
    ctx: click.Context, dry_run: bool, retry_failed: bool, in_process: bool, as_json: bool, **request: Any
) -> None:
    """Train every cell that a study needs and print which changes helped.

    Cells that have ended are read, never trained again, whichever study trained them. Stop it in any way, at any
    moment: the same command continues.
    """
    console = Console(stderr=as_json, highlight=False)
    work = planned(**request)
    if retry_failed:
        _forget_failed(work)
    todo = [cell for cell in work.plan.cells if work.cells.result(cell.key) is None]
    expected = estimate(todo, work.plan.cells, work.cells, device=work.device, workers=len(work.devices))
    _announce(console, work, todo, expected)
    if dry_run:
        return
    _check_disk(work, expected)
    manifest = save_manifest(work)
    train_cells(console, work, todo, manifest, expected, in_process=in_process)
    show_table(console, work.cells, manifest_of_plan(work), as_json=as_json)
    failed = [result for cell in work.plan.cells if (result := work.cells.result(cell.key)) and not result.is_finished]
    if failed:
        _explain_failures(console, work, failed)
        ctx.exit(1)


def train(cell: Cell, folder: Path, *, device: str, on_event: Callable[[Event], None], cache: Path) -> Result:
    """`harness.train.run_cell`, imported where it runs: in the worker. The command itself never loads torch."""
    from harness.train import run_cell

    return run_cell(cell, folder, device=device, cache=cache, on_event=on_event)


def train_cells(
    console: Console,
    work: Planned,
    todo: list[Cell],
    manifest: dict[str, Any],
    expected: Estimate,
    *,
    in_process: bool = False,
) -> None:
    """Runs the cells with live progress, MLflow following from the journals. Raises KeyboardInterrupt when stopped."""
    from harness.store import Tracking, follow, init, resolve_uri

    signal.signal(signal.SIGTERM, _interrupt)
    names = {cell.key: f"{variant.name} seed {cell.seed}" for variant in work.plan.variants for cell in variant.cells}
    num_cells = len(work.plan.cells)
    started = time.monotonic()
    uri = resolve_uri(None, work.cells.root)
    init(uri, work.cells.root)
    tracking = Tracking(uri, work.cells.root)
    try:
        with follow(
            tracking, work.cells, manifest, on_problem=lambda text: console.print(text, style="yellow")
        ) as link:
            with RunProgress(console, names, num_cells, num_cells - len(todo), expected.seconds) as progress:
                run(
                    todo,
                    work.cells,
                    partial(train, cache=work.cache),
                    devices=work.devices,
                    provenance=provenance(command_line()),
                    on_progress=progress.update,
                    in_process=in_process,
                )
            if todo:
                console.print(f"{len(todo)} cells trained in {duration(time.monotonic() - started)}.")
            track_summary(tracking, work.cells, manifest)
    except KeyboardInterrupt:
        ended = sum(work.cells.result(cell.key) is not None for cell in work.plan.cells)
        console.print(
            f"\nStopped. {ended} of {num_cells} cells have ended and are saved; the others continue from their last "
            "checkpoint.\nRun the same command to continue.",
            style="yellow",
        )
        raise
    if link.delivery.pending:
        console.print(
            f"{link.delivery.pending} events wait for the tracking server ({link.delivery.problem}) "
            "`harness sync` delivers them.",
            style="yellow",
        )


def track_summary(tracking: "Tracking", cells: Cells, manifest: dict[str, Any]) -> None:
    """Keeps each variant's mean, spread and effect for MLflow, from all that the study run holds."""
    from harness.load import results_table
    from harness.stats import effects, summary

    table = results_table(cells, manifest)
    if not (table["status"] == "finished").any():
        return
    rows = {row["variant"]: row for row in summary(table)[["variant", "n_ok", "mean", "sd"]].to_dict("records")}
    for effect in effects(table)[["variant", "mean", "low", "high", "p", "p_holm"]].to_dict("records"):
        rows[effect["variant"]] |= {"effect": effect.pop("mean"), **effect}
    tracking.log_summary(manifest, rows.values(), [])


def save_manifest(work: Planned) -> dict[str, Any]:
    """Writes the study run's manifest, extended by what this plan adds; returns it."""
    known = work.cells.manifests().get(work.plan.id)
    manifest = work.plan.manifest(command_line())
    if known:
        manifest = extend_manifest(known, manifest)
    work.cells.write_manifest(work.plan.id, manifest)
    return manifest


def manifest_of_plan(work: Planned) -> dict[str, Any]:
    """The manifest of exactly this plan: the table shows what was asked for, not all that the study run holds."""
    return work.plan.manifest(command_line())


def show_table(console: Console, cells: Cells, manifest: dict[str, Any], *, as_json: bool) -> None:
    from harness.cli.table import print_effects
    from harness.load import results_table

    table = results_table(cells, manifest)
    if as_json:
        from harness.report.tables import effects_json

        sys.stdout.write(json.dumps(effects_json(table), indent=1) + "\n")
    else:
        print_effects(console, table)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _forget_failed(work: Planned) -> None:
    for cell in work.plan.cells:
        result = work.cells.result(cell.key)
        if result and not result.is_finished:
            work.cells.forget_result(cell.key)


def _announce(console: Console, work: Planned, todo: list[Cell], expected: Estimate) -> None:
    plan = work.plan
    line = f"{plan.study.name} ({plan.profile}): {len(plan.variants)} variants x {len(plan.seeds)} seeds = "
    line += f"{len(plan.cells)} cells, {len(plan.cells) - len(todo)} done, {len(todo)} to train"
    if todo:
        about = "measured" if expected.measured else "a guess: nothing was measured here yet"
        line += f" on {len(work.devices)} x {work.device}, about {duration(expected.seconds)} ({about})"
    console.print(line + ".")
    for note in plan.notes:
        console.print(f"note: {note}", style="dim")


def _check_disk(work: Planned, expected: Estimate) -> None:
    free = work.cells.free_bytes()
    if free < expected.disk_bytes + SPARE_BYTES:
        needed = size(expected.disk_bytes + SPARE_BYTES)
        raise StoreError(
            f"{work.cells.root}: {size(free)} free, but these cells need about {needed}. Make room there, or choose "
            "another folder with --store; nothing was started."
        )


def _explain_failures(console: Console, work: Planned, failed: list[Result]) -> None:
    names = {cell.key: f"{variant.name}, seed {cell.seed}" for variant in work.plan.variants for cell in variant.cells}
    first, num_cells = failed[0], len(work.plan.cells)
    console.print(
        f"{len(failed)} of {num_cells} cells failed; {num_cells - len(failed)} are saved. Run the same command with "
        f"--retry-failed to train them again. First failure: cell {first.key} ({names[first.key]}): {first.reason}",
        style="red",
        soft_wrap=True,
    )
