"""`harness worker`: one of many, started by a scheduler, on a store that they share."""

import re
import signal
import time
from datetime import datetime
from typing import Any, NoReturn

import click

from harness.cli.options import worker_options

_DURATION = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SECONDS = (86_400, 3_600, 60, 1)


class _Asked(BaseException):
    """The scheduler sent SIGTERM."""


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
def worker(until: float | None, lasting: float | None, grace: float, **request: Any) -> None:
    """Train cells of a study beside other workers on one store, until nothing is left.

    A scheduler may start any number, at any time, on any machine that has the store's folder; `harness ablate` may run
    beside them. SIGTERM, --until and --for stop one: training is asked to save, its cells are given back, exit code 0.
    The same command, anywhere, goes on. Workers deliver nothing to MLflow: `harness ablate` (which then finds all cells
    trained, and prints the table) or `harness sync` does.
    """
    started = time.time()
    signal.signal(signal.SIGTERM, _on_terminate)  # before what takes long to import
    try:
        _work(until, None if lasting is None else started + lasting, grace, request)
    except _Asked:
        click.echo("Stopped by SIGTERM. What trained here is given back with its last checkpoint.")


def _on_terminate(number: int, frame: object) -> NoReturn:
    """Once: a scheduler may repeat itself while training saves."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Asked


def _work(until: float | None, lasts_until: float | None, grace: float, request: dict[str, Any]) -> None:
    from harness.api.training import Watch
    from harness.api.work import failed_cells, plan_work, unfinished
    from harness.api.worker import work_along
    from harness.cli.progress import outcome
    from harness.cli.screen import Screen
    from harness.cli.training import announce
    from harness.errors import StudyError
    from harness.execution.runner import Progress

    console = Screen()
    if request["seeds"] == "auto":
        raise StudyError("--seeds auto: depends on what others train meanwhile. Give workers the number that came out.")
    work = plan_work(**request)
    metric, names = work.plan.study.trainer.metrics.reporting, work.names
    trained_here: set[str] = set()

    def say(progress: Progress) -> None:
        if progress.kind == "event":
            trained_here.add(progress.cell.key)
        elif progress.result is not None and progress.cell.key in trained_here:
            console.print(outcome(names[progress.cell.key], progress.result, metric), soft_wrap=True)

    announce(console, work, *unfinished(work))
    limits = [it for it in (until, lasts_until) if it is not None]
    watch = Watch(say, lambda text: console.print(text, style="yellow"))
    why, placebos = work_along(work, until=min(limits, default=None), seconds_of_grace=grace, watch=watch)
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
