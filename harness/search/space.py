"""The space of a search: which combinations of changes there are, as parameters with a few choices each.

A group of changes is one parameter, whose choices are `baseline` (none of them) and its changes; a change without a
group is a parameter that is true or false. Pure combinatorics: nothing of Optuna, nothing is trained.
"""

import random
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, product
from math import prod
from typing import TypeVar

from harness.errors import StudyError
from harness.metrics import Metric
from harness.plan.plan import Plan
from harness.study.changes import missing_needs
from harness.study.designs.comparisons import BASELINE, Changes, in_order, with_needed

Choice = bool | str
Params = dict[str, Choice]
T = TypeVar("T")
LISTED_DISTANCE = 3  # up to which sets of parameters are shuffled: there are 20,000 of three of 50 parameters


@dataclass(frozen=True)
class Space:
    """The changes that a plan trains alone, to be combined; made by `Space.of`.

    Attributes:
        factors: parameter to its changes, in the order of the study.
        groups: the parameters that are groups of exclusive changes; the others are switches.
        clashes: two changes of different parameters that cannot stand together, and why, in a sentence. What settings
            refuse, they refuse because of two changes.
        needs: change to the changes without which it makes no sense.
    """

    plan: Plan
    factors: Mapping[str, Changes]
    groups: frozenset[str]
    clashes: Mapping[frozenset[str], str]
    needs: Mapping[str, Changes] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan) -> "Space":
        """Raises StudyError for a plan without changes."""
        alone = in_order(plan.study, _trained_alone(plan))
        if not alone:
            raise StudyError(f"study {plan.study.name!r} has no changes to search over.")
        factors: dict[str, Changes] = {}
        groups = set()
        for name in alone:
            group = plan.study.change(name).group
            parameter = f"group {group}" if group in alone else group or name  # no name of a change holds a space
            factors[parameter] = (*factors.get(parameter, ()), name)
            if group:
                groups.add(parameter)
        needs = {name: tuple(it.name for it in below) for name, below in plan.study.needs().items() if name in alone}
        return cls(plan, factors, frozenset(groups), _clashes(plan, factors), needs)

    @property
    def metric(self) -> Metric:
        """What a search looks at: the metric by which the study selects."""
        return self.plan.study.trainer.metrics.selecting

    @property
    def size(self) -> int:
        """How many combinations there are, impossible ones included."""
        return prod(1 + len(changes) for changes in self.factors.values())

    @property
    def changes(self) -> Changes:
        return self._ordered(name for changes in self.factors.values() for name in changes)

    def choices(self, parameter: str) -> tuple[Choice, ...]:
        """No change comes first."""
        return (BASELINE, *self.factors[parameter]) if parameter in self.groups else (False, True)

    def params_of(self, changes: Collection[str]) -> Params:
        params: Params = {}
        for parameter, names in self.factors.items():
            chosen = next((name for name in names if name in changes), BASELINE)
            params[parameter] = chosen if parameter in self.groups else chosen != BASELINE
        return params

    def changes_of(self, params: Mapping[str, object]) -> Changes | None:
        """The combination that these parameters stand for, or None where they are not all parameters of this space."""
        if params.keys() != self.factors.keys():
            return None
        if any(value not in self.choices(parameter) for parameter, value in params.items()):
            return None
        chosen = [self.factors[name][0] if value is True else value for name, value in params.items()]
        return self._ordered(map(str, chosen))

    def why_not(self, changes: Changes) -> str:
        """Why this combination cannot be trained; empty where it can."""
        clashing = [why for pair, why in self.clashes.items() if pair.issubset(changes)]
        lacking = missing_needs([self.plan.study.change(name) for name in changes]) if self.needs else []
        return " ".join([*clashing, *lacking])

    def standing(self, name: str) -> Changes:
        """The smallest combination that holds this change: itself, and what it needs."""
        return self._ordered([name, *self.needs.get(name, ())])

    def full(self) -> Changes:
        """As many changes at once as can be: of each parameter its first change, in the order of the study, without
        those that cannot stand beside the ones before. What needs another change comes after it."""
        chosen: Changes = ()
        firsts = [names[0] for names in self.factors.values()]
        for name in sorted(firsts, key=lambda name: len(self.needs.get(name, ()))):
            more = self._ordered([*chosen, name])
            chosen = chosen if self.why_not(more) else more
        return chosen

    def first(self) -> dict[Changes, str]:
        """What a search begins with, and why: the baseline, each change alone, the combinations that the plan names,
        and the full one."""
        wanted: dict[Changes, str] = {(): "the baseline"}
        wanted |= {self.standing(name): "a single change" for name in self.changes}
        for variant in self.plan.variants:
            if len(variant.changes) > 1 and set(variant.changes) <= set(self.changes):
                wanted[variant.changes] = f"the combination {variant.name}"
        wanted.setdefault(self.full(), "as many changes as can be")
        return wanted

    def by_distance(self, centre: Changes = (), generator: random.Random | None = None) -> Iterator[Changes]:
        """Every possible combination once, those first that differ from the centre in few parameters; from the baseline
        these are the ones with few changes. Lazy, for there may be more than anyone can list.

        Args:
            generator: shuffles those that are equally near; without it they come in the order of the study.
        """
        params = self.params_of(centre)
        for distance in range(len(params) + 1):
            ring = combinations(params, distance)
            for names in self._shuffled(ring, generator) if distance <= LISTED_DISTANCE else ring:
                others = ([it for it in self.choices(name) if it != params[name]] for name in names)
                for values in self._shuffled(product(*others), generator):
                    changes = self.changes_of(params | dict(zip(names, values, strict=True)))
                    assert changes is not None
                    if not self.why_not(changes):
                        yield changes

    def draw(self, generator: random.Random) -> Changes:
        """A combination at random, each choice of a parameter with the same probability; it may be impossible."""
        changes = self.changes_of({name: generator.choice(self.choices(name)) for name in self.factors})
        assert changes is not None
        return changes

    @staticmethod
    def _shuffled(items: Iterable[T], generator: random.Random | None) -> Iterable[T]:
        return generator.sample(listed, len(listed)) if generator and (listed := list(items)) else items

    def _ordered(self, names: Iterable[str]) -> Changes:
        return in_order(self.plan.study, set(names))


def _trained_alone(plan: Plan) -> list[str]:
    """Changes that are a variant by themselves; those that need others, where they are compared with these."""
    found = [it.changes[0] for it in plan.variants if len(it.changes) == 1]
    compared = {(it.variant, it.reference) for it in plan.comparisons}
    for name, needed in plan.study.needs().items():
        below = in_order(plan.study, [it.name for it in needed])
        if (in_order(plan.study, [*below, name]), below) in compared:
            found.append(name)
    return found


def _clashes(plan: Plan, factors: Mapping[str, Changes]) -> dict[frozenset[str], str]:
    """Quadratic; a study has tens of changes."""
    found = {}
    for first, second in combinations(factors.values(), 2):
        for pair in product(first, second):
            try:
                plan.make_variant(in_order(plan.study, with_needed(plan.study, pair)))
            except StudyError as error:
                found[frozenset(pair)] = " ".join(error.problems)
    return found
