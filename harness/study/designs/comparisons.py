"""What a design is made of: sets of changes, their names, and the comparisons between them.

The types that `registry.py`, `factorials.py` and `harness.plan` share. No design is defined here; nothing is trained.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.study.study import Study

BASELINE = "baseline"
LONGEST_JOINED = 120  # characters
Changes = tuple[str, ...]  # names of changes, in the order of the study; the baseline is the empty one


@dataclass(frozen=True, slots=True)
class Comparison:
    """One effect that a design asks for: `variant` minus `reference`, both sets of changes.

    Attributes:
        design: the name of its `Design`.
        label: what the effect is of: the name of a change or a combination.
    """

    design: str
    label: str
    variant: Changes
    reference: Changes


@dataclass(frozen=True, slots=True)
class Design:
    """What one design needs: the comparisons, further sets of changes to train, and remarks for the reader.

    Attributes:
        name: with the argument, such as `leave-one-out:model-1`; the comparisons of one design are one family.
    """

    name: str
    comparisons: tuple[Comparison, ...]
    further: tuple[Changes, ...] = ()
    notes: tuple[str, ...] = ()


def in_order(study: Study, names: Collection[str]) -> Changes:
    """The names in the study's order, so that a set of changes has one spelling."""
    return tuple(change.name for change in study.changes if change.name in names)


def with_needed(study: Study, names: Iterable[str]) -> frozenset[str]:
    """These names, with what each change among them needs."""
    needs, names = study.needs(), frozenset(names)
    return names | {it.name for name in names & needs.keys() for it in needs[name]}


def standing(study: Study, name: str) -> Changes:
    """The smallest set of changes that holds this one: itself, and what it needs."""
    return in_order(study, with_needed(study, [name]))


def combination_names(study: Study) -> dict[Changes, str]:
    """The sets of changes that the study has given a name."""
    return {in_order(study, combination.changes): combination.name for combination in study.combinations}


def names_of_many(study: Study) -> dict[Changes, str]:
    """Sets of changes of which the joined names are too long for a table: a path's steps (`commits..swiglu` is the path
    `commits` up to `swiglu`), and combinations without one change (`head..without-swiglu`)."""
    stages = {
        in_order(study, steps[:count]): f"{label}..{steps[count - 1]}"
        for label, steps in reversed(study.paths.items())
        for count in range(1, len(steps) + 1)
    }
    rests = {
        in_order(study, {*it.changes} - {left_out}): f"{it.name}..without-{left_out}"
        for it in study.combinations
        for left_out in it.changes
    }
    return {changes: name for changes, name in (rests | stages).items() if len("+".join(changes)) > LONGEST_JOINED}


def variant_name(changes: Changes, named: Mapping[Changes, str]) -> str:
    """What people call a set of changes: `baseline`, a named one, or the names joined by `+`; where that is too long,
    their number and a hash.

    Args:
        named: as `combination_names` gives them, and `names_of_many`.
    """
    joined = "+".join(changes)
    if changes in named or len(joined) <= LONGEST_JOINED:
        return named.get(changes) or joined or BASELINE
    return f"{len(changes)}-changes-{hashlib.sha256(joined.encode()).hexdigest()[:6]}"


def against_baseline(
    study: Study,
    design: str,
    sets: Iterable[Changes],
    *,
    further: Sequence[Changes] = (),
    notes: Sequence[str] = (),
) -> Design:
    """A design that compares each of these sets of changes with the baseline."""
    named = combination_names(study)
    comparisons = tuple(Comparison(design, variant_name(changes, named), changes, ()) for changes in sets)
    return Design(design, comparisons, tuple(further), tuple(notes))
