"""One effect: a weighted sum of variants taken within each seed, and everything said about it.

A paired effect is the sum +1 variant, -1 reference; an interaction, a step of a path and a Shapley value are sums with
other weights, so all of them get the same interval, test and honesty about missing seeds. What an effect holds is in
`effect.py`; families of effects, with their correction and verdicts, are in `family.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.metrics import Metric
from harness.stats.effect import Contrast, Effect, MissingCell
from harness.stats.intervals import bca_interval, clopper_pearson, hodges_lehmann, mean_and_sd, skewness, t_interval
from harness.stats.significance import equivalence_p, sign_flip_p, smallest_sign_flip_p, t_p_value
from harness.stats.values import NOT_PLANNED, FloatArray, Values, metric_values

# 0.72 - 0.71 and 0.71 - 0.70 differ in the 17th digit, though both are 100 examples of 10,000; they must tie.
DECIMALS = 12  # of differences between numbers from 0.001 to 1,000; fewer above, more below, see `_decimals`


def paired_effect(
    table: pd.DataFrame,
    variant: str,
    *,
    reference: str = "baseline",
    metric: str | None = None,
    confidence: float = 0.95,
    delta: float = 0.0,
) -> Effect:
    """Mean difference between a variant and a reference, paired by seed, with its interval and its tests.

    d_s = variant_s - reference_s. Pairing is a property of the design; whether it reduced noise is reported
    (`correlation`, `variance_ratio`), not assumed. With one seed everything but the mean is NaN.

    Args:
        table: one row per cell, as `load_results` gives it.
        metric: by default the one that the study reports.
        confidence: coverage of the intervals, in (0, 1).
        delta: differences below it do not matter to the user, as the metric is logged (0.01 is one percent). Without
            one there is no test of equivalence: a margin taken from the data would be chosen by them.

    Raises:
        ResultsError: unknown variant, reference or metric; both are the same; a seed with two different cells.
    """
    values = metric_values(table, metric)
    values.require(variant)
    values.require(reference)
    return measure(values, Contrast.pair(variant, reference), confidence=confidence, delta=delta)


def measure(values: Values, contrast: Contrast, *, confidence: float = 0.95, delta: float = 0.0) -> Effect:
    """The effect that a contrast defines, over the seeds that all of its variants have."""
    return measure_all(values, [contrast], confidence=confidence, delta=delta)[0]


def measure_all(
    values: Values, contrasts: Iterable[Contrast], *, confidence: float = 0.95, delta: float = 0.0
) -> list[Effect]:
    """`measure` of each. The signs are flipped for all of them at once, which takes a tenth of the time."""
    taken = [_Taken.of(values, contrast) for contrast in contrasts]
    tested = _sign_flip_p_of_each([it.differences for it in taken])
    return [_effect(values, it, p, confidence, delta) for it, p in zip(taken, tested, strict=True)]


def _sign_flip_p_of_each(differences: Sequence[FloatArray]) -> list[float]:
    found = np.empty(len(differences))
    sizes = np.array([it.size for it in differences])
    for n in np.unique(sizes):
        places = np.flatnonzero(sizes == n)
        found[places] = sign_flip_p(np.stack([differences[int(place)] for place in places]))
    return list(map(float, found))


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a contrast takes of a table; v variants that it weighs, s seeds, n of them complete.

    Attributes:
        names, weights: (v,). numbers, statuses, seconds: (v, s). parameters: (v,).
        complete: (s,), seeds that every side has. sides: (v, n). differences: (n,).
    """

    contrast: Contrast
    names: list[str]
    weights: FloatArray
    numbers: FloatArray
    statuses: NDArray[np.str_]
    seconds: FloatArray
    parameters: FloatArray
    complete: NDArray[np.bool_]
    sides: FloatArray
    differences: FloatArray

    @classmethod
    def of(cls, values: Values, contrast: Contrast) -> "_Taken":
        names = sorted(it for it, weight in contrast.weights.items() if weight != 0)  # what cancels need not be there
        assert names, f"the contrast {contrast.name} weighs nothing"
        weights = np.array([contrast.weights[name] for name in names])
        numbers, statuses, seconds, parameters = _sides(values, names)
        complete = np.logical_and.reduce(np.isfinite(numbers), axis=0)
        sides = numbers[:, complete]
        differences = np.round(weights @ sides, _decimals(sides)) + 0.0  # -0.0 would print as a loss
        return cls(contrast, names, weights, numbers, statuses, seconds, parameters, complete, sides, differences)


def _effect(values: Values, taken: _Taken, p: float, confidence: float, delta: float) -> Effect:
    contrast, weights, complete, sides = taken.contrast, taken.weights, taken.complete, taken.sides
    differences, planned = taken.differences, _planned(taken.statuses)
    n = differences.size
    mean, sd = (float(x) for x in mean_and_sd(differences))
    low, high = (float(x) for x in t_interval(differences, confidence))
    bca_low, bca_high = bca_interval(differences, confidence)
    centre, (skew, bound) = hodges_lehmann(differences, confidence), skewness(differences)
    improved = values.metric.sign * differences
    wins, ties = int((improved > 0).sum()), int((improved == 0).sum())
    p_improve_low, p_improve_high = clopper_pearson(wins + ties / 2, n, confidence) if n > 1 else (np.nan, np.nan)
    is_pair = sorted(weights) == [-1.0, 1.0]
    variant_mean, reference_mean = _means_of_pair(sides, weights) if is_pair and n else (np.nan, np.nan)
    return Effect(
        variant=contrast.name,
        reference=contrast.reference,
        metric=values.metric,
        confidence=confidence,
        seeds=tuple(values.seeds[s] for s in np.flatnonzero(complete)),
        differences=tuple(map(float, differences)),
        missing=_missing(values.seeds, taken.names, taken.numbers, taken.statuses, planned),
        n_planned=int(planned.sum()),
        variant_mean=variant_mean,
        reference_mean=reference_mean,
        mean=mean,
        sd=sd,
        dz=mean / sd if sd > 0 else np.nan,
        low=low,
        high=high,
        bca_low=bca_low,
        bca_high=bca_high,
        hodges_lehmann=centre[0],
        hodges_lehmann_low=centre[1],
        hodges_lehmann_high=centre[2],
        skewness=skew,
        p=p,
        smallest_p=smallest_sign_flip_p(n) if n > 1 else np.nan,
        p_t=float(t_p_value(differences)),
        wins=wins,
        ties=ties,
        p_improve=(wins + ties / 2) / n if n else np.nan,
        p_improve_low=p_improve_low,
        p_improve_high=p_improve_high,
        correlation=_correlation(sides) if is_pair else np.nan,
        variance_ratio=_variance_ratio(sides, weights, sd),
        delta=delta,
        p_equivalence=float(equivalence_p(differences, delta)) if delta > 0 else np.nan,
        extra_seconds=float((weights @ taken.seconds[:, complete]).mean()) if n else np.nan,
        extra_parameters=float(weights @ taken.parameters),
        note=_note(differences, is_pair) or _skew_note(values.metric, n, (skew, bound), (low, high), centre),
    )


def _sides(values: Values, names: list[str]) -> tuple[FloatArray, NDArray[np.str_], FloatArray, FloatArray]:
    """Numbers, statuses and seconds (variant, seed) and parameters (variant,) of the named variants, in this order."""
    rows = [values.row(name) for name in names]
    known = [row is not None for row in rows]
    at = [row or 0 for row in rows]
    return (
        np.where(np.array(known)[:, None], values.numbers[at], np.nan),
        np.where(np.array(known)[:, None], values.statuses[at], NOT_PLANNED),
        values.seconds[at],
        np.where(known, values.parameters[at], np.nan),
    )


def _planned(statuses: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(seed,): those planned on every side; on any, where a side was planned nowhere and there is nothing to compare.

    A side may have more seeds than the other: it was extended alone, or the other was closed in a race.
    """
    on_side = statuses != NOT_PLANNED
    return np.asarray(on_side.all(axis=0) if on_side.any(axis=1).all() else on_side.any(axis=0))


def _decimals(sides: FloatArray) -> int:
    """Decimals that are no noise of subtracting, for numbers of any size: an error of 1e-9 is not zero, and of 1e6 the
    twelfth decimal says nothing."""
    largest = float(np.abs(sides).max(initial=0.0))
    magnitude = max(floor(log10(largest)), -290) if largest > 0 else 0
    return DECIMALS - max(magnitude - 2, 0) - min(magnitude + 3, 0)


def _missing(
    seeds: tuple[int, ...],
    names: list[str],
    numbers: FloatArray,
    statuses: NDArray[np.str_],
    planned: NDArray[np.bool_],
) -> tuple[MissingCell, ...]:
    lacking = np.argwhere((np.isnan(numbers) & planned).T)
    return tuple(MissingCell(seeds[s], names[v], str(statuses[v, s])) for s, v in lacking)


def _means_of_pair(sides: FloatArray, weights: FloatArray) -> tuple[float, float]:
    return float(sides[np.argmax(weights)].mean()), float(sides[np.argmin(weights)].mean())


def _correlation(sides: FloatArray) -> float:
    if sides.shape[1] < 2 or (np.ptp(sides, axis=1) == 0).any():
        return np.nan
    return float(np.corrcoef(sides[0], sides[1])[0, 1])


def _variance_ratio(sides: FloatArray, weights: FloatArray, sd: float) -> float:
    if sides.shape[1] < 2:
        return np.nan
    independent = float(weights**2 @ sides.var(axis=1, ddof=1))
    return sd**2 / independent if independent > 0 else np.nan


def _note(differences: FloatArray, is_pair: bool) -> str:
    if differences.size < 2 or np.ptp(differences) > 0:
        return ""
    if is_pair and differences[0] == 0:
        return f"identical in all {differences.size} seeds: check that the change reaches the model"
    return "the same difference in every seed: its spread cannot be estimated, so there is no t interval"


def _skew_note(
    metric: Metric,
    n: int,
    skew: tuple[float, float],
    t_bounds: tuple[float, float],
    centre: tuple[float, float, float],
) -> str:
    """Where the differences are more skewed than n allows, every test here is off: it is said, with what to do."""
    if not abs(skew[0]) > skew[1]:
        return ""
    estimate, low, high = centre
    robust = f"Hodges-Lehmann {metric.say_difference(estimate)} [{metric.say_interval(low, high)}]"
    excludes = [bound[0] > 0 or bound[1] < 0 for bound in (t_bounds, (low, high))]
    disagree = "; the two disagree about zero" if excludes[0] != excludes[1] else ""
    return (
        f"skewed differences (skewness {skew[0]:+.1f} on {n} seeds), so that mean and p are less sure than they look: "
        f"{robust}{disagree}; train more seeds, and look at the seeds that ended early"
    )
