"""The one sentence below the table: the biggest single improvement, or why it cannot be named yet.

The biggest is a maximum of noisy numbers, so the sentence always says among how many it was picked, and that fresh
seeds have to confirm it.
"""

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd

from harness.plan.power import seeds_to_reach
from harness.stats.effect import metric_of_row
from harness.stats.significance import expected_luck, smallest_sign_flip_p
from harness.stats.wording import format_p
from harness.texts import counted


@dataclass(frozen=True, slots=True)
class Headline:
    """The answer in words, and for programs.

    Attributes:
        variant: the change with the biggest estimate that the sentence names; None where there is none to name.
        is_supported: its verdict is "improves".
    """

    variant: str | None
    is_supported: bool
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def biggest_improvement(
    family: pd.DataFrame,
    *,
    chosen_by: pd.DataFrame | None = None,
    study: str = "",
    confirmed: Collection[str] = (),
) -> Headline:
    """Name the biggest single improvement of a family, or say why it cannot be named yet (STATS rules 1 to 6).

    Args:
        family: what `effects` returns, on the metric to report.
        chosen_by: the same family on the metric that selects. The biggest is then picked there and reported here, so
            that the number used to choose is not the number reported.
        study: as it was asked for, for the command that comes next.
        confirmed: variants that fresh seeds have decided on.
    """
    measured = {row.variant: row for row in _rows(family) if row.n > 0}
    if not measured:
        return Headline(None, False, _nothing_yet(family))
    ranking = family if chosen_by is None else chosen_by
    ranked = [row for row in _ranked(ranking) if row.variant in measured]
    if not ranked:
        return Headline(None, False, _nothing_yet(ranking))
    most = max(row.n for row in ranked)  # of fewer seeds the luckiest would look best, unless its claim stands
    order = [row.variant for row in ranked if row.n == most or measured[row.variant].verdict == "improves"]
    fewer = [measured[row.variant] for row in takewhile(lambda it: it.variant not in order, ranked)]
    supported = [name for name in order if measured[name].verdict == "improves"]
    row = measured[supported[0] if supported else order[0]]
    luck = _luck(row, _picked(row, order, measured), study, is_decided=row.variant in confirmed)
    how = "" if chosen_by is None else f", picked by {metric_of_row(chosen_by.iloc[0]).words},"
    if supported:
        parts = [_claim(row, how), _missing(row), luck, *_rivals(row, order, measured)]
    elif row.improvement <= 0:
        parts = [_none_improves(row, how, "those with the most seeds" if fewer else ""), _missing(row), _why_not(row)]
    else:
        parts = [_candidate(row, how), _missing(row), _why_not(row), luck]
    for it in fewer[:1]:
        parts.append(
            f"{it.variant} ranks before it, at {_estimate(it)}, but on {it.n} of {counted(it.n_planned, 'seed')}."
        )
    return Headline(str(row.variant), bool(supported), " ".join(part for part in parts if part))


def refusal(n: int, alpha: float = 0.05) -> str:
    """Why n seeds cannot reach significance, and how many could; empty where they can. The size of the family has no
    part in it: joint sign flips do not multiply the smallest p."""
    smallest = smallest_sign_flip_p(n)
    if n > 1 and smallest <= alpha:
        return ""
    return (
        f"It cannot reach significance with {counted(n, 'seed')}: the smallest possible p is {format_p(smallest)} and"
        f" {format_p(alpha)} is needed, which takes at least {seeds_to_reach(alpha)} seeds."
    )


def why_no_claim(row: Any) -> str:
    """Why an effect of a family cannot be claimed with the seeds that it has at this look; empty where it can."""
    if refused := refusal(row.n, row.alpha):
        return refused
    if not row.smallest_p_adjusted > row.alpha:
        return ""
    return (
        f"It cannot reach significance yet: this is {row.look}, and the smallest adjusted p that it could show is"
        f" {format_p(row.smallest_p_adjusted)}. {_where_to_go(row.look)}"
    )


def _where_to_go(look: str) -> str:
    return "More seeds may tell." if "beyond" in look else "Go on to the seeds that were planned."


def adjusted(row: Any) -> str:
    """The p that decides, how it was corrected and at which look: `0.0078 after Westfall-Young over 9 changes`."""
    look = f" ({row.look})" if row.look else ""
    return f"{format_p(row.p_adjusted)} after {row.correction} over {corrected_over(row)}{look}"


def corrected_over(row: Any) -> str:
    """Over what the p that decides was corrected: the changes of one design, or all that the study run compares."""
    if row.share == 1:
        return _changes(row)
    return (
        f"all {row.corrected_over} comparisons of this study run, with {100 * row.share:.0f}% of the error budget for"
        f" the {_changes(row)} of this design"
    )


def _rows(family: pd.DataFrame) -> list[Any]:
    """Named tuples with the columns as fields, untyped: pandas cannot say what is in a column."""
    return list(family.itertuples())


def _ranked(family: pd.DataFrame) -> list[Any]:
    return sorted(
        (row for row in _rows(family) if np.isfinite(row.improvement)), key=lambda row: (-row.improvement, row.variant)
    )


def _estimate(row: Any) -> str:
    """The estimate with its interval; the interval of one seed does not exist and is not mentioned."""
    metric = metric_of_row(row)
    text = metric.say_difference(row.mean)
    if row.n < 2:
        return text
    level = f"{100 * row.confidence:g}%"
    return f"{text} [{metric.say_interval(row.low, row.high, level)}]"


def _claim(row: Any, how: str) -> str:
    return (
        f"The biggest single improvement{how} is {row.variant}: {_estimate(row)} in {metric_of_row(row).words}"
        f" over {row.reference} on {row.n} of {counted(row.n_planned, 'seed')}; p {format_p(row.p)} raw,"
        f" {adjusted(row)}; P(improve) {row.p_improve:.2f} [{row.p_improve_low:.2f},"
        f" {row.p_improve_high:.2f}]."
    )


def _candidate(row: Any, how: str) -> str:
    label = "exploratory estimate" if row.verdict == "exploratory" else "estimate"
    return (
        f"The biggest single improvement cannot be named yet. The largest {label}{how} is {row.variant}:"
        f" {_estimate(row)} in {metric_of_row(row).words} over {row.reference} on {row.n} of {row.n_planned}"
        " seeds."
    )


def _none_improves(row: Any, how: str, among: str) -> str:
    return (
        f"No improvement to name: even the best of {among or _changes(row)}{how.removesuffix(',')}, {row.variant},"
        " stands at"
        f" {_estimate(row)} in {metric_of_row(row).words} against {row.reference} on {row.n} of {row.n_planned}"
        " seeds."
    )


def _why_not(row: Any) -> str:
    """What keeps the largest estimate from being named."""
    metric = metric_of_row(row)
    if row.verdict == "no inference (one seed)":
        return "One seed shows nothing about the next one: no inference. 3 seeds give intervals, 10 are the standard."
    if row.verdict in ("exploratory", "cannot reach significance"):
        return why_no_claim(row) or "This is exploratory, so nothing is claimed."
    if row.verdict == "improves where it trains":
        is_to_come = row.missing.partition(",")[0].endswith("not run")  # what was trained without a number comes first
        next_step = "The same command trains the rest." if is_to_come else "Find out why they have none."
        return (
            f"It improves where it trains ({row.n} of {counted(row.n_planned, 'seed')}): p {adjusted(row)}, but not if "
            f"every pair without a number counts against it. {next_step}"
        )
    if row.verdict == "equivalent":
        return (
            f"It is equivalent to {row.reference} within {metric.say_difference(row.delta, signed=False)}"
            f" (p {format_p(row.p_equivalence_holm)} after Holm)."
        )
    if row.verdict == "hurts":
        return f"It is worse than {row.reference}: p {adjusted(row)}."
    detectable = metric.say_difference(row.detectable, signed=False)
    shown = f"; these seeds show an effect of {detectable} with power 0.8" if row.detectable > 0 else ""
    note = f" ({row.note})" if row.note else ""
    return f"p {format_p(row.p)} raw, {adjusted(row)}{note}{shown}."


def _picked(row: Any, order: list[str], measured: dict[str, Any]) -> str:
    """What it is among the estimates of its family: the largest need not rank first, nor be supported."""
    if row.improvement >= max(it.improvement for it in measured.values() if np.isfinite(it.improvement)):
        return "is the largest"
    return "was picked as the best" if row.variant == order[0] else "is the best supported"


def _luck(row: Any, picked: str, study: str, *, is_decided: bool) -> str:
    """The best of several estimates is too high on average; rule 8 asks for fresh seeds."""
    named = f"--study {shlex.quote(study)} " if study else ""
    confirm = f"confirm it on fresh seeds (`harness confirm {named}--variant {row.variant}`)."
    if is_decided:
        confirm = "rely on what fresh seeds said."
    if row.m == 1:
        return "" if is_decided else f"Before you rely on it, {confirm}"
    return (
        f"It {picked} of {row.m} noisy estimates, hence probably too high (the best of {row.m} useless changes"
        f" improves by {expected_luck(row.m):.2f} standard errors by luck alone): {confirm}"
    )


def _rivals(row: Any, order: list[str], measured: dict[str, Any]) -> list[str]:
    """A larger estimate that is not supported, and the next one where the intervals overlap: the rank is open."""
    texts = []
    before = [measured[name] for name in order[: order.index(row.variant)]]
    if before:
        estimate = _estimate(before[0])
        texts.append(f"{before[0].variant} ranks before it, at {estimate}, but that is not supported.")
    after = [measured[name] for name in order[order.index(row.variant) + 1 :]]
    if after and after[0].improvement > 0 and not _are_apart(after[0], row):
        texts.append(
            f"Next is {after[0].variant}, {_estimate(after[0])}; the intervals overlap, so which of the two is"
            " bigger is open."
        )
    return texts


def _are_apart(one: Any, other: Any) -> bool:
    """Whether their intervals are; where every seed gave the same difference, that number is all of it."""
    (low, high), (other_low, other_high) = (
        (it.mean, it.mean) if np.isnan(it.low) and it.n > 1 else (it.low, it.high) for it in (one, other)
    )
    return bool(high < other_low or low > other_high)


def _missing(row: Any) -> str:
    """Rule 9: computed on the complete pairs only, and said so."""
    if not row.missing:
        return ""
    return (
        f"Only the complete pairs count ({row.missing}); where seeds are missing because the change made them fail, it"
        " looks better than it is."
    )


def _nothing_yet(family: pd.DataFrame) -> str:
    if family.empty:
        return "There is nothing to compare: these results hold only the reference."
    where = f" ({family['missing'].iloc[0]})" if family["missing"].iloc[0] else ""
    return (
        f"No improvement can be named: no seed has finished for both {family['reference'].iloc[0]} and a"
        f" change{where}. Run the study again."
    )


def _changes(row: Any) -> str:
    return "1 change" if row.m == 1 else f"{row.m} changes"
