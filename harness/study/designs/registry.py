"""Designs: which variants to compare, and with what. Pure combinatorics on names of changes.

The syntax, in a study's `designs` and in `--design`, is NAME or NAME:ARGUMENT:

    add-one                        each selected change against the baseline; one that needs another, against that one
    combinations                   each selected combination against the baseline
    leave-one-out[:COMBINATION]    the combination against itself without a change, for each change: what that one adds
    path[:PATH]                    each step of a named path against the step before
    pairs                          each two selected changes, and each one, against the baseline: for interactions
    factorial                      every set of the selected changes against the baseline; a group of changes is one
                                   factor: none of them, or one
    fractional[:RUNS]              a fraction of the two-level factorial, of resolution IV or more; without an argument
                                   the smallest one

Without an argument, `leave-one-out` stands for every selected combination and `path` for every path. A design gets the
study and the selected names, and gives the comparisons to make and the sets of changes to train for them. What cannot
be combined is named in `notes`, never skipped in silence. Whoever selects a change selects what it needs.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from harness.errors import StudyError
from harness.names import suggestion
from harness.study.designs.comparisons import (
    BASELINE,
    Changes,
    Comparison,
    Design,
    against_baseline,
    combination_names,
    in_order,
    standing,
    variant_name,
)
from harness.study.designs.factorials import factorial, fractional, pairs
from harness.study.designs.fractional import MOST_RUNS
from harness.study.study import Study

__all__ = ["BASELINE", "DESIGNS", "Changes", "Comparison", "Design", "design_problems", "kind_of", "make_designs"]


def add_one(study: Study, selected: Collection[str]) -> list[Design]:
    """The baseline against the baseline with one change, for each change that needs no other.

    A change that needs another is compared with what it stands on, in a design of its own for each such reference:
    `on-top:REFERENCE`. So one family has one reference, and a step from a variant is no step from the baseline.
    """
    designs: dict[Changes, list[Comparison]] = {(): []}
    named = combination_names(study)
    needs = study.needs()
    for name in in_order(study, selected):
        variant = standing(study, name) if name in needs else (name,)
        reference = tuple(it for it in variant if it != name)
        design = f"on-top:{variant_name(reference, named)}" if reference else "add-one"
        designs.setdefault(reference, []).append(Comparison(design, name, variant, reference))
    return [_on_top(study, found) if below else Design("add-one", tuple(found)) for below, found in designs.items()]


def _on_top(study: Study, found: Sequence[Comparison]) -> Design:
    needs = ", ".join(f"{it.label} needs {' and '.join(study.change(it.label).needs)}" for it in found)
    name = found[0].design
    return Design(name, tuple(found), notes=(f"{name}: {needs}, and is compared with {name.partition(':')[2]}.",))


def combinations(study: Study, selected: Collection[str]) -> Design:
    """The baseline against each named combination of the study."""
    chosen = [in_order(study, it.changes) for it in study.combinations if it.name in selected]
    return against_baseline(study, "combinations", chosen)


def leave_one_out(study: Study, combination: str, selected: Collection[str]) -> Design:
    """A combination against itself without one change, for each of its changes: what the change adds there.

    The selected ones of its changes are left out, one at a time; all of them where none is selected by its own name.
    One that another of them needs stays: without it, the other one would make no sense.
    """
    name = f"leave-one-out:{combination}"
    full = in_order(study, next(it.changes for it in study.combinations if it.name == combination))
    chosen = [it for it in full if it in selected] or full
    needs = {it.name: it.needs for it in study.changes}
    holding = {it: [other for other in full if it in needs[other]] for it in chosen}
    rests = {it: tuple(other for other in full if other != it) for it in chosen if not holding[it]}
    notes = [f"{name}: {it} stays, for {', '.join(held)} needs it." for it, held in holding.items() if held]
    return Design(name, tuple(Comparison(name, it, full, rest) for it, rest in rests.items()), notes=tuple(notes))


def path(study: Study, label: str, steps: Sequence[str]) -> Design:
    """Each step of a path against the step before; the first one against the baseline.

    Args:
        label: the path's name; the design is called `path:LABEL`.
        steps: names of changes in the order in which they are added.
    """
    name = f"path:{label}"
    stages = [in_order(study, steps[:count]) for count in range(len(steps) + 1)]
    stepped = zip(steps, stages[1:], stages, strict=False)
    return Design(name, tuple(Comparison(name, step, after, before) for step, after, before in stepped))


class DesignKind(NamedTuple):
    """One entry of the registry.

    Attributes:
        make: study, selected names and argument (or "") to designs.
        arguments: those that a study allows; None for a design that takes none.
    """

    make: Callable[[Study, Collection[str], str], list[Design]]
    arguments: Callable[[Study], Iterable[str]] | None = None


def _leave_one_outs(study: Study, selected: Collection[str], argument: str) -> list[Design]:
    chosen = [argument] if argument else [it.name for it in study.combinations if it.name in selected]
    return [leave_one_out(study, name, selected) for name in chosen]


def _paths(study: Study, selected: Collection[str], argument: str) -> list[Design]:
    designs = []
    for name in [argument] if argument else study.paths:
        design = path(study, name, [step for step in study.paths[name] if step in selected])
        dropped = [step for step in study.paths[name] if step not in selected]
        notes = (f"{design.name}: without {', '.join(dropped)}, not selected.",) if dropped else ()
        designs.append(replace(design, notes=notes))
    return designs


DESIGNS: Mapping[str, DesignKind] = {
    "add-one": DesignKind(lambda study, selected, _: add_one(study, selected)),
    "combinations": DesignKind(lambda study, selected, _: [combinations(study, selected)]),
    "leave-one-out": DesignKind(_leave_one_outs, lambda study: [it.name for it in study.combinations]),
    "path": DesignKind(_paths, lambda study: study.paths),
    "pairs": DesignKind(lambda study, selected, _: [pairs(study, selected)]),
    "factorial": DesignKind(lambda study, selected, _: [factorial(study, selected)]),
    "fractional": DesignKind(
        lambda study, selected, runs: [fractional(study, selected, int(runs) if runs else None)],
        lambda _: [str(2**power) for power in range(1, MOST_RUNS.bit_length())],
    ),
}


def kind_of(design: str) -> str:
    """The registry's name of a design; a change on top of another is a single change, too."""
    return design.partition(":")[0].replace("on-top", "add-one")


def make_designs(study: Study, texts: Sequence[str], selected: Collection[str]) -> list[Design]:
    """The designs that these texts ask for, each once; see the module's text for the syntax.

    Raises:
        StudyError: a text that `design_problems` finds fault with, or a factorial that is too large.
    """
    problems = [problem for text in texts for problem in design_problems(study, text)]
    if problems:
        raise StudyError(*problems)
    designs: dict[str, Design] = {}
    for text in texts:
        name, _, argument = text.partition(":")
        made = DESIGNS[name].make(study, selected, argument)
        if not any(design.comparisons for design in made):
            nothing = f"{text}: nothing to compare: {_why_nothing(study, name)}."
            made = [Design(text, (), notes=(*(note for design in made for note in design.notes), nothing))]
        designs |= {design.name: design for design in made}
    return list(designs.values())


def design_problems(study: Study, text: str) -> list[str]:
    """What is wrong with the text of one design of this study, a sentence each."""
    name, colon, argument = text.partition(":")
    if name not in DESIGNS:
        return [f"unknown design {name!r}.{suggestion(name, DESIGNS)} There are: {', '.join(DESIGNS)}."]
    kind = DESIGNS[name]
    if kind.arguments is None:
        return [f"design {text!r}: {name} takes no argument."] if colon else []
    known = list(kind.arguments(study))
    if not known:
        return [f"design {text!r}: study {study.name!r} declares no {'paths' if name == 'path' else 'combinations'}."]
    if colon and argument not in known:
        hint = "" if argument.isdigit() else suggestion(argument, known)
        return [f"design {text!r}: unknown {argument!r}.{hint} There are: {', '.join(known)}."]
    return []


def _why_nothing(study: Study, name: str) -> str:
    if not study.changes:
        return "the study declares no changes"
    if name in ("combinations", "leave-one-out"):
        return "no combination is selected" if study.combinations else "the study declares no combinations"
    return "no change is selected; a combination is compared by `--design combinations`"
