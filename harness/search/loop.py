"""The search itself: asks for trials, has their cells trained by the runner, and tells what came of them.

It never trains by itself: a trial is a variant of the plan, its cells are those that `ablate` would train, and a cell
that has ended is read. Trials overlap, so that no worker waits for the last seed of another trial; how many cells train
at a time is the runner's business. However it ends, no trial of this process stays behind as running.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.execution.executor import Demand
from harness.execution.runner import Progress, run
from harness.metrics import Metric
from harness.plan.cell import Cell
from harness.plan.variants import Variant
from harness.search.choices import Prune
from harness.search.trials import Asked, Trials
from harness.stats.wording import describe_seeds
from harness.store.cells import Cells
from harness.store.result import Result

RunIds = Callable[[Variant], Mapping[int, str]]


@dataclass
class _Open:
    """A trial that this process works on.

    Attributes:
        todo: cells that were not handed out, in the order of the seeds.
        results: of the cells that have ended, by seed.
        num_reported: validations of the first seed that the pruner knows.
    """

    asked: Asked
    variant: Variant
    todo: list[Cell]
    results: dict[int, Result] = field(default_factory=dict)
    num_reported: int = 0

    @property
    def pilot(self) -> Cell:
        return self.variant.cells[0]

    @property
    def has_failed(self) -> bool:
        return any(not result.is_finished for result in self.results.values())


class Loop:
    """One process's part of a search.

    Args:
        make_variant: `Plan.make_variant`.
        metric: the one that the study selects by, and the only one that is looked at here.
        seconds: after which no cell begins and those that train stop at their checkpoint; None for no limit.
        on_trial: gets each trial's number and variant when it begins.
        run_ids: the MLflow runs of a variant's cells, by seed, as far as they are known; asked when a trial has ended.
        look: called before each trial and each cell, and about every second; may raise.
    """

    def __init__(
        self,
        trials: Trials,
        cells: Cells,
        make_variant: Callable[[tuple[str, ...]], Variant],
        *,
        metric: Metric,
        prune: Prune,
        seconds: float | None,
        on_trial: Callable[[int, Variant], None],
        run_ids: RunIds,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._trials, self._cells, self._make_variant = trials, cells, make_variant
        self._metric, self._prune, self._on_trial, self._run_ids = metric, prune, on_trial, run_ids
        self._look = look
        self._deadline = time.monotonic() + seconds if seconds is not None else float("inf")
        self._open: list[_Open] = []

    def work(
        self,
        *,
        devices: Sequence[str],
        provenance: Mapping[str, Any],
        on_progress: Callable[[Progress], None],
        executor: str,
        demand: Demand,
        seconds_of_grace: float,
    ) -> None:
        """Until nothing is left to do, the time is up, or an exception (KeyboardInterrupt too) passes through."""

        def progress(it: Progress) -> None:
            on_progress(it)
            self._see(it)

        try:
            run(
                self._todo(),
                self._cells,
                devices=devices,
                provenance=provenance,
                on_progress=progress,
                should_stop=self._should_stop,
                executor=executor,
                demand=demand,
                seconds_of_grace=seconds_of_grace,
            )
        finally:
            for it in self._open:
                self._trials.give_back(it.asked)

    @property
    def is_out_of_time(self) -> bool:
        return time.monotonic() >= self._deadline

    def _todo(self) -> Iterator[Cell | None]:
        while not self.is_out_of_time:
            self._look()
            cell = self._next_cell()
            if cell is not None:
                yield cell
                continue
            asked = self._trials.ask()
            if asked == "over":
                return
            if asked == "wait":
                yield None
            else:
                self._begin(asked)

    def _next_cell(self) -> Cell | None:
        """Of the trial that began first: the sooner one has ended, the more the next suggestion knows."""
        for it in self._open:
            waits_for_pilot = self._prune == "halving" and not it.asked.is_compared and it.pilot not in it.todo
            if it.todo and not (waits_for_pilot and it.pilot.seed not in it.results):
                return it.todo.pop(0)
        return None

    def _begin(self, asked: Asked) -> None:
        variant = self._make_variant(asked.changes)
        it = _Open(asked, variant, list(variant.cells))
        asked.trial.set_user_attr("combination", variant.name)
        asked.trial.set_user_attr("cells", {str(cell.seed): cell.key for cell in variant.cells})
        asked.trial.set_user_attr("seeds", describe_seeds(cell.seed for cell in variant.cells))
        self._open.append(it)
        self._on_trial(asked.trial.number, variant)
        ended = {cell: result for cell in variant.cells if (result := self._cells.result(cell.key))}
        it.todo = [cell for cell in variant.cells if cell not in ended]
        it.results = {cell.seed: result for cell, result in ended.items()}
        for cell in ended:
            self._report_cell(it, cell)
        self._settle(it)

    def _should_stop(self, cell: Cell) -> bool:
        self._look()
        return self.is_out_of_time or not any(cell in it.variant.cells for it in self._open)

    def _see(self, progress: Progress) -> None:
        for it in [it for it in self._open if progress.cell in it.variant.cells]:
            if progress.kind == "ended" and progress.result is not None:
                it.results[progress.cell.seed] = progress.result
                self._report_cell(it, progress.cell)
                self._settle(it)
            elif progress.kind == "event" and progress.cell == it.pilot and self._prune == "halving":
                self._report_validations(it)

    def _report_cell(self, it: _Open, cell: Cell) -> None:
        """Tells the pruner of a cell that has ended."""
        value = it.results[cell.seed].metrics.get(self._metric.name)
        if self._prune == "halving":
            if cell == it.pilot:
                self._report_validations(it)
        elif value is not None and it in self._open:
            self._report(it, value, cell.seed)

    def _settle(self, it: _Open) -> None:
        """Ends the trial if what has ended decides it."""
        is_lost = it.has_failed and not it.asked.is_compared  # without a value, whatever its other seeds say
        if it in self._open and (is_lost or len(it.results) == len(it.variant.cells)):
            self._end(it)

    def _report_validations(self, it: _Open) -> None:
        """The first seed's validations, numbered from 1."""
        logged = [
            value
            for validation in self._cells.validations(it.pilot.key)
            if (value := validation.metrics.get(self._metric.name)) is not None
        ]
        for number, value in enumerate(logged, 1):
            if number > it.num_reported and it in self._open:
                it.num_reported = number
                self._report(it, value, number)

    def _report(self, it: _Open, value: float, step: int) -> None:
        it.asked.trial.report(value, step)
        # Asked of every trial: successive halving compares with those of which it was asked.
        is_losing = self._prune != "none" and it.asked.trial.should_prune()
        if is_losing and not it.asked.is_compared and len(it.results) < len(it.variant.cells):
            self._note_runs(it)
            self._trials.prune(it.asked)
            self._open.remove(it)  # from here on the runner stops its cells

    def _end(self, it: _Open) -> None:
        self._note_runs(it)
        if it.has_failed:
            self._trials.fail(it.asked, _failures(it))
        else:
            values = {seed: result.metrics[self._metric.name] for seed, result in sorted(it.results.items())}
            it.asked.trial.set_user_attr(self._metric.words, {str(seed): value for seed, value in values.items()})
            self._trials.tell(it.asked, sum(values.values()) / len(values))
        self._open.remove(it)

    def _note_runs(self, it: _Open) -> None:
        run_ids = self._run_ids(it.variant)
        if run_ids:
            it.asked.trial.set_user_attr("mlflow runs", {str(seed): run_id for seed, run_id in run_ids.items()})


def _failures(it: _Open) -> str:
    failed = [result for _, result in sorted(it.results.items()) if not result.is_finished]
    return "; ".join(f"seed {result.seed}: {result.status}: {result.reason}" for result in failed)
