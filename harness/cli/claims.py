"""`harness claims`: every claim of the report, recomputed."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from harness.claims import STATUSES, Claim, Evidence, Finding, Value, check_claims
from harness.claims.report import report_claims
from harness.cli.grid import Column, print_grid
from harness.cli.options import json_option, store_option
from harness.cli.screen import Screen
from harness.store.cells import Cells

STYLES = {"confirmed": "green", "corrected": "yellow", "not reproduced": "red", "not run": "dim"}


@click.command()
@store_option
@json_option
def claims(store: Path, as_json: bool) -> None:
    """Recompute the report's claims: confirmed, corrected, not reproduced or not run, with the numbers of both sides.

    The arithmetic of Task 1, and printed numbers that contradict each other, are checked at once. What was measured is
    taken from the store: the latest run of each study by the report's protocol, with 95% intervals over seeds.
    """
    checked = check_claims(report_claims(), Evidence(Cells(store.absolute())))
    if as_json:
        click.echo(json.dumps([_as_json(claim, found) for claim, found in checked], indent=1))
        return
    console = Screen()
    columns = [Column(it, is_number=False) for it in ("source", "claim", "report", "ours", "")]
    rows = [(it.source, it.text, _shown(it.check.printed), _measured(found), found.status) for it, found in checked]
    print_grid(console, columns, rows)
    _explain(console, checked)
    counts = Counter(found.status for _, found in checked)
    console.print(f"{len(checked)} claims: " + ", ".join(f"{counts[status]} {status}" for status in STATUSES) + ".")


def _as_json(claim: Claim, found: Finding) -> dict[str, object]:
    about = {"name": claim.name, "source": claim.source, "text": claim.text}
    return about | {"status": found.status, "printed": claim.check.printed} | asdict(found)


def _explain(console: Console, checked: list[tuple[Claim, Finding]]) -> None:
    """How each verdict that differs from the report came about; what was not run, by what it lacks."""
    for status in ("corrected", "not reproduced"):
        differing = [(claim, found) for claim, found in checked if found.status == status]
        if differing:
            console.print(f"\n{status}", style=f"bold {STYLES[status]}")
        for claim, found in differing:
            console.print(
                f"  {claim.source}, {claim.text}: {found.how}.".replace("..", "."), soft_wrap=not console.is_terminal
            )
    lacking = Counter(found.how for _, found in checked if found.status == "not run")
    if lacking:
        console.print("\nnot run", style="bold")
    for how, count in lacking.items():
        console.print(f"  {count} claim{'s' if count > 1 else ''}: {how}", soft_wrap=not console.is_terminal)
    console.print()


def _measured(found: Finding) -> str:
    text = _shown(found.ours)
    if found.low is not None and found.high is not None:
        text += f" [{found.low:.4f}, {found.high:.4f}]"
    return f"{text}, n={found.n}" if found.n is not None else text


def _shown(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
