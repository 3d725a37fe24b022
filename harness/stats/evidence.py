"""What a family's differences prove, however often they were looked at: the one place that chooses the correction.

Terminal, JSON, export, report, MLflow and Python print what is decided here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.stats.effect import Effect
from harness.stats.sequential import Looks, e_process_p, group_sequential, smallest_e_process_p, spent_by
from harness.stats.significance import smallest_sign_flip_p
from harness.stats.stepdown import westfall_young
from harness.stats.values import FloatArray, Schedule

ONE_LOOK = "Westfall-Young"
SEVERAL_LOOKS = "group-sequential Westfall-Young"
BEYOND = "e-process and Holm"
# Within the horizon alpha is spent; beyond it a tenth more, so that all looks for ever cost 1.1 alpha at most.
PRICE_BEYOND = 10.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a family of m members proves.

    Attributes:
        p: (m,) adjusted p-values, NaN for fewer than two differences.
        smallest: (m,) the least that each could be with the seeds that it has, at this look.
        correction: its name. look: which look this is, in words; empty where it is the only one, at the horizon.
        spent: of the error budget, what may be spent by now; NaN beyond the horizon, where another test judges.
    """

    p: FloatArray
    smallest: FloatArray
    correction: str
    look: str
    spent: float = 1.0


def evidence(
    differences: FloatArray,
    seeds: Sequence[int],
    schedule: Schedule,
    alpha: float,
    weights: FloatArray | None = None,
) -> Evidence:
    """The adjusted p-values of a family, by what its study declared and how often it was looked at.

    Once, at the horizon (or where none was declared): Westfall-Young. Earlier, or not for the first time: its
    group-sequential version. Beyond the horizon: what was claimed until then, or else an e-process, valid at any time,
    whose p is multiplied by 10. A look at which a member went the other way claims nothing of it.

    Args:
        differences: (m, s), a row a member, NaN where it lacks the seed.
        seeds: (s,), those that have ended, in rising order.
        weights: (m,), how much of the error each member may spend; equal by default.
    """
    looks = _nested(seeds, schedule)
    if not schedule.horizon:
        looks = looks[-1:]
    agrees = _agrees(differences, looks)
    if len(seeds) <= (schedule.horizon or len(seeds)):
        return _within(differences, looks, agrees, schedule.horizon or len(seeds), alpha, weights)
    return _beyond(differences, looks, agrees, schedule.horizon, alpha, weights)


def _within(
    differences: FloatArray,
    looks: Looks,
    agrees: NDArray[np.bool_],
    horizon: int,
    alpha: float,
    weights: FloatArray | None,
) -> Evidence:
    counts = np.isfinite(differences).sum(axis=1)
    least = np.array([smallest_sign_flip_p(int(n)) if n > 1 else np.nan for n in counts])
    n = int(looks[-1].sum())
    if len(looks) == 1 and n == horizon:
        p = westfall_young(differences, alpha, weights)
        return Evidence(np.where(agrees[-1] | np.isnan(p), p, 1.0), least, ONE_LOOK, "")
    share = spent_by(looks, horizon)[-1]
    p = group_sequential(differences, looks, horizon, alpha, weights, agrees)
    smallest = np.minimum(least / share, 1.0) if share else least
    return Evidence(p, smallest, SEVERAL_LOOKS, f"look {len(looks)}, at {n} of {horizon} planned seeds", float(share))


def _beyond(
    differences: FloatArray,
    looks: Looks,
    agrees: NDArray[np.bool_],
    horizon: int,
    alpha: float,
    weights: FloatArray | None,
) -> Evidence:
    """What was claimed within the horizon stays claimed: alpha was spent on it, and a tenth more is spent here."""
    came = np.argsort(-np.sum(looks, axis=0), kind="stable")  # a lower seed that is added later comes later
    p = np.minimum(PRICE_BEYOND * e_process_p(differences[:, came], weights), 1.0)
    smallest = np.minimum(PRICE_BEYOND * smallest_e_process_p(np.isfinite(differences).sum(axis=1), weights), 1.0)
    look = f"look {len(looks)}, at {looks[-1].sum()} seeds, beyond the {horizon} planned"
    planned = [it for it in looks if it.sum() <= horizon]
    if not planned:
        return Evidence(p, smallest, BEYOND, look, np.nan)
    last = planned[-1]
    before = _within(
        differences[:, last], [it[last] for it in planned], agrees[: len(planned)], horizon, alpha, weights
    )
    return Evidence(
        np.fmin(p, before.p), np.fmin(smallest, before.p), f"{before.correction}, then {BEYOND}", look, np.nan
    )


def _agrees(differences: FloatArray, looks: Looks) -> NDArray[np.bool_]:
    """(k, m): whether each member went the same way at that look as it goes now. A claim at a look that went the other
    way is none of what is said now."""
    ways = np.array([np.sign(np.nansum(np.where(look, differences, np.nan), axis=1)) for look in looks])
    return np.asarray(ways == ways[-1])


def price_of_look(seeds: Sequence[int], schedule: Schedule) -> float:
    """By what a p that knows of no earlier look has to be multiplied: each look has a share of alpha of its own.

    Up to the horizon what `spent_by` allows since the look before; the j-th look beyond it 1 / (10 j (j + 1)).

    Args:
        seeds: those that have ended, in rising order.
    """
    if not schedule.horizon or not len(seeds):
        return 1.0
    looks = _nested(seeds, schedule)
    num_beyond = sum(bool(it.sum() > schedule.horizon) for it in looks)
    if num_beyond:
        return PRICE_BEYOND * num_beyond * (num_beyond + 1)
    spent = [0.0, *spent_by(looks, schedule.horizon)]
    return float(1 / (spent[-1] - spent[-2]))


def _nested(seeds: Sequence[int], schedule: Schedule) -> Looks:
    """The seeds of each look as masks, each within the next, the last one now; looks that saw nothing new are one."""
    now, seen = np.asarray(seeds, dtype=np.int64), np.zeros(len(seeds), dtype=bool)
    masks = []
    for look in schedule.looks:
        grown = seen | np.isin(now, look)
        if grown.sum() > seen.sum() and not grown.all():
            masks.append(grown)
        seen = grown
    return [*masks, np.ones(len(now), dtype=bool)]


def differences_of(members: Sequence[Effect], seeds: Sequence[int], *, against_claims: bool = False) -> FloatArray:
    """The per-seed improvements of a family as a matrix (m, s), NaN where a pair is not complete.

    Args:
        against_claims: a missing pair counts as the largest difference of the others, against what the member claims:
            against an improvement whichever side is missing, against a harm where only the reference is.
    """
    place = {seed: index for index, seed in enumerate(seeds)}
    found = np.full((len(members), len(seeds)), np.nan)
    for row, effect in zip(found, members, strict=True):
        row[[place[seed] for seed in effect.seeds]] = np.asarray(effect.differences) * effect.metric.sign
        if against_claims:
            largest, sign = np.abs(effect.differences).max(initial=0.0), np.sign(effect.improvement)
            row[[place[seed] for seed in lost_pairs(effect)]] = -sign * largest
    return found


def lost_pairs(effect: Effect) -> list[int]:
    """The seeds of pairs that were planned on every side, lack a number, and would speak against the effect's claim."""
    by_seed: dict[int, list[str]] = {}
    unplanned = {it.seed for it in effect.missing if not it.status}
    for cell in effect.missing:
        by_seed.setdefault(cell.seed, []).append(cell.variant)
    is_claim_of_harm = effect.improvement < 0
    return [
        seed
        for seed, variants in by_seed.items()
        if seed not in unplanned and not (is_claim_of_harm and effect.variant in variants)
    ]
