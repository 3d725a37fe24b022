"""When a cell validates and when it ends, in optimizer steps; pure arithmetic, without torch."""

from dataclasses import dataclass

from harness.errors import StudyError
from harness.trainers.images.settings import Training


@dataclass(frozen=True)
class Schedule:
    """When to validate and when to end, in optimizer steps.

    Attributes:
        interval: a validation every so many steps, counted over epochs.
        last_step: the last validation within `max_epochs`; steps after it could change no number, so none are made.
        patience: stop when, of the last `patience` validation losses, the oldest is the smallest.
    """

    steps_per_epoch: int
    interval: int
    last_step: int
    patience: int

    def next_validation(self, step: int) -> int:
        """The first step after `step` that ends in a validation."""
        return (step // self.interval + 1) * self.interval

    def is_over(self, step: int, validation_losses: list[float]) -> bool:
        recent = validation_losses[-self.patience :]
        has_stopped_improving = len(recent) == self.patience and recent[0] == min(recent)
        return step >= self.last_step or has_stopped_improving


def make_schedule(training: Training, steps_per_epoch: int) -> Schedule:
    """The protocol's schedule for an epoch of so many steps.

    Raises:
        StudyError: an epoch has fewer steps than validations.
    """
    interval = steps_per_epoch // training.validations_per_epoch
    if interval == 0:
        raise StudyError(
            f"training.validations_per_epoch: {training.validations_per_epoch}, but an epoch has {steps_per_epoch} "
            f"steps of {training.batch_size} images; choose fewer validations or a smaller batch"
        )
    total = training.max_epochs * steps_per_epoch
    return Schedule(steps_per_epoch, interval, total // interval * interval, training.patience)
