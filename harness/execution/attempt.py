"""One cell, once: claim it, train it, record what came of it. How to train arrives as an argument.

The idempotent unit of work, in whatever process it runs; which cells, how many at a time and what happens when a
process dies is `runner.py`'s and `processes.py`'s matter.
"""

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.errors import DeviceLostError, HarnessError
from harness.plan.cell import Cell
from harness.store.cells import Cells, now
from harness.store.result import Result

Event = dict[str, Any]
Outcome = Literal["done", "elsewhere"]
STOPPED: Event = {"event": "interrupted", "signal": "SIGTERM"}
log = logging.getLogger(__name__)


class Train(Protocol):
    """Trains one cell in this process and gives its result; continues from what it finds in the folder.

    A function at the top of a module (or a partial of one): worker processes import it by name.
    """

    def __call__(self, cell: Cell, folder: Path, *, device: str, on_event: Callable[[Event], None]) -> Result: ...


def run_one(
    cell: Cell,
    cells: Cells,
    train: Train,
    *,
    device: str,
    provenance: Mapping[str, Any],
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Makes sure that one cell has a result: trains it, or leaves it to the process that trains it now.

    An exception in training is recorded as the cell's result (status `failed`), with its traceback in the journal.

    Raises:
        DeviceLostError: this process can use its device no more; the cell has no result.
    """

    def journal(event: Event) -> None:
        if event["event"] in ("started", "resumed", "restarted"):
            event = event | {"provenance": dict(provenance)}
        cells.append(cell.key, event)
        on_event(event)

    with cells.claim(cell) as is_mine:
        if not is_mine:
            return "elsewhere"
        if cells.result(cell.key) is None:
            result = _train_isolated(cell, cells.folder(cell.key), train, device, journal)
            cells.write_result(stamped(result, provenance))
    return "done"


def stamped(result: Result, provenance: Mapping[str, Any]) -> Result:
    commit, dirty = str(provenance.get("commit", "")), bool(provenance.get("dirty", False))
    return replace(result, commit=commit, dirty=dirty, finished_at=now())


def _train_isolated(cell: Cell, folder: Path, train: Train, device: str, journal: Callable[[Event], None]) -> Result:
    try:
        return train(cell, folder, device=device, on_event=journal)
    except DeviceLostError as error:
        journal({"event": "failed", "reason": str(error), "traceback": traceback.format_exc()})
        raise
    except Exception as error:  # a cell is the unit of isolation: the others go on
        trace = traceback.format_exc()
        log.debug("cell %s failed\n%s", cell.key, trace)
        reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        journal({"event": "failed", "reason": reason, "traceback": trace})
        return failed(cell, reason)


def failed(cell: Cell, reason: str) -> Result:
    return Result(key=cell.key, seed=cell.seed, status="failed", reason=reason, **_identity(cell))


def _identity(cell: Cell) -> dict[str, Any]:
    training = cell.settings.training
    fingerprint = dict(cell.fingerprints)["data"]
    return {"precision": training.precision, "threads": training.threads, "data_fingerprint": fingerprint}
