"""What becomes of an attempt in the store: its journal, its checkpoint, its result.

The one place that writes a cell's folder while it is trained, in the process that holds the cell's claim: the one that
trains it, or the one that hears of it from another machine. The bits are the same.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from harness.execution.attempt import Ended, Left, Logged, Message, Saved, Task
from harness.files.atomic import put_back
from harness.metrics import LARGEST, is_measured
from harness.plan.cell import Cell
from harness.store.cells import Cells, note_validation, validations_of
from harness.store.journal import now
from harness.store.result import Result, Validation
from harness.trainers.run import CHECKPOINT, Event, RunError

Outcome = Result | Literal["elsewhere", "stopped", "crowded-out"]
STOPPED: Event = {"event": "interrupted", "signal": "SIGTERM"}
_STARTS = frozenset({"started", "resumed", "restarted"})


class Record:
    """Of one attempt at a cell whose claim this process holds. Closes the journal when it is left.

    Attributes:
        folder: the cell's, in order for an attempt in it.
        task: what is to be attempted, from the last checkpoint on.
        outcome: the result, once it is in the store; `crowded-out`: it ran out of memory that others had a part of,
            which is no result; `stopped` before either.

    Args:
        on_event: told of each event when it is in the journal.
        is_alone: whether no other cell of this run trains meanwhile.

    Raises:
        StoreError: something cannot be written.
    """

    def __init__(
        self,
        cell: Cell,
        cells: Cells,
        provenance: Mapping[str, Any],
        on_event: Callable[[Event], None] = lambda event: None,
        *,
        is_alone: bool = True,
    ) -> None:
        self._cell, self._cells, self._provenance, self._on_event = cell, cells, dict(provenance), on_event
        self.folder = cells.folder(cell.key)
        self.outcome: Outcome = "stopped"
        self._is_alone = is_alone
        put_back(self.folder / CHECKPOINT)
        cell.trainer.before_attempt(self.folder)
        before = cells.events(cell.key) if (self.folder / CHECKPOINT).exists() else []
        logged = validations_of(before)
        self._logged = {it.step: it for it in logged}
        self.task = Task(cell, logged[-1].step, logged[-1].seconds) if logged else Task(cell)
        self._journal = cells.journal(cell.key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._journal.close()

    def write(self, message: Message) -> None:
        """Durable when this returns."""
        match message:
            case Logged(event):
                self._log(event)
            case Saved(path) if path != self.folder / CHECKPOINT:
                self._cells.keep_checkpoint(self._cell.key, path)
            case Saved():
                pass  # it is in its place already
            case Left():
                self._journal.append(STOPPED)
            case Ended(result):
                self._end(result)

    def _log(self, event: Event) -> None:
        is_start = event["event"] in _STARTS
        if is_start:
            event = event | {"provenance": self._provenance}
        self._journal.append(event, is_synced=not is_start)  # nothing is lost with it but itself
        note_validation(self._logged, event)
        self._on_event(event)

    def _end(self, result: Result) -> None:
        if result.status == "out-of-memory" and not self._is_alone:
            said = f"out of memory while other cells trained; it is tried once more, alone: {result.reason}"
            self._log({"event": "failed", "reason": said, "traceback": ""})
            self.outcome = "crowded-out"
            return
        if result.is_finished:
            try:
                result = self._finished(result)
            except RunError as error:
                self._log({"event": "failed", "reason": str(error), "traceback": f"RunError: {error}\n"})
                result = replace(result, status="failed", reason=str(error), metrics={})
        result = stamped(result, self._provenance)
        self._cells.write_result(result, self._journal)
        self.outcome = result

    def _finished(self, result: Result) -> Result:
        """Final metrics, over those that were logged at the best step."""
        metrics, final = self._cell.trainer.metrics, result.metrics
        best = None if set(metrics.names) <= final.keys() else self._best()
        if best is not None:
            known: dict[str, Any] = {"best_step": best.step}
            known |= {"best_epoch": best.epoch} if math.isfinite(best.epoch) else {}
            result = replace(result, facts=known | dict(result.facts))
        values = {**(best.metrics if best else {}), **final}
        if metrics.select not in values and any(metrics.select in it.metrics for it in self._logged.values()):
            return replace(
                result, status="diverged", reason=f"{metrics.select} never finite, or beyond {LARGEST:g}", metrics={}
            )
        if metrics.select not in values:
            given = f"run.log(step, **{{{metrics.select!r}: ...}})"
            raise RunError(f"training never reported {metrics.select}, by which the study selects; log it: {given}.")
        lost = [name for name in (metrics.select, metrics.report) if not is_measured(values[name])]
        if lost:
            beyond = f" or beyond {LARGEST:g}" if any(map(math.isfinite, map(values.__getitem__, lost))) else ""
            reason = f"{' and '.join(dict.fromkeys(lost))} not finite{beyond} at the end"
            return replace(result, status="diverged", reason=reason, metrics={})
        ordered = {name: values[name] for name in metrics.names if is_measured(values.get(name, math.nan))}
        return replace(result, metrics=ordered)

    def _best(self) -> Validation | None:
        """The first validation with the best value of the selecting metric."""
        metric = self._cell.trainer.metrics.selecting
        logged = (self._logged[step] for step in sorted(self._logged))
        finite = [it for it in logged if is_measured(it.metrics.get(metric.name, math.nan))]
        return max(finite, key=lambda it: metric.sign * it.metrics[metric.name], default=None)


def stamped(result: Result, provenance: Mapping[str, Any]) -> Result:
    commit, dirty = str(provenance.get("commit", "")), bool(provenance.get("dirty", False))
    return replace(result, commit=commit, dirty=dirty, finished_at=now())


def failed(cell: Cell, reason: str) -> Result:
    return Result(key=cell.key, seed=cell.seed, status="failed", reason=reason)
