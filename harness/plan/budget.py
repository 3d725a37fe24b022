"""What a budget of cells can show: for each design of many changes, how many seeds it has room for, and how small an
effect these find.

Where effects add up. Which design is written into a study is the caller's matter; how long cells take is in
`estimate.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log2, sqrt
from statistics import NormalDist

from harness.study.designs.comparisons import Design
from harness.study.designs.registry import make_designs
from harness.study.study import MOST_SEEDS, Study

ALPHA, POWER = 0.05, 0.8
SCREENING = "screening"


@dataclass(frozen=True, slots=True)
class Option:
    """One design within a budget.

    Attributes:
        num_changes: whose effects it estimates. num_variants: that it trains, the baseline among them.
        seeds: of every variant; 0 where the budget has no room for one.
        detectable: the smallest effect that it finds, in sd of one run; infinite where it can claim nothing.
    """

    design: str
    num_changes: int
    num_variants: int
    seeds: int
    detectable: float

    @property
    def num_cells(self) -> int:
        return self.num_variants * self.seeds

    def __str__(self) -> str:
        made = f"{self.design}: {self.num_variants} variants x {self.seeds} seeds = {self.num_cells} cells"
        if not self.seeds:
            return f"{self.design}: {self.num_variants} variants, more than the budget"
        if self.detectable == inf:
            return f"{made}, too few seeds to claim anything of {self.num_changes} changes"
        return (
            f"{made}, finds effects of {self.detectable:.2g} sd of one run (power {POWER}, corrected over "
            f"{self.num_changes} changes, where effects add up)"
        )


def options(study: Study, num_cells: int, designs: Sequence[str]) -> list[Option]:
    """What each of these designs does with so many cells, the one that finds the smallest effect first.

    Raises:
        StudyError: no such design, or one that cannot be made of this study.
    """
    names = {*(it.name for it in study.changes), *(it.name for it in study.combinations)}
    found = [_option(design, study, num_cells) for text in designs for design in make_designs(study, [text], names)]
    return sorted((it for it in found if it.num_changes), key=lambda it: (it.detectable, it.num_cells))


def _option(design: Design, study: Study, num_cells: int) -> Option:
    sides = (side for it in design.comparisons for side in (it.variant, it.reference))
    variants = {(), *sides, *design.further}
    is_screening = design.name.partition(":")[0] == SCREENING
    held = {name for changes in variants for name in changes}
    num_changes = len(held) if is_screening else len(design.comparisons)
    seeds = min(num_cells // len(variants), MOST_SEEDS)
    find = _by_contrasts if is_screening else _by_pairs
    detectable = find(num_changes, seeds, len(variants)) if num_changes and seeds else inf
    return Option(design.name, num_changes, len(variants), seeds, detectable)


def _by_contrasts(num_changes: int, seeds: int, num_variants: int) -> float:
    """Each change in half of all cells: a standard error of 2 sd / sqrt(cells), found from what a sum of effects leaves
    unexplained, which few variants more than changes know badly."""
    from scipy.special import stdtrit

    degrees = num_variants - 1 - num_changes
    if degrees < 1:
        return inf
    reach = stdtrit(degrees, 1 - ALPHA / 2 / num_changes) + stdtrit(degrees, POWER)
    return float(reach * 2 / sqrt(num_variants * seeds))


def _by_pairs(num_changes: int, seeds: int, num_variants: int) -> float:
    """Each change in one pair of variants: sd sqrt(2 / seeds); n seeds give no sign-flip p below 2 / 2^n."""
    if seeds < 1 + log2(num_changes / ALPHA):
        return inf
    normal = NormalDist()
    reach = normal.inv_cdf(1 - ALPHA / 2 / num_changes) + normal.inv_cdf(POWER)
    return reach * sqrt(2 / seeds)
