"""Nuisance settings: those that each variant deserves at its own best, such as a learning rate.

A comparison at one learning rate favours the side that the rate happens to suit. A study names such settings with
their ranges; `harness tune` gives every variant, the baseline too, the same number of trials of them.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]
SIGNIFICANT_DIGITS = 3  # of a drawn number: a setting that one can write down


class Nuisance(BaseModel):
    """The range of one setting: `{low: 1e-4, high: 1e-1, log: true}`, or `{choices: [a, b]}`.

    Attributes:
        low, high: both whole numbers where the setting is one.
        log: whether equal ratios count as equally far.
        choices: values to try, instead of a range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    choices: Annotated[tuple[Any, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("expected low and high, or choices, not both")
            if len(self.choices) < 2:
                raise ValueError("expected at least two choices")
            return self
        if self.low is None or self.high is None:
            raise ValueError("expected low and high, such as {low: 1e-4, high: 1e-1, log: true}, or choices")
        if isinstance(self.low, bool) or isinstance(self.high, bool) or not self.low < self.high:
            raise ValueError("expected numbers, low below high")
        if self.log and not self.low > 0:
            raise ValueError("expected low above 0 where log is true")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that must all be allowed if every value is: both ends, or each choice."""
        return self.choices or (self.low, self.high)

    def at(self, place: float) -> Any:
        """The value at a place in [0, 1) of the range."""
        if self.choices:
            return self.choices[int(place * len(self.choices))]
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            low, high = (math.log(self.low), math.log(self.high + 1)) if self.log else (self.low, self.high + 1)
            value = low + place * (high - low)
            return min(self.high, int(math.exp(value) if self.log else value))
        if self.log:
            value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + place * (self.high - self.low)
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def draw(nuisance: Mapping[str, Nuisance], *, seed: int, num_trials: int) -> list[dict[str, Any]]:
    """Settings of so many trials, by dotted path: evenly spread, anew for each seed; more trials only add some.

    An additive recurrence: trial b of dimension d stands at frac(shift + b alpha_d), where alpha_d are powers of the
    root of x^(D+1) = x + 1 (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences"), and the shift is
    uniform, from the seed and the path. Arithmetic alone: no library's version can move a draw.
    """
    paths = sorted(nuisance)
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (len(paths) + 1))
    shifts = {path: _uniform(seed, path) for path in paths}
    steps = {path: root ** -(1 + index) for index, path in enumerate(paths)}
    return [
        {path: nuisance[path].at((shifts[path] + trial * steps[path]) % 1.0) for path in paths}
        for trial in range(num_trials)
    ]


def _uniform(seed: int, path: str) -> float:
    digest = hashlib.sha256(f"nuisance|{seed}|{path}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
