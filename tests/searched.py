"""A small space of combinations with known accuracies, and trainers that obey them; workers import them by name."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fakes

from harness.plan.cell import Cell
from harness.plan.plan import Plan, make_plan
from harness.store.cells import Cells
from harness.store.result import Result
from harness.study.study import Study
from harness.trainers.images.settings import Settings

# A group, two changes of one setting (flip, augment), and two whose values clash (momentum, adam).
STUDY = {
    "name": "small",
    "title": "A small study",
    "baseline": {"data": {"kind": "shapes"}, "training": {"precision": "auto", "max_epochs": 9}},
    "changes": [
        {"name": "momentum", "summary": "momentum 0.9", "overrides": {"optimizer.momentum": 0.9}},
        {"name": "adam", "summary": "Adam", "overrides": {"optimizer.name": "adam"}},
        {"name": "norm", "summary": "batch normalization", "overrides": {"model.batch_norm": True}},
        {"name": "kernel-3", "summary": "3x3", "group": "kernel", "overrides": {"model.kernel_size": 3}},
        {"name": "kernel-7", "summary": "7x7", "group": "kernel", "overrides": {"model.kernel_size": 7}},
        {"name": "flip", "summary": "flips", "overrides": {"augmentation.horizontal_flip": 0.5}},
        {
            "name": "crop",
            "summary": "crops",
            "overrides": {"augmentation": {"horizontal_flip": 0.5, "crop_padding": 4}},
        },
    ],
    "combinations": [{"name": "all-good", "summary": "the best of all", "changes": ["norm", "adam", "flip"]}],
    "profiles": {"standard": {"seeds": 2}},
}
POSSIBLE = (
    54  # of 2 * 2 * 2 * 3 * 2 * 2 = 96, three quarters without momentum + adam, of them three without flip + crop
)


def plan_of(*, seeds: int = 2, only: tuple[str, ...] = (), study: Mapping[str, Any] = STUDY) -> Plan:
    return make_plan(
        Study.model_validate(study),
        fingerprints=lambda settings: {"data": settings.data.kind},
        precision="float32",
        designs=["add-one", "combinations"],
        seeds=range(seeds),
        only=only,
    )


def accuracy(settings: Settings, seed: int) -> float:
    """Norm helps most alone; beside Adam, with which it stands in the best combination, neither helps much, and flips
    are worth more than either."""
    model, optimizer, augmentation = settings.model, settings.optimizer, settings.augmentation
    norm, adam = bool(model.batch_norm), optimizer.name == "adam"  # type: ignore[union-attr]
    value = 0.5 + 0.1 * norm + 0.09 * adam - 0.08 * (norm and adam)
    value += {3: -0.02, 5: 0.0, 7: 0.01}[model.kernel_size]  # type: ignore[union-attr]
    value += 0.03 * (augmentation.horizontal_flip > 0) - 0.05 * (augmentation.crop_padding > 0)
    value += 0.005 * bool(optimizer.momentum)
    noise = hash((seed, norm, adam, model.kernel_size, augmentation.horizontal_flip)) % 100  # type: ignore[union-attr]
    return value + 0.01 * seed + noise / 1e5  # the same seed, the same luck; noise far below every effect


def train(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    """At once; notes each call in the folder."""
    with (folder / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\n")
    on_event({"event": "started", "step": 0})
    value = accuracy(cell.settings, cell.seed)
    on_event(fakes.epoch(10) | {"val_accuracy": value})
    return fakes.result_of(cell, value - 0.01, val_accuracy=value)


def train_slowly(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    time.sleep(0.1)
    return train(cell, folder, device=device, on_event=on_event)


def train_when_told(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    """Not before the store holds a file `go`."""
    while not (folder.parents[1] / "go").exists():
        time.sleep(0.02)
    return train(cell, folder, device=device, on_event=on_event)


def train_by_epochs(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    """18 validations in 9 epochs, from the one after the last that the folder notes; far below the end at first."""
    noted = folder / "steps"
    done = len(noted.read_text().splitlines()) if noted.exists() else 0
    on_event({"event": "resumed" if done else "started", "step": done})
    value = accuracy(cell.settings, cell.seed)
    for step in range(done + 1, 19):
        time.sleep(0.005)
        with noted.open("a") as steps:
            steps.write(f"{step}\n")
        on_event(fakes.epoch(step) | {"epoch": step / 2, "val_accuracy": value * step / 18})
    return fakes.result_of(cell, value - 0.01, val_accuracy=value)


def train_without_adam(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    if cell.settings.optimizer.name == "adam" and cell.seed == 1:
        return Result(key=cell.key, seed=1, status="diverged", reason="loss is not finite at epoch 4")
    return train(cell, folder, device=device, on_event=on_event)


def num_calls(cells: Cells) -> dict[str, int]:
    """How often each cell was trained, by key."""
    files = sorted((cells.root / "cells").glob("*/calls"))
    return {file.parent.name: len(file.read_text().splitlines()) for file in files}
