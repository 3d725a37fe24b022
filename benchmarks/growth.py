"""Many cells: planning them, and reading their results, where nothing was trained.

The stores have real plans, keys and files; only the numbers are made up.
"""

import json
import math
from pathlib import Path

from benchmarks.processes import Facts, Ready
from harness.plan.cell import Cell
from harness.plan.plan import Plan, make_plan
from harness.store.cells import Cells
from harness.store.result import Result
from harness.study.load import load_study


def plan_of(num_cells: int) -> Plan:
    """`task3`, every change and combination against the baseline, over as many seeds as it takes."""

    def planned(seeds: int) -> Plan:
        return make_plan(
            load_study("task3"),
            fingerprints=lambda settings: {"data": "made up"},
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


def write_store(root: Path, num_cells: int) -> None:
    """A folder of ended cells, as the runner leaves it but for checkpoints and weights."""
    cells, plan = Cells(root), plan_of(num_cells)
    for cell in plan.cells:
        folder = cells.folder(cell.key)
        folder.mkdir(parents=True)
        result = json.dumps(_result(cell).to_json(), indent=1)
        (folder / "spec.json").write_text(json.dumps(cell.to_json(), indent=1))
        (folder / "journal.jsonl").write_text(json.dumps({"event": "started", "step": 0}) + "\n")
        (folder / "result.json").write_text(result)
    cells.write_manifest(plan.manifest("harness ablate --study task3"))


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
