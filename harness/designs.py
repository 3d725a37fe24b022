"""Designs: which variants to compare, and with what. Pure combinatorics on names of changes.

A design gets the study and the names that were selected, and gives the sets of changes to train and the comparisons
to make of them. What cannot be combined is named in `notes`, never skipped in silence.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.study import Study

BASELINE = "baseline"
Changes = tuple[str, ...]  # names of changes, in the order of the study; the baseline is the empty one


@dataclass(frozen=True, slots=True)
class Comparison:
    """One effect that a design asks for: `variant` minus `reference`, both sets of changes.

    Attributes:
        label: what the effect is of: the name of a change or a combination.
    """

    design: str
    label: str
    variant: Changes
    reference: Changes


@dataclass(frozen=True, slots=True)
class Design:
    """What one design needs: the comparisons, further sets of changes to train, and remarks for the reader."""

    name: str
    comparisons: tuple[Comparison, ...]
    further: tuple[Changes, ...] = ()
    notes: tuple[str, ...] = ()


def add_one(study: "Study", selected: Collection[str]) -> Design:
    """The baseline against the baseline with one change, for each change."""
    names = [change.name for change in study.changes if change.name in selected]
    return Design("add-one", tuple(Comparison("add-one", name, (name,), ()) for name in names))


def combinations(study: "Study", selected: Collection[str]) -> Design:
    """The baseline against each named combination of the study."""
    chosen = [combination for combination in study.combinations if combination.name in selected]
    return Design(
        "combinations",
        tuple(Comparison("combinations", it.name, in_order(study, it.changes), ()) for it in chosen),
    )


DESIGNS: Mapping[str, Callable[["Study", Collection[str]], Design]] = {
    "add-one": add_one,
    "combinations": combinations,
}


def in_order(study: "Study", names: Sequence[str]) -> Changes:
    """The names in the study's order, so that a set of changes has one spelling."""
    return tuple(change.name for change in study.changes if change.name in names)


def variant_name(study: "Study", changes: Changes) -> str:
    """What people call a set of changes: `baseline`, a named combination, or the names joined by `+`."""
    if not changes:
        return BASELINE
    for combination in study.combinations:
        if in_order(study, combination.changes) == changes:
            return combination.name
    return "+".join(changes)
