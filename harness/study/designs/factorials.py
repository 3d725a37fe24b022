"""Designs whose variants hold several changes at once: pairs, the factorial, its fractions, and a greedy path's steps.

Changes that cannot stand together (a group, a setting that both set, values that do not go together) are found pair by
pair: what settings refuse, they refuse because of two changes.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, product
from math import prod

from harness.errors import StudyError
from harness.study.changes import combine, conflicts, edited, missing_needs
from harness.study.designs.comparisons import Changes, Design, against_baseline, in_order, standing
from harness.study.designs.fractional import MOST_RUNS, Fraction, best_fraction, fewest_runs
from harness.study.study import Study

MOST_VARIANTS = 10_000  # of one factorial: planned in a second or two, and far beyond what anyone trains
Clashes = Mapping[frozenset[str], str]  # two changes that cannot stand together: a sentence that says why


def pairs(study: Study, selected: Collection[str]) -> Design:
    """Every two selected changes that may stand together, against the baseline; the single changes are trained too."""
    names = in_order(study, selected)
    clashes = _clashes(study, names)
    possible = [pair for pair in combinations(names, 2) if frozenset(pair) not in clashes]
    needs = _needs(study)
    together = [pair for pair in possible if _is_whole(pair, needs)]
    notes = [f"pairs: {len(clashes)} pairs are left out. {' '.join(clashes.values())}"] if clashes else []
    if len(together) < len(possible):
        left_out = f"{len(possible) - len(together)} pairs lack a change that one of them needs, and are left out."
        notes.append(f"pairs: {left_out} {_said(needs, names)}")
    alone = [(name,) for name in names if name not in needs]
    return against_baseline(study, "pairs", together, further=alone, notes=notes)


def factorial(study: Study, selected: Collection[str]) -> Design:
    """Every combination of the selected changes, against the baseline; a group is one factor of several levels.

    Raises:
        StudyError: more than `MOST_VARIANTS` combinations.
    """
    names = in_order(study, selected)
    factors = _factors(study, names)
    count = prod(1 + len(factor) for factor in factors)
    if count > MOST_VARIANTS:
        raise StudyError(
            f"design factorial: {len(names)} changes in {len(factors)} factors make {count:,} combinations, more than "
            f"{MOST_VARIANTS:,}. Take fewer changes (--only, --skip), or a fraction of them: --design fractional."
        )
    within = {frozenset(pair) for factor in factors for pair in combinations(factor, 2)}
    clashes = {pair: why for pair, why in _clashes(study, names).items() if pair not in within}
    every = [tuple(filter(None, levels)) for levels in product(*(("", *factor) for factor in factors))]
    needs = _needs(study)
    whole = [it for it in every if _is_whole(it, needs)]
    possible = [it for it in whole if not any(pair.issubset(it) for pair in clashes)]
    notes = []
    if len(whole) < count:
        left_out = f"{count - len(whole):,} of {count:,} combinations lack a change that another needs"
        notes.append(f"factorial: {left_out}, so it is not complete. {_said(needs, names)}")
    if within:
        groups = "; ".join(f"none or one of {', '.join(factor)}" for factor in factors if len(factor) > 1)
        notes.append(f"factorial: {len(factors)} factors, {count:,} combinations. Exclusive changes are one: {groups}.")
    if clashes:
        left_out = f"{len(whole) - len(possible):,} of {count:,} combinations are left out, so it is not complete."
        notes.append(f"factorial: {left_out} {' '.join(clashes.values())}")
    sets = sorted((in_order(study, it) for it in possible if it), key=len)
    return against_baseline(study, "factorial", sets, notes=notes)


def fractional(study: Study, selected: Collection[str], num_runs: int | None = None) -> Design:
    """A regular fraction of the two-level factorial of the selected changes, each variant against the baseline.

    The effect of a change is a contrast over all variants (half of them have it), not one of these comparisons. Changes
    that cannot stand together with another selected one are no two-level factors: they are left out and named.

    Args:
        num_runs: how many variants, a power of two; None for the fewest that reach resolution IV.

    Raises:
        StudyError: too few runs for resolution IV, or more than the complete factorial has.
    """
    name = f"fractional:{num_runs}" if num_runs else "fractional"
    names = in_order(study, selected)
    clashes = _clashes(study, names)
    free = [it for it in names if not any(it in pair for pair in clashes)]
    needs = _needs(study)
    factors = [it for it in free if it not in needs]
    notes = []
    if len(factors) < len(free):
        left_out = ", ".join(it for it in free if it not in factors)
        notes.append(f"{name}: without {left_out}: what needs another change is no two-level factor.")
    if clashes:
        left_out = ", ".join(it for it in names if it not in free)
        why = "each excludes another selected change; select (--only) one of them"
        notes.append(f"{name}: without {left_out}: {why}. {' '.join(clashes.values())}")
    if not factors:
        return against_baseline(study, name, [], notes=notes)
    fewest, most = fewest_runs(len(factors)), min(2 ** len(factors), MOST_RUNS)
    if not fewest <= (num_runs or fewest) <= most:
        raise StudyError(
            f"design {name}: {len(factors)} two-level changes ({', '.join(factors)}) take {fewest} runs at least for "
            f"resolution IV, and {most} at most (the complete factorial, or {MOST_RUNS})."
        )
    fraction = best_fraction(len(factors), num_runs or fewest)
    sets = [in_order(study, [factors[index] for index in run]) for run in fraction.runs]
    notes += _fraction_notes(name, factors, fraction)
    return against_baseline(study, name, [it for it in sets if it], notes=notes)


def greedy_candidates(study: Study, selected: Collection[str], steps: Sequence[str]) -> tuple[Changes, ...]:
    """The variants to train for the next step of a greedy path: the steps so far plus one selected change each.

    The caller trains them, takes the change that helps most on validation, and asks again with it added; the path has
    ended when nothing is left. `registry.path(study, "greedy", steps)` makes the comparisons of the finished path.

    Args:
        steps: names of changes so far; empty at the start.

    Raises:
        StudyError: the steps so far cannot stand together.
    """
    problems = [why for find in (conflicts, missing_needs) for why in find([study.change(name) for name in steps])]
    if problems:
        raise StudyError(*problems)
    names = in_order(study, {*selected, *steps})
    clashes = _clashes(study, names)
    left = [it for it in names if it not in steps and not any(frozenset((it, step)) in clashes for step in steps)]
    needs = _needs(study)
    return tuple(in_order(study, [*steps, name]) for name in left if _is_whole([*steps, name], needs))


def _factors(study: Study, names: Changes) -> list[Changes]:
    """The changes that vary together: the members of a group are one factor, every other change is one by itself."""
    factors: dict[str, list[str]] = {}
    for name in names:
        group = study.change(name).group
        factors.setdefault(f"group {group}" if group else name, []).append(name)
    return [tuple(factor) for factor in factors.values()]


def _clashes(study: Study, names: Changes) -> Clashes:
    """Every two of these changes that cannot stand together, what they need beside them. Quadratic: 100 changes take a
    tenth of a second.

    Raises:
        StudyError: more than `MOST_VARIANTS` pairs.
    """
    count = len(names) * (len(names) - 1) // 2
    if count > MOST_VARIANTS:
        raise StudyError(
            f"{len(names):,} changes make {count:,} pairs, more than {MOST_VARIANTS:,}. Take fewer changes (--only, "
            "--skip), or the design add-one."
        )
    found: dict[frozenset[str], str] = {}
    held = {name: standing(study, name) for name in names}
    declared = {change.name: change for change in study.changes}
    for first, second in combinations(names, 2):
        try:
            together = [declared[name] for name in in_order(study, {*held[first], *held[second]})]
            combine(study.baseline, together)
            edited(study.trainer, together)
        except StudyError as error:
            found[frozenset((first, second))] = " ".join(error.problems)
    return found


def _needs(study: Study) -> dict[str, frozenset[str]]:
    """For each change that needs others: all that it stands on."""
    return {name: frozenset(it.name for it in below) for name, below in study.needs().items()}


def _is_whole(names: Collection[str], needs: Mapping[str, frozenset[str]]) -> bool:
    """Whether each of these changes has what it needs among them."""
    return all(needs[name].issubset(names) for name in names if name in needs)


def _said(needs: Mapping[str, frozenset[str]], names: Sequence[str]) -> str:
    return " ".join(f"{name} needs {', '.join(sorted(needs[name]))}." for name in names if name in needs)


def _fraction_notes(name: str, factors: Sequence[str], fraction: Fraction) -> list[str]:
    """Resolution, generators and the whole alias list up to order 2, for the reader."""
    if fraction.resolution is None:
        return [f"{name}: {len(fraction.runs)} variants of {len(factors)} changes are the complete factorial."]
    generators = "; ".join(
        f"{factors[index]} is on where an odd number of {', '.join(factors[base] for base in bases)} is"
        for index, bases in fraction.generators.items()
    )
    resolution = "IV" if fraction.resolution == 4 else "V" if fraction.resolution == 5 else "VI or more"
    said = f"{name}: {len(fraction.runs)} variants of {len(factors)} changes, resolution {resolution}: {generators}."
    groups = [" = ".join(f"{factors[a]} x {factors[b]}" for a, b in group) for group in fraction.aliases]
    free = "Main effects are confused with no interaction of two changes"
    if groups:
        return [said, f"{name}: {free}. These interactions are, with each other: {'; '.join(groups)}."]
    return [said, f"{name}: {free}, and these with none of each other."]
