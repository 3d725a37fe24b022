"""`harness search`: Optuna tries combinations of changes; which change is the biggest single improvement?"""

import json
import re
import shlex
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from harness.cli.options import Planned, json_option, planned, search_space_options
from harness.cli.progress import RunProgress, duration
from harness.cli.training import (
    check_device,
    check_disk,
    followed,
    save_manifest,
    say_stopped,
    track_summary,
    train,
    unfinished,
    warm_up_workers,
)
from harness.errors import HarnessError
from harness.execution.provenance import command_line, provenance
from harness.plan.variants import Variant
from harness.search.choices import PRUNES, SAMPLERS
from harness.study.designs.comparisons import Comparison

if TYPE_CHECKING:
    from harness.search.answer import Answer
    from harness.tracking import Follower, Tracking

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
@click.option("--in-process", is_flag=True, help="Train in this process, one cell after another (for debugging).")
@json_option
@click.pass_context
def search(
    ctx: click.Context,
    /,
    num_trials: int,
    seconds: float | None,
    storage: str | None,
    as_json: bool,
    in_process: bool,
    sampler: Any,
    prune: Any,
    retry_failed: bool,
    **request: Any,
) -> None:
    """Try combinations of changes and print which change is the biggest single improvement, three ways.

    The baseline, each change alone and the study's combinations come first. What exists is read, never trained again;
    --trials is the total, so that the same command continues. Several searches may run at once on one storage.
    """
    from harness.search.run import search as run_search
    from harness.search.storage import open_storage, resolve_storage

    console = Console(stderr=as_json, highlight=False)
    work = planned(**request, designs=("add-one", "combinations"))
    url = resolve_storage(storage, work.cells.root)
    _announce(console, work, url, num_trials)
    todo, expected = unfinished(work)
    check_disk(work, expected)
    check_device(work, todo)
    with open_storage(url):
        pass  # can be used: a mistyped address must not leave a study run behind
    manifest = save_manifest(_only(work, []))
    started = time.monotonic()
    if not in_process:
        warm_up_workers()
    try:
        with followed(console, work.cells, manifest) as (tracking, follower), ExitStack() as shown:
            names: dict[str, str] = {}
            progress = shown.enter_context(_progress(console, work, num_trials, names))
            scribe = _Scribe(work, tracking, follower, manifest, progress, names)
            answer = run_search(
                work.plan,
                work.cells,
                partial(train, cache=work.cache),
                storage=url,
                num_trials=num_trials,
                sampler=sampler,
                prune=prune,
                seconds=seconds,
                retry_failed=retry_failed,
                devices=work.devices,
                provenance=provenance(command_line()),
                on_progress=progress.update,
                on_trial=scribe.begin,
                run_ids=scribe.run_ids,
                in_process=in_process,
            )
            track_summary(tracking, work.cells, scribe.manifest)
    except KeyboardInterrupt:
        say_stopped(console, "What has ended is saved")
        raise
    console.print(f"{answer.num_combinations} combinations, {duration(time.monotonic() - started)}.")
    if as_json:
        from harness.search.sentences import to_json

        sys.stdout.write(json.dumps(to_json(answer), indent=1) + "\n")
    else:
        _print(console, answer, request)
    if answer.outcomes.get("failed"):
        ctx.exit(1)


class _Scribe:
    """Notes each trial in the study run's manifest as it begins, and finds its MLflow runs when it ends."""

    def __init__(
        self,
        work: Planned,
        tracking: "Tracking",
        follower: "Follower",
        manifest: dict[str, Any],
        progress: RunProgress,
        names: dict[str, str],
    ) -> None:
        from harness.tracking import Tracking

        self.manifest = manifest
        self._work, self._follower, self._progress, self._names = work, follower, progress, names
        self._num_begun = 0
        self._tracking = Tracking(tracking.uri, tracking.root)  # the other one is the follower's, in its own thread

    def begin(self, search: str, number: int, variant: Variant) -> None:
        tags = {variant.name: {"harness.search": search, "harness.trial": str(number)}}
        self.manifest = save_manifest(_only(self._work, [variant]), tags)
        self._follower.extend(self.manifest)
        if not self._num_begun:  # earlier calls, and other processes, have begun the trials before this one
            self._progress.num_done = self._num_begun = number * len(variant.cells)
        self._progress.num_done += sum(self._work.cells.result(cell.key) is not None for cell in variant.cells)
        self._num_begun += len(variant.cells)
        # More than announced where changes are left out of the best one.
        self._progress.num_cells = max(self._progress.num_cells, self._num_begun)
        self._names |= {cell.key: f"trial {number}, {variant.name}, seed {cell.seed}" for cell in variant.cells}

    def run_ids(self, variant: Variant) -> dict[int, str]:
        """Brings MLflow up to these cells first, so that there are runs; not while it does not answer."""
        if not self._follower.problem:
            try:
                self._tracking.project(self.manifest, self._work.cells, [cell.key for cell in variant.cells])
            except HarnessError:
                return {}
        links = {cell.seed: self._tracking.run_link(self.manifest, cell.key) for cell in variant.cells}
        return {seed: link.url or link.run_id for seed, link in links.items() if link}


def _only(work: Planned, variants: list[Variant]) -> Planned:
    """The work with the baseline and these variants alone; single changes are compared with it, as `ablate` does."""
    baseline = work.plan.variants[0]
    singles = [it for it in variants if len(it.changes) == 1]
    comparisons = tuple(Comparison("add-one", it.changes[0], it.changes, ()) for it in singles)
    several = (baseline, *(it for it in variants if it.changes))
    return work._replace(plan=replace(work.plan, variants=several, comparisons=comparisons, notes=()))


def _progress(console: Console, work: Planned, num_trials: int, names: dict[str, str]) -> RunProgress:
    """The time left is a guess until cells have ended: later trials are taken to be like the first ones."""
    num_cells = num_trials * len(work.plan.seeds)
    _, expected = unfinished(work)
    seconds = expected.seconds * num_cells / len(work.plan.cells)
    return RunProgress(console, names, num_cells, 0, seconds, accuracy="validation")


def _announce(console: Console, work: Planned, url: str, num_trials: int) -> None:
    from harness.search.space import Space
    from harness.urls import masked

    plan, space = work.plan, Space.of(work.plan)
    console.print(
        f"{plan.study.name} ({plan.profile}): {len(space.changes)} changes in {len(space.factors)} parameters make "
        f"{space.size:,} combinations; {num_trials} trials x {len(plan.seeds)} seeds on {len(work.devices)} x "
        f"{work.device}; storage {masked(url)}.",
        soft_wrap=True,
    )
    if num_trials < len(space.first()):
        console.print(
            f"note: --trials {num_trials} is less than the {len(space.first())} of the beginning (the baseline, each "
            "change alone, the combinations): the answer lacks those that no search has tried.",
            style="yellow",
        )


def _print(console: Console, answer: "Answer", request: dict[str, Any]) -> None:
    from harness.cli.wide import print_whole
    from harness.search.sentences import headings, rows, sentences

    console.print("Effects on validation accuracy in percentage points with 95% t intervals, exploratory:")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, heading in enumerate(headings(answer)):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows(answer):
        table.add_row(*(it.replace("[", r"\[") for it in row))
    print_whole(table)
    for sentence in sentences(answer):
        console.print(sentence, markup=False, soft_wrap=True)
    for note in answer.notes:
        console.print(f"note: {note}", style="dim", markup=False, soft_wrap=True)
    if answer.best.changes:
        console.print(f"Confirm it on fresh seeds: {_confirmation(answer, request)}", markup=False, soft_wrap=True)


def _confirmation(answer: "Answer", request: dict[str, Any]) -> str:
    """The command that confirms the best combination on the same baseline and data, from the same store.

    The device is part of it where it was named: the baseline's precision can depend on it.
    """
    kept = ("study", "profile", "data", "epochs", "weights", "device", "store")
    usual = {"device": "auto", "store": Path("mlruns")}
    named = [name for name in kept if request[name] not in (None, usual.get(name))]
    options = [part for name in named for part in (f"--{name}", str(request[name]))]
    return shlex.join(["harness", "confirm", *options, "--variant", answer.best.name])
