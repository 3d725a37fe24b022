"""Hand-made results tables for the tests of the statistics; no test lives here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.plan.manifest import Manifest
from harness.store.result import RESULT_COLUMNS
from harness.trainers.images.trainer import METRICS, ImageTrainer

# What a cell that differs in nothing but its variant and seed says.
PLAIN: dict[str, Any] = {
    "study": "toy",
    "status": "finished",
    "reason": "",
    "best_step": 100,
    "best_epoch": 1.0,
    "num_steps": 200,
    "num_epochs": 2.0,
    "seconds": 60.0,
    "parameters": 1000,
    "peak_memory_bytes": 5_000_000,
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
    "versions": "torch 2.15.0",
    "commit": "abc1234",
    "dirty": False,
    "data_fingerprint": "f00d",
    "finished_at": "2026-11-23T12:00:00Z",
}


def make_table(
    accuracies: Mapping[str, Mapping[int, float | str] | Sequence[float | str]],
    changes: Mapping[str, str] | None = None,
    **columns: Any,
) -> pd.DataFrame:
    """A results table from variant -> (seed -> test accuracy, or the status of a cell without one).

    A sequence stands for seeds 0, 1, ... A variant has the changes given, else its name; the baseline has none.
    Validation accuracy is 0.01 higher, losses are 1 minus the accuracies. `columns` overrides what PLAIN says.
    """
    rows = []
    for variant, cells in accuracies.items():
        numbered = cells if isinstance(cells, Mapping) else dict(enumerate(cells))
        held = (changes or {}).get(variant, "" if variant == "baseline" else variant)
        for seed, cell in numbered.items():
            row = {"variant": variant, "changes": held, "key": f"{variant}/{seed}", "seed": seed, **PLAIN, **columns}
            if isinstance(cell, str):
                row |= {"status": cell, "seconds": 5.0, "parameters": None, "peak_memory_bytes": None}
                accuracy = np.nan
            else:
                accuracy = cell
            row |= {"test/accuracy": accuracy, "val/accuracy": accuracy + 0.01, "train/accuracy": accuracy + 0.05}
            row |= {"test/loss": 1 - accuracy, "val/loss": 0.99 - accuracy, "train/loss": 0.95 - accuracy}
            rows.append(row)
    frame = pd.DataFrame(rows)
    facts = [name for name in PLAIN if name not in RESULT_COLUMNS]
    frame = frame[[*RESULT_COLUMNS, *METRICS.names, *facts]]
    frame.attrs["manifest"] = TOY
    return frame


# The study run of every such table: it says what the metrics are, those of images.
TOY = Manifest(
    id="toy-standard-0",
    study="toy",
    title="A toy",
    profile="standard",
    exploratory=False,
    metrics=METRICS,
    trainer=ImageTrainer().to_json(),
    fingerprints={},
    baseline={},
    variants=(),
    comparisons=(),
)


def noisy(mean: float, n: int, seed: int, sd: float = 0.004) -> list[float]:
    """n accuracies around a mean, of 10,000 images."""
    draws = np.random.default_rng(seed).normal(mean, sd, n)
    return [float(x) for x in np.round(draws, 4)]
