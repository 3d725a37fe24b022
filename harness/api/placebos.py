"""A/A that can fail: the same seeds again, and changes that change nothing, through everything that judges changes.

Random splits of one variant's seeds have fair signs by construction, whatever is wrong with training. These two are not
fair by construction: what is trained again may come out differently, and seeds that were trained later, on another
machine or beside other cells may drift. What is measured of them, not how often luck alone rejects, is in
`stats.noise`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.api.racing import planned_looks
from harness.api.work import Work, prepare
from harness.errors import ResultsError
from harness.execution.provenance import command_line, provenance
from harness.execution.runner import run
from harness.files.scratch import scratch
from harness.metrics import Metric
from harness.plan.cell import Cell
from harness.plan.manifest import Manifest, RunComparison, RunVariant
from harness.store.cells import Cells
from harness.study.designs.comparisons import BASELINE

if TYPE_CHECKING:
    import pandas as pd

FIRST_TO_CLAIM = 6  # pairs; fewer can claim nothing


@dataclass(frozen=True)
class Again:
    """The same cells, trained a second time.

    Attributes:
        num_cells: that finished both times. num_equal: those with the same bits in every metric.
        sd, largest: of the second number minus the first, in the reported metric as it is logged; the sd is that of one
            training, between trainings of one seed.
    """

    metric: Metric
    num_cells: int
    num_equal: int
    sd: float
    largest: float

    def __str__(self) -> str:
        if not self.num_cells:
            return "The same seeds again: no cell finished both times."
        cells = f"{self.num_cells} cell" + "s" * (self.num_cells > 1)
        if self.num_equal == self.num_cells:
            return f"The same seeds again: {cells}, the same bits."
        return (
            f"The same seeds again: {self.num_cells - self.num_equal} of {cells} came out differently, by at most"
            f" {self.metric.say_difference(self.largest, signed=False)} of {self.metric.words} (sd"
            f" {self.metric.say_difference(self.sd, signed=False)}). Training is not repeatable here; that much noise"
            " is in every number, and pairing by seed cannot take it out."
        )


def train_again(work: Work, cells: Sequence[Cell], *, executor: str = "here") -> Again:
    """Trains cells that have ended once more, in a folder of their own that is thrown away; the results stay."""
    metric = work.plan.study.trainer.metrics.reporting
    first = {cell: result for cell in cells if (result := work.cells.result(cell.key)) and result.is_finished}
    with scratch() as folder:
        there = replace(work, cells=Cells(folder))
        prepare(there, list(first))
        versions = provenance(command_line())
        run(first, there.cells, devices=work.devices, provenance=versions, executor=executor, demand=work.demand)
        second = {cell: there.cells.result(cell.key) for cell in first}
    both = [(first[cell].metrics, it.metrics) for cell, it in second.items() if it is not None and it.is_finished]
    differences = [after[metric.name] - before[metric.name] for before, after in both]
    squares = sum(it**2 for it in differences) / max(len(differences), 1)
    return Again(
        metric,
        len(both),
        sum(before == after for before, after in both),
        (squares / 2) ** 0.5,
        max(map(abs, differences), default=0.0),
    )


@dataclass(frozen=True)
class Placebos:
    """Changes that change nothing: the baseline's later seeds in place of each change's, through the whole pipeline.

    Attributes:
        count: of placebos, each on num_seeds seeds. looks: at how many seeds the effects were looked at.
        claimed: the placebos that were claimed to do something, at any look, after correction.
        num_single, num_rejected: comparisons of two blocks that share no cell, and those with an uncorrected p <= .05.
        rate_low, rate_high: 95% interval of the rate of the latter (Clopper & Pearson).
    """

    count: int
    num_seeds: int
    looks: tuple[int, ...]
    claimed: tuple[str, ...]
    num_single: int
    num_rejected: int
    rate_low: float
    rate_high: float

    def __str__(self) -> str:
        looks = f", with looks at {', '.join(map(str, self.looks))} seeds" if len(self.looks) > 1 else ""
        changes = "1 change that changes" if self.count == 1 else f"{self.count} changes that change"
        found = f"claimed, falsely: {', '.join(self.claimed)}" if self.claimed else "no false claim"
        warning = (
            " Something differs between seeds that were trained first and last: find out what before any effect is"
            " believed."
            if self.claimed
            else ""
        )
        return (
            f"Placebos: {changes} nothing, {self.num_seeds} seeds each{looks}, through the whole pipeline: {found}."
            f" Uncorrected, at .05: {self.num_rejected} of {self.num_single} comparisons without a common cell [95%"
            f" {self.rate_low:.3f}, {self.rate_high:.3f}].{warning}"
        )


def compare_placebos(results: "pd.DataFrame", num_seeds: int) -> Placebos:
    """The baseline's finished seeds in blocks of num_seeds, in their order: the first stands for the baseline, each
    further one for a change; judged by what judges a study, look after look.

    Raises:
        ResultsError: fewer than two blocks, or blocks in which nothing could be claimed.
    """
    import numpy as np

    from harness.stats.intervals import clopper_pearson
    from harness.stats.significance import sign_flip_p

    manifest: Manifest = results.attrs["manifest"]
    rows = results[(results["variant"] == BASELINE) & (results["status"] == "finished")].sort_values("seed")
    count = len(rows) // num_seeds - 1
    if num_seeds < FIRST_TO_CLAIM or count < 1:
        least = 2 * max(num_seeds, FIRST_TO_CLAIM)
        raise ResultsError(
            f"placebos of {num_seeds} seeds need at least {least} finished seeds of the baseline, in blocks of at least"
            f" {FIRST_TO_CLAIM}, of which something could be claimed; there are {len(rows)}. `harness aa --seeds"
            f" {least} --pairs {max(num_seeds, FIRST_TO_CLAIM)}` trains them."
        )
    table = rows.iloc[: (count + 1) * num_seeds].reset_index(drop=True)
    names = [BASELINE, *(f"placebo-{number}" for number in range(1, count + 1))]
    blocks = np.arange(len(table)) // num_seeds
    table["variant"] = [names[it] for it in blocks]
    table["changes"] = ["" if it == 0 else names[it] for it in blocks]
    table["seed"] = np.arange(len(table)) % num_seeds
    looks = planned_looks(num_seeds) if num_seeds > FIRST_TO_CLAIM else (num_seeds,)
    numbers = table[manifest.metrics.report].to_numpy(dtype=np.float64).reshape(count + 1, num_seeds)
    singles = numbers[: (count + 1) // 2 * 2].reshape(-1, 2, num_seeds)  # neighbours: no cell in two of them
    rejected = int((np.atleast_1d(sign_flip_p(singles[:, 1] - singles[:, 0])) <= 0.05).sum())
    low, high = clopper_pearson(rejected, len(singles))
    claimed = _claimed(table, _as_a_study(manifest, names, num_seeds), looks)
    return Placebos(count, num_seeds, looks, claimed, len(singles), rejected, float(low), float(high))


def _as_a_study(manifest: Manifest, names: Sequence[str], num_seeds: int) -> Manifest:
    return replace(
        manifest,
        exploratory=False,
        variants=tuple(RunVariant(it, () if it == BASELINE else (it,), "", "", {}) for it in names),
        comparisons=tuple(RunComparison("add-one", it, it, BASELINE) for it in names[1:]),
        horizon=num_seeds,
        looks=(),
        frozen={},
    )


def _claimed(table: "pd.DataFrame", manifest: Manifest, looks: Sequence[int]) -> tuple[str, ...]:
    from harness.report.summary import CLAIMS
    from harness.report.tables import families

    found: dict[str, None] = {}
    for look in looks:
        manifest = manifest.looked_at(range(look), "", "")
        so_far = table[table["seed"] < look].copy()
        so_far.attrs["manifest"] = manifest
        effects = families(so_far)["add-one"].effects
        found |= dict.fromkeys(effects.loc[effects["verdict"].isin(CLAIMS), "variant"])
    return tuple(found)
