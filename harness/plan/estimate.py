"""How long cells will take and how much disk they need, from what was measured so far.

A cell like one that was measured (same settings, another seed) takes as long as that one. Another one is scaled by the
trainer's model of its cost from those that were measured, and taken to stop as early as they did on average; a trainer
without a model, by the mean of what was measured. Where no cell has ended, a sample stands in: what `harness try` took,
or a probe of some steps. With nothing measured at all it is a guess, and says so.
"""

import heapq
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Protocol

from harness.plan.cell import Cell
from harness.texts import counted

OFF_BY_WHEN_GUESSED, OFF_BY_WHEN_SAMPLED, OFF_BY_WHEN_MEASURED = 6.0, 2.0, 1.5
START_SECONDS = 5.0  # at most, of processes that start and import, beside cells
UNKNOWN_SECONDS = 10.0  # of a cell about which nothing at all is known


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of wall time and bytes of disk.

    Attributes:
        measured: from how many ended cells; 0 for none.
        sampled: where none has ended: from what else it was measured, in words; empty for a guess.
    """

    seconds: float
    disk_bytes: int
    measured: int
    sampled: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """Seconds from at least to at most, as far as estimates were seen to be off."""
        unmeasured = OFF_BY_WHEN_SAMPLED if self.sampled else OFF_BY_WHEN_GUESSED
        factor = OFF_BY_WHEN_MEASURED if self.measured else unmeasured
        return self.seconds / factor, self.seconds * factor + (START_SECONDS if self.seconds else 0.0)

    @property
    def basis(self) -> str:
        """What it rests on, in words."""
        if self.measured:
            return f"from {counted(self.measured, 'measured cell')}"
        return f"from {self.sampled}" if self.sampled else "a guess: nothing was measured here yet"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a cell would take that has not been trained here: a probe's finding, or a try's; `words` says which."""

    cell: Cell
    seconds: float
    words: str


class Measured(Protocol):
    """What is asked of a result; `harness.store.result.Result` is one."""

    @property
    def is_finished(self) -> bool: ...
    @property
    def device(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def facts(self) -> Any: ...


def estimate(
    todo: Sequence[Cell],
    ended: Iterable[Cell],
    result_of: Callable[[str], Measured | None],
    *,
    device: str,
    workers: int,
    sample: Callable[[], Sample | None] = lambda: None,
) -> Estimate:
    """What the cells of `todo` will take on this many workers, longest first.

    Args:
        ended: cells whose results tell how fast this machine is; those of other devices are left out.
        result_of: a cell's key to its result.
        sample: gives what stands in for them; asked where none of them tells anything.
    """
    by_settings: defaultdict[str, list[float]] = defaultdict(list)
    slowness = []  # measured over modelled seconds
    shares = []  # of the training that was allowed: early stopping
    every = []
    kind = device.partition(":")[0]
    for cell in ended:
        result = result_of(cell.key)
        if result and result.is_finished and result.device.startswith(kind) and result.seconds > 0:
            by_settings[_identity(cell)].append(result.seconds)
            every.append(result.seconds)
            share = cell.trainer.share_trained(cell.settings, result.facts)
            modelled = cell.trainer.modelled_seconds(cell.settings, device=kind, share=share)
            shares.append(share)
            slowness += [result.seconds / modelled] if modelled else []
    num_measured, sampled = len(every), None if every or not todo else sample()
    if sampled:
        modelled = sampled.cell.trainer.modelled_seconds(sampled.cell.settings, device=kind)
        by_settings[_identity(sampled.cell)].append(sampled.seconds)
        every.append(sampled.seconds)
        slowness += [sampled.seconds / modelled] if modelled else []
    share = mean(shares) if shares else 1.0
    factor = median(slowness) if slowness else 1.0
    usual = mean(every) if every else UNKNOWN_SECONDS

    def expected(cell: Cell) -> tuple[float, int]:
        disk = cell.trainer.disk_bytes(cell.settings)
        if known := by_settings.get(_identity(cell)):
            return mean(known), disk
        modelled = cell.trainer.modelled_seconds(cell.settings, device=kind, share=share)
        return (factor * modelled if modelled else usual), disk

    variants = {id(cell.settings): cell for cell in todo}  # the seeds of a variant share one object
    each = {key: expected(cell) for key, cell in variants.items()}
    of_cells = [each[id(cell.settings)] for cell in todo]
    seconds = makespan((seconds for seconds, _ in of_cells), workers)
    disk = sum(size for _, size in of_cells)
    return Estimate(seconds, disk, num_measured, sampled.words if sampled else "")


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Wall time when each worker, as it gets free, takes the longest task left."""
    loads = [0.0] * workers
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(loads, loads[0] + each)
    return max(loads)


def _identity(cell: Cell) -> str:
    return json.dumps([cell.trainer.identity, cell.settings.identity()], sort_keys=True)
