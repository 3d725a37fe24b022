"""The same effects in two study runs: which of them differ? Other code, other data, other versions.

A seed that both runs have is one observation of each: the difference of the effects is taken within it, so that what
the seed gives to both cancels, and a family of such differences is tested like any other. Runs without common seeds are
compared by Welch's t test on the effects of single seeds, with Holm's correction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.errors import ResultsError
from harness.metrics import Metric
from harness.stats.effect import Contrast, Effect
from harness.stats.family import measure_family
from harness.stats.paired import measure_all
from harness.stats.significance import holm
from harness.stats.values import metric_values
from harness.store.load import metrics_of

FIRST, SECOND = "first", "second"
LEAST_COMMON = 2  # seeds; with fewer the runs are compared without pairing
COLUMNS = (
    "change", "n_first", "n_second", "first", "first_low", "first_high", "second", "second_low", "second_high", "n",
    "difference", "low", "high", "p", "p_adjusted", "verdict",
)  # fmt: skip
_WORDS = {
    "improves": "better in the second",
    "improves where it trains": "better in the second, where both train",
    "hurts": "worse in the second",
    "equivalent": "the same within the margin",
}

Pair = tuple[str, str]  # (variant, reference)
Row = dict[str, Any]


@dataclass(frozen=True)
class Between:
    """What two study runs say of the same effects.

    Attributes:
        table: COLUMNS, a row an effect, in the order asked for; numbers as the metric is logged.
        common_seeds: over which the differences are paired; empty where they are not.
        correction: of the family, in words.
    """

    table: pd.DataFrame
    metric: Metric
    common_seeds: tuple[int, ...]
    correction: str


def between(
    first: pd.DataFrame,
    second: pd.DataFrame,
    pairs: Mapping[str, Pair],
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    delta: float = 0.0,
    exploratory: bool = False,
) -> Between:
    """Which effects of the second run differ from those of the first.

    Args:
        first, second: as `load_results` gives them.
        pairs: label to (variant, reference), both in each run.
        delta: differences of effects below it do not matter, as the metric is logged; 0: no equivalence is tested.

    Raises:
        ResultsError: there is no common effect; the runs do not report the same metric; one has no finished cell.
    """
    if not pairs:
        raise ResultsError("the two study runs have no comparison in common, so no effect can be compared.")
    name = metric or metrics_of(first).report
    mine, others = metrics_of(first), metrics_of(second)
    if name not in others or mine[name] != others[name]:
        raise ResultsError(f"the two study runs do not measure the same {name}; --metric names another.")
    sides = {FIRST: metric_values(first, name), SECOND: metric_values(second, name)}
    effects = {
        side: measure_all(values, [Contrast.pair(*pair) for pair in pairs.values()], confidence=1 - alpha)
        for side, values in sides.items()
    }
    common = tuple(sorted(set(sides[FIRST].seeds) & set(sides[SECOND].seeds)))
    if len(common) >= LEAST_COMMON:
        tested, correction = _paired(first, second, pairs, name, common, (alpha, delta, exploratory))
    else:
        common, correction = (), "Holm, without pairing"
        tested = _unpaired(effects, alpha, exploratory)
    rows = [
        {"change": label, **_side(FIRST, one), **_side(SECOND, other), **test}
        for label, one, other, test in zip(pairs, effects[FIRST], effects[SECOND], tested, strict=True)
    ]
    return Between(pd.DataFrame(rows, columns=list(COLUMNS)), mine[name], common, correction)


def joined(first: pd.DataFrame, second: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Both runs as one results table of the common seeds; a variant is called `first:NAME` or `second:NAME`.

    The looks that either run declared are of its own effects, and not of what is tested here.
    """
    parts = []
    for side, table in ((FIRST, first), (SECOND, second)):
        mine = table[table["seed"].isin(seeds)]
        parts.append(mine.assign(variant=f"{side}:" + mine["variant"], changes="", study=""))
    known = [it for it in first.columns if it in second.columns]
    table = pd.concat([part[known] for part in parts], ignore_index=True)
    manifest = first.attrs["manifest"]
    table.attrs["manifest"] = manifest.without_looks()
    return table


def _paired(
    first: pd.DataFrame,
    second: pd.DataFrame,
    pairs: Mapping[str, Pair],
    metric: str,
    common: Sequence[int],
    options: tuple[float, float, bool],
) -> tuple[list[Row], str]:
    alpha, delta, exploratory = options
    contrasts = [
        Contrast(
            label,
            "the same effect in the first",
            {
                f"{SECOND}:{variant}": 1.0,
                f"{SECOND}:{reference}": -1.0,
                f"{FIRST}:{variant}": -1.0,
                f"{FIRST}:{reference}": 1.0,
            },
        )
        for label, (variant, reference) in pairs.items()
    ]
    values = metric_values(joined(first, second, common), metric)
    frame = measure_family(values, contrasts, alpha=alpha, delta=delta, exploratory=exploratory)
    tested: list[Row] = [
        {
            "n": row.n,
            "difference": row.mean,
            "low": row.low,
            "high": row.high,
            "p": row.p,
            "p_adjusted": row.p_adjusted,
            "verdict": _WORDS.get(str(row.verdict), str(row.verdict)),
        }
        for row in frame.itertuples()
    ]
    return tested, str(frame["correction"].iloc[0])


def _unpaired(effects: Mapping[str, Sequence[Effect]], alpha: float, exploratory: bool) -> list[Row]:
    """Welch 1947: no equal spread is assumed."""
    tested: list[Row] = []
    for one, other in zip(effects[FIRST], effects[SECOND], strict=True):
        row: Row = dict.fromkeys(("low", "high", "p"), np.nan)
        if min(one.n, other.n) > 1 and one.sd + other.sd > 0:
            found = stats.ttest_ind(other.differences, one.differences, equal_var=False)
            interval = found.confidence_interval(1 - alpha)
            row = {"low": float(interval.low), "high": float(interval.high), "p": float(found.pvalue)}
        tested.append({"n": min(one.n, other.n), "difference": other.mean - one.mean, **row})
    adjusted = holm(np.array([row["p"] for row in tested], dtype=np.float64))
    for row, p, one in zip(tested, adjusted, effects[FIRST], strict=True):
        row["p_adjusted"] = float(p)
        row["verdict"] = _verdict(float(p), one.metric.sign * row["difference"], alpha, exploratory)
    return tested


def _verdict(p: float, improvement: float, alpha: float, exploratory: bool) -> str:
    if np.isnan(p):
        return "cannot be told"
    if exploratory:
        return "exploratory"
    if p > alpha:
        return "inconclusive"
    return _WORDS["improves" if improvement > 0 else "hurts"]


def _side(side: str, it: Effect) -> Row:
    return {f"n_{side}": it.n, side: it.mean, f"{side}_low": it.low, f"{side}_high": it.high}
