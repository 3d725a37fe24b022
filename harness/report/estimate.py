"""An estimate with its interval as figures show it, and how many of them a figure has room for."""

from dataclasses import dataclass

MOST_ROWS = 40  # of a figure with one in each row; more cannot be read


@dataclass(frozen=True)
class Estimate:
    """A mean with its t interval; NaN where there is none."""

    mean: float
    low: float
    high: float
