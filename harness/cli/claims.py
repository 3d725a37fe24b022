"""`harness claims`: every claim of the report, or of a study, recomputed."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.padding import Padding

from harness.claims import STATUSES, Claim, Finding, Value, check_claims
from harness.cli.as_json import print_json
from harness.cli.grid import Column, print_grid
from harness.cli.options import json_option, store_option
from harness.cli.screen import Screen
from harness.store.cells import Cells
from harness.texts import counted

STYLES = {"confirmed": "green", "corrected": "yellow", "not reproduced": "red", "not run": "dim"}


@click.command()
@click.option("--study", help="A study whose file has `claims:`; by default, the report of 2022.")
@click.option("--profile", help="Only runs of this profile of that study.")
@store_option
@json_option
def claims(study: str | None, profile: str | None, store: Path, as_json: bool) -> None:
    """Recompute claims: confirmed, corrected, not reproduced or not run, with the numbers of both sides.

    Of a study: each sentence or number that its file lists under `claims:`, by the latest run of it, with 95% intervals
    over seeds. Of the report of 2022: the arithmetic of Task 1, and printed numbers that contradict each other, are
    checked at once; what was measured is taken from the latest run of each of its studies by its protocol.
    """
    if profile and not study:
        raise click.UsageError("--profile is of a study: name it with --study.")
    run, checked = _of_study(study, store, profile) if study else ("", _of_report(store))
    if as_json:
        print_json({"run": run, "claims": [_as_json(claim, found) for claim, found in checked]})
        return
    console = Screen()
    if run:
        console.print(f"study run {run}")
    shown: dict[str, list[str]] = {
        "source": [it.source for it, _ in checked],
        "claim": [it.text for it, _ in checked],
        "report": [] if study else [_shown(it.check.printed) for it, _ in checked],
        "ours": [_measured(found) for _, found in checked],
        "": [found.status for _, found in checked],
    }
    shown = {heading: texts for heading, texts in shown.items() if any(texts)}
    print_grid(console, [Column(it, is_number=False) for it in shown], list(zip(*shown.values(), strict=True)))
    _explain(console, checked)
    counts = Counter(found.status for _, found in checked)
    told = [f"{counts[it]} {it}" for it in STATUSES if counts[it] or not study]
    console.print(f"{counted(len(checked), 'claim')}: {', '.join(told)}.")


def _of_study(study: str, store: Path, profile: str | None) -> tuple[str, list[tuple[Claim, Finding]]]:
    from harness.api.claiming import study_claims

    found = study_claims(study, store=store, profile=profile)
    return found.run, found.checked


def _of_report(store: Path) -> list[tuple[Claim, Finding]]:
    from harness.claims.report import report_claims
    from harness.claims.report.runs import ReportEvidence

    return check_claims(report_claims(), ReportEvidence(Cells(store.absolute())))


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
            named = ", ".join(filter(None, [claim.source, claim.text]))
            _print_below(console, f"{named}: {found.how}.".replace("..", "."))
    lacking = Counter(found.how for _, found in checked if found.status == "not run")
    if lacking:
        console.print("\nnot run", style="bold")
    for how, count in lacking.items():
        _print_below(console, f"{counted(count, 'claim')}: {how}")
    console.print()


def _print_below(console: Console, text: str) -> None:
    """Below a heading, set in; in a pipe on one line."""
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, 2)))
    else:
        console.print(f"  {text}", soft_wrap=True)


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
