"""Training from the command line: live progress, MLflow following, a clean stop. What several commands share."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.cli.options import Planned
from harness.cli.progress import RunProgress, duration, size
from harness.errors import HarnessError, StoreError
from harness.execution.processes import warm_up
from harness.execution.provenance import command_line, provenance
from harness.execution.runner import Event, run
from harness.hardware import cuda_problem
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate, estimate
from harness.plan.plan import extend_manifest
from harness.store.cells import Cells
from harness.store.result import Result
from harness.trainers.images.prepare import prepare

if TYPE_CHECKING:
    from harness.tracking import Follower, Tracking

SPARE_BYTES = 500_000_000  # for the tracking database, logs and the image cache


def train(cell: Cell, folder: Path, *, device: str, on_event: Callable[[Event], None], cache: Path) -> Result:
    """`harness.train.run_cell`, imported where it runs: in the worker. The command itself never loads torch."""
    from harness.trainers.images.train import run_cell

    return run_cell(cell, folder, device=device, cache=cache, on_event=on_event)


def warm_up_workers() -> None:
    """Begin to import what workers need while the command does other things."""
    # PyTorch's first optimizer imports the second, which takes as long as all the rest.
    warm_up("harness.trainers.images.train", "torch._dynamo")


def unfinished(work: Planned) -> tuple[list[Cell], Estimate]:
    """The cells of a plan that have not ended, and what they will take."""
    todo: list[Cell] = []
    ended: list[Cell] = []
    for cell in work.plan.cells:
        (todo if work.cells.result(cell.key) is None else ended).append(cell)
    return todo, estimate(todo, ended, work.cells, device=work.device, workers=len(work.devices))


def announce(console: Console, work: Planned, todo: Sequence[Cell], expected: Estimate) -> None:
    """Says what a plan is about to train."""
    plan = work.plan
    line = f"{plan.study.name} ({plan.profile}): {len(plan.variants)} variants x {len(plan.seeds)} seeds = "
    line += f"{len(plan.cells)} cells, {len(plan.cells) - len(todo)} done, {len(todo)} to train"
    if todo:
        basis = "measured" if expected.measured else "a guess: nothing was measured here yet"
        line += f" on {len(work.devices)} x {work.device}, about {duration(expected.seconds)} ({basis})"
    console.print(line + ".")
    for note in plan.notes:
        console.print(f"note: {note}", style="dim")


def save_manifest(work: Planned, tags: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Any]:
    """Writes the study run's manifest, extended by what this plan adds; returns it.

    Args:
        tags: what the MLflow runs of a variant carry besides, by the variant's name.
    """
    manifest = work.plan.manifest(command_line())
    for variant in manifest["variants"]:
        variant |= {"tags": dict(tags[variant["name"]])} if tags and variant["name"] in tags else {}
    with work.cells.updating_manifest(work.plan.id):
        known = work.cells.manifests().get(work.plan.id)
        manifest = extend_manifest(known, manifest) if known else manifest
        work.cells.write_manifest(work.plan.id, manifest)
    return manifest


def train_plan(
    console: Console,
    work: Planned,
    todo: Sequence[Cell],
    manifest: dict[str, Any],
    expected: Estimate,
    *,
    in_process: bool = False,
) -> None:
    """Trains the cells of `todo` with live progress, MLflow following from the journals.

    Raises:
        StoreError: too little disk for these cells; nothing was started.
        DataError: images or pretrained weights are missing; nothing was started.
        TrackingError: the tracking database cannot be used; a server that is merely down is no error.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM; said how to continue.
    """
    check_disk(work, expected)
    check_device(work, todo)
    prepare(todo, cache=work.cache)
    if todo and not in_process:
        warm_up_workers()
    names = {cell.key: f"{variant.name} seed {cell.seed}" for variant in work.plan.variants for cell in variant.cells}
    num_cells = len(work.plan.cells)
    started = time.monotonic()
    try:
        with followed(console, work.cells, manifest) as (tracking, _):
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
        say_stopped(console, f"{ended} of {num_cells} cells have ended and are saved")
        raise


@contextmanager
def followed(console: Console, cells: Cells, manifest: dict[str, Any]) -> Iterator[tuple["Tracking", "Follower"]]:
    """MLflow follows from the journals while the block trains; SIGTERM stops it as Ctrl-C does. Says what waits.

    Raises:
        TrackingError: the tracking database cannot be used; a server that is merely down is no error.
    """
    from harness.tracking import Tracking, follow, init, resolve_uri

    signal.signal(signal.SIGTERM, _interrupt)
    uri = resolve_uri(None, cells.root)
    init(uri, cells.root)
    tracking = Tracking(uri, cells.root)
    with follow(tracking, cells, manifest, on_problem=lambda text: console.print(text, style="yellow")) as follower:
        yield tracking, follower
    if follower.delivery.pending:
        console.print(
            f"{follower.delivery.pending} events wait for the tracking server ({follower.delivery.problem}) "
            "`harness sync` delivers them.",
            style="yellow",
        )


def say_stopped(console: Console, what_is_saved: str) -> None:
    console.print(
        f"\nStopped. {what_is_saved}; the others continue from their last checkpoint.\n"
        "Run the same command to continue.",
        style="yellow",
    )


def explain_failures(console: Console, work: Planned) -> int:
    """Says which cells of the plan failed and what to do about it; gives their number."""
    ended = [result for cell in work.plan.cells if (result := work.cells.result(cell.key))]
    failed = [result for result in ended if not result.is_finished]
    if failed:
        names = {cell.key: f"{it.name}, seed {cell.seed}" for it in work.plan.variants for cell in it.cells}
        first, num_cells = failed[0], len(work.plan.cells)
        console.print(
            f"{len(failed)} of {num_cells} cells failed; {num_cells - len(failed)} are saved. Run the same command "
            f"with --retry-failed to train them again. First failure: cell {first.key} ({names[first.key]}): "
            f"{first.reason}",
            style="red",
            soft_wrap=True,
        )
    return len(failed)


def track_summary(tracking: "Tracking", cells: Cells, manifest: dict[str, Any]) -> None:
    """Keeps each variant's mean, spread and effect for MLflow, from all that the study run holds."""
    from harness.stats import effects, summary
    from harness.store.load import results_table

    table = results_table(cells, manifest)
    if not (table["status"] == "finished").any():
        return
    means = summary(table)[["variant", "n_ok", "mean", "sd"]].to_dict("records")
    rows: dict[str, dict[str, Any]] = {row["variant"]: {str(key): it for key, it in row.items()} for row in means}
    for row in effects(table).itertuples():
        numbers = {"effect": row.mean, "low": row.low, "high": row.high, "p": row.p, "p_holm": row.p_holm}
        rows[str(row.variant)] |= numbers
    tracking.log_summary(manifest, rows.values(), {})


def check_device(work: Planned, todo: Sequence[Cell]) -> None:
    """Raises HarnessError where cells are to be trained on a CUDA device that torch cannot use."""
    if todo and work.device.startswith("cuda"):
        problem = cuda_problem(work.device)
        if problem:
            raise HarnessError(
                f"--device {work.device}: torch cannot compute on it: {problem} Install a driver and a torch that go "
                "together (`harness doctor` says which there are), or use --device cpu; nothing was started."
            )


def check_disk(work: Planned, expected: Estimate) -> None:
    """Raises StoreError where the disk has too little room for what is to be trained."""
    free = work.cells.free_bytes()
    if free < expected.disk_bytes + SPARE_BYTES:
        needed = size(expected.disk_bytes + SPARE_BYTES)
        raise StoreError(
            f"{work.cells.root}: {size(free)} free, but these cells need about {needed}. Make room there, or choose "
            "another folder with --store; nothing was started."
        )


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
