"""The table of effects as rows of text, for the terminal and for every other output for people."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.metrics import ABSENT, Metric
from harness.report.tables import Family, rows_of
from harness.report.wording import format_factor, format_p, format_seconds, format_share
from harness.stats.effect import metric_of_row


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One row in words; `ABSENT` where there is no number.

    Attributes:
        change: what the effect is of; in the first rows, the reference.
        n: finished cells of planned ones, `9/10`, of the variant whose `value` is shown.
        value: mean and sd of the metric: of the variant with the change, in `leave-one-out` of the one without it.
        effect: estimate with its t interval; p raw, adjusted; P(improve).
        cost: mean time of a finished cell, and as a multiple of the reference's.
        verdict: of the harness's eight; `reference` for the reference itself.
        remark: missing cells and whatever else makes the numbers unusual; empty as a rule.
    """

    change: str
    n: str
    value: str
    effect: str
    p: str
    p_adjusted: str
    p_improve: str
    cost: str
    verdict: str
    is_reference: bool = False
    is_supported: bool = False
    remark: str = ""


def effect_rows(family: Family, variants: pd.DataFrame) -> list[EffectRow]:
    """The reference first, then a row per comparison in the order of `family.effects`.

    Args:
        variants: `Tables.variants`: a row per variant with n_ok, n, mean, sd and seconds.
    """
    if family.effects.empty:
        return []
    metric = metric_of_row(family.effects.iloc[0])
    by_name = {row.variant: row for row in rows_of(variants)}
    first = family.full or family.reference or next(iter(family.sides.values()))[1]
    rows = [_reference_row(by_name[first], metric)]
    for effect in rows_of(family.effects):
        variant, reference = family.sides[str(effect.variant)]
        shown = by_name[reference if family.full else variant]
        rows.append(_effect_row(effect, shown, by_name[first].seconds, metric))
    return rows


def _reference_row(row: Any, metric: Metric) -> EffectRow:
    return EffectRow(
        change=row.variant,
        n=f"{row.n_ok}/{row.n}",
        value=metric.format_spread(row.mean, row.sd),
        effect=ABSENT,
        p=ABSENT,
        p_adjusted=ABSENT,
        p_improve=ABSENT,
        cost=format_seconds(row.seconds),
        verdict="reference",
        is_reference=True,
    )


def _effect_row(effect: Any, shown: Any, reference_seconds: float, metric: Metric) -> EffectRow:
    is_inferred = effect.n > 1
    cost = format_seconds(shown.seconds)
    if shown.seconds == shown.seconds and reference_seconds > 0:
        cost += f" {format_factor(shown.seconds / reference_seconds)}"
    return EffectRow(
        change=str(effect.variant),
        n=f"{shown.n_ok}/{shown.n}",
        value=metric.format_spread(shown.mean, shown.sd),
        effect=metric.format_estimate(effect.mean, effect.low, effect.high),
        p=format_p(effect.p),
        p_adjusted=format_p(effect.p_adjusted),
        p_improve=format_share(effect.p_improve) if is_inferred else ABSENT,
        cost=cost,
        verdict=str(effect.verdict),
        is_supported=effect.verdict == "improves",
        remark="; ".join(part for part in (_pairs(effect), effect.note) if part),
    )


def _pairs(effect: Any) -> str:
    """STATS rule 9: an effect with a missing seed says so."""
    if not effect.missing:
        return ""
    return f"{effect.n} of {effect.n_planned} pairs complete ({effect.missing})"
