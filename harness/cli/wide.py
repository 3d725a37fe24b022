"""Tables that are printed whole: a number that is cut off to fit the terminal is a wrong number."""

from rich.table import Table

from harness.cli.screen import Screen


def print_whole(table: Table) -> None:
    """Prints the table as wide as it needs to be, whatever the terminal's width."""
    unbounded = Screen(width=1_000_000)
    Screen(width=unbounded.measure(table).maximum).print(table)
