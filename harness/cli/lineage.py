"""`harness lineage`: a line of champions, or a loop's log, as a table: proven, unproven, refuted."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from harness.api.lineages import Step, lineage_of_log
from harness.api.lineages import lineage as find
from harness.cli.as_json import print_json
from harness.cli.grid import Column, print_grid
from harness.cli.options import json_option, store_option, study_option
from harness.cli.screen import Screen
from harness.metrics import Metric
from harness.study.load import load_study

STYLES = {"proven": "green", "refuted": "red"}


@click.command()
@study_option
@click.option("--line", default="main", show_default=True, help="The line of champions that `harness judge` made.")
@click.option("--log", help="A loop's log in place of a line: what it claimed beside what the study measured.")
@click.option("--profile", default="standard", show_default=True, help="A profile of the study.")
@json_option
@store_option
def lineage(study: str, line: str, log: str | None, profile: str, as_json: bool, store: str) -> None:
    """Print a line of champions: each proposal's gain, whether it is proven, and the champions' numbers.

    With --log, the claims of a loop's own log beside what `harness ablate` measured of the same commits. Positive
    gains are better, whatever the metric's goal.
    """
    if log:
        steps = lineage_of_log(study, log, profile=profile, store=store)
        metric, head = load_study(study).trainer.metrics.reporting, f"{log}: what was claimed, and what was measured"
    else:
        found = find(study, line=line, profile=profile, store=store)
        steps, metric = found.steps, found.metric
        began = f" at {found.line.base[:10]}" if found.line.base else ""
        reached = f", {_estimate(metric, found.start)}" if found.start else ""
        head = f"{found.line.id}: begun{began}{reached}"
    if as_json:
        told = {
            "line": "" if log else found.line.id,
            "metric": metric.name,
            "goal": metric.goal,
            "looks": 0 if log else len(steps),
            "steps": [_as_plain(it) for it in steps],
        }
        print_json(told)
        return
    console = Screen()
    console.print(head, style="bold")
    rows = [(_row_of_log if log else _row)(metric, it) for it in steps]
    print_grid(console, _columns(metric, of_log=bool(log)), rows, styles=[STYLES.get(it.verdict, "") for it in steps])
    counted = {verdict: sum(it.verdict == verdict for it in steps if it.champion) for verdict in ("proven", "refuted")}
    kept = sum(bool(it.champion) for it in steps)
    rest = kept - sum(counted.values())
    if not log and not found.is_shown:
        looks = f"{len(steps)} proposal{'s' if len(steps) != 1 else ''} looked at {metric.words}"
        console.print(f"{looks}; what the study reports was not shown to them.")
    what = "were kept" if log else "became champion"
    numbers = f"{counted['proven']} proven, {rest} unproven, {counted['refuted']} refuted"
    console.print(f"Of {kept} that {what}, {numbers}.", style="bold")


def _as_plain(step: Step) -> dict[str, Any]:
    """With no number in place of NaN, which JSON has no word for."""
    estimate = step.estimate and [None if it != it else it for it in step.estimate]
    return asdict(step) | {"estimate": estimate}


def _columns(metric: Metric, *, of_log: bool) -> Sequence[Column]:
    unit = f" [{metric.difference_unit}]" if metric.difference_unit else ""
    change, verdict = Column("change", is_number=False), Column("verdict", is_number=False)
    if of_log:
        claimed, measured = Column(f"claimed{unit}"), Column(f"measured{unit}", may_break=True)
        return change, Column("kept", is_number=False), claimed, measured, verdict
    against = Column("against", is_number=False, is_optional=True)
    champion = Column("champion", is_number=False, is_optional=True)
    return change, against, Column(f"gain{unit}", may_break=True), Column("seeds"), verdict, champion


def _row_of_log(metric: Metric, it: Step) -> list[str]:
    claimed = "" if it.claimed is None else metric.format_signed(it.claimed)
    return [it.change, "yes" if it.champion else "no", claimed, _gain(metric, it), it.verdict]


def _row(metric: Metric, it: Step) -> list[str]:
    reached = f"{it.champion}: {_estimate(metric, it.estimate)}" if it.estimate else str(it.champion or "")
    said = it.verdict if it.verdict in ("proven", "open") else f"{it.verdict}: {it.reason}"
    return [it.change, str(it.against), _gain(metric, it), str(it.num_seeds), said, reached]


def _gain(metric: Metric, it: Step) -> str:
    if it.gain is None:
        return ""
    if it.low is None or it.high is None:
        return metric.format_signed(it.gain)
    return metric.format_estimate(it.gain, it.low, it.high)


def _estimate(metric: Metric, estimate: tuple[float, int, float] | None) -> str:
    if estimate is None:
        return ""
    mean, count, error = estimate
    spread = f" ± {metric.say_difference(error, signed=False)}" if error == error else ""
    return f"{metric.format(mean)}{spread} ({count} seeds)"
