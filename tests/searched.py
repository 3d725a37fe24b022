"""A small space of combinations with known accuracies, and trainers that obey them; workers import them by name."""

import os
import time
from collections.abc import Mapping
from typing import Any

import fakes

from harness.errors import DivergedError
from harness.plan.plan import Plan, make_plan
from harness.store.cells import Cells
from harness.study.load import make_study
from harness.trainers.images.settings import Settings
from harness.trainers.registry import trainer_class
from harness.trainers.run import Run

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


def plan_of(
    *, seeds: int = 2, only: tuple[str, ...] = (), study: Mapping[str, Any] = STUDY, trainer: str = "Trainer"
) -> Plan:
    """Args: trainer: a class of this module, by name."""
    return make_plan(
        make_study({**study, "trainer": {"class": f"searched:{trainer}"}}),
        fingerprints=lambda settings: {"data": settings.data.kind},
        overrides={"training.precision": "float32"},
        designs=["add-one", "combinations"],
        seeds=range(seeds),
        only=only,
    )


def with_trainer(plan: Plan, trainer: str) -> Plan:
    """The same plan, to be trained by another class of this module."""
    found = trainer_class(f"searched:{trainer}")()
    return make_plan(
        plan.study.model_copy(update={"trainer": found}),
        fingerprints=lambda settings: {"data": settings.data.kind},
        overrides={"training.precision": "float32"},
        designs=["add-one", "combinations"],
        seeds=plan.seeds,
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


class Trainer(fakes.FakeTrainer):
    """At once; notes each call in the folder."""

    def train(self, run: Run) -> None:
        self.note_call(run)
        value = accuracy(run.settings, run.seed)
        run.log(10, epoch=1.0, **{**fakes.LOGGED, "val/accuracy": value})
        self.finish(run, value)

    def note_call(self, run: Run) -> None:
        with (run.folder / "calls").open("a") as calls:
            calls.write(f"{os.getpid()}\n")

    def finish(self, run: Run, value: float) -> None:
        run.note(best_step=20, best_epoch=2.0, parameters=1000)
        run.finish(**{**fakes.FINAL, "test/accuracy": value - 0.01, "val/accuracy": value})


class Slow(Trainer):
    def train(self, run: Run) -> None:
        time.sleep(0.1)
        super().train(run)


class WhenTold(Trainer):
    """Not before the store holds a file `go`."""

    def train(self, run: Run) -> None:
        while not (run.folder.parents[1] / "go").exists():
            time.sleep(0.02)
        super().train(run)


class ByEpochs(Trainer):
    """18 validations in 9 epochs, from the one after the last that the folder notes; far below the end at first."""

    def train(self, run: Run) -> None:
        noted = run.folder / "steps"
        saved = run.saved()
        done = int(saved.read_text()) if saved else 0
        value = accuracy(run.settings, run.seed)
        for step in range(done + 1, 19):
            time.sleep(0.005)
            with noted.open("a") as steps:
                steps.write(f"{step}\n")
            with run.saving() as path:  # first: in this process a stop comes out of `run.log`
                path.write_text(str(step))
            run.log(step, epoch=step / 2, **{**fakes.LOGGED, "val/accuracy": value * step / 18})
        self.finish(run, value)


class WithoutAdam(Trainer):
    def train(self, run: Run) -> None:
        if run.settings.optimizer.name == "adam" and run.seed == 1:
            raise DivergedError("loss is not finite at epoch 4")
        super().train(run)


def num_calls(cells: Cells) -> dict[str, int]:
    """How often each cell was trained, by key."""
    files = sorted((cells.root / "cells").glob("*/calls"))
    return {file.parent.name: len(file.read_text().splitlines()) for file in files}
