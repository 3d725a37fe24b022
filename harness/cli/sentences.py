"""What commands print that is no table: texts as they are, and sentences that fit a window."""

import shutil
import sys
import textwrap

import click

from harness.texts import printable


def say(text: str) -> None:
    """Prints a text as it is on standard output, with what would drive a terminal written as codes."""
    click.echo(printable(text.replace("\r", "\n")))


def tell(text: str, *, err: bool = False) -> None:
    """Prints sentences: as `say`, but in a window each line is broken between words."""
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else None
    for line in printable(text.replace("\r", "\n")).splitlines():
        click.echo("\n".join(wrapped(line, width)), err=err)


def wrapped(line: str, width: int | None) -> list[str]:
    """The line in pieces of this width, broken at spaces alone; a path longer than that stays whole, to be copied."""
    if width is None or len(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
