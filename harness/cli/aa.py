"""`harness aa`: the baseline against itself, the noise floor."""

from dataclasses import replace
from typing import Any

import click

from harness.api.placebos import compare_placebos, train_again
from harness.api.work import plan_work, save_manifest, unfinished
from harness.cli.options import plan_options
from harness.cli.screen import Screen
from harness.cli.training import COUNTED, announce, explain_failures, train_plan
from harness.errors import ResultsError, StudyError
from harness.texts import counted

LEAST_SEEDS = 4


@click.command()
@plan_options
@click.option("--pairs", type=click.IntRange(2), help="Seeds that one comparison has; half of the seeds by default.")
@click.option("--again", type=click.IntRange(0), default=0, help="Train so many of these seeds once more, and compare.")
@click.pass_context
def aa(ctx: click.Context, /, pairs: int | None, again: int, **request: Any) -> None:
    """Compare the baseline with itself on disjoint seeds: what is found there is noise.

    Trains the baseline's seeds that are missing, then prints the spread between seeds, how large a difference luck
    alone makes, and how often the tests of this pipeline would call it significant. From twelve seeds on, later seeds
    stand in for changes that change nothing, through everything that judges a study: what is claimed there is false.
    """
    from harness.stats import aa_noise_floor, noise_floor_line
    from harness.store.load import results_table

    console = Screen()
    work = plan_work(**request)
    if (given := len(work.plan.seeds)) < LEAST_SEEDS:
        raise StudyError(
            f"an A/A comparison takes two groups of at least two seeds, and this is {counted(given, 'seed')} in all. "
            f"Nothing was trained; give --seeds {LEAST_SEEDS} or more."
        )
    baseline = work.plan.variants[:1]
    work = replace(work, plan=replace(work.plan, variants=baseline, comparisons=(), notes=()))
    todo, expected = unfinished(work)
    expected = announce(console, work, todo, expected)
    train_plan(console, work, todo, lambda: save_manifest(work, keeps_command=True), expected)
    results = results_table(work.cells, work.plan.manifest())
    floor = aa_noise_floor(results, num_pairs=pairs)
    console.print(noise_floor_line(floor), style="bold")
    try:
        console.print(str(compare_placebos(results, floor.num_pairs)))
    except ResultsError as error:
        console.print(f"No placebos: {error}", style="dim")
    if again:
        console.print(str(train_again(work, work.plan.cells[:again])))
    if explain_failures(console, work, COUNTED):
        ctx.exit(1)
