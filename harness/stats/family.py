"""Families of effects: what is tested together, corrected together, and called by one of nine verdicts.

A family is all changes of one design against one reference. Add-one effects, leave-one-out effects, the steps of a path
and (in `combinations.py`) interactions and Shapley values differ only in their contrasts. The families of one study run
are corrected together, so that five designs make no more false claims than one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from harness.errors import ResultsError
from harness.plan.power import smallest_detectable_effect, weight_beside_main
from harness.stats.effect import METRIC_COLUMNS, Contrast, Effect, metric_columns
from harness.stats.evidence import Evidence, differences_of, evidence, lost_pairs
from harness.stats.paired import measure_all
from harness.stats.significance import equivalence_p, holm, sign_flip_p
from harness.stats.values import FloatArray, Values, metric_values
from harness.stats.wording import describe_cells, describe_seeds

Verdict = Literal[
    "improves",
    "improves where it trains",
    "hurts",
    "equivalent",
    "inconclusive",
    "exploratory",
    "cannot reach significance",
    "no inference (one seed)",
    "no results",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

# A row per effect: the fields of Effect, with the seeds and the missing cells in words and the metric in columns of its
# own (`effect.metric_of_row` reads them), then what the family adds: `p_adjusted`, which decides, by `correction` (its
# name) at `look` (in words; empty where there is one, at the horizon), and `smallest_p_adjusted`, the least it could be
# then; `p_holm`, for comparison; `m`, the size of the family; `corrected_over`, all different comparisons that were
# corrected together, those of the study run's other designs too, and `share`, what the family weighs among them;
# `detectable`, the smallest effect that n seeds show with power 0.8 after correction; NaN beyond the horizon.
_SIDES = ("variant", "reference")
_WORDED = ("metric", "seeds", "differences", "missing")
_NUMBERS = tuple(it.name for it in fields(Effect) if it.name not in (*_SIDES, *_WORDED))
FAMILY_COLUMNS: tuple[str, ...] = (
    "p_adjusted",
    "smallest_p_adjusted",
    "correction",
    "look",
    "p_holm",
    "p_equivalence_holm",
    "m",
    "corrected_over",
    "share",
    "alpha",
    "detectable",
    "verdict",
)
EFFECT_COLUMNS: tuple[str, ...] = (
    *_SIDES,
    *METRIC_COLUMNS,
    *_NUMBERS,
    "n",
    "improvement",
    "is_meaningful",
    "seeds",
    "missing",
    *FAMILY_COLUMNS,
)


def effects(
    table: pd.DataFrame,
    *,
    reference: str = "baseline",
    variants: Sequence[str] | None = None,
    metric: str | None = None,
    alpha: float = 0.05,
    delta: float = 0.0,
    exploratory: bool = False,
) -> pd.DataFrame:
    """The effect of every variant against one reference, corrected as one family, the best first.

    Args:
        variants: the family; by default every other variant of the table. Name the variants of one design where the
            table holds several: the correction is for what is tested together.
        metric: by default the one that the study reports.
        alpha: family-wise error rate; the intervals have coverage 1 - alpha.
        delta: differences below it do not matter to the user, as the metric is logged.
        exploratory: the variants were chosen after seeing data, so no verdict but "exploratory" can be given.

    Returns:
        EFFECT_COLUMNS, a row per variant, by falling `improvement`, then by name; variants without an estimate last.

    Raises:
        ResultsError: an unknown variant, reference or metric; the reference among the variants.
    """
    values = metric_values(table, metric)
    values.require(reference)
    if variants is None:
        variants = [name for name in values.variants if name != reference]
    for variant in variants:
        values.require(variant)
    contrasts = [Contrast.pair(variant, reference) for variant in dict.fromkeys(variants)]
    return _best_first(measure_family(values, contrasts, alpha=alpha, delta=delta, exploratory=exploratory))


def leave_one_out_effects(
    table: pd.DataFrame,
    full: str,
    *,
    metric: str | None = None,
    alpha: float = 0.05,
    delta: float = 0.0,
    exploratory: bool = False,
) -> pd.DataFrame:
    """What each change of a full combination contributes to it: full minus full without the change, paired by seed.

    The sign is that of `effects`: positive where the change raises the metric. A gap between the two is interaction.

    Returns:
        As `effects`; `variant` is the change, `reference` the variant without it. A change whose variant the table
        lacks has a row with verdict "no results".
    """
    values = metric_values(table, metric)
    changes = values.changes[values.require(full)]
    if not changes:
        raise ResultsError(f"variant {full!r} has no changes, so there is none to leave out.")
    contrasts = []
    for change in sorted(changes):
        without = values.holding(changes - {change})
        contrasts.append(Contrast(change, without, {full: 1.0, without: -1.0}))
    return _best_first(measure_family(values, contrasts, alpha=alpha, delta=delta, exploratory=exploratory))


def measure_family(
    values: Values, contrasts: Iterable[Contrast], *, alpha: float, delta: float, exploratory: bool
) -> pd.DataFrame:
    """Measure contrasts as one family, in the order given: EFFECT_COLUMNS, corrected over all of them."""
    alone = measure_families(
        values, {"": tuple(contrasts)}, main=("",), alpha=alpha, delta=delta, exploratory=exploratory
    )
    return alone[""]


def measure_families(
    values: Values,
    families: Mapping[str, Sequence[Contrast]],
    *,
    main: Collection[str],
    alpha: float,
    delta: float,
    exploratory: bool,
) -> dict[str, pd.DataFrame]:
    """Measure the families of a study run, corrected over all of them together: name -> EFFECT_COLUMNS.

    A contrast that stands in several families is one comparison with one p. Those of the main families weigh 1 each;
    the others weigh a quarter of them together, and at most 1 each (`power.OTHERS_WEIGH`).

    Args:
        main: names of the families that the study was declared for, before data.
    """
    measured = {name: measure_all(values, it, confidence=1 - alpha, delta=delta) for name, it in families.items()}
    members: list[Effect] = []
    place_of: dict[frozenset[tuple[str, float]], int] = {}
    num_main = 0
    for name in sorted(families, key=lambda it: it not in main):
        for contrast, effect in zip(families[name], measured[name], strict=True):
            if place_of.setdefault(_identity(contrast), len(members)) == len(members):
                members.append(effect)
        num_main = len(members) if name in main else num_main
    weights = _weights(num_main, len(members) - num_main)
    joint = _Joint(values, members, weights, alpha)
    frames = {}
    for name, contrasts in families.items():
        places = [place_of[_identity(contrast)] for contrast in contrasts]
        share = float(weights[list(set(places))].sum() / weights.sum()) if places else 1.0
        rows = [
            _row(effect) | joint.row(place, effect, len(places), share, exploratory)
            for effect, place in zip(measured[name], places, strict=True)
        ]
        frames[name] = pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))
    return frames


def _identity(contrast: Contrast) -> frozenset[tuple[str, float]]:
    return frozenset((name, weight) for name, weight in contrast.weights.items() if weight != 0)


def _weights(num_main: int, num_others: int) -> FloatArray:
    return np.concatenate([np.ones(num_main), np.full(num_others, weight_beside_main(num_main, num_others))])


class _Joint:
    """What is decided over all different comparisons of a study run."""

    def __init__(self, values: Values, members: Sequence[Effect], weights: FloatArray, alpha: float) -> None:
        self.alpha, self.weights = alpha, weights
        self.found = _evidence(values, members, weights, alpha)
        is_lost = any(map(lost_pairs, members))
        self.worst = _evidence(values, members, weights, alpha, against_claims=True) if is_lost else self.found
        self.holm = holm(np.array([effect.p for effect in members]), weights)
        self.equivalence = holm(np.array([effect.p_equivalence for effect in members]), weights)

    def row(self, place: int, effect: Effect, m: int, share: float, exploratory: bool) -> dict[str, Any]:
        """FAMILY_COLUMNS of one comparison in a family of m that weighs this share."""
        found, alpha = self.found, self.alpha
        level = alpha * float(self.weights[place] / self.weights.sum())
        p, smallest, p_worst = (float(it[place]) for it in (found.p, found.smallest, self.worst.p))
        p = max(p, effect.p)  # the strongest look may have been an earlier one: no less than what is seen now
        p_worst = max(p_worst, _p_at_worst(effect))
        claim = _Claim(p, smallest, p_worst, float(self.equivalence[place]), level)
        detectable = np.nan
        if effect.n > 1 and found.spent > 0:
            detectable = smallest_detectable_effect(effect.n, effect.sd, alpha * found.spent, m, share=share)
        return {
            "p_adjusted": claim.p,
            "smallest_p_adjusted": claim.smallest,
            "correction": found.correction,
            "look": found.look,
            "p_holm": float(self.holm[place]),
            "p_equivalence_holm": claim.p_equivalence,
            "m": m,
            "corrected_over": len(self.weights),
            "share": share,
            "alpha": alpha,
            "detectable": detectable,
            "verdict": _verdict(effect, claim, alpha, exploratory),
        }


def _evidence(
    values: Values, members: Sequence[Effect], weights: FloatArray, alpha: float, *, against_claims: bool = False
) -> Evidence:
    seeds = {seed for effect in members for seed in effect.seeds}
    seeds |= {cell.seed for effect in members for cell in effect.missing if cell.has_ended}
    if against_claims:
        seeds.update(*map(lost_pairs, members))
    ended = sorted(seeds)
    differences = differences_of(members, ended, against_claims=against_claims)
    return evidence(differences, ended, values.schedule, alpha, weights)


class _Claim(NamedTuple):
    """What the family says about one member.

    Attributes:
        p: adjusted; smallest: the least that it could be; p_worst: with every lost pair counted against the claim.
        level: its part of alpha, were alpha shared out by weight.
    """

    p: float
    smallest: float
    p_worst: float
    p_equivalence: float
    level: float


def _row(effect: Effect) -> dict[str, Any]:
    row = {name: getattr(effect, name) for name in (*_SIDES, *_NUMBERS)} | metric_columns(effect.metric)
    lacking = sorted(effect.missing, key=lambda it: not it.has_ended)  # what was trained without a number comes first
    words = {"seeds": describe_seeds(effect.seeds), "missing": describe_cells(lacking)}
    return row | {"n": effect.n, "improvement": effect.improvement, "is_meaningful": effect.is_meaningful} | words


def _verdict(effect: Effect, claim: _Claim, alpha: float, exploratory: bool) -> Verdict:
    """A claim needs an adjusted p of at most alpha, whichever way it goes, and has to stand where missing pairs speak
    against it; everything else says why there is none."""
    if effect.n == 0:
        return "no results"
    if effect.n == 1:
        return "no inference (one seed)"
    if exploratory or effect.smallest_p > alpha:  # not even one change alone could be told from chance
        return "exploratory"
    if claim.p_equivalence <= alpha and _is_equivalent_at_worst(effect, claim.level):
        return "equivalent"  # first: a difference within the region does not matter, however sure it is
    if claim.p <= alpha:
        stands = claim.p_worst <= alpha and _keeps_its_sign(effect)
        if effect.improvement > 0:
            return "improves" if stands else "improves where it trains"
        return "hurts" if stands else "inconclusive"
    return "cannot reach significance" if claim.smallest > alpha else "inconclusive"


def _at_worst(effect: Effect) -> FloatArray:
    """The differences of one effect, signed so that more is better, lost pairs counted against its claim."""
    seeds = sorted({*effect.seeds, *lost_pairs(effect)})
    counted: FloatArray = differences_of([effect], seeds, against_claims=True)[0]
    return counted


def _p_at_worst(effect: Effect) -> float:
    return float(sign_flip_p(_at_worst(effect))) if lost_pairs(effect) else effect.p


def _keeps_its_sign(effect: Effect) -> bool:
    return bool(np.sign(_at_worst(effect).mean()) == np.sign(effect.improvement))


def _is_equivalent_at_worst(effect: Effect, level: float) -> bool:
    return not lost_pairs(effect) or float(equivalence_p(_at_worst(effect), effect.delta)) <= level


def _best_first(family: pd.DataFrame) -> pd.DataFrame:
    return family.sort_values(
        ["improvement", "variant"], ascending=[False, True], na_position="last", ignore_index=True
    )
