"""Screening: which few of very many changes matter? Plackett and Burman's designs, folded over.

A design of N variants for up to N - 1 changes, each in half of them, every two independent of each other (Plackett &
Burman 1946), from a Hadamard matrix. Its mirror, in which each variant has what it lacked, frees main effects of
interactions of two changes (Box & Wilson 1951). The effect of a change is a contrast over all variants: with N cells
its standard error is 2 sd / sqrt(N), however many changes there are.
"""

from collections.abc import Collection, Sequence
from math import sqrt
from statistics import NormalDist

from harness.errors import StudyError
from harness.study.designs.comparisons import Changes, Design, against_baseline, in_order
from harness.study.designs.factorials import find_clashes
from harness.study.designs.hadamard import hadamard, order_of
from harness.study.study import Study

MOST_FACTORS = 200
ALPHA, POWER = 0.05, 0.8  # of what the notes say can be found
PLAIN = "plain"


def screening(study: Study, selected: Collection[str], *, folded: bool = True) -> Design:
    """Every selected change in half of the variants, which are compared with the baseline.

    What needs another change is no two-level factor, and is left out; of two that exclude each other, the later one is.
    The effect of a change is a contrast over all variants, not one of these comparisons.

    Args:
        folded: with the mirror; without it half as many variants, whose main effects are confused in part with
            interactions of two other changes.

    Raises:
        StudyError: more than `MOST_FACTORS` changes.
    """
    name = "screening" if folded else f"screening:{PLAIN}"
    names = in_order(study, selected)
    needing = [it for it in names if it in study.needs()]
    free = tuple(it for it in names if it not in needing)
    if len(free) > MOST_FACTORS:
        raise StudyError(
            f"design {name}: {len(free)} changes, more than {MOST_FACTORS}. Take fewer of them (--only, --skip)."
        )
    factors, notes = _compatible(study, name, free)
    if needing:
        why = "what needs another change is no two-level factor; `--design add-one` compares it on top of that one"
        notes.insert(0, f"{name}: without {', '.join(needing)}: {why}.")
    if not factors:
        return against_baseline(study, name, [], notes=notes)
    sets = _sets(study, factors, folded)
    notes += _notes(name, factors, len(sets), folded)
    return against_baseline(study, name, [it for it in sets if it], notes=notes)


def _compatible(study: Study, name: str, names: Changes) -> tuple[Changes, list[str]]:
    """The changes of which each may stand with all before it, and a note for each that may not."""
    clashes = find_clashes(study, names)
    kept: list[str] = []
    notes = []
    for it in names:
        why = next((clashes[pair] for other in kept if (pair := frozenset((it, other))) in clashes), "")
        if why:
            notes.append(f"{name}: without {it}: {why}")
        else:
            kept.append(it)
    return tuple(kept), notes


def _sets(study: Study, factors: Changes, folded: bool) -> list[Changes]:
    """The changes of each variant, fewest first; the baseline is one of them."""
    matrix = hadamard(order_of(len(factors) + 1))
    signs = [-1, 1] if folded else [-1]  # the first row is all ones: turned round, it is the baseline
    runs = [[sign * entry for entry in row[1 : len(factors) + 1]] for row in matrix for sign in signs]
    sets = {in_order(study, [it for it, level in zip(factors, run, strict=True) if level > 0]) for run in runs}
    return sorted(sets, key=lambda it: (len(it), it))


def _notes(name: str, factors: Sequence[str], num_variants: int, folded: bool) -> list[str]:
    """What the design can tell apart, and what a seed of it can show."""
    told = (
        "main effects are confused with no interaction of two changes, and those with each other"
        if folded
        else "each main effect is confused in part with every interaction of two other changes (`screening` is not)"
    )
    normal = NormalDist()
    found = (normal.inv_cdf(1 - ALPHA / 2 / len(factors)) + normal.inv_cdf(POWER)) * 2 / sqrt(num_variants)
    return [
        f"{name}: {num_variants} variants of {len(factors)} changes, the baseline one of them, each change in half; "
        f"{told}.",
        f"{name}: one seed of all variants finds an effect of {found:.2g} sd of one run with power {POWER}, corrected "
        f"over {len(factors)} changes, where effects add up; four seeds find half of that. The effects are the table "
        "`marginal`, each over all variants.",
    ]
