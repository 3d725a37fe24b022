"""Colours and fonts of the figures, for both drawers, on light and on dark paper.

The colours keep a contrast of at least 3:1 on white and on the page's dark background, and are told apart by people
with the common colour-vision deficiencies (after Okabe & Ito 2008); no figure tells things apart by colour alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NEUTRAL = "#808790"
UP, DOWN = "#2f7fc1", "#d55e00"
# The baseline is neutral; the others follow in this order.
VARIANT_COLOURS: tuple[str, ...] = ("#009e73", "#b5629a", "#b8780a", "#2f7fc1", "#d55e00", "#6f6fd0")
# Interactions: orange for worse than zero, white in the middle, blue for better (ColorBrewer PuOr's ends, adjusted).
_DIVERGING: tuple[tuple[float, str], ...] = ((0.0, "#b35806"), (0.5, "#f5f5f2"), (1.0, "#2166ac"))
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True, slots=True)
class Theme:
    """Paper and ink of one mode."""

    paper: str
    ink: str
    faint: str
    grid: str


LIGHT = Theme(paper="#ffffff", ink="#1c2127", faint="#59636e", grid="#dfe3e8")
DARK = Theme(paper="#14171c", ink="#e4e7eb", faint="#a3adb8", grid="#333a44")


def colour_of_verdict(verdict: str) -> str:
    """Blue and orange for what the corrected test supports, grey for everything else."""
    return {"improves": UP, "hurts": DOWN, "proven": UP, "refuted": DOWN}.get(verdict, NEUTRAL)


def diverging(is_maximized: bool) -> tuple[tuple[float, str], ...]:
    """The scale of interactions, from the lowest number to the highest: what is better is blue.

    Args:
        is_maximized: whether more is better.
    """
    return _DIVERGING if is_maximized else tuple((1 - stop, colour) for stop, colour in reversed(_DIVERGING))


def variant_colours(variants: Iterable[str]) -> Mapping[str, str]:
    """A colour for each variant, the same in every figure of a report; more than six repeat.

    Args:
        variants: those that figures tell apart by colour, in the order of the report.
    """
    others = [name for name in dict.fromkeys(variants) if name != "baseline"]
    colours = {name: VARIANT_COLOURS[index % len(VARIANT_COLOURS)] for index, name in enumerate(others)}
    return {"baseline": NEUTRAL, **colours}
