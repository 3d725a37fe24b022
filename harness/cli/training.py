"""Training from the command line: what is to come, live progress, a clean stop. What several commands share."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from harness.api.probing import is_worth_a_probe, probe
from harness.api.training import Placebos, Watch, train_work
from harness.api.work import Work, edited_since, failed_cells, other_file, unfinished
from harness.cli import was_interrupted
from harness.cli.progress import RunProgress, duration, duration_range
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate
from harness.plan.manifest import Manifest
from harness.texts import counted


def announce(
    console: Console,
    work: Work,
    todo: Sequence[Cell],
    expected: Estimate,
    *,
    edits: bool = True,
    probes: bool = True,
) -> Estimate:
    """Says what a plan is about to train; of `edits`, that the code is another one than it was.

    Args:
        probes: where all that is known is a guess, some steps may be made here to know better.

    Returns:
        What it will take, as it was said.
    """
    if edits and (edited := edited_since(work)):
        console.print(edited, style="yellow")
    if other := other_file(work):
        console.print(other, style="yellow")
    plan = work.plan
    size = f"{counted(len(plan.variants), 'variant')} x {counted(len(plan.seeds), 'seed')}"
    num_cells = counted(len(plan.cells), "cell")
    line = f"{plan.study.name} ({plan.profile}): {size} = {num_cells}, {len(plan.cells) - len(todo)} done, "
    line += f"{len(todo)} to train"
    if todo:
        if probes and not work.executor.startswith("ray") and is_worth_a_probe(expected):
            with console.status("making some steps, to say how long this will take ..."):
                expected = unfinished(work)[1] if probe(plan, work.cells.root, work.devices[0]) else expected
        line += f" on {work.workers}, {duration_range(*expected.bounds)} ({expected.basis})"
    console.print(line + ".")
    for note in plan.notes:
        console.print(f"note: {note}", style="dim")
    return expected


def train_plan(
    console: Console,
    work: Work,
    todo: Sequence[Cell],
    save: Callable[[], Manifest],
    expected: Estimate,
) -> Placebos:
    """`train_work` with live progress; raises what it raises. Ctrl-C, SIGTERM and SIGHUP stop it; says how to go on."""
    num_cells, metric = len(work.plan.cells), work.plan.study.trainer.metrics.reporting
    progress = RunProgress(console, work.names, num_cells, num_cells - len(todo), expected.bounds, metric=metric)
    watch = Watch(progress.update, lambda text: console.print(text, style="yellow"))
    started = time.monotonic()
    with stopping(console, work), progress:
        found = train_work(work, todo, save, expected, watch=watch)
    if todo:
        console.print(f"{counted(len(todo), 'cell')} trained in {duration(time.monotonic() - started)}.")
    return found


@contextmanager
def stopping(console: Console, work: Work) -> Iterator[None]:
    """SIGTERM and a closed terminal stop the block as Ctrl-C does; says what is saved, and how to continue."""
    stop_on_signals()
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not was_interrupted(error):
            raise
        ended = sum(work.cells.result(cell.key) is not None for cell in work.plan.cells)
        say_stopped(console, f"{ended} of {counted(len(work.plan.cells), 'cell')} have ended and are saved")
        raise KeyboardInterrupt from error


def stop_on_signals() -> None:
    """From now on SIGTERM, and SIGHUP of a terminal that is closed, stop as Ctrl-C does; not under `nohup`."""
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)


def say_stopped(console: Console, what_is_saved: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        console.print(
            f"\nStopped. {what_is_saved}; the others continue from their last checkpoint.\n"
            "Run the same command to continue.",
            style="yellow",
        )


RETRY = "Run the same command with --retry-failed to train them again."
COUNTED = "They stay outcomes of their variants, and what is said counts them."


def explain_failures(console: Console, work: Work, what_to_do: str = RETRY) -> int:
    """Says which cells of the plan failed and what to do about it; gives their number."""
    failed = failed_cells(work)
    if failed:
        first, num_cells = failed[0], len(work.plan.cells)
        result, name = work.cells.result(first.key), work.names[first.key].replace(" seed ", ", seed ")
        assert result is not None
        console.print(
            f"{len(failed)} of {counted(num_cells, 'cell')} failed; {num_cells - len(failed)} are saved. {what_to_do} "
            f"First failure: cell {first.key} ({name}): {result.reason} "
            f"`harness logs {first.key}` shows more.",
            style="red",
            markup=False,
        )
    return len(failed)


def interrupt(number: int, frame: object) -> None:
    """A signal handler: stop as Ctrl-C does."""
    raise KeyboardInterrupt
