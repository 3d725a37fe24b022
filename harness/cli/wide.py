"""Tables that are printed whole: a number that is cut off to fit the terminal is a wrong number."""

from rich.console import Console
from rich.table import Table


def print_whole(table: Table) -> None:
    """Prints the table as wide as it needs to be, whatever the terminal's width."""
    unbounded = Console(width=1_000_000)
    Console(width=unbounded.measure(table).maximum, highlight=False).print(table)
