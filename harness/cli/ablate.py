"""`harness ablate`: train what a study needs, then print the table of effects."""

from typing import Any

import click
from rich.console import Console

from harness.api.greedy import walk_greedy_path
from harness.api.looking import looked_at
from harness.api.racing import effect_of
from harness.api.racing import race as run_race
from harness.api.training import Watch
from harness.api.work import Work, forget_failed, plan_work, save_manifest, unfinished
from harness.cli.as_json import print_json
from harness.cli.next_step import say_next
from harness.cli.notify import notifying
from harness.cli.options import json_option, plan_options
from harness.cli.screen import Screen
from harness.cli.training import announce, explain_failures, train_plan
from harness.errors import StudyError
from harness.plan.manifest import Manifest
from harness.store.cells import Cells


@click.command()
@plan_options
@click.option("--greedy", is_flag=True, help="Then walk a path: at each step the change that helps most.")
@click.option(
    "--race", is_flag=True, help="Seeds in blocks; none more for a change that is decided, or surely below --mde."
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
@click.option("--retry-failed", is_flag=True, help="Train cells again that failed or diverged.")
@json_option
@notifying
@click.pass_context
def ablate(
    ctx: click.Context,
    /,
    greedy: bool,
    race: bool,
    dry_run: bool,
    retry_failed: bool,
    as_json: bool,
    **request: Any,
) -> None:
    """Train every cell that a study needs and print which changes helped.

    Cells that have ended are read, never trained again, whichever study trained them. Stop it in any way, at any
    moment: the same command continues.
    """
    if dry_run and as_json:
        raise StudyError("--dry-run trains nothing that --json could tell; `harness plan --json` says what would be.")
    console = Screen(stderr=as_json)
    mde = request.pop("mde")
    work = plan_work(**request, mde=mde if request["seeds"] == "auto" or not race else None)
    effect = effect_of(work, mde) if race else 0.0
    if retry_failed and not dry_run:
        forget_failed(work)
    todo, expected = unfinished(work)
    announce(console, work, todo, expected, probes=not dry_run)
    if dry_run:
        return
    problems: dict[str, str] = {}

    def train(part: Work) -> None:
        left, takes = unfinished(part)
        found = train_plan(console, part, left, lambda: save_manifest(part), takes)
        problems.update(found.problems)

    if race:
        run_race(work, effect, train, on_block=console.print)
    else:
        train(work)
    if greedy:
        watch = Watch(on_problem=lambda text: console.print(text, style="yellow"))
        only, skip = request["only"], request["skip"]
        work = walk_greedy_path(work, only=only, skip=skip, watch=watch, on_step=console.print)
    # Of everything that was tested together, whoever asked for it when; of this plan where it was deleted meanwhile.
    held = work.cells.manifest(work.plan.id) or work.plan.manifest()
    show_table(console, work.cells, held, asked={it.name for it in work.plan.variants}, as_json=as_json)
    num_failed = explain_failures(console, work)
    if not as_json and not problems:
        _say_next(console, held, request)
    if problems:
        raise StudyError(*dict.fromkeys(problems.values()))
    if num_failed:
        ctx.exit(1)


def _say_next(console: Console, held: Manifest, request: dict[str, Any]) -> None:
    """More seeds where this profile can claim nothing; else the report."""
    where = ["--store", str(request["store"])] if str(request["store"]) != "mlruns" else []
    study = ["--study", str(request["study"])]
    if held.exploratory:
        say_next(console, "plan", "what the study would take in full", *study, *where, same_options=False)
    else:
        more = (*study, "--output", "report", *where)
        say_next(console, "report", "one page with tables and figures", *more, same_options=False)


def show_table(console: Console, cells: Cells, manifest: Manifest, *, asked: set[str], as_json: bool) -> None:
    """The effects of each design, as a table for people (of the variants asked for) or as JSON on standard output."""
    from harness.store.load import confirmed

    table, decided = looked_at(cells, manifest), confirmed(cells, manifest)
    if as_json:
        from harness.report.tables import effects_json

        print_json(effects_json(table, confirmed=decided))
    else:
        from harness.cli.table import print_effects

        print_effects(console, table, asked=asked, confirmed=decided)
