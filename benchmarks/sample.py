"""Rounds, medians and ratios: how measurements become figures. Nothing here knows what is measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One measurement: the value in the figure's unit, and whatever else was seen on the way."""

    value: float
    facts: Mapping[str, Any] = field(default_factory=dict)


OnSample = Callable[[str, Sample], None]  # told of each measurement: the contender's name, what it gave


@dataclass(frozen=True)
class Described:
    """Something that is measured; `meaning` says what its number means."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Contender(Described):
    """Something that is measured once a round, by `measure`."""

    measure: Callable[[], Sample]


@dataclass(frozen=True)
class Aim:
    """A bound that a figure's median is to keep; `at_least` or `at_most`."""

    kind: str
    bound: float

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.kind == "at_least" else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.kind == 'at_least' else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Line:
    """One number of the final table: the values of all rounds, with median and spread."""

    name: str
    unit: str
    values: tuple[float, ...]
    aim: Aim | None = None

    @property
    def middle(self) -> float:
        return median(self.values)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "median": _finite(self.middle),
            "min": _finite(min(self.values)),
            "max": _finite(max(self.values)),
            "rounds": [_finite(value) for value in self.values],
            "aim": None if self.aim is None else str(self.aim),
            "is_met": None if self.aim is None else self.aim.is_met(self.middle),
        }


def _finite(value: float) -> float | None:
    """JSON has no NaN: an interval from one seed has no ends."""
    return value if math.isfinite(value) else None


Samples = Mapping[str, Sequence[Sample]]


def side_by_side(
    contenders: Sequence[Contender], rounds: int, on_sample: OnSample = lambda name, sample: None
) -> dict[str, list[Sample]]:
    """Measures every contender once a round: A B C A B C ..., so that a drift of the machine meets all alike."""
    assert len({it.name for it in contenders}) == len(contenders), "names of contenders differ"
    samples: dict[str, list[Sample]] = {it.name: [] for it in contenders}
    for _ in range(rounds):
        for contender in contenders:
            sample = contender.measure()
            samples[contender.name].append(sample)
            on_sample(contender.name, sample)
    return samples


def values(samples: Samples, name: str) -> tuple[float, ...]:
    return tuple(sample.value for sample in samples[name])


def facts(samples: Samples, name: str, fact: str) -> tuple[float, ...]:
    return tuple(float(sample.facts[fact]) for sample in samples[name])


def ratio(samples: Samples, of: str, to: str, aim: Aim | None = None) -> Line:
    """`of` over `to`, each round by itself: numerator and denominator were measured minutes apart at most."""
    pairs = zip(values(samples, of), values(samples, to), strict=True)
    return Line(f"{of} / {to}", "ratio", tuple(above / below for above, below in pairs), aim)


def fastest(samples: Samples, names: Sequence[str]) -> str:
    """The name with the highest median: a peer is compared by its best configuration."""
    return max(names, key=lambda name: median(values(samples, name)))
