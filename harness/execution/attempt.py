"""One cell, once: claim it, have its trainer train it, record what came of it.

The idempotent unit of work, in whatever process it runs; which cells, how many at a time and what happens when a
process dies is `runner.py`'s and `processes.py`'s matter.
"""

import logging
import math
import platform
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from harness.errors import DeviceLostError, DivergedError, HarnessError, OutOfMemoryError
from harness.hardware import cpu_name, peak_memory_bytes
from harness.plan.cell import Cell
from harness.store.cells import Cells, now
from harness.store.result import RESULT_COLUMNS, Result, Status, Validation
from harness.trainers.run import CHECKPOINT, Event, Run, RunError
from harness.urls import masked

Outcome = Literal["done", "elsewhere", "stopped"]
_NOTED = frozenset({"device", "versions", "peak_memory_bytes"})  # of the envelope, what a trainer knows better
STOPPED: Event = {"event": "interrupted", "signal": "SIGTERM"}
log = logging.getLogger(__name__)


def run_one(
    cell: Cell,
    cells: Cells,
    *,
    device: str,
    provenance: Mapping[str, Any],
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Makes sure that one cell has a result: trains it, or leaves it to the process that trains it now.

    An exception in training is recorded as the cell's result (status `failed`), with its traceback in the journal.
    `stopped`: it was asked to stop, and left without a result.

    Raises:
        DeviceLostError: this process can use its device no more; the cell has no result.
    """
    with cells.claim(cell) as is_mine:
        if not is_mine:
            return "elsewhere"
        if cells.result(cell.key, seed=cell.seed) is None:
            result = _Attempt(cell, cells, device, provenance, on_event, should_stop).result()
            if result is None:
                cells.append(cell.key, STOPPED)
                return "stopped"
            cells.write_result(stamped(result, provenance))
    return "done"


def stamped(result: Result, provenance: Mapping[str, Any]) -> Result:
    commit, dirty = str(provenance.get("commit", "")), bool(provenance.get("dirty", False))
    return replace(result, commit=commit, dirty=dirty, finished_at=now())


def failed(cell: Cell, reason: str) -> Result:
    return Result(key=cell.key, seed=cell.seed, status="failed", reason=reason)


class _Attempt:
    """One attempt at a cell that this process holds."""

    def __init__(
        self,
        cell: Cell,
        cells: Cells,
        device: str,
        provenance: Mapping[str, Any],
        on_event: Callable[[Event], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._cell, self._cells, self._provenance, self._on_event = cell, cells, dict(provenance), on_event
        folder = cells.folder(cell.key)
        cell.trainer.before_attempt(folder)
        before = cells.validations(cell.key) if (folder / CHECKPOINT).exists() else []
        sources = cells.root / "sources" / dict(cell.fingerprints).get("sources", "")
        self._last_step = before[-1].step if before else 0
        self._run = Run(
            key=cell.key,
            settings=cell.settings,
            seed=cell.seed,
            metrics=cell.trainer.metrics,
            device=device,
            folder=folder,
            emit=self._emit,
            fingerprints=dict(cell.fingerprints),
            seconds_before=before[-1].seconds if before else 0.0,
            last_step_before=before[-1].step if before else -1,
            should_stop=should_stop,
            sources=sources if sources.is_dir() else None,
        )

    def result(self) -> Result | None:
        """None where training was asked to stop, and did."""
        run = self._run
        is_resumed = run.saved() is not None
        self._emit({"event": "resumed" if is_resumed else "started", "step": self._last_step})
        try:
            self._cell.trainer.train(run)
            if clashing := sorted(self._clashing()):
                raise RunError(f"run.note: {', '.join(clashing)}: every result has that already; give another name.")
            if run.final is None:
                if run.should_stop:
                    return None
                raise RunError("training returned without calling run.finish(...), so the cell has no result.")
            return self._finished(run.final)
        except DivergedError as error:
            return self._ended("diverged", str(error))
        except OutOfMemoryError as error:
            return self._ended("out-of-memory", str(error))
        except DeviceLostError as error:
            self._emit({"event": "failed", "reason": masked(str(error)), "traceback": masked(traceback.format_exc())})
            raise
        except Exception as error:  # a cell is the unit of isolation: the others go on
            trace = masked(traceback.format_exc())  # an error often tells the address that it could not reach
            log.debug("cell %s failed\n%s", self._cell.key, trace)
            reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            self._emit({"event": "failed", "reason": masked(reason), "traceback": trace})
            return self._ended("failed", reason)

    def _clashing(self) -> set[str]:
        """Noted facts that would hide a column of the results."""
        taken = {*RESULT_COLUMNS, *self._cell.trainer.metrics.names} - _NOTED
        return taken & self._run.facts.keys()

    def _emit(self, event: Event) -> None:
        if event["event"] == "saved":
            self._cells.keep_checkpoint(self._cell.key, Path(event["path"]))
            return
        if event["event"] in ("started", "resumed", "restarted"):
            event = event | {"provenance": self._provenance}
        self._cells.append(self._cell.key, event)
        self._on_event(event)

    def _finished(self, final: Mapping[str, float]) -> Result:
        """Final metrics, over those that were logged at the best step."""
        metrics = self._cell.trainer.metrics
        best = None if set(metrics.names) <= final.keys() else self._best()
        if best is not None:
            known: dict[str, Any] = {"best_step": best.step}
            known |= {"best_epoch": best.epoch} if math.isfinite(best.epoch) else {}
            self._run.facts = known | self._run.facts
        values = {**(best.metrics if best else {}), **final}
        if metrics.select not in values:
            given = f"run.log(step, **{{{metrics.select!r}: ...}})"
            raise RunError(f"training never reported {metrics.select}, by which the study selects; log it: {given}.")
        lost = [name for name in (metrics.select, metrics.report) if not math.isfinite(values[name])]
        if lost:
            return self._ended("diverged", f"{' and '.join(dict.fromkeys(lost))} not finite at the end")
        ordered = {name: values[name] for name in metrics.names if math.isfinite(values.get(name, math.nan))}
        return self._ended("finished", "", ordered)

    def _best(self) -> Validation | None:
        """The first validation with the best value of the selecting metric."""
        metric = self._cell.trainer.metrics.selecting
        logged = self._cells.validations(self._cell.key)
        finite = [it for it in logged if math.isfinite(it.metrics.get(metric.name, math.nan))]
        return max(finite, key=lambda it: metric.sign * it.metrics[metric.name], default=None)

    def _ended(self, status: Status, reason: str, metrics: Mapping[str, float] = {}) -> Result:
        facts = {name: fact for name, fact in self._run.facts.items() if name not in self._clashing()}
        device = str(facts.pop("device", f"cpu: {cpu_name()}"))
        versions = str(facts.pop("versions", f"python {platform.python_version()}"))
        peak = int(facts.pop("peak_memory_bytes", 0)) or peak_memory_bytes()
        return Result(
            key=self._cell.key,
            seed=self._cell.seed,
            status=status,
            reason=masked(reason),
            metrics=metrics,
            facts=facts,
            num_steps=self._run.num_steps,
            seconds=self._run.seconds,
            peak_memory_bytes=peak,
            device=device,
            versions=versions,
        )
