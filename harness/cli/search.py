"""`harness search`: Optuna tries combinations of changes; which change is the biggest single improvement?"""

import json
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from harness.api.searching import SearchOptions, search_work
from harness.api.training import Watch
from harness.api.work import Work, plan_work, unfinished
from harness.cli.as_json import print_json
from harness.cli.grid import Column, print_grid
from harness.cli.notify import notifying
from harness.cli.options import json_option, search_space_options
from harness.cli.progress import RunProgress, duration
from harness.cli.screen import Screen
from harness.cli.training import say_stopped, stop_on_signals
from harness.plan.variants import Variant
from harness.search.choices import PRUNES, SAMPLERS

if TYPE_CHECKING:
    from harness.search.answer import Answer

SECONDS = {"s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType[float]):
    """A number with a unit: 90s, 30m, 1.5h. Gives seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(value).strip())
        if not match or not float(match[1]):
            self.fail(f"{value}: expected a number with s, m or h, such as 30m.", param, ctx)
        return float(match[1]) * SECONDS[match[2]]


@click.command()
@search_space_options
@click.option(
    "--trials",
    "num_trials",
    type=click.IntRange(1),
    required=True,
    help="Combinations in all, before those that leave one out.",
)
@click.option("--sampler", type=click.Choice(SAMPLERS), default="tpe", show_default=True, help="What suggests them.")
@click.option("--prune", type=click.Choice(PRUNES), default="none", show_default=True, help="Give up on some early.")
@click.option("--budget", "seconds", type=Duration(), help="Stop after this time: 90s, 30m, 1.5h.")
@click.option("--storage", help="Optuna's storage; $HARNESS_OPTUNA_STORAGE or optuna.db in the store by default.")
@click.option("--retry-failed", is_flag=True, help="Try combinations again that failed or diverged.")
@json_option
@notifying
@click.pass_context
def search(
    ctx: click.Context,
    /,
    num_trials: int,
    seconds: float | None,
    storage: str | None,
    as_json: bool,
    sampler: Any,
    prune: Any,
    retry_failed: bool,
    **request: Any,
) -> None:
    """Try combinations of changes and print which change is the biggest single improvement, three ways.

    The baseline, each change alone and the study's combinations come first. What exists is read, never trained again;
    --trials is the total, so that the same command continues. Several searches may run at once on one storage.
    """
    from harness.search.storage import resolve_storage

    console = Screen(stderr=as_json)
    work = plan_work(**request, designs=("add-one", "combinations"))
    url = resolve_storage(storage, work.cells.root)
    _announce(console, work, url, num_trials)
    options = SearchOptions(
        num_trials=num_trials,
        sampler=sampler,
        prune=prune,
        seconds=seconds,
        retry_failed=retry_failed,
    )
    stop_on_signals()
    started = time.monotonic()
    try:
        with _Shown(console, work, num_trials) as shown:
            watch = Watch(shown.progress.update, lambda text: console.print(text, style="yellow"))
            answer = search_work(work, url, options, watch=watch, on_trial=shown.begin)
    except KeyboardInterrupt:
        say_stopped(console, "What has ended is saved")
        raise
    console.print(f"{answer.num_combinations} combinations, {duration(time.monotonic() - started)}.")
    if as_json:
        from harness.search.sentences import to_json

        print_json(to_json(answer))
    else:
        _print(console, answer, request)
    if answer.outcomes.get("failed"):
        ctx.exit(1)


class _Shown:
    """Live progress of a search; it grows with the trials that begin."""

    def __init__(self, console: Console, work: Work, num_trials: int) -> None:
        self._work, self._num_begun = work, 0
        self._names: dict[str, str] = {}
        self.progress = _progress(console, work, num_trials, self._names)

    def __enter__(self) -> "_Shown":
        self.progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.__exit__(*error)

    def begin(self, number: int, variant: Variant) -> None:
        progress, cells = self.progress, variant.cells
        if not self._num_begun:  # earlier calls, and other processes, have begun the trials before this one
            progress.num_done = self._num_begun = number * len(cells)
        progress.num_done += sum(self._work.cells.result(cell.key) is not None for cell in cells)
        self._num_begun += len(cells)
        # More than announced where changes are left out of the best one.
        progress.num_cells = max(progress.num_cells, self._num_begun)
        self._names |= {cell.key: f"trial {number}, {variant.name}, seed {cell.seed}" for cell in cells}


def _progress(console: Console, work: Work, num_trials: int, names: dict[str, str]) -> RunProgress:
    """The time left is a guess until cells have ended: later trials are taken to be like the first ones."""
    num_cells = num_trials * len(work.plan.seeds)
    _, expected = unfinished(work)
    least, most = (seconds * num_cells / len(work.plan.cells) for seconds in expected.bounds)
    return RunProgress(console, names, num_cells, 0, (least, most), metric=work.plan.study.trainer.metrics.selecting)


def _announce(console: Console, work: Work, url: str, num_trials: int) -> None:
    from harness.search.space import Space
    from harness.urls import masked

    plan, space = work.plan, Space.of(work.plan)
    console.print(
        f"{plan.study.name} ({plan.profile}): {len(space.changes)} changes in {len(space.factors)} parameters make "
        f"{space.size:,} combinations; {num_trials} trials x {len(plan.seeds)} seeds on "
        f"{work.workers}; storage {masked(url)}.",
    )
    if num_trials < len(space.first()):
        console.print(
            f"note: --trials {num_trials} is less than the {len(space.first())} of the beginning (the baseline, each "
            "change alone, the combinations): the answer lacks those that no search has tried.",
            style="yellow",
        )


def _print(console: Console, answer: "Answer", request: dict[str, Any]) -> None:
    from harness.search.sentences import caption, headings, rows, sentences

    console.print(f"{caption(answer)} with 95% t intervals, exploratory:", markup=False)
    change, *numbers = headings(answer)
    columns = [Column(change, is_number=False), *(Column(it, may_break=True) for it in numbers)]
    print_grid(console, columns, rows(answer))
    for sentence in sentences(answer):
        console.print(sentence, markup=False)
    for note in answer.notes:
        console.print(f"note: {note}", style="dim", markup=False)
    if answer.best.changes:
        console.print(f"Confirm it on fresh seeds:\n    {_confirmation(answer, request)}", markup=False, soft_wrap=True)


def _confirmation(answer: "Answer", request: dict[str, Any]) -> str:
    """The command that confirms the best combination on the same baseline and data, from the same store.

    The device is part of it where it was named: the baseline's precision can depend on it.
    """
    kept = ("study", "profile", "data", "epochs", "weights", "vary", "device", "store")
    usual = {"device": "auto", "store": Path("mlruns")}
    named = [name for name in kept if request[name] not in (None, usual.get(name))]
    options = [part for name in named for part in (f"--{name}", str(request[name]))]
    for path, value in request["settings"].items():
        options += ["--set", f"{path}={json.dumps(value)}"]
    return shlex.join(["harness", "confirm", *options, "--variant", answer.best.name])
