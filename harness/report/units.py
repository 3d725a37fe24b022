"""How a metric is written for people: percentage points, nats, seconds, megabytes.

Points exist only in this package and on the command line; every frame and every statistic holds fractions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

ABSENT = "–"  # where there is no number; never an empty cell, which could be a mistake of ours


@dataclass(frozen=True, slots=True)
class Unit:
    """One metric's way to people.

    Attributes:
        factor: from the stored unit to the shown one.
        digits: after the decimal point.
        value: unit of a value, such as `%`; difference: unit of a difference, such as `points`.
    """

    metric: str
    factor: float
    digits: int
    value: str
    difference: str

    @property
    def name(self) -> str:
        """The metric in words: `test accuracy`."""
        return "peak memory" if self.metric == "peak_memory_bytes" else self.metric.replace("_", " ")

    def scale(self, value: float) -> float:
        return self.factor * float(value)

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


_SPECIAL: Mapping[str, Unit] = {
    "seconds": Unit("seconds", 1.0, 1, "s", "s"),
    "peak_memory_bytes": Unit("peak_memory_bytes", 1e-6, 0, "MB", "MB"),
}


def unit_of(metric: str) -> Unit:
    """Accuracies in percent and percentage points, losses in nats, seconds, megabytes."""
    if metric in _SPECIAL:
        return _SPECIAL[metric]
    if metric.endswith("accuracy"):
        return Unit(metric, 100.0, 2, "%", "points")
    assert metric.endswith("loss"), metric
    return Unit(metric, 1.0, 4, "nats", "nats")


def format_p(p: float) -> str:
    """Two significant digits down to 0.0001: `0.0039`; `<0.0001` below."""
    if math.isnan(p):
        return ABSENT
    if p < 1e-4:
        return "<0.0001"
    return f"{p:.4f}" if p < 0.01 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def format_share(share: float) -> str:
    """A probability: `0.75`."""
    return ABSENT if math.isnan(share) else f"{share:.2f}"


def format_seconds(seconds: float) -> str:
    """`3.2 s`, `48 s`, `12 min`, `3.4 h`."""
    if math.isnan(seconds):
        return ABSENT
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_factor(factor: float) -> str:
    """`×1.15`."""
    return ABSENT if not math.isfinite(factor) else f"×{factor:.2f}" if factor < 9.995 else f"×{factor:.0f}"


def format_count(count: float) -> str:
    """`97,002`."""
    return ABSENT if math.isnan(count) else f"{count:,.0f}"
