"""`harness confirm`: the winner on fresh seeds, and the confirmed model in MLflow's registry."""

from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from harness.cli.options import Planned, plan_options, planned
from harness.cli.training import announce, explain_failures, train_plan, unfinished
from harness.confirmation import (
    confirmation_manifest,
    confirmation_plan,
    fresh_seeds,
    known_confirmation,
    pick_winner,
    seeds_of,
)
from harness.errors import StudyError
from harness.execution.provenance import command_line

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@plan_options
@click.option("--variant", help="Confirm this variant instead of the best one on validation.")
@click.pass_context
def confirm(ctx: click.Context, /, variant: str | None, **request: Any) -> None:
    """Train the baseline and the winner on seeds that nothing used before, and say whether it is confirmed.

    The winner is the variant of the study run with the biggest improvement of validation accuracy. --seeds is the
    number of fresh seeds. A supported improvement goes to MLflow's model registry with the alias `champion`.
    """
    from harness.store.load import find_manifest, results_table

    console = Console(highlight=False)
    work = planned(**request)
    source = find_manifest(work.cells, work.plan.id)
    searched = results_table(work.cells, source)
    winner = variant or pick_winner(searched)
    work, manifest = _confirmation(work, source, winner, request)
    work.cells.write_manifest(manifest["id"], manifest)
    todo, expected = unfinished(work)
    console.print(f"To confirm: {winner}, on seeds {', '.join(map(str, work.plan.seeds))}.", style="bold")
    announce(console, work, todo, expected)
    train_plan(console, work, todo, manifest, expected)
    if explain_failures(console, work):
        ctx.exit(1)
    _conclude(console, work, manifest, searched, winner)


def _confirmation(
    work: Planned, source: dict[str, Any], winner: str, request: dict[str, Any]
) -> tuple[Planned, dict[str, Any]]:
    """The plan on the seeds of a confirmation that was begun, or else on fresh ones, and its manifest."""
    changes = next((it["changes"] for it in source["variants"] if it["name"] == winner), None)
    if not changes:
        names = ", ".join(it["name"] for it in source["variants"] if it["changes"])
        raise StudyError(f"--variant {winner}: study run {source['id']} has no such variant; it has: {names}.")
    known = known_confirmation(work.cells, source["id"], winner)
    if known:
        wanted = len(work.plan.seeds)
        seeds = seeds_of(known)
        if request["seeds"] and wanted != len(seeds):
            raise StudyError(
                f"--seeds {request['seeds']}: the confirmation of {winner} was begun on {len(seeds)} seeds. It is made "
                "once: adding seeds until it succeeds would be no confirmation. Leave --seeds out to continue."
            )
    else:
        seeds = fresh_seeds(work.cells, len(work.plan.seeds))
    listed = ",".join(map(str, seeds)) + ","
    again = planned(**{**request, "seeds": listed})
    plan = confirmation_plan(again.plan, changes)
    return again._replace(plan=plan), known or confirmation_manifest(plan, source, command_line())


def _conclude(console: Console, work: Planned, manifest: dict[str, Any], searched: "pd.DataFrame", winner: str) -> None:
    from harness.stats import confirmation_line, paired_effect
    from harness.store.load import results_table

    confirmed = paired_effect(results_table(work.cells, manifest), winner)
    line = confirmation_line(confirmed, paired_effect(searched, winner), unit="points")
    work.cells.write_manifest(manifest["id"], manifest | {"headline": line})
    console.print(f"\n{line}", style="bold", soft_wrap=True)
    if confirmed.low > 0:
        from harness.tracking.registry import register_champion

        where = register_champion(work.cells, manifest, winner, line, cache=work.cache)
        console.print(f"Registered as {where}; `mlflow.pytorch.load_model` loads it.", soft_wrap=True)
    else:
        console.print("Nothing was registered: the interval of the improvement reaches zero.", style="yellow")
