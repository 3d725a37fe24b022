"""`harness prune`: the smallest set of commits that is no worse than all of them, as a branch."""

from collections.abc import Sequence
from typing import Any

import click

from harness.api.pruning import HEAD, Pruned
from harness.api.pruning import prune as find
from harness.api.training import Watch
from harness.api.work import Work
from harness.cli.as_json import print_json
from harness.cli.options import device_option, json_option, settings_option, store_option, study_option
from harness.cli.screen import Screen
from harness.cli.training import announce, stop_on_signals
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate


@click.command()
@study_option
@click.option(
    "--delta",
    type=click.FloatRange(0, min_open=True),
    required=True,
    help="The smallest loss that matters, as the reported metric is shown.",
)
@click.option("--head", default=HEAD, show_default=True, help="The combination of all changes.")
@click.option("--branch", default="", help="Name of the new branch; pruned/STUDY by default.")
@click.option("--patches", help="A new folder for the commits as patches, too.")
@click.option("--profile", default="standard", show_default=True, help="How big: a profile of the study.")
@click.option("--seeds", type=click.IntRange(2), help="How many fresh seeds; the profile's by default.")
@settings_option
@device_option
@click.option("--jobs", type=click.IntRange(1), help="Cells at a time; as many as fit by default.")
@json_option
@store_option
def prune(as_json: bool, **request: Any) -> None:
    """Drop the commits of a study one after the other, as long as what is left is no worse, and write a branch of it.

    In the order of what the store holds (`harness ablate` first), the least helpful first. Each set that is left is
    compared with all commits on fresh seeds. The first one that may lose --delta or more ends it.

    Your working tree, index, stash and branches stay as they are, but for the new branch.
    """
    stop_on_signals()
    console = Screen(stderr=as_json)
    watch = Watch(on_problem=lambda text: console.print(text, style="yellow"))

    def before_training(work: Work, todo: Sequence[Cell], expected: Estimate) -> None:
        announce(console, work, todo, expected, edits=False)
        console.print("That is the most: it ends with the first set that may be worse.", style="dim")

    found = find(watch=watch, before_training=before_training, **request)
    if as_json:
        print_json(as_plain(found))
        return
    console.print(f"\n{found.sentence}", style="bold")
    console.print(f"Kept: {', '.join(found.kept) or 'nothing'}.")
    for it in found.tried:
        console.print(f"  without {found.describe(it)}", style="dim")
    for note in found.notes:
        console.print(note, style="yellow")
    if found.settings:
        console.print(f"Settings, which no commit holds: {', '.join(found.settings)}.")
    if found.commit:
        console.print(f"Branch {found.branch} ({found.commit[:10]}): git log -p {found.branch}", soft_wrap=True)


def as_plain(found: Pruned) -> dict[str, Any]:
    """What --json prints; the schema stands in docs/json.md."""
    return {
        "sentence": found.sentence,
        "metric": found.metric.name,
        "delta": found.delta,
        "seeds": list(found.work.plan.seeds),
        "changes": list(found.full),
        "kept": list(found.kept),
        "tried": [
            {
                "changes": list(it.changes),
                "dropped": list(it.dropped),
                "difference": it.effect.mean,
                "low": _plain(it.effect.low),
                "high": _plain(it.effect.high),
                "p": it.p,
                "passes": it.passes,
            }
            for it in found.tried
        ],
        "branch": found.branch,
        "commit": found.commit,
        "patches": [str(it) for it in found.patches],
        "settings": list(found.settings),
        "notes": list(found.notes),
    }


def _plain(number: float) -> float | None:
    return number if number == number else None
