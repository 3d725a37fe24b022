"""`harness worker`: one of many, started by a scheduler, on a store that they share."""

import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import worker_options
from harness.cli.sentences import tell
from harness.plan.variants import Variant
from harness.search.choices import PRUNES, SAMPLERS

if TYPE_CHECKING:
    from harness.api.training import Watch
    from harness.api.work import Work
    from harness.cli.screen import Screen

_DURATION = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SECONDS = (86_400, 3_600, 60, 1)


class _Asked(BaseException):
    """The scheduler sent SIGTERM."""


class _Stop:
    """SIGTERM ends what goes on with `_Asked`: at once, or at the next `check` within `noting`.

    Once: a scheduler may repeat itself while training saves.
    """

    def __init__(self) -> None:
        self._is_asked = self._only_notes = False
        signal.signal(signal.SIGTERM, self._on_terminate)

    def check(self) -> None:
        if self._is_asked:
            raise _Asked

    @contextmanager
    def noting(self) -> Iterator[None]:
        """For what must not be left in the middle, such as a transaction: the trials are given back by it."""
        self._only_notes = True
        try:
            yield
        finally:
            self._only_notes = False
        self.check()

    def _on_terminate(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._is_asked = True
        if not self._only_notes:
            raise _Asked


class _Duration(click.ParamType[float]):
    """`3h50m` in seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(value)
        if not found:
            self.fail(f"{value!r}: expected days, hours, minutes or seconds, such as 3h50m or 30s.", param, ctx)
        return float(sum(int(it or 0) * each for it, each in zip(found.groups(), _SECONDS, strict=True)))


class _Moment(click.ParamType[float]):
    """`2026-11-27T08:00` in seconds since the epoch; by this machine's clock where no zone is said."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r}: expected a date and a time, such as 2026-11-27T08:00.", param, ctx)


@click.command()
@worker_options
@click.option("--until", type=_Moment(), help="When to have ended, such as 2026-11-27T08:00.")
@click.option("--for", "lasting", type=_Duration(), help="How long at most, such as 3h50m.")
@click.option(
    "--grace",
    type=_Duration(),
    default="20s",
    show_default=True,
    help="That training gets to save, before --until or --for and after SIGTERM; less than the scheduler's own.",
)
@click.option("--trials", type=click.IntRange(1), help="Search instead: so many combinations in all, by all workers.")
@click.option("--sampler", type=click.Choice(SAMPLERS), default="tpe", show_default=True, help="Of a search.")
@click.option("--prune", type=click.Choice(PRUNES), default="none", show_default=True, help="Of a search.")
@click.option("--storage", help="Of a search: Optuna's; $HARNESS_OPTUNA_STORAGE or optuna.db in the store by default.")
def worker(
    until: float | None,
    lasting: float | None,
    grace: float,
    trials: int | None,
    sampler: Any,
    prune: Any,
    storage: str | None,
    **request: Any,
) -> None:
    """Train cells of a study beside other workers on one store, until nothing is left; with --trials, of a search.

    A scheduler may start any number, at any time, on any machine that has the store's folder; `harness ablate` (or
    `harness search`) may run beside them. SIGTERM, --until and --for stop one: training is asked to save, its cells are
    given back, exit code 0. The same command, anywhere, goes on. Workers deliver nothing to MLflow: `harness ablate` or
    `harness search`, which then finds all cells trained and prints what they show, does, or `harness sync`.
    """
    started = time.time()
    stop = _Stop()  # before what takes long to import
    limits = [it for it in (until, None if lasting is None else started + lasting) if it is not None]
    try:
        if trials is None:
            _refuse_what_is_of_a_search()
            _work(min(limits, default=None), grace, request)
        else:
            found = {"num_trials": trials, "sampler": sampler, "prune": prune}
            _search(stop, min(limits, default=None), grace, storage, found, request)
    except _Asked:
        tell("Stopped by SIGTERM. What trained here is given back with its last checkpoint.")


def _refuse_what_is_of_a_search() -> None:
    context = click.get_current_context()
    for name in ("sampler", "prune", "storage"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--{name} is of a search: say with --trials how many combinations there are to try."
            )


def _work(until: float | None, grace: float, request: dict[str, Any]) -> None:
    from harness.api.work import failed_cells, plan_work, unfinished
    from harness.api.worker import work_along
    from harness.cli.screen import Screen
    from harness.cli.training import announce
    from harness.errors import StudyError

    console = Screen()
    if request["seeds"] == "auto":
        raise StudyError("--seeds auto: depends on what others train meanwhile. Give workers the number that came out.")
    work = plan_work(**request)
    announce(console, work, *unfinished(work))
    why, placebos = work_along(work, until=until, seconds_of_grace=grace, watch=_watch(console, work, work.names))
    left = len(unfinished(work)[0])
    if why == "late":
        console.print(f"The time is up. {left} cells have not ended; what trained here is given back.")
    else:
        failed = len(failed_cells(work))
        failed_too = f", {failed} of them failed: `harness ablate` says why" if failed else ""
        console.print(f"Nothing is left: {len(work.plan.cells) - left} cells have ended{failed_too}.")
    console.print("`harness ablate` with the same options prints the table and delivers to MLflow.")
    if placebos.problems:
        raise StudyError(*dict.fromkeys(placebos.problems.values()))


def _search(
    stop: _Stop,
    until: float | None,
    grace: float,
    storage: str | None,
    options: dict[str, Any],
    request: dict[str, Any],
) -> None:
    from harness.api.searching import SearchOptions
    from harness.api.work import plan_work
    from harness.api.worker import search_along
    from harness.cli.screen import Screen
    from harness.errors import StudyError
    from harness.search.storage import resolve_storage

    console = Screen()
    if request.pop("designs"):
        raise StudyError("--design: a search decides itself which variants to train. Leave it or --trials out.")
    work = plan_work(**request, designs=("add-one", "combinations"))
    url = resolve_storage(storage, work.cells.root)
    names: dict[str, str] = {}

    def begin(number: int, variant: Variant) -> None:
        names.update({cell.key: f"trial {number}, {variant.name}, seed {cell.seed}" for cell in variant.cells})

    why = search_along(
        work,
        url,
        SearchOptions(**options),
        until=until,
        seconds_of_grace=grace,
        check=stop.check,
        noting=stop.noting,
        watch=_watch(console, work, names),
        on_trial=begin,
    )
    if why == "late":
        console.print("The time is up. What trained here is given back.")
    else:
        console.print("Nothing is left to be tried.")
    console.print("`harness search` with the same options prints the answer and delivers to MLflow.")


def _watch(console: "Screen", work: "Work", names: Mapping[str, str]) -> "Watch":
    """Prints each cell that was trained here, when it has ended."""
    from harness.api.training import Watch
    from harness.cli.progress import outcome
    from harness.execution.runner import Progress

    metric = work.plan.study.trainer.metrics.reporting
    trained_here: set[str] = set()

    def say(progress: Progress) -> None:
        key = progress.cell.key
        if progress.kind == "event":
            trained_here.add(key)
        elif progress.result is not None and key in trained_here:
            ended = outcome(names[key], progress.result, metric)
            console.print(ended)

    return Watch(say, lambda text: console.print(text, style="yellow"))
