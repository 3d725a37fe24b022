"""`harness gate`: for the CI of a repository of models; did this commit lower what the study reports?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.api.gating import Gate, Verdict
from harness.api.gating import gate as find
from harness.api.training import Watch
from harness.api.work import Work
from harness.cli.as_json import print_json
from harness.cli.options import (
    complete_variant,
    device_option,
    json_option,
    settings_option,
    store_option,
    study_option,
)
from harness.cli.screen import Screen
from harness.cli.training import announce, stop_on_signals
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate

if TYPE_CHECKING:
    from harness.stats import Effect

EXIT_CODES: dict[Verdict, int] = {"passes": 0, "fails": 1, "undecided": 3}
HEADLINES: dict[Verdict, str] = {"passes": "passes", "fails": "FAILS", "undecided": "is undecided"}


@click.command()
@study_option
@click.option("--baseline-ref", required=True, help="The commit to compare with: a branch, a tag, origin/main.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, min_open=True),
    required=True,
    help="The largest change for the worse that is let pass, as the metric is shown (0.5: half a point).",
)
@click.option(
    "--variant",
    default="baseline",
    show_default=True,
    help="What to train: a change or a combination.",
    shell_complete=complete_variant,
)
@click.option("--profile", default="standard", show_default=True, help="How big: a profile of the study.")
@click.option("--seeds", help="A count (10) or a list (0,1,2); the profile's by default.")
@click.option(
    "--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Also write a comment for a pull request."
)
@settings_option
@device_option
@click.option("--jobs", type=click.IntRange(1), help="Cells at a time; as many as fit by default.")
@json_option
@store_option
@click.pass_context
def gate(
    ctx: click.Context, /, baseline_ref: str, max_drop: float, markdown: Path | None, as_json: bool, **request: Any
) -> None:
    """Train a study's baseline with the code of another commit and with this code, and say whether it got worse.

    \b
    exit code 0   passes: worse by --max-drop or more is excluded, at 95%
    exit code 1   fails: it is worse by more than --max-drop, at 95%, or fails where the other code does not
    exit code 2   the request was wrong
    exit code 3   the seeds cannot tell; the message says about how many could

    The study is a file in a git checkout, and uncommitted edits count. What the store holds of a commit is not trained
    again: keep the store between runs, as a cache of the CI.
    """
    from harness.report.files import check_file, write_file

    if markdown:
        check_file(markdown)
    stop_on_signals()
    console = Screen(stderr=as_json)

    def before_training(work: Work, todo: Sequence[Cell], expected: Estimate, which: str) -> None:
        console.print(f"{which}:", style="bold")
        announce(console, work, todo, expected, edits=False)

    watch = Watch(on_problem=lambda text: console.print(text, style="yellow"))
    found = find(baseline_ref=baseline_ref, max_drop=max_drop, watch=watch, before_training=before_training, **request)
    if markdown:
        write_file(markdown, as_markdown(found).encode())
    if as_json:
        print_json(_as_json(found))
    else:
        console.print(f"\n{found.work.plan.study.name} {HEADLINES[found.verdict]}. {found.reason}", style="bold")
        if found.effect:
            console.print(_measured(found.effect), style="dim")
    ctx.exit(EXIT_CODES[found.verdict])


def as_markdown(found: Gate) -> str:
    """A comment for a pull request."""
    study, metric = found.work.plan.study, found.work.plan.study.trainer.metrics.reporting
    head = f"### `{study.name}`: {HEADLINES[found.verdict]}\n\n{found.reason}\n"
    effect = found.effect
    if effect is None:
        return head
    rows = [
        f"| | {metric.axis} |",
        "|---|---:|",
        f"| `{found.ref}` ({found.commit[:12]}) | {metric.format(effect.reference_mean)} |",
        f"| this code | {metric.format(effect.variant_mean)} |",
        f"| difference [90% interval] | {metric.format_estimate(effect.mean, effect.low, effect.high)} |",
    ]
    return "\n".join([head, *rows, "", _measured(effect), ""])


def _measured(effect: "Effect") -> str:
    metric = effect.metric
    found = f"{metric.say_difference(effect.mean)} [{metric.say_interval(effect.low, effect.high)}]"
    counted = f"{effect.n} of {effect.n_planned} seeds"
    about = (
        "It is the same in every seed, so that its spread cannot be estimated."
        if effect.n > 1 and effect.sd == 0
        else "The ends of the 90% interval are the one-sided bounds of 95% of a test of non-inferiority."
    )
    return f"Difference of {metric.words}, this code minus the other: {found}, paired over {counted}. {about}"


def _as_json(found: Gate) -> dict[str, Any]:
    effect = found.effect
    numbers = {} if effect is None else {
        "n": effect.n, "difference": effect.mean, "low": effect.low, "high": effect.high, "seeds": list(effect.seeds),
        "before": effect.reference_mean, "after": effect.variant_mean,
    }  # fmt: skip
    plain = {name: None if isinstance(it, float) and it != it else it for name, it in numbers.items()}
    return {
        "verdict": found.verdict,
        "reason": found.reason,
        "commit": found.commit,
        "variant": found.variant,
        "metric": found.work.plan.study.trainer.metrics.report,
        "max_drop": found.max_drop,
        "seeds_needed": found.seeds_needed,
        **plain,
    }
