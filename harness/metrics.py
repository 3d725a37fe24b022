"""Metrics: what a trainer measures, which way is better, and how a number of it is written.

The one place that knows a metric's direction, unit, words and digits; no other module parses or spells a metric's name.
A metric is called `<split>/<name>`, such as `val/loss`; the harness's own costs (`SECONDS`, `PEAK_MEMORY`) have no
split. Statistics and tables for programs hold numbers as they were logged; people read them through `Metric`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, get_args

from harness.errors import ResultsError, StudyError

Goal = Literal["maximize", "minimize"]
GOALS: tuple[Goal, ...] = get_args(Goal)
PERCENT = "percent"
MOST_OF_ONE = 2.0  # a fraction may be a little more than 1, such as a relative error
RAW = "raw"
ABSENT = "–"  # where there is no number; never an empty cell, which could be a mistake of ours

TRAINING = "train"  # the split that training itself learns from, where there is one

LARGEST = 1e100  # of a measured number, whose squares and their sums stay finite: beyond it training has diverged

_SPLITS: Mapping[str, str] = {TRAINING: "training", "val": "validation", "dev": "development"}  # in full, for people
_NAME = re.compile(r"[A-Za-z0-9_]+/[A-Za-z0-9_.-]+")


def is_measured(value: float) -> bool:
    """Whether it is a number that can be averaged: finite, and not beyond `LARGEST`."""
    return math.isfinite(value) and abs(value) <= LARGEST


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: `<split>/<name>`.
        goal: whether more of it is better.
        unit: `percent` (logged as a fraction, shown times 100; differences are points), `raw` (no unit), or a symbol
            that is written after the number, such as `nats` or `s`.
        digits: after the decimal point, as shown.
        factor: from the logged number to the shown one.
    """

    name: str
    goal: Goal
    unit: str = RAW
    digits: int = 4
    factor: float = 1.0

    @classmethod
    def declared(cls, name: str, goal: Goal, unit: str = RAW, digits: int | None = None) -> "Metric":
        """A metric of a study or a trainer: percent is shown times 100 with two digits, anything else with four."""
        is_percent = unit == PERCENT
        return cls(
            name, goal, unit, (2 if is_percent else 4) if digits is None else digits, 100.0 if is_percent else 1.0
        )

    def percent_problem(self, value: float) -> str:
        """Why this can be no fraction, as which percent is logged; empty where it can, and for another unit."""
        if self.unit != PERCENT or not abs(value) > MOST_OF_ONE:
            return ""
        return (
            f"{self.name} is {value:g}, but a metric with `unit: percent` is logged as a fraction (0.7 is shown as "
            "70%): log it so, or declare another unit"
        )

    @property
    def split(self) -> str:
        """`val` of `val/loss`; empty for a cost of the harness's own."""
        return self.name.rpartition("/")[0]

    @property
    def base(self) -> str:
        """`loss` of `val/loss`."""
        return self.name.rpartition("/")[2]

    @property
    def is_maximized(self) -> bool:
        return self.goal == "maximize"

    @property
    def sign(self) -> float:
        """+1 where more is better, else -1: `sign * difference` is the improvement."""
        return 1.0 if self.is_maximized else -1.0

    @property
    def words(self) -> str:
        """As a reader would say it: `validation loss`, `peak memory`."""
        return f"{self.split_words} {self.base_words}".strip()

    @property
    def split_words(self) -> str:
        """`validation` of `val/loss`."""
        return _SPLITS.get(self.split, self.split).replace("_", " ")

    @property
    def base_words(self) -> str:
        """`loss` of `val/loss`, `peak memory`: what is measured, on whatever split."""
        return self.base.replace("_bytes", "").replace("_", " ")

    @property
    def value_unit(self) -> str:
        """Of a value: `%`, `nats`, or nothing."""
        return {PERCENT: "%", RAW: ""}.get(self.unit, self.unit)

    @property
    def difference_unit(self) -> str:
        """Of a difference: `points`, `nats`, or nothing."""
        return {PERCENT: "points", RAW: ""}.get(self.unit, self.unit)

    @property
    def axis(self) -> str:
        """For a figure's axis of values: `test accuracy [%]`."""
        return self.words + (f" [{self.value_unit}]" if self.value_unit else "")

    @property
    def base_axis(self) -> str:
        """For an axis that several splits share: `accuracy [%]`."""
        return self.base_words + (f" [{self.value_unit}]" if self.value_unit else "")

    @property
    def difference_axis(self) -> str:
        """For a figure's axis of differences: `test accuracy [points]`."""
        return self.words + (f" [{self.difference_unit}]" if self.difference_unit else "")

    def scale(self, value: float) -> float:
        """From the logged number to the shown one."""
        return self.factor * float(value)

    @property
    def logged_digits(self) -> int:
        """After the decimal point of a number as it was logged: as many as people are shown, whatever the factor."""
        return max(self.digits + round(math.log10(self.factor)), 0)

    def format(self, value: float) -> str:
        """A value without its unit: `74.21`."""
        return ABSENT if math.isnan(value) else f"{self.scale(value):.{self.digits}f}"

    def format_signed(self, value: float) -> str:
        """A difference without its unit: `+1.20`; `0.00` where nothing is left after rounding."""
        if math.isnan(value):
            return ABSENT
        text = f"{self.scale(value):+.{self.digits}f}"
        return text if text.strip("+-0.") else text[1:]

    def format_spread(self, mean: float, sd: float) -> str:
        """`74.21 ± 0.31`: mean and sd; the mean alone where one seed has no sd."""
        return self.format(mean) if math.isnan(sd) else f"{self.format(mean)} ± {self.format(sd)}"

    def format_estimate(self, mean: float, low: float, high: float) -> str:
        """`+1.20 [+0.40, +2.00]`; without the interval where there is none."""
        if math.isnan(low) or math.isnan(high):
            return self.format_signed(mean)
        return f"{self.format_signed(mean)} [{self.format_signed(low)}, {self.format_signed(high)}]"

    def say(self, value: float) -> str:
        """A value with its unit, for a sentence: `74.21%`, `0.8123 nats`, `3.1`."""
        unit = self.value_unit
        return self.format(value) + (unit if unit == "%" else f" {unit}" if unit else "")

    def say_difference(self, value: float, *, signed: bool = True) -> str:
        """A difference with its unit, for a sentence: `+1.16 points`, `-0.0312 nats`; its size if not `signed`."""
        text = self.format_signed(value) if signed else self.format(abs(value))
        return f"{text} {self.difference_unit}".rstrip()

    def say_interval(self, low: float, high: float, level: str = "", *, signed: bool = True) -> str:
        """`95% +0.40, +2.00`: bounds without unit, beside an estimate that has one; `no interval` where there is none.

        Args:
            level: `95%`, or more about the interval.
        """
        if math.isnan(low) or math.isnan(high):
            return "no interval"
        written = self.format_signed if signed else self.format
        return f"{level} {written(low)}, {written(high)}".lstrip()

    def to_json(self) -> dict[str, Any]:
        return {"goal": self.goal, "unit": self.unit, "digits": self.digits}


# What every cell costs, whatever its trainer.
SECONDS = Metric("seconds", "minimize", "s", 1)
PEAK_MEMORY = Metric("peak_memory_bytes", "minimize", "MB", 0, 1e-6)
COSTS: tuple[Metric, ...] = (SECONDS, PEAK_MEMORY)


@dataclass(frozen=True)
class Metrics:
    """The metrics of a study.

    Attributes:
        all: in the order in which tables show them.
        select: name of the one that chooses: the best step, the winner, a search's value.
        report: name of the one that is reported; the same as `select` only where a study says so, and then everything
            is exploratory: the number that was used to choose is too good on average.
    """

    all: tuple[Metric, ...]
    select: str
    report: str

    def __post_init__(self) -> None:
        assert {self.select, self.report} <= self._by_name.keys()

    @cached_property
    def _by_name(self) -> Mapping[str, Metric]:
        return {metric.name: metric for metric in (*self.all, *COSTS)}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self.all)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Metric:
        """A declared metric or a cost. Raises ResultsError, with the closest name, for another one."""
        if name not in self._by_name:
            close = get_close_matches(name, self._by_name, n=1, cutoff=0.6)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ResultsError(f"unknown metric {name!r}.{hint} There are: {', '.join(self._by_name)}.")
        return self._by_name[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(metric.name for metric in self.all)

    @property
    def selecting(self) -> Metric:
        return self[self.select]

    @property
    def reporting(self) -> Metric:
        return self[self.report]

    @property
    def is_exploratory(self) -> bool:
        return self.select == self.report

    def twin(self, metric: Metric, split: str) -> Metric | None:
        """The metric of the same name on another split: `val/loss` of `test/loss`; None where there is none."""
        return self._by_name.get(f"{split}/{metric.base}") if metric.split else None

    def on(self, split: str) -> tuple[Metric, ...]:
        """All metrics of one split, in order."""
        return tuple(metric for metric in self.all if metric.split == split)

    def to_json(self) -> dict[str, Any]:
        return {"all": {it.name: it.to_json() for it in self.all}, "select": self.select, "report": self.report}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Metrics":
        """What `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        every = tuple(
            Metric.declared(name, it["goal"], it.get("unit", RAW), it.get("digits")) for name, it in data["all"].items()
        )
        if not {data["select"], data["report"]} <= {it.name for it in every}:
            raise ValueError(f"select {data['select']!r} and report {data['report']!r} are no metrics of it")
        return cls(every, data["select"], data["report"])


def declared_metrics(declared: object, select: object, report: object) -> Metrics:
    """The metrics that a study declares in YAML.

    Args:
        declared: `metrics:`, a mapping of name to `{goal: maximize | minimize, unit: percent | raw | ..., digits: N}`.
        select, report: names; `report` may equal `select` only if it is written out, which makes the study exploratory.

    Raises:
        StudyError: everything that is wrong, a sentence each.
    """
    problems: list[str] = []
    every: list[Metric] = []
    if not isinstance(declared, Mapping) or not declared:
        problems.append(
            "metrics: required: what training reports, such as `metrics: {val/loss: {goal: minimize}, "
            "test/loss: {goal: minimize}}`."
        )
        declared = {}
    for name, entry in declared.items():
        try:
            every.append(_declared_metric(str(name), entry))
        except StudyError as error:
            problems += error.problems
    names = [str(name) for name in declared]
    for key, chosen in (("select", select), ("report", report)):
        if not isinstance(chosen, str) or not chosen:
            purpose = "picks the best step and the winner" if key == "select" else "is reported once, at the end"
            problems.append(
                f"{key}: required: the name of the metric that {purpose}, one of {', '.join(names) or '...'}."
            )
        elif names and chosen not in names:
            close = get_close_matches(chosen, names, n=1, cutoff=0.6)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            problems.append(f"{key}: unknown metric {chosen!r}.{hint} `metrics` declares: {', '.join(names)}.")
    if problems:
        raise StudyError(*problems)
    return Metrics(tuple(every), str(select), str(report))


def _declared_metric(name: str, entry: object) -> Metric:
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(f"metrics: {name!r} is no name of a metric; expected <split>/<name>, such as val/loss.")
    if not isinstance(entry, Mapping):
        raise StudyError(
            *problems, f"metrics: {name}: expected {{goal: maximize}} or {{goal: minimize}}, not {entry!r}."
        )
    unknown = [str(key) for key in entry if key not in ("goal", "unit", "digits")]
    problems += [f"metrics: {name}: unknown key {key!r}; there are goal, unit and digits." for key in unknown]
    goal, unit, digits = entry.get("goal"), entry.get("unit", RAW), entry.get("digits")
    if goal not in GOALS:
        problems.append(f"metrics: {name}.goal: expected maximize or minimize, not {goal!r}.")
    if not isinstance(unit, str) or not unit or len(unit) > 20:
        problems.append(f"metrics: {name}.unit: expected percent, raw, or a symbol such as s, not {unit!r}.")
    if digits is not None and (not isinstance(digits, int) or isinstance(digits, bool) or not 0 <= digits <= 12):
        problems.append(f"metrics: {name}.digits: expected a whole number from 0 to 12, not {digits!r}.")
    if problems:
        raise StudyError(*problems)
    return Metric.declared(name, goal, unit, digits)  # type: ignore[arg-type]
