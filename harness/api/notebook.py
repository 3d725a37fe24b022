"""Progress of a training that a notebook started: a bar below the cell, brought up to date. The terminal has its own.

Nothing of IPython is imported: where there is a notebook, it is there.
"""

import html
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.execution.executor import Progress
from harness.texts import counted

SECONDS_BETWEEN = 0.2  # two drawings: a browser draws no more than it must


def notebook_bar(title: str, total: int) -> "Bar | None":
    """A bar for so many cells; None where nothing is to be trained, or this is no notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    is_notebook = type(shell).__name__ == "ZMQInteractiveShell"  # a kernel; IPython in a terminal is another one
    return Bar(title, total, ipython.display.display) if is_notebook and total else None


@dataclass
class Bar:
    """Call `see` with each thing that happens, and `say` with sentences."""

    title: str
    total: int
    display: Callable[..., Any]
    _ended: int = 0
    _without_number: int = 0
    _said: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _drawn: float = 0.0
    _handle: Any = None

    def see(self, progress: Progress) -> None:
        if progress.result is None:
            return
        self._ended += 1
        self._without_number += not progress.result.is_finished
        if self._ended >= self.total or time.monotonic() - self._drawn >= SECONDS_BETWEEN:
            self._draw()

    def say(self, sentence: str) -> None:
        self._said.append(sentence)
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        shown = {"text/html": self._html(), "text/plain": self._text()}
        if self._handle is None:
            self._handle = self.display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def _text(self) -> str:
        failed = f", {self._without_number} without a number" if self._without_number else ""
        seconds = f"{self._drawn - self._began:.0f} s"
        return "\n".join(
            [f"{self.title}: {self._ended} of {counted(self.total, 'cell')}{failed}, {seconds}", *self._said]
        )

    def _html(self) -> str:
        first, *said = map(html.escape, self._text().splitlines())
        bar = f'<progress value="{self._ended}" max="{self.total}"></progress> {first}'
        return "<br>".join([bar, *said])
