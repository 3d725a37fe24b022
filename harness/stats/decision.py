"""Whether a confirmation confirms: one decision, which the sentence, the manifest and the model registry all read.

A winner was picked as the best of many; it is tested once, on seeds that nothing used before. Who confirms one winner
after the other until one holds has looked several times, so the confirmations of one study run share an error budget.
"""

from dataclasses import dataclass
from math import pi
from typing import Literal

import numpy as np

from harness.errors import ResultsError
from harness.stats.effect import Effect
from harness.stats.headline import refusal
from harness.stats.significance import sign_flip_p
from harness.stats.wording import describe_cells, format_p

Outcome = Literal["confirmed", "refuted", "not confirmed", "not decided"]


@dataclass(frozen=True)
class Decision:
    """What fresh seeds decide about a winner.

    Attributes:
        alpha: at which it was tested.
        reason: why it is not confirmed although its p is small, or not decided; empty otherwise.
    """

    outcome: Outcome
    alpha: float
    reason: str = ""


def confirmation_alpha(number: int, alpha: float = 0.05) -> float:
    """What the confirmation of this number (from 1) of one study run may spend: alpha 6 / (pi^2 number^2).

    Over any number of confirmations that adds up to less than `alpha`.
    """
    return alpha * 6 / (pi * number) ** 2


def decide(effect: Effect, alpha: float) -> Decision:
    """The outcome of a confirmation, by the sign-flip test alone.

    A seed that trained on one side only is an outcome, too: a claim must hold as well where every such pair is counted
    as the largest difference of the others, against the winner.
    """
    if not effect.smallest_p <= alpha:
        return Decision("not decided", alpha, refusal(effect.n, alpha))
    if effect.p > alpha:
        return Decision("not confirmed", alpha)
    if effect.improvement <= 0:
        return Decision("refuted", alpha)
    if effect.missing and not worst_case_p(effect) <= alpha:
        pairs = f"{effect.n} of {effect.n_planned} seeds"
        return Decision("not confirmed", alpha, f"It improves where it trains ({pairs}), which is not enough.")
    return Decision("confirmed", alpha)


def worst_case_p(effect: Effect) -> float:
    """The sign-flip p with every missing pair set to the largest difference of the others, against the variant; 1 where
    that turns the sign of the effect."""
    sign = effect.metric.sign
    improved = sign * np.asarray(effect.differences)
    counted = np.append(improved, np.full(effect.n_planned - effect.n, -np.abs(improved).max(initial=0.0)))
    return float(sign_flip_p(counted)) if counted.mean() > 0 else 1.0


def confirmation_line(confirmed: Effect, searched: Effect, decision: Decision) -> str:
    """The headline of a confirmation, with the estimate that led to it beside it (STATS rules 8 and 17).

    Raises:
        ResultsError: a seed of the confirmation was used to find the winner, or the two are different comparisons.
    """
    if (confirmed.variant, confirmed.reference) != (searched.variant, searched.reference):
        raise ResultsError(
            f"{confirmed.variant} against {confirmed.reference} cannot confirm {searched.variant} against"
            f" {searched.reference}."
        )
    reused = sorted(set(confirmed.seeds) & set(searched.seeds))
    if reused:
        raise ResultsError(
            f"seeds {describe_cells(reused)} were used to find {searched.variant}, so they cannot confirm it; use"
            " fresh ones."
        )
    found = fresh_line(confirmed, decision)
    return f"{found} The estimate that led to it: {_estimate(searched)} on {searched.n} seeds."


def fresh_line(confirmed: Effect, decision: Decision) -> str:
    """The headline of a confirmation, of what was measured on fresh seeds alone."""
    said = {"refuted": "Refuted: it is worse."}.get(decision.outcome, f"{decision.outcome.capitalize()}.")
    outcome = f"{said} {decision.reason}".rstrip()
    missing = f" Missing: {describe_cells(confirmed.missing)}." if confirmed.missing else ""
    return (
        f"{outcome} {confirmed.variant} against {confirmed.reference} on {confirmed.n} fresh seeds:"
        f" {_estimate(confirmed)}, p {format_p(confirmed.p)} (tested at {format_p(decision.alpha)}).{missing}"
    )


def _estimate(effect: Effect) -> str:
    metric = effect.metric
    interval = metric.say_interval(effect.low, effect.high, f"{100 * effect.confidence:g}%")
    return f"{metric.say_difference(effect.mean)} [{interval}] in {metric.words}"
