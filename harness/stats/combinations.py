"""How changes act together: interactions of two, and what each contributes to a complete factorial.

All of it is contrasts within a seed, so interval, test, correction and missing cells are those of `family.py`. Effects
over an incomplete set of combinations are in `marginal.py`.
"""

from collections.abc import Sequence
from itertools import combinations
from math import factorial

import pandas as pd

from harness.errors import ResultsError
from harness.stats.effect import Contrast
from harness.stats.family import measure_family
from harness.stats.values import Values, metric_values
from harness.stats.wording import describe_cells

MAX_FACTORIAL_CHANGES = 10  # 1,024 combinations
BASELINE: frozenset[str] = frozenset()


def interactions(
    table: pd.DataFrame,
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    delta: float = 0.0,
    exploratory: bool = False,
) -> pd.DataFrame:
    """What two changes do together beyond the sum of what each does alone, per seed: y_AB - y_A - y_B + y_0.

    Args:
        pairs: names of changes; by default every pair of which the table has the combination and both changes alone.

    Returns:
        EFFECT_COLUMNS, a row per pair in the order given (by name without `pairs`); `variant` is "a x b".

    Raises:
        ResultsError: no pair is given and the table holds none.
    """
    values = metric_values(table, metric)
    contrasts = interaction_contrasts(values, pairs)
    return measure_family(values, contrasts, alpha=alpha, delta=delta, exploratory=exploratory)


def interaction_contrasts(values: Values, pairs: Sequence[tuple[str, str]] | None = None) -> list[Contrast]:
    """The contrasts of `interactions`. Raises ResultsError as it does."""
    if pairs is None:
        singles = {next(iter(held)) for held in values.changes if len(held) == 1}
        pairs = [pair for pair in combinations(sorted(singles), 2) if frozenset(pair) in values.variant_of]
        if not pairs:
            raise ResultsError(
                "no combination of two changes stands beside each of them alone; use the design `pairs`."
            )
    return [_interaction(values, pair, [(BASELINE, 1.0)], "sum of both alone") for pair in pairs]


def shapley_values(
    table: pd.DataFrame,
    changes: Sequence[str] | None = None,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    delta: float = 0.0,
    exploratory: bool = False,
) -> pd.DataFrame:
    """Exact Shapley value of each change, per seed: its contribution averaged over all orders of adding the changes.

    phi_i = sum over S without i of |S|! (k - |S| - 1)! / k! (y_{S+i} - y_S). Within each seed the values of all changes
    add up to the full combination minus the baseline.

    Args:
        changes: those of the factorial, at most 10; by default all that the table names.

    Returns:
        EFFECT_COLUMNS, a row per change by name. A seed that lacks any combination is not used; `missing` names the
        cells.

    Raises:
        ResultsError: more than 10 changes, or the table lacks some of the 2^k combinations.
    """
    values = metric_values(table, metric)
    contrasts = shapley_contrasts(values, changes)
    return measure_family(values, contrasts, alpha=alpha, delta=delta, exploratory=exploratory)


def shapley_contrasts(values: Values, changes: Sequence[str] | None = None) -> list[Contrast]:
    """The contrasts of `shapley_values`. Raises ResultsError as it does."""
    named = _complete_factorial(values, changes)
    k = len(named)
    contrasts = []
    for change in named:
        weights: dict[str, float] = {}
        for before in _subsets([other for other in named if other != change]):
            share = factorial(len(before)) * factorial(k - len(before) - 1) / factorial(k)
            weights[values.holding(before | {change})] = share
            weights[values.holding(before)] = -share
        contrasts.append(Contrast(change, "average over all orders", weights))
    return contrasts


def factorial_interactions(
    table: pd.DataFrame,
    changes: Sequence[str] | None = None,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    delta: float = 0.0,
    exploratory: bool = False,
) -> pd.DataFrame:
    """Order-2 Shapley interaction of each pair in a complete factorial (Grabisch & Roubens 1999), per seed.

    I_ij = sum over S without i and j of |S|! (k - |S| - 2)! / (k - 1)! (y_{S+ij} - y_{S+i} - y_{S+j} + y_S): the
    interaction of `interactions`, averaged over what else is switched on. With two changes they are the same.

    Returns, Raises: as `shapley_values`, a row per pair.
    """
    values = metric_values(table, metric)
    contrasts = factorial_interaction_contrasts(values, changes)
    return measure_family(values, contrasts, alpha=alpha, delta=delta, exploratory=exploratory)


def factorial_interaction_contrasts(values: Values, changes: Sequence[str] | None = None) -> list[Contrast]:
    """The contrasts of `factorial_interactions`. Raises ResultsError as it does."""
    named = _complete_factorial(values, changes)
    k = len(named)
    contrasts = []
    for pair in combinations(named, 2):
        others = [change for change in named if change not in pair]
        backgrounds = [
            (before, factorial(len(before)) * factorial(k - len(before) - 2) / factorial(k - 1))
            for before in _subsets(others)
        ]
        contrasts.append(_interaction(values, pair, backgrounds, "sum of both, averaged over the others"))
    return contrasts


def _interaction(
    values: Values, pair: tuple[str, str], backgrounds: Sequence[tuple[frozenset[str], float]], reference: str
) -> Contrast:
    a, b = pair
    weights: dict[str, float] = {}
    for background, share in backgrounds:
        for added, sign in (({a, b}, 1.0), ({a}, -1.0), ({b}, -1.0), (set[str](), 1.0)):
            weights[values.holding(background | added)] = sign * share
    return Contrast(f"{a} x {b}", reference, weights)


def _complete_factorial(values: Values, changes: Sequence[str] | None) -> list[str]:
    named = sorted(set(changes) if changes is not None else frozenset[str]().union(*values.changes))
    if not 1 <= len(named) <= MAX_FACTORIAL_CHANGES:
        raise ResultsError(
            f"exact Shapley values need 1 to {MAX_FACTORIAL_CHANGES} changes, not {len(named)}; name fewer, or use"
            " the marginal effects of a linear model."
        )
    absent = [values.holding(subset) for subset in _subsets(named) if subset not in values.variant_of]
    if absent:
        raise ResultsError(
            f"the factorial of {', '.join(named)} is not complete: {len(absent)} of {2 ** len(named)} combinations"
            f" are not in the table ({describe_cells(absent)}). Plan the design `factorial` in full, or use marginal"
            " effects."
        )
    return named


def _subsets(changes: Sequence[str]) -> list[frozenset[str]]:
    return [frozenset(chosen) for size in range(len(changes) + 1) for chosen in combinations(changes, size)]
