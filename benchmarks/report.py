"""What was measured, as a table for people and as one JSON file."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.sample import Described, Line


@dataclass(frozen=True)
class Figure:
    """One figure, measured: its lines, and what each contender's number means."""

    name: str
    title: str
    lines: Sequence[Line]
    contenders: Sequence[Described]
    samples: Mapping[str, Sequence[Any]]

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "lines": [line.to_json() for line in self.lines],
            "contenders": {
                it.name: {
                    "meaning": it.meaning,
                    "rounds": [{"value": sample.value, **sample.facts} for sample in self.samples[it.name]],
                }
                for it in self.contenders
            },
        }


def print_figure(console: Console, figure: Figure) -> None:
    table = Table(title=figure.title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("what", overflow="fold")
    for column in ("median", "min", "max", "rounds", "aim"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    for line in figure.lines:
        numbers = (line.middle, min(line.values), max(line.values))
        table.add_row(line.name, *map(_number, numbers), str(len(line.values)), _verdict(line), line.unit)
    console.print(table)
    for contender in figure.contenders:
        console.print(f"  {contender.name}: {contender.meaning}", style="dim")
    console.print()


def save(path: Path, machine: Mapping[str, Any], arguments: Mapping[str, Any], figures: Sequence[Figure]) -> None:
    """Writes what was measured so far; called after each figure, so that an interruption loses one figure only."""
    content = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dict(machine),
        "arguments": dict(arguments),
        "figures": {figure.name: figure.to_json() for figure in figures},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def results_path(folder: Path, device_name: str) -> Path:
    """`<date>-<device>.json`; a second run of a day is numbered, nothing is overwritten."""
    return unused(folder, f"{datetime.now(UTC):%Y-%m-%d}-{slug(device_name)}")


def unused(folder: Path, name: str) -> Path:
    """`name.json`, or the first of `name-2.json`, `name-3.json`, ... that does not exist."""
    path, count = folder / f"{name}.json", 1
    while path.exists():
        count += 1
        path = folder / f"{name}-{count}.json"
    return path


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 3
    return f"{value:,.{digits}f}"


def _verdict(line: Line) -> str:
    if line.aim is None:
        return ""
    return f"{line.aim} {'met' if line.aim.is_met(line.middle) else 'MISSED'}"
