"""`harness confirm`: the winner on fresh seeds, and the confirmed model in MLflow's registry."""

from typing import Any

import click

from harness.api.confirmation import Confirmation, begin_confirmation, conclude, save_confirmation
from harness.api.line_confirmation import begin_line_confirmation
from harness.api.work import unfinished
from harness.cli.as_json import print_json
from harness.cli.notify import notifying
from harness.cli.options import complete_variant, json_option, plan_options
from harness.cli.screen import Screen
from harness.cli.training import COUNTED, announce, explain_failures, train_plan
from harness.errors import StudyError
from harness.plan.manifest import Manifest


@click.command()
@plan_options
@click.option("--line", help="Confirm the champion of this line of `harness judge`, against where the line began.")
@click.option("--variant", help="Confirm this variant instead of the best one.", shell_complete=complete_variant)
@notifying
@json_option
@click.pass_context
def confirm(ctx: click.Context, /, line: str | None, variant: str | None, as_json: bool, **request: Any) -> None:
    """Train the baseline and the winner on seeds that nothing used before, and say whether it is confirmed.

    The winner is the variant of the study run that improves most on the metric by which the study selects. --seeds is
    the number of fresh seeds. A supported improvement goes to MLflow's model registry with the alias `champion`.

    Of a line of champions, it is the present one against where the line began; only here is the metric measured that
    the study reports.
    """
    console = Screen(stderr=as_json)
    if line is None:
        work, manifest, winner = begin_confirmation(variant=variant, **request)
    else:
        work, manifest, winner = begin_line_confirmation(line=line, **_of_line(ctx, request))
    todo, expected = unfinished(work)
    against = " against where its line began" if line else ""
    console.print(f"To confirm: {winner}{against}, on seeds {', '.join(map(str, work.plan.seeds))}.", style="bold")
    expected = announce(console, work, todo, expected)
    train_plan(console, work, todo, lambda: save_confirmation(work, manifest), expected)
    num_failed = explain_failures(console, work, COUNTED)
    found = conclude(work, manifest, winner)
    if as_json:
        print_json(_as_json(found, manifest))
    else:
        _print(console, found)
    if num_failed:
        ctx.exit(1)


def _as_json(found: Confirmation, manifest: Manifest) -> dict[str, Any]:
    effect = found.effect
    numbers = {"difference": effect.mean, "low": effect.low, "high": effect.high, "p": effect.p}
    return {
        "run": manifest.id,
        "confirms": manifest.confirms or manifest.belongs_to,
        "variant": found.winner,
        "outcome": found.outcome,
        "sentence": found.sentence,
        "metric": effect.metric.name,
        "alpha": manifest.alpha,
        "n": effect.n,
        "seeds": list(effect.seeds),
        **{name: None if it != it else it for name, it in numbers.items()},
        "registered": found.registered,
    }


def _print(console: Screen, found: Confirmation) -> None:
    console.print(f"\n{found.sentence}", style="bold")
    if found.registered:
        console.print(f"Registered as {found.registered}; MLflow loads it by that address.")
    else:
        console.print(found.unregistered, style="yellow")


OF_LINE = ("study", "profile", "seeds", "device", "jobs", "executor", "gpus_per_cell", "store")


def _of_line(ctx: click.Context, request: dict[str, Any]) -> dict[str, Any]:
    """What of the request says how a champion is trained.

    Raises:
        StudyError: something else was asked for, which a line has already; or seeds that are no number.
    """
    known = (*OF_LINE, "line", "target", "no_diff")
    given = [it.opts[0] for it in ctx.command.params if it.name not in known and _is_given(ctx, it)]
    if given:
        raise StudyError(f"{', '.join(given)}: a line has its own baseline and changes; leave it out with --line.")
    seeds = request["seeds"]
    if seeds is not None and not str(seeds).isdecimal():
        raise StudyError(f"--seeds {seeds}: expected how many, such as 10.")
    return {name: request[name] for name in OF_LINE} | {"seeds": int(seeds) if seeds else None}


def _is_given(ctx: click.Context, parameter: click.Parameter) -> bool:
    from click.core import ParameterSource

    return ctx.get_parameter_source(str(parameter.name)) == ParameterSource.COMMANDLINE
