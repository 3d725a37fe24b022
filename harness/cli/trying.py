"""`harness try`: one short cell of a study's training, looked at closely."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness.api.trying import try_study
from harness.cli.as_json import print_json
from harness.cli.options import device_option, json_option, settings_option, store_option
from harness.cli.screen import Screen


@click.command(name="try")
@click.argument("study")
@click.option("--profile", help="Which baseline; the shortest by default: try, quick, smoke or standard.")
@settings_option
@device_option
@store_option
@json_option
@click.pass_context
def try_(
    ctx: click.Context,
    study: str,
    profile: str | None,
    settings: dict[str, Any],
    device: str,
    store: Path,
    as_json: bool,
) -> None:
    """Train one short cell straight, again, with another seed, and killed and continued; say what that shows.

    STUDY is a YAML file or the name of a built-in study. Exit code 1 where the study's answers would be wrong: training
    ignores its seed, or a continued one differs.
    """
    console = Screen(stderr=as_json)
    trial = try_study(
        study,
        profile=profile,
        settings=settings,
        device=device,
        store=store,
        on_step=lambda sentence: console.print(f"... {sentence}", style="dim"),
    )
    if as_json:
        print_json(asdict(trial))
    else:
        _print(console, trial)
    if not trial.is_sound:
        ctx.exit(1)


def _print(console: Console, trial: Any) -> None:
    megabytes = trial.peak_memory_bytes / 1e6
    console.print(
        f"{trial.study} ({trial.profile}): {trial.num_steps} steps in {trial.seconds:.2f} s, {megabytes:.0f} MB at most"
    )
    for name, value in trial.metrics.items():
        console.print(f"  {name} {value:.6g}")
    for sentence in trial.sentences():
        console.print(f"- {sentence}")
