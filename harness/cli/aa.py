"""`harness aa`: the baseline against itself, the noise floor."""

from dataclasses import replace
from typing import Any

import click

from harness.api.work import plan_work, save_manifest, unfinished
from harness.cli.options import plan_options
from harness.cli.screen import Screen
from harness.cli.training import COUNTED, announce, explain_failures, train_plan


@click.command()
@plan_options
@click.option("--pairs", type=click.IntRange(2), help="Seeds that one comparison has; half of the seeds by default.")
@click.pass_context
def aa(ctx: click.Context, /, pairs: int | None, **request: Any) -> None:
    """Compare the baseline with itself on disjoint seeds: what is found there is noise.

    Trains the baseline's seeds that are missing, then prints the spread between seeds, how large a difference luck
    alone makes, and how often the tests of this pipeline would call it significant.
    """
    from harness.stats import aa_noise_floor, noise_floor_line
    from harness.store.load import results_table

    console = Screen()
    work = plan_work(**request)
    baseline = work.plan.variants[:1]
    work = replace(work, plan=replace(work.plan, variants=baseline, comparisons=(), notes=()))
    todo, expected = unfinished(work)
    announce(console, work, todo, expected)
    train_plan(console, work, todo, lambda: save_manifest(work, keeps_command=True), expected)
    floor = aa_noise_floor(results_table(work.cells, work.plan.manifest()), num_pairs=pairs)
    console.print(noise_floor_line(floor), style="bold", soft_wrap=True)
    if explain_failures(console, work, COUNTED):
        ctx.exit(1)
