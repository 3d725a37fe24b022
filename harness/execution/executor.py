"""Where cells are trained: the protocol that this process, worker processes and clusters have in common.

Who decides which cells, and what is done about a worker that dies, is `runner.py`'s matter. Who writes the store is
decided by the claim: one process at a time holds a cell's, and it alone writes the cell (`record.py`). On the machine
of the store that is the process that trains the cell; away from it, the one that runs the study.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

from harness.errors import StudyError
from harness.names import suggestion
from harness.plan.cell import Cell
from harness.store.result import Result
from harness.trainers.run import Event


@dataclass(frozen=True, slots=True)
class Progress:
    """One thing that happened, for whoever watches.

    Attributes:
        kind: `event` (of a cell that trains; `event` holds it), `ended` (`result` holds it), `elsewhere` (another
            process trains the cell; it is looked at again later), `stopped` (left where it was, on request), or
            `crowded-out` (out of memory beside others: no outcome; it is tried once more, alone).
    """

    kind: Literal["event", "ended", "elsewhere", "stopped", "crowded-out"]
    cell: Cell
    event: Event = field(default_factory=dict)
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Died:
    """The worker that trained a cell is no more, and with it this attempt; nothing that was recorded is lost.

    Attributes:
        reason: how it ended, a sentence without its full stop.
        is_of_cell: whether the cell may be to blame, so that it is not tried for ever. A machine that is gone is not.
    """

    cell: Cell
    reason: str
    is_of_cell: bool = True


@dataclass(frozen=True, slots=True)
class Demand:
    """What a cell asks of a cluster's node, and how many are wanted at a time.

    Attributes:
        cpus: CPU threads. gpus: a share of a GPU or several, where cells train on one; 0.5 puts two on each.
        most: cells at a time; None for as many as there is room for.
    """

    cpus: int = 1
    gpus: float = 1.0
    most: int | None = None


Tell = Callable[[Progress | Died], None]
SECONDS_OF_GRACE = 40.0  # of training that was asked to stop and looks at `run.should_stop`
EXECUTORS = ("processes", "here", "ray")  # the members; the first is the default


def check_executor(asked: str) -> None:
    """Raises StudyError where there is no such executor. `ray:ADDRESS` is one, too."""
    if asked not in EXECUTORS and not asked.startswith("ray:"):
        raise StudyError(
            f"--executor {asked}: expected {', '.join(EXECUTORS)} or ray:ADDRESS.{suggestion(asked, EXECUTORS)}"
        )


class Executor(Protocol):
    """Trains cells and records them in the store. Entered before the first cell; leaving it ends every worker.

    A cell that was submitted trains until the executor tells that it ended, was left (`elsewhere`, `stopped`,
    `crowded-out`) or that its worker died; then it is forgotten. Told after it is recorded: an event is in the journal,
    a result in the store.
    """

    @property
    def is_single(self) -> bool:
        """Whether it never trains two cells at a time."""

    @property
    def num_free(self) -> int:
        """How many cells may be submitted now. Changes with the number of workers, where that does."""

    def submit(self, cell: Cell, *, is_alone: bool = True) -> None:
        """Begins a cell, or goes on with it from its checkpoint. One that has ended already is told as ended.

        Args:
            is_alone: whether no other cell is submitted until this one is told of: only then is it an outcome that the
                memory did not suffice.
        """

    def advance(self, tell: Tell) -> None:
        """Waits until something happens, about a second at most, and tells of it; where no cell trains it may look
        after its workers, and returns at once.

        Raises:
            HarnessError: not the fault of a cell: the store cannot be written, or a trainer cannot be made there.
        """

    def stop(self, cell: Cell) -> None:
        """Leaves a cell that trains where it is, to be continued by another run; `stopped` is told by the time that
        `advance` returns next. May be called while `advance` tells."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...
