"""The small space of `searched`, seen in a mirror: a number without a unit, of which less is better."""

import time
from typing import Any

import searched

from harness.metrics import Metric, Metrics
from harness.trainers.images.settings import Settings
from harness.trainers.run import Run

METRICS = Metrics(
    (Metric.declared("dev/nll", "minimize"), Metric.declared("held_out/nll", "minimize")),
    select="dev/nll",
    report="held_out/nll",
)
REPORTED = 9.876  # of every cell: nobody must see it before the confirmation


def nll(settings: Settings, seed: int) -> float:
    return 2 - searched.accuracy(settings, seed)


class Trainer(searched.Trainer):
    metrics = METRICS

    def train(self, run: Run) -> None:
        self.note_call(run)
        value = nll(run.settings, run.seed)
        run.log(10, **{"dev/nll": value})
        run.finish(**{"dev/nll": value, "held_out/nll": REPORTED})


class ByEpochs(Trainer):
    """18 validations, two an epoch, falling from 2 to where the mirror image of the accuracy is."""

    def validations_per_epoch(self, settings: Any) -> int:
        return 2

    def train(self, run: Run) -> None:
        value = searched.accuracy(run.settings, run.seed)
        for step in range(1, 19):
            time.sleep(0.002)
            run.log(step, epoch=step / 2, **{"dev/nll": 2 - value * step / 18})
        run.finish(**{"held_out/nll": REPORTED})
