"""Lightning under a `harness.Run`: a callback that logs, saves and stops, and orders that an epoch number determines.

    lightning.Trainer(**trainer_options(run), callbacks=[HarnessCallback(run)], max_epochs=...).fit(
        module, DataLoader(data, sampler=EpochSampler(run, len(data))), ckpt_path=run.saved())

A training that was interrupted goes on from the last whole epoch. It makes the same numbers as one that was not: all
that an epoch draws comes from (seed, epoch), and Lightning restores weights, optimizer and schedules. Not seeded are
worker processes of a `DataLoader`; `harness try` says whether that matters.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch.utils.data import Sampler

from harness.trainers.run import Run, RunError


class HarnessCallback(Checkpoint):
    """At the end of each epoch: logs, saves, and asks whether to stop.

    What the module logs (`self.log("val/loss", ...)`) under a name that the study declares is logged, also as
    `val_loss`; the rest is Lightning's own. Validate in each epoch: what was not measured again is logged again as it
    was. It is a `Checkpoint`, so that Lightning runs it after the module's own hooks, and makes none of its own.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        metrics = declared(self.run, trainer.callback_metrics)
        if not metrics:
            logged = ", ".join(sorted(map(str, trainer.callback_metrics))) or "nothing"
            wanted = ", ".join(self.run.metrics.names)
            raise RunError(
                f"the module logged {logged} in this epoch, and the study declares {wanted}. "
                'Name one as the other, such as self.log("val/loss", ...) or self.log("val_loss", ...) for val/loss.'
            )
        self.run.log(trainer.global_step, epoch=trainer.current_epoch + 1, **metrics)
        with self.run.saving() as path:
            trainer.save_checkpoint(path)
        if self.run.should_stop:
            trainer.should_stop = True


class EpochSampler(Sampler[int]):
    """Each epoch in an order of its own, which the run's seed and the epoch's number determine; Lightning tells it the
    number, also when it goes on from a checkpoint.

    Where an epoch begins it seeds the global generators, too: Lightning calls no hook of a callback for that where it
    goes on from the end of an epoch, and the loader draws before the hooks of a batch.

    Args:
        count: of the data.
    """

    def __init__(self, run: Run, count: int) -> None:
        self.run, self.count, self.epoch = run, count, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        seed_all(self.run, "epoch", self.epoch)
        generator = torch.Generator().manual_seed(self.run.seed_for("order", self.epoch))
        return iter(torch.randperm(self.count, generator=generator).tolist())


def declared(run: Run, metrics: Any) -> dict[str, float]:
    """Those of Lightning's metrics that the study declares, as numbers: `val/loss`, or `val_loss` where that is not."""
    theirs = {name: name if name in metrics else name.replace("/", "_") for name in run.metrics.names}
    return {name: float(metrics[their]) for name, their in theirs.items() if their in metrics}


def seed_all(run: Run, *purpose: str | int) -> None:
    """Seeds Python's, numpy's and torch's global generators for one purpose: `seed_all(run, "weights")`."""
    seed = run.seed_for(*purpose)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def trainer_options(run: Run) -> dict[str, Any]:
    """For `lightning.Trainer`: the run's device, no logger, no bar, no files but the run's."""
    kind, _, index = run.device.partition(":")
    return {
        "accelerator": "cpu" if kind == "cpu" else kind,
        "devices": [int(index)] if index else 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": run.folder,
    }
