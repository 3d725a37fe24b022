"""Many cells: planning them, and reading their results, where nothing was trained.

The stores have real plans, keys and files; only the numbers are made up.
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.processes import Facts, Ready
from harness.plan.cell import Cell
from harness.plan.plan import Plan, make_plan
from harness.store.cells import Cells
from harness.store.result import Result, sealed
from harness.study.load import load_study

MANY_CELLS, MANY_RUNS = 20_000, 300
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
VALIDATIONS = 10  # in a journal


def plan_of(num_cells: int, data: str = "made up") -> Plan:
    """`task3`, every change and combination against the baseline, over as many seeds as it takes."""

    def planned(seeds: int) -> Plan:
        return make_plan(
            load_study("task3"),
            fingerprints=lambda settings: {"data": data},
            overrides={"training.precision": "float32"},
            seeds=tuple(range(seeds)),
        )

    return planned(math.ceil(num_cells / len(planned(1).variants)))


def make_plan_of(ready: Ready, num_cells: int) -> Facts:
    """Plans so many cells (up to a seed more), with every key and the manifest."""
    plan_of(1)  # imports and compiled validators are start-up, which is measured elsewhere
    ready()
    plan = plan_of(num_cells)
    found = len(plan.cells)
    plan.manifest()
    return {"cells": found}


def write_store(root: Path, num_cells: int, num_runs: int = 1) -> int:
    """A folder of ended cells, as the runner leaves it but for checkpoints and weights; gives how many.

    Args:
        num_runs: study runs, each on data of its own, that share the cells out.
    """
    cells, written = Cells(root), 0
    for number in range(num_runs):
        plan = plan_of((num_cells - written) // (num_runs - number), f"made up {number}")  # each to the seed
        for cell in plan.cells:
            _write_cell(cells.folder(cell.key), cell)
        cells.write_manifest(plan.manifest("harness ablate --study task3"))
        written += len(plan.cells)
    return written


def _write_cell(folder: Path, cell: Cell) -> None:
    folder.mkdir(parents=True)
    result = _result(cell)
    events = [{"event": "started", "step": 0}, *_validations(cell, result), {"event": "ended", **result.to_json()}]
    times = ((BEGAN + timedelta(seconds=10 * number)).isoformat(timespec="milliseconds") for number in count())
    lines = [json.dumps({"time": time, **event}) + "\n" for time, event in zip(times, events, strict=False)]
    (folder / "spec.json").write_text(json.dumps(cell.to_json(), indent=1))
    (folder / "journal.jsonl").write_text("".join(lines))
    (folder / "result.json").write_text(json.dumps(sealed(result), indent=1))


def _validations(cell: Cell, result: Result) -> Iterator[dict[str, Any]]:
    logged = {name: value for name, value in result.metrics.items() if not name.startswith("test/")}
    for number in range(1, VALIDATIONS + 1):
        step = result.num_steps * number // VALIDATIONS
        yield {"event": "validation", "step": step, "epoch": number / 2, "metrics": logged, "seconds": 12.0 * number}


def _result(cell: Cell) -> Result:
    accuracy = 0.7 + int(cell.key, 16) % 1000 / 10_000
    return Result(
        key=cell.key,
        seed=cell.seed,
        status="finished",
        metrics={name: accuracy if name.endswith("accuracy") else 1.0 for name in cell.trainer.metrics.names},
        facts={
            "best_step": 4_000,
            "best_epoch": 6.0,
            "num_epochs": 7.5,
            "parameters": 390_410,
            "precision": "float32",
            "threads": 1,
            "data_fingerprint": "made up",
        },
        num_steps=5_000,
        seconds=120.0,
        peak_memory_bytes=10**9,
        device="cpu: made up",
        versions="torch",
        finished_at="2026-01-01T00:00:00.000+00:00",
    )
