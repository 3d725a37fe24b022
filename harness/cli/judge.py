"""`harness judge`: is this candidate better than the champion? For people, and for programs that propose commits."""

from collections.abc import Sequence
from typing import Any

import click

from harness.api.judging import RULES, Judged
from harness.api.judging import judge as find
from harness.api.training import Watch
from harness.api.work import Work
from harness.cli.as_json import print_json
from harness.cli.options import device_option, json_option, settings_option, store_option, study_option
from harness.cli.screen import Screen
from harness.cli.training import announce, stop_on_signals
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate

EXIT_CODES = {"keep": 0, "discard": 1, "undecided": 3}


@click.command()
@click.argument("candidate", default="")
@study_option
@settings_option
@click.option(
    "--level",
    "rule",
    type=click.Choice(RULES),
    default=RULES[0],
    show_default=True,
    help="What is held at --alpha: the useless share of all that the line keeps; each proposal; or nothing (one run).",
)
@click.option("--explore", is_flag=True, help="The same as --level explore: keeps what looks better, as unproven.")
@click.option(
    "--alpha", type=click.FloatRange(0, 1, True, True), help="The line's level, declared once; 0.05 by default."
)
@click.option("--line", default="main", show_default=True, help="A line of champions; a study may have several.")
@click.option("--champion", default="", help="Where a new line begins: a commit; by default what CANDIDATE stands on.")
@click.option("--seeds", type=click.IntRange(1), help="Of each side, at most; by default twice what it takes at least.")
@click.option("--mde", type=click.FloatRange(0), default=0.0, help="The smallest gain worth finding, as it is shown.")
@click.option("--promote", is_flag=True, help="A candidate that is kept becomes the champion, measured on fresh seeds.")
@click.option("--profile", default="standard", show_default=True, help="How big: a profile of the study.")
@device_option
@click.option("--jobs", type=click.IntRange(1), help="Cells at a time; as many as fit by default.")
@json_option
@store_option
@click.pass_context
def judge(
    ctx: click.Context, /, settings: dict[str, Any], rule: str, explore: bool, as_json: bool, **request: Any
) -> None:
    """Judge a candidate against the champion: seeds in pairs, one after the other, until it is decided.

    CANDIDATE is a commit (its own edit), a branch (what it adds), the path of a patch, or `.`, what the working tree
    adds to HEAD; --set changes settings, with or without one.

    \b
    exit code 0   keep: it is better
    exit code 1   discard: worse or no better so far, too small to matter, the same numbers, or it fails
    exit code 2   the request was wrong, or the candidate edits what is fixed
    exit code 3   undecided: more --seeds may tell

    The same candidate is answered from the store. docs/loops.md tells how to run a loop with it.
    """
    stop_on_signals()
    console = Screen(stderr=as_json)

    def before_training(work: Work, todo: Sequence[Cell], expected: Estimate) -> None:
        announce(console, work, todo, expected, edits=False)
        console.print("That is the most: it ends when it is decided.", style="dim")

    watch = Watch(on_problem=lambda text: console.print(text, style="yellow"))
    chosen: Any = "explore" if explore else rule
    found = find(change=settings, rule=chosen, watch=watch, before_training=before_training, **request)
    if as_json:
        print_json(as_plain(found))
    else:
        for sentence in _sentences(found):
            console.print(sentence)
    ctx.exit(EXIT_CODES[found.proposal.verdict])


def _sentences(found: Judged) -> list[str]:
    it, metric = found.proposal, found.metric
    lines = [f"{it.verdict}: {it.name}, {it.reason}."]
    if it.gain is not None:
        bounds = sorted(metric.sign * bound for bound in (it.low, it.high) if bound is not None)
        interval = metric.say_interval(bounds[0], bounds[-1]) if bounds else ""
        shown = metric.say_difference(metric.sign * it.gain) + (f" [{interval}]" if interval else "")
        lines.append(f"{shown} in {metric.words} on {it.num_seeds} seeds, E {_e(it.log_e)}; {found.num_cells} cells.")
    if found.is_repeated:
        lines.append("It was judged before; nothing was trained.")
    if it.num_seeds or it.verdict == "undecided":
        lines.append(found.price)
    if it.promoted:
        lines.append(f"It is champion {it.promoted}.")
    if found.estimate:
        mean, count, error = found.estimate
        spread = f" (standard error {metric.say_difference(error, signed=False)})" if error == error else ""
        lines.append(f"Champion {found.champion.number}: {metric.format(mean)} on {count} fresh seeds{spread}.")
    return lines


def _e(log_e: float) -> str:
    return f"{10 ** (log_e / 2.302585):.3g}" if log_e < 700 else "beyond 1e300"


def as_plain(found: Judged) -> dict[str, Any]:
    """What --json prints; the schema stands in docs/loops.md."""
    it = found.proposal
    estimate = found.estimate
    return {
        "verdict": it.verdict,
        "reason": it.reason,
        "proposal": it.number,
        "name": it.name,
        "line": found.line.id,
        "rule": it.rule,
        "level": it.level,
        "alpha": found.line.alpha,
        "metric": found.metric.name,
        "goal": found.metric.goal,
        "num_seeds": it.num_seeds,
        "log_e": it.log_e,
        "gain": it.gain,
        "low": it.low,
        "high": it.high,
        "cells_trained": found.num_cells,
        "repeated": found.is_repeated,
        "judged_against": it.champion,
        "promoted": it.promoted or None,
        "champion": {
            "number": found.champion.number,
            "base": found.line.base,
            "commits": [commit for entry in found.champion.entries for commit in entry.get("commit", ())],
            "mean": estimate[0] if estimate else None,
            "num_seeds": estimate[1] if estimate else 0,
            "standard_error": estimate[2] if estimate and estimate[2] == estimate[2] else None,
        },
        "price": found.price,
    }
