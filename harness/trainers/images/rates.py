"""Learning rates and shares of averages as functions of the optimizer step; pure arithmetic, without torch.

Steps count from 0 over all epochs: step s is the one that makes the weights of s + 1 steps.
"""

import math
from dataclasses import dataclass

from harness.trainers.images.settings import Optimizer

# Of one-cycle, as torch's OneCycleLR: the share of steps on the way up, and what the highest rate is divided by at the
# start and once more at the end.
RISING, START_DIVISOR, END_DIVISOR = 0.3, 25.0, 1e4


@dataclass(frozen=True)
class Rates:
    """The learning rate of each step.

    Attributes:
        kind: `constant`, `cosine` or `one-cycle`.
        highest: learning rate.
        num_steps: of the whole training, whether it is stopped before or not.
        warmup_steps: linear growth from highest / warmup_steps; need not be whole.
    """

    kind: str
    highest: float
    num_steps: int
    warmup_steps: float

    @property
    def is_constant(self) -> bool:
        return self.kind == "constant" and not self.warmup_steps

    def at(self, step: int) -> float:
        if self.kind == "one-cycle":
            return self._one_cycle(step)
        if step + 1 < self.warmup_steps:
            return self.highest * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.highest
        progress = max(0.0, step - self.warmup_steps) / (self.num_steps - self.warmup_steps)
        return _cosine(self.highest, 0.0, progress)

    def _one_cycle(self, step: int) -> float:
        start, end = self.highest / START_DIVISOR, self.highest / START_DIVISOR / END_DIVISOR
        top, last = max(0.0, RISING * self.num_steps - 1), max(1, self.num_steps - 1)
        if step < top:
            return _cosine(start, self.highest, step / top)
        return _cosine(self.highest, end, (step - top) / (last - top) if last > top else 0.0)


def make_rates(optimizer: Optimizer, *, steps_per_epoch: int, max_epochs: int) -> Rates:
    return Rates(
        kind=optimizer.schedule,
        highest=optimizer.learning_rate,
        num_steps=max_epochs * steps_per_epoch,
        warmup_steps=optimizer.warmup_epochs * steps_per_epoch,
    )


def kept_share(decay: float, step: int) -> float:
    """Of an exponential moving average, in this step: the first ones keep less, so that it soon forgets the start."""
    return min(decay, (1 + step) / (10 + step))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
