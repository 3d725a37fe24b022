"""How tables write p-values, shares, times, factors and counts; `harness.metrics` writes the numbers of a metric."""

import math

from harness.metrics import ABSENT


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
