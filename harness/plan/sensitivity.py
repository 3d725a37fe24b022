"""What a plan's seeds can show, before they run: the smallest effect, or how many seeds an effect takes.

Between a plan and `power.py`: the size of the family and the spread between seeds come from here. The spread is what
was measured so far, pooled over the variants; before any run, what the trainer expects, if it knows.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

from harness.errors import StudyError
from harness.plan.cell import Cell
from harness.plan.plan import Plan
from harness.plan.power import (
    BeyondError,
    seeds_from_pilots,
    seeds_needed,
    smallest_detectable_effect,
    weight_beside_main,
)
from harness.study.designs.registry import kind_of

Reported = Callable[[Cell], float | None]  # the reported metric of a cell; None where it has not finished
ALPHA = 0.05
LEAST_DEGREES = 3  # of freedom, before a measured spread is believed


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Differences in the reported metric, as it is logged.

    Attributes:
        num_seeds: of the plan. horizon: those that were declared, or would be by the first cell.
        family_size: comparisons of the main design, which was declared first.
        share: of the error budget that it has; less than 1 where other designs are tested beside it.
        sd: of the per-seed differences; is_measured: from results, not expected. NaN where nothing is known yet.
        detectable: the smallest effect that is found with power 0.8 after correction by the horizon: the test of what
            goes on beyond it is another, of less power. NaN with fewer seeds than can show anything, and where the sd
            is not known.
    """

    num_seeds: int
    horizon: int
    family_size: int
    share: float
    sd: float
    is_measured: bool
    detectable: float


def sensitivity(plan: Plan, reported: Reported) -> Sensitivity:
    """What the plan's seeds can show after correction."""
    n, (m, share) = len(plan.seeds), main_family(plan)
    spread, horizon, detectable = difference_spread(plan, reported), plan.horizon or n, math.nan
    if not math.isnan(spread.sd):
        within = min(n, horizon)
        detectable = smallest_detectable_effect(within, spread.sd, ALPHA, m, share=share, horizon=horizon)
    return Sensitivity(n, horizon, m, share, spread.sd, spread.is_measured, detectable)


def seeds_for(plan: Plan, reported: Reported, effect: float, horizon: int = 0) -> int:
    """The fewest seeds that find an effect of this size (as the metric is logged) with power 0.8 after correction.

    Where the spread was measured, with what its few degrees of freedom leave open; else as if the guess were right.

    Args:
        horizon: seeds that were declared; 0 where this call declares what comes out.

    Raises:
        StudyError: the effect is not positive, or takes more than 10,000 seeds, or more than were declared; or the
            spread is not known yet.
    """
    spread = difference_spread(plan, reported)
    if math.isnan(spread.sd):
        metric = plan.study.trainer.metrics.reporting
        raise StudyError(
            f"how many seeds an effect takes depends on how much {metric.words} varies from seed to seed, and nothing "
            "says that yet: run a few seeds first, and declare with them how many there may be in the end (such as "
            "--seeds 3 --horizon 30), then ask again."
        )
    m, share = main_family(plan)
    try:
        if spread.is_measured:
            return seeds_from_pilots(effect, spread.sd, spread.degrees, ALPHA, m, share=share, horizon=horizon)
        return seeds_needed(effect, spread.sd, ALPHA, m, share=share, horizon=horizon)
    except BeyondError as error:
        raise StudyError(
            f"--seeds auto: this effect takes {error.num_seeds} seeds, and {horizon} are declared. What these do not "
            "find is judged, with more seeds, by a test that is valid however long one goes on, but finds less. To "
            f"plan for {error.num_seeds}, begin a study run of its own on fresh seeds: another name in its file, "
            f"--horizon {error.num_seeds}, and --seeds with numbers that were not used. Or ask for a larger effect."
        ) from None


def main_family(plan: Plan) -> tuple[int, float]:
    """The comparisons of the plan's main design, and its share of the error budget; 1 where it compares nothing.

    The others are those of other designs, and what is tested of changes together wherever the variants for it are:
    interactions of two, and of a complete factorial Shapley values.
    """
    pairs = {(it.variant, it.reference): kind_of(it.design) for it in reversed(plan.comparisons)}
    first = next((kind_of(it.design) for it in plan.comparisons), "")
    num_main = Counter(pairs.values())[first]
    num_others = len(pairs) - num_main + (num_together(plan) if pairs else 0)
    weight = weight_beside_main(num_main, num_others)
    return max(num_main, 1), num_main / (num_main + weight * num_others) if num_main else 1.0


def num_together(plan: Plan) -> int:
    """How many interactions and Shapley values the plan's variants allow, as `report.tables.families` tests them."""
    held = {frozenset(it.changes) for it in plan.variants}
    factorial = {change for it in plan.comparisons if it.design == "factorial" for change in it.variant}
    if len(factorial) > 1 and sum(it <= factorial for it in held) == 2 ** len(factorial):  # complete
        return len(factorial) + math.comb(len(factorial), 2)
    singles = [it for it in held if len(it) == 1]
    return sum(one | other in held for one, other in combinations(singles, 2))


@dataclass(frozen=True, slots=True)
class Spread:
    """Sd of the per-seed differences to the baseline; NaN where nothing is known. degrees: of freedom of what was
    measured; 0 where it is what the trainer expects."""

    sd: float
    degrees: int = 0

    @property
    def is_measured(self) -> bool:
        return self.degrees > 0


def difference_spread(plan: Plan, reported: Reported) -> Spread:
    """The spread to plan with: measured, or else what the trainer expects.

    Pooled over variants by degrees of freedom, of the plan's seeds that have results.
    """
    baseline, *others = [_numbers(variant.cells, reported) for variant in plan.variants]
    squares, degrees = 0.0, 0
    for numbers in others:
        paired = [numbers[seed] - baseline[seed] for seed in numbers.keys() & baseline.keys()]
        if len(paired) > 1:
            mean = sum(paired) / len(paired)
            squares += sum((it - mean) ** 2 for it in paired)
            degrees += len(paired) - 1
    if degrees >= LEAST_DEGREES and squares > 0:
        return Spread(math.sqrt(squares / degrees), degrees)
    return Spread(plan.study.trainer.expected_spread(plan.variants[0].settings))


def _numbers(cells: Iterable[Cell], reported: Reported) -> dict[int, float]:
    known = ((cell.seed, reported(cell)) for cell in cells)
    return {seed: number for seed, number in known if number is not None}
