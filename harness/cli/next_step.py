"""The last line of a command: the next sensible one, as it can be typed. In a terminal only: a pipe gets results."""

import shlex
import sys

from rich.console import Console
from rich.text import Text


def say_next(console: Console, command: str, why: str, *more: str, same_options: bool = True) -> None:
    """`Next: harness ablate --study task3 (trains them)`.

    Args:
        same_options: with what this command was given behind its own name; else with `more` alone.
    """
    if not console.is_terminal:
        return
    given = sys.argv[2:] if same_options else []
    line = shlex.join(["harness", command, *given, *more])
    console.print(Text(f"Next: {line}  ({why})", style="dim"), soft_wrap=True)
