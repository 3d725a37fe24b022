"""What one finished cell says, and the one definition of the results table.

A result is written once, when its cell has ended (also when it ended badly: a diverged cell is an outcome). The table
that everything downstream reads has a row per cell and the columns of `RESULT_COLUMNS`; it is built from results in
`load.py`, not here: this module knows neither files nor pandas.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Status = Literal["finished", "diverged", "out-of-memory", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Epoch:
    """One validation: what is known after `step` optimizer steps.

    Attributes:
        step: optimizer steps done.
        epoch: the same in epochs, a fraction: the protocol validates twice an epoch.
        train_loss: mean cross entropy in nats over the training batches since the validation before, in train mode.
        train_accuracy: fraction of those training images that were right.
        val_loss: mean cross entropy over the validation images, in eval mode.
        val_accuracy: fraction of the validation images that are right.
        seconds: training time so far, the time of earlier, interrupted runs included.
    """

    step: int
    epoch: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The numbers of one ended cell. Accuracies are fractions in [0, 1]; losses are mean cross entropies in nats.

    The six numbers of train, val and test are those of the checkpoint with the lowest validation loss, in eval mode,
    over all images of the split. They are None where the cell did not finish.
    """

    key: str
    seed: int
    status: Status
    reason: str = ""
    train_loss: float | None = None
    train_accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    best_step: int | None = None
    best_epoch: float | None = None
    num_steps: int = 0
    num_epochs: float = 0.0
    seconds: float = 0.0
    parameters: int | None = None
    peak_memory_bytes: int | None = None
    device: str = ""
    precision: str = ""
    threads: int = 0
    versions: str = ""
    commit: str = ""
    dirty: bool = False
    data_fingerprint: str = ""
    finished_at: str = ""

    @property
    def is_finished(self) -> bool:
        return self.status == "finished"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Result":
        """Raises TypeError for an unknown or missing field: a damaged file must not read as a result."""
        return cls(**data)


# What identifies a row, then what the cell measured. `variant` is the variant's name ("baseline", "batch-norm",
# "batch-norm+dropout-0.2", "model-1"), `changes` its change names joined by "+", empty for the baseline. A planned
# cell without a result has status "missing" and no numbers.
IDENTITY_COLUMNS: tuple[str, ...] = ("study", "variant", "changes")
RESULT_COLUMNS: tuple[str, ...] = IDENTITY_COLUMNS + tuple(field.name for field in fields(Result))
