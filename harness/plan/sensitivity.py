"""What a plan's seeds can show, before they run: the smallest effect, or how many seeds an effect takes.

Between a plan and `power.py`: the size of the family and the spread between seeds come from here. The spread is what
was measured so far, pooled over the variants; before any run, what the size of the test set lets expect.
"""

import math
from collections import Counter
from dataclasses import dataclass

from harness.plan.estimate import num_images
from harness.plan.plan import Plan
from harness.plan.power import prior_difference_sd, seeds_needed, smallest_detectable_effect
from harness.store.cells import Cells

ALPHA = 0.05
EXPECTED_ACCURACY = 0.75  # of the report's networks; enters the expected spread by its root
LEAST_DEGREES = 3  # of freedom, before a measured spread is believed


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Differences in test accuracy as fractions.

    Attributes:
        num_seeds: of the plan. family_size: comparisons that are corrected together, of the largest design.
        sd: of the per-seed differences; is_measured: from results, not expected.
        detectable: the smallest effect that is found with power 0.8 at 0.05 / family_size; NaN with one seed.
    """

    num_seeds: int
    family_size: int
    sd: float
    is_measured: bool
    detectable: float


def sensitivity(plan: Plan, cells: Cells) -> Sensitivity:
    """What the plan's seeds can show after correction."""
    n, m = len(plan.seeds), family_size(plan)
    sd, is_measured = difference_spread(plan, cells)
    detectable = smallest_detectable_effect(n, sd, ALPHA, m) if n > 1 else math.nan
    return Sensitivity(n, m, sd, is_measured, detectable)


def seeds_for(plan: Plan, cells: Cells, effect: float) -> int:
    """The fewest seeds that find an effect of this size (a fraction) with power 0.8 after correction.

    Raises:
        StudyError: the effect is not positive, or takes more than 10,000 seeds.
    """
    sd, _ = difference_spread(plan, cells)
    return seeds_needed(effect, sd, ALPHA, family_size(plan))


def family_size(plan: Plan) -> int:
    """Comparisons of the plan's largest design; 1 where it compares nothing."""
    return max(Counter(it.design for it in plan.comparisons).values(), default=1)


def difference_spread(plan: Plan, cells: Cells) -> tuple[float, bool]:
    """Sd of the per-seed differences to the baseline, and whether it was measured.

    Pooled over variants by degrees of freedom, of the plan's seeds that have results.
    """
    baseline, *others = [_accuracies(plan, index, cells) for index in range(len(plan.variants))]
    squares, degrees = 0.0, 0
    for accuracies in others:
        paired = [accuracies[seed] - baseline[seed] for seed in accuracies.keys() & baseline.keys()]
        if len(paired) > 1:
            mean = sum(paired) / len(paired)
            squares += sum((it - mean) ** 2 for it in paired)
            degrees += len(paired) - 1
    if degrees >= LEAST_DEGREES and squares > 0:
        return math.sqrt(squares / degrees), True
    return prior_difference_sd(EXPECTED_ACCURACY, num_images(plan.variants[0].settings)[1]), False


def _accuracies(plan: Plan, index: int, cells: Cells) -> dict[int, float]:
    results = ((cell.seed, cells.result(cell.key)) for cell in plan.variants[index].cells)
    return {seed: it.test_accuracy for seed, it in results if it and it.test_accuracy is not None}
