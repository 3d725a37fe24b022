"""`harness plan`: what a study would train, and what that would take."""

import math
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from harness.api.work import Work, freeze, plan_work, reported, unfinished
from harness.cli.as_json import print_json
from harness.cli.grid import Column, print_grid
from harness.cli.next_step import say_next
from harness.cli.options import json_option, plan_options
from harness.cli.progress import duration_range, size
from harness.cli.screen import Screen
from harness.cli.sentences import tell
from harness.errors import StudyError
from harness.metrics import Metric
from harness.plan.estimate import Estimate
from harness.texts import counted

if TYPE_CHECKING:
    from harness.plan.sensitivity import Sensitivity


@click.command()
@plan_options
@click.option(
    "--freeze", "is_frozen", is_flag=True, help="Write down what will be tested, before the first cell (with --mde)."
)
@click.option("--hypothesis", default="", help="With --freeze: what is expected, in words.")
@json_option
def plan(as_json: bool, is_frozen: bool, hypothesis: str, **request: Any) -> None:
    """Say what a study would train: variants, cells, how many are done, expected time, disk."""
    from harness.plan.sensitivity import sensitivity

    if hypothesis and not is_frozen:
        raise StudyError("--hypothesis goes with --freeze, which writes it down.")
    mde = request.pop("mde")
    work = plan_work(**request, mde=mde if request["seeds"] == "auto" or not is_frozen else None)
    if is_frozen:
        frozen = freeze(work, hypothesis=hypothesis, mde=mde).frozen
        tell(
            f"Frozen at {frozen['time']}, hash {frozen['hash']}: {len(frozen['family'])} comparisons on "
            f"{frozen['horizon']} seeds by {frozen['metric']}. The report says in what it was done otherwise.",
            err=True,
        )
    todo, expected = unfinished(work)
    can_show = sensitivity(work.plan, reported(work.plan, work.cells))
    if as_json:
        print_json(_as_json(work, len(todo), expected, can_show))
        return
    console = Screen()
    _print_variants(console, work, {cell.key for cell in todo})
    num_cells = counted(len(work.plan.cells), "distinct cell")
    console.print(
        f"{num_cells}, {len(work.plan.cells) - len(todo)} done, {len(todo)} to train; "
        f"{duration_range(*expected.bounds)} on {work.workers} ({expected.basis}) and "
        f"{size(expected.disk_bytes)} of disk ({size(work.cells.free_bytes())} free)."
    )
    console.print(_power(can_show, work.plan.study.trainer.metrics.reporting))
    for note in _notes(work):
        console.print(f"note: {note}", style="dim")
    if todo:
        say_next(console, "ablate", "trains them")


def _notes(work: Work) -> list[str]:
    return [*work.plan.notes, *work.plan.study.trainer.doubts()]


def _print_variants(console: Console, work: Work, todo: set[str]) -> None:
    """A row a variant: how many of its cells have ended, and what it is."""
    plan = work.plan
    title = f"{plan.study.title} ({plan.study.name}, profile {plan.profile}{', exploratory' * plan.exploratory})"
    columns = [Column("variant", is_number=False), Column("done"), Column("what it is", is_number=False)]
    rows = []
    for variant in plan.variants:
        done = sum(cell.key not in todo for cell in variant.cells)
        rows.append((variant.name, f"{done}/{len(variant.cells)}", variant.summary))
    print_grid(console, columns, rows, title=title)


def _power(can_show: "Sensitivity", metric: Metric) -> str:
    """What the seeds can show, in a sentence; NaN where there is one seed."""
    from harness.plan.power import seeds_to_reach

    if can_show.num_seeds == 1:
        return "One seed shows nothing about the next one: no effect can be claimed from it."
    if can_show.num_seeds < (least := seeds_to_reach(horizon=can_show.horizon)):
        return (
            f"{can_show.num_seeds} seeds give intervals, but can claim nothing, whatever they show: the test needs at "
            f"least {least}{f' of {can_show.horizon}' * (least > seeds_to_reach())}."
        )
    if can_show.horizon < seeds_to_reach():
        return (
            f"This study run declared {counted(can_show.horizon, 'seed')} before its first cell, with which nothing "
            "can be claimed; what goes on beyond is judged by a test that is valid however long one goes on, and "
            "finds less. To test with all of them, begin a study run of its own: another name in its file, fresh seeds."
        )
    if math.isnan(can_show.detectable):
        return (
            f"What {can_show.num_seeds} seeds can show is known once a few cells have ended: nothing says yet how much "
            f"{metric.words} varies from seed to seed."
        )
    basis = "measured" if can_show.is_measured else "a guess before any run: anything from half to twice of it"
    n, end = can_show.num_seeds, can_show.horizon
    early = f", looked at before the {end} that are planned" if n < end else ""
    found = (
        f"Smallest effect that {min(n, end)} seeds find with power 0.8 after correction for "
        f"{counted(can_show.family_size, 'comparison')}{_share(can_show)}{early}: "
        f"{metric.say_difference(can_show.detectable, signed=False)} of "
        f"{metric.words} (sd of the differences {metric.say_difference(can_show.sd, signed=False)}, {basis})."
    )
    if n <= end:
        return found
    return (
        f"{found} {n} seeds are more than these {end}, which this study run declared before its first cell: what they "
        "do not find is judged by a test that is valid however long one goes on, and finds less than as many seeds "
        "that were declared."
    )


def _share(can_show: "Sensitivity") -> str:
    if can_show.share == 1:
        return ""
    return f" (the first design; it has {100 * can_show.share:.0f}% of the error budget, the other designs the rest)"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_json(work: Work, num_todo: int, expected: Estimate, can_show: "Sensitivity") -> dict[str, Any]:
    plan = work.plan
    return plan.manifest().to_json() | {
        "notes": _notes(work),
        "seeds": list(plan.seeds),
        "num_variants": len(plan.variants),
        "num_cells": len(plan.cells),
        "num_done": len(plan.cells) - num_todo,
        "num_todo": num_todo,
        "expected_seconds": expected.seconds,
        "expected_seconds_range": list(expected.bounds),
        "expected_from_measured_cells": expected.measured,
        "expected_basis": expected.basis,
        "disk_bytes": expected.disk_bytes,
        "smallest_detectable_effect": _number(can_show.detectable),
        "difference_sd": _number(can_show.sd),
        "difference_sd_is_measured": can_show.is_measured,
        "device": work.device,
        "workers": len(work.devices),
    }
