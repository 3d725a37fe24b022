"""Live progress of a run: a table that redraws itself in a terminal, one plain line per ended cell elsewhere."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.execution.runner import Progress
from harness.metrics import Metric
from harness.plan.cell import Cell
from harness.store.result import Result, Validation

LONGEST_BAR = 60  # characters


@dataclass
class RunProgress:
    """Pass `update` to `run`. Use as a context manager: the live table is taken down at the end.

    Args:
        names: cell key -> "variant seed 3".
        num_done: cells that had ended before.
        expected: wall time that the cells left should take, in seconds, from at least to at most; corrected as cells
            end.
        metric: which one to show; a search must not look at what is reported in the end.
    """

    console: Console
    names: Mapping[str, str]
    num_cells: int
    num_done: int
    expected: tuple[float, float]
    metric: Metric
    _running: dict[str, tuple[Cell, str, float]] = field(default_factory=dict)
    _failed: int = 0
    _ended_here: int = 0
    _started: float = field(default_factory=time.monotonic)
    _live: Live | None = None

    def __enter__(self) -> "RunProgress":
        if self.console.is_terminal and self.num_done < self.num_cells:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        cell, name = progress.cell, self.names.get(progress.cell.key, progress.cell.key)
        if progress.kind == "event":
            started = self._running.get(cell.key, (cell, "", time.monotonic()))[2]
            self._running[cell.key] = (cell, _position(progress), started)
        elif progress.kind == "elsewhere":
            self._running.pop(cell.key, None)
        elif progress.result is not None:
            self._running.pop(cell.key, None)
            self._ended_here += 1
            self._failed += not progress.result.is_finished
            count = f"[{self.num_done + self._ended_here}/{self.num_cells}]"
            ended = outcome(f"{count} {name}", progress.result, self.metric)
            self.console.print(ended)

    def _render(self) -> RenderableType:
        done = self.num_done + self._ended_here
        rows = Table.grid(padding=(0, 2))
        for key, (_, position, started) in self._running.items():
            rows.add_row("  ", self.names.get(key, key), position, f"{time.monotonic() - started:.0f} s")
        failed = f", [red]{self._failed} failed[/red]" if self._failed else ""
        head = Text.from_markup(f"{done} of {self.num_cells} cells{failed}; {self._left()}")
        width = min(LONGEST_BAR, self.console.width)
        whole = Table.grid()  # a row each: a bar alone ends no line
        for row in (ProgressBar(total=self.num_cells, completed=done, width=width), head, rows):
            whole.add_row(row)
        return whole

    def _left(self) -> str:
        """The time left, in words."""
        spent = time.monotonic() - self._started
        if self._ended_here < 2:
            least, most = (max(seconds - spent, 0.0) for seconds in self.expected)
            return f"{duration_range(least, most)} left" if most else "longer than expected"
        seconds = spent / self._ended_here * (self.num_cells - self.num_done - self._ended_here)
        off_by = 1 + 1 / math.sqrt(self._ended_here)
        return f"{duration_range(seconds / off_by, seconds * off_by)} left"


def outcome(name: str, result: Result, metric: Metric) -> Text:
    """A cell that has ended, in a line."""
    if result.is_finished:
        return Text(f"{name}: {metric.words} {metric.say(result.metrics[metric.name])}, {result.seconds:.1f} s")
    return Text(f"{name}: {result.status}: {result.reason}", style="red")


def _position(progress: Progress) -> str:
    event = progress.event
    match event["event"]:
        case "validation":
            return _logged(progress.cell, Validation.from_event(event))
        case "resumed":
            return f"continues at step {event['step']}"
        case "restarted":
            return "starts again"
        case _:
            return "training"


def _logged(cell: Cell, logged: Validation) -> str:
    """`epoch 2.5/10  validation loss 0.8123 nats`; the step where no epochs are counted."""
    selecting = cell.trainer.metrics.selecting
    most = cell.trainer.max_epochs(cell.settings)
    where = f"step {logged.step}" if math.isnan(logged.epoch) else f"epoch {logged.epoch:.1f}"
    where += f"/{most:g}" if most and not math.isnan(logged.epoch) else ""
    value = logged.metrics.get(selecting.name)
    return where if value is None else f"{where}  {selecting.words} {selecting.say(value)}"


def duration(seconds: float) -> str:
    """`95 s`, `12 min`, `3.4 h`: two digits are all that an estimate has."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def duration_range(least: float, most: float) -> str:
    """`20 to 90 s`, `3 to 12 min`, `1.5 to 3.4 h`: both ends in the unit of the larger one."""
    whole = duration(most)
    number, _, unit = whole.partition(" ")
    low = least / {"s": 1, "min": 60, "h": 3600}[unit]
    text = f"{low:.1f}" if unit == "h" else f"{low:.0f}"
    return whole if text == number else f"{text} to {whole}"


def size(num_bytes: float) -> str:
    """`56 kB`, `12 MB`, `3.4 GB`."""
    if 0 < num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} kB"
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
