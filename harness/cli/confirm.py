"""`harness confirm`: the winner on fresh seeds, and the confirmed model in MLflow's registry."""

from typing import Any

import click

from harness.api.confirmation import begin_confirmation, conclude, save_confirmation
from harness.api.work import unfinished
from harness.cli.notify import notifying
from harness.cli.options import complete_variant, plan_options
from harness.cli.screen import Screen
from harness.cli.training import COUNTED, announce, explain_failures, train_plan


@click.command()
@plan_options
@click.option("--variant", help="Confirm this variant instead of the best one.", shell_complete=complete_variant)
@notifying
@click.pass_context
def confirm(ctx: click.Context, /, variant: str | None, **request: Any) -> None:
    """Train the baseline and the winner on seeds that nothing used before, and say whether it is confirmed.

    The winner is the variant of the study run that improves most on the metric by which the study selects. --seeds is
    the number of fresh seeds. A supported improvement goes to MLflow's model registry with the alias `champion`.
    """
    console = Screen()
    work, manifest, winner = begin_confirmation(variant=variant, **request)
    todo, expected = unfinished(work)
    console.print(f"To confirm: {winner}, on seeds {', '.join(map(str, work.plan.seeds))}.", style="bold")
    expected = announce(console, work, todo, expected)
    train_plan(console, work, todo, lambda: save_confirmation(work, manifest), expected)
    num_failed = explain_failures(console, work, COUNTED)
    found = conclude(work, manifest, winner)
    console.print(f"\n{found.sentence}", style="bold", soft_wrap=not console.is_terminal, markup=False)
    if found.registered:
        console.print(
            f"Registered as {found.registered}; MLflow loads it by that address.", soft_wrap=not console.is_terminal
        )
    else:
        console.print(found.unregistered, style="yellow", soft_wrap=not console.is_terminal, markup=False)
    if num_failed:
        ctx.exit(1)
