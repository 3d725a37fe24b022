"""What a report says beside tables and figures: what to beware of, how it was measured, and where it comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.report.tables import Tables, rows_of
from harness.report.units import format_seconds
from harness.stats.overview import comparability_problems
from harness.stats.sentences import report_line
from harness.stats.wording import describe_cells, describe_seeds
from harness.trainers.images.settings import flatten


def warnings(tables: Tables) -> list[str]:
    """What the reader must know before any number: smallness, missing cells, mixed conditions; a sentence each."""
    found = []
    manifest = tables.manifest
    if manifest["exploratory"]:
        found.append(
            f"Exploratory: the profile {manifest['profile']!r} is too small for conclusions. It shows what to run in "
            "full, not what to claim."
        )
    found += _missing(tables.variants)
    found += comparability_problems(tables.results)
    found += [f"{note[:1].upper()}{note[1:]}" for note in manifest["notes"]]
    return found


def _missing(variants: pd.DataFrame) -> list[str]:
    rows = [row for row in rows_of(variants) if row.n_ok < row.n]
    if not rows:
        return []
    num_missing = sum(row.n - row.n_ok for row in rows)
    names = describe_cells([f"{row.variant} ({row.outcomes})" for row in rows], limit=8)
    return [
        f"{num_missing} of {sum(variants['n'])} cells have no number: {names}. Effects use complete pairs only and say "
        "so; a cell that a change made fail is an outcome of that change."
    ]


def deviations(tables: Tables) -> str:
    """In which settings this run's baseline differs from the study's as declared; empty where in none."""
    used = flatten(tables.manifest["baseline"])
    declared = flatten(tables.manifest.get("declared", tables.manifest["baseline"]))
    names = [name for name in {**declared, **used} if name != "training.precision"]
    differing = [name for name in names if declared.get(name) != used.get(name)]
    return "; ".join(f"{name} {_said(used, name)} instead of {_said(declared, name)}" for name in differing)


def _said(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name, "none")
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def methods(tables: Tables) -> str:
    """The paragraph to paste: the biggest improvement (or the first effect) with everything that rule 12 asks for."""
    family = tables.main_family
    if family is None:
        return ""
    change = tables.headline.variant or str(family.effects["variant"].iloc[0])
    return report_line(family.effects, change, tables.results, unit="points")


def provenance(tables: Tables) -> list[tuple[str, str]]:
    """Where the numbers come from, as (name, value); everything that differs between cells is listed."""
    results, manifest = tables.results, tables.manifest
    cells = results.drop_duplicates("key")
    finished = cells[cells["status"] == "finished"]
    commits = finished["commit"].astype(str).str.slice(0, 12).replace("", "none")
    commits = commits + finished["dirty"].map({True: " with uncommitted edits", False: ""}).astype(str)
    rows = [
        ("study run", f"{manifest['id']} (profile {manifest['profile']})"),
        ("command", manifest["command"]),
        ("cells", f"{len(finished)} of {len(cells)} finished"),
        ("seeds", describe_seeds(sorted(results["seed"].unique()))),
        ("cost", f"{format_seconds(float(cells['seconds'].sum()))} of training"),
        ("device", _listed(finished["device"])),
        ("precision, threads", _listed(finished["precision"] + ", " + finished["threads"].astype(str))),
        ("versions", _listed(finished["versions"])),
        ("commit", _listed(commits)),
        ("data fingerprint", _listed(finished["data_fingerprint"])),
        ("last cell finished", max(finished["finished_at"], default="")),
    ]
    if differing := deviations(tables):
        rows.append(("differs from the study as declared", differing))
    return [(name, value or "none recorded") for name, value in rows]


def _listed(column: "pd.Series[str]") -> str:
    values: Sequence[str] = sorted(column.astype(str).unique())
    return " | ".join(value or "not recorded" for value in values)
