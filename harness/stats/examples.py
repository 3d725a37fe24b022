"""What a difference says about examples that were not tested: seeds crossed with test examples.

An interval over seeds speaks of new seeds on the same test examples. Where training kept which examples each cell got
right, a second one speaks of new seeds on new examples of the same kind; and one sees which examples a change gains.

Axes: n seeds, N examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from harness.stats.intervals import t_interval
from harness.stats.values import FloatArray

Right = Mapping[tuple[str, int], NDArray[np.bool_]]  # (variant, seed) -> which examples were right, (N,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleEffect:
    """A difference of shares of examples, variant minus reference, with both intervals.

    Attributes:
        seeds: those that both sides have examples of.
        mean: of all n N differences, each -1, 0 or 1.
        low, high: Student's t over seeds: new seeds, the same examples.
        population_low, population_high: new seeds, new examples. degrees: of freedom (Satterthwaite).
        changes: (N,), the share of seeds in which the change makes an example right, minus those in which it makes it
            wrong.
        reference_right, variant_right: (N,), the share of seeds that got an example right.
    """

    seeds: tuple[int, ...]
    mean: float
    low: float
    high: float
    population_low: float
    population_high: float
    degrees: float
    reference_right: FloatArray
    variant_right: FloatArray

    @property
    def changes(self) -> FloatArray:
        return self.variant_right - self.reference_right

    @property
    def num_examples(self) -> int:
        return len(self.reference_right)

    @property
    def num_gained(self) -> int:
        """Examples that are right in more seeds with the change than without."""
        return int((self.changes > 0).sum())

    @property
    def num_lost(self) -> int:
        return int((self.changes < 0).sum())


def example_effect(right: Right, variant: str, reference: str, *, confidence: float = 0.95) -> ExampleEffect | None:
    """The difference of two variants over the examples of the seeds that both have; None where they have none.

    Cells with another number of examples than most are left out: they were tested on something else.
    """
    seeds = _seeds_of(right, variant, reference)
    sizes = [len(right[name, seed]) for seed in seeds for name in (variant, reference)]
    size = max(set(sizes), key=sizes.count, default=0)
    kept = [seed for seed in seeds if len(right[variant, seed]) == len(right[reference, seed]) == size]
    if not kept:
        return None
    ours, theirs = (np.array([right[name, seed] for seed in kept], dtype=np.float64) for name in (variant, reference))
    differences = ours - theirs
    low, high = t_interval(differences.mean(axis=1), confidence)
    population_low, population_high, degrees = two_way_interval(differences, confidence)
    return ExampleEffect(
        seeds=tuple(kept),
        mean=float(differences.mean()),
        low=float(low),
        high=float(high),
        population_low=population_low,
        population_high=population_high,
        degrees=degrees,
        reference_right=theirs.mean(axis=0),
        variant_right=ours.mean(axis=0),
    )


def _seeds_of(right: Right, variant: str, reference: str) -> list[int]:
    return sorted(seed for name, seed in right if name == variant and (reference, seed) in right)


def two_way_interval(differences: FloatArray, confidence: float = 0.95) -> tuple[float, float, float]:
    """The interval of a mean over seeds crossed with examples, both drawn at random; and its degrees of freedom.

    d_si = mu + a_s + b_i + e_si; V = (MS_seed + MS_example - MS_residual) / (n N), degrees of freedom by Satterthwaite
    (1946). Where V comes out smaller than what seeds alone say, their interval is given: a new example cannot make the
    mean more certain.

    Args:
        differences: (n, N).

    Returns:
        (low, high, degrees); NaN for one seed or one example.
    """
    n, size = differences.shape
    if n < 2 or size < 2:
        return float("nan"), float("nan"), float("nan")
    mean, by_seed, by_example = differences.mean(), differences.mean(axis=1), differences.mean(axis=0)
    seed = size * ((by_seed - mean) ** 2).sum() / (n - 1)
    example = n * ((by_example - mean) ** 2).sum() / (size - 1)
    rest = differences - by_seed[:, None] - by_example + mean
    residual = (rest**2).sum() / ((n - 1) * (size - 1))
    summed = seed + example - residual
    of_seeds = stdtrit(n - 1, (1 + confidence) / 2) * np.sqrt(seed / (n * size))
    degrees, half = float(n - 1), float(of_seeds)
    if summed > 0:
        parts = seed**2 / (n - 1) + example**2 / (size - 1) + residual**2 / ((n - 1) * (size - 1))
        both = float(summed**2 / parts)
        wider = float(stdtrit(both, (1 + confidence) / 2) * np.sqrt(summed / (n * size)))
        degrees, half = (both, wider) if wider > half else (degrees, half)
    return float(mean - half), float(mean + half), degrees
