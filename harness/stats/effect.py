"""What an effect is: the contrast that defines it, the cells that it lacks, and every number said about it.

The numbers are computed in `paired.py`; what several effects tested together add is in `family.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import ResultsError
from harness.metrics import COSTS, Metric
from harness.stats.values import NOT_PLANNED, NOT_RUN

MEANINGFUL_P_IMPROVE = 0.75  # gamma of Bouthillier et al. 2021


@dataclass(frozen=True, slots=True)
class Contrast:
    """What is measured within each seed: the sum of weight * metric over variants.

    Attributes:
        name: what the effect is of; it stands in `Effect.variant`.
        reference: what it is measured against, in words or as a variant's name.
        weights: variant's name -> weight. A variant that the table lacks counts as a missing cell in every seed.
    """

    name: str
    reference: str
    weights: Mapping[str, float]

    @classmethod
    def pair(cls, variant: str, reference: str) -> "Contrast":
        """Raises ResultsError for a variant against itself: its effect is zero by construction."""
        if variant == reference:
            raise ResultsError(f"{variant!r} is compared with itself; name another reference.")
        return cls(variant, reference, {variant: 1.0, reference: -1.0})


@dataclass(frozen=True, slots=True)
class MissingCell:
    """A planned seed of a comparison that has no number on one side."""

    seed: int
    variant: str
    status: str

    @property
    def has_ended(self) -> bool:
        """It was trained, and gave no number."""
        return self.status not in (NOT_PLANNED, NOT_RUN)

    def __str__(self) -> str:
        why = {NOT_RUN: "not run", NOT_PLANNED: "not planned", "finished": "without this metric"}
        return f"{self.variant} seed {self.seed} {why.get(self.status, self.status)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Variant minus reference in one metric, paired by seed. Differences, bounds and `delta` are as it was logged.

    Attributes:
        seeds: the seeds with a number on every side; `differences` has one value for each, in this order.
        n_planned: seeds planned on every side. n < n_planned: the effect is that of the complete pairs only, and
            `missing` says which cells lack. A diverged cell is an outcome: leaving it out flatters the side that
            diverged.
        variant_mean: mean of the variant over `seeds` (NaN for a contrast of more than two variants), as
            reference_mean.
        sd: standard deviation of the differences; dz = mean / sd. NaN with one seed; dz is NaN where sd is 0.
        low, high: Student's t interval; bca_low, bca_high: bootstrap interval, from 10 seeds on.
        hodges_lehmann: median of the means of all pairs of differences, with its signed-rank interval (no bounds where
            n cannot reach the confidence): what the mean says where a few bad seeds do not pull at it. skewness of the
            differences.
        p: sign-flip permutation test; smallest_p: the least it could be with n seeds; p_t: paired t test.
        wins, ties: seeds in which the variant is better (by the metric's own direction), and equal.
        p_improve: (wins + ties / 2) / n with its Clopper-Pearson interval.
        correlation: between the two sides over seeds. variance_ratio: variance of the differences over the variance
            that independent runs would give; below 1, pairing by seed reduced the noise.
        delta: half-width of the region of practical equivalence, as declared; 0 where none was. p_equivalence: two
            one-sided t tests against it; NaN where none was.
        extra_seconds, extra_parameters: the same contrast of training seconds per cell and of model parameters.
        note: what makes these numbers unusual, empty as a rule.
    """

    variant: str
    reference: str
    metric: Metric
    confidence: float
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    missing: tuple[MissingCell, ...]
    n_planned: int
    variant_mean: float
    reference_mean: float
    mean: float
    sd: float
    dz: float
    low: float
    high: float
    bca_low: float
    bca_high: float
    hodges_lehmann: float
    hodges_lehmann_low: float
    hodges_lehmann_high: float
    skewness: float
    p: float
    smallest_p: float
    p_t: float
    wins: int
    ties: int
    p_improve: float
    p_improve_low: float
    p_improve_high: float
    correlation: float
    variance_ratio: float
    delta: float
    p_equivalence: float
    extra_seconds: float
    extra_parameters: float
    note: str

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def improvement(self) -> float:
        """The mean, signed so that more is better: for a loss, minus the mean."""
        return self.metric.sign * self.mean

    @property
    def is_meaningful(self) -> bool:
        """P(improve) is above one half, and its interval reaches beyond gamma = 0.75 (Bouthillier et al. 2021).

        Needs about 29 seeds (Noether 1987) to be decided either way.
        """
        return self.p_improve_low > 0.5 and self.p_improve_high > MEANINGFUL_P_IMPROVE


METRIC_COLUMNS: tuple[str, ...] = ("metric", "goal", "unit", "digits", "higher_is_better")


def metric_columns(metric: Metric) -> dict[str, Any]:
    """What a row says of its metric, so that it can be read without the study: METRIC_COLUMNS."""
    described = (metric.name, metric.goal, metric.unit, metric.digits, metric.is_maximized)
    return dict(zip(METRIC_COLUMNS, described, strict=True))


def metric_of_row(row: Any) -> Metric:
    """The metric of a row of a table of effects.

    Args:
        row: with the columns as attributes, as `DataFrame.itertuples` and `DataFrame.iloc` give it.
    """
    cost = next((it for it in COSTS if it.name == row.metric), None)
    return cost or Metric.declared(row.metric, row.goal, row.unit, int(row.digits))
