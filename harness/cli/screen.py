"""The console that commands print on: texts are shown as they are, whatever they spell.

Brackets in a title are no styles, and no text of a study or of a failed cell drives the terminal.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from harness.texts import UNPRINTABLE


class Screen(Console):
    """rich's console, without markup and highlighting unless asked for; `t:train:` is no picture of a train."""

    def __init__(self, *, highlight: bool = False, markup: bool = False, **settings: Any) -> None:
        super().__init__(highlight=highlight, markup=markup, emoji=False, **settings)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **settings: Any) -> None:
        """As rich's, but a sentence is broken in a window alone; in a pipe it is one line."""
        if soft_wrap is None:
            soft_wrap = not self.is_terminal and all(isinstance(it, str | Text) for it in objects)
        super().print(*objects, soft_wrap=soft_wrap, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=UNPRINTABLE.sub("?", segment.text))
