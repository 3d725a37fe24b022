"""The figure of a line of champions as plain values: the data step that both drawers share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.report.estimate import MOST_ROWS, Estimate

Verdict = Literal["proven", "refuted", "unproven"]
VERDICTS: dict[str, Verdict] = {"proven": "proven", "unproven": "unproven", "refuted": "refuted"}


@dataclass(frozen=True)
class Branch:
    """One proposal: from the champion that it was judged against to where it was measured.

    Attributes:
        level: of that champion, as the metric is shown; reached: with the interval of the gain; NaN where it failed.
        champion: number of the champion that it became, or 0.
    """

    label: str
    verdict: Verdict
    reason: str
    level: float
    reached: Estimate
    champion: int = 0


@dataclass(frozen=True)
class ChampionLine:
    """A line, one row a proposal, in their order.

    Attributes:
        name: of the line. start: level where it began. axis, digits: as in every figure.
        levels: of the champion after each row.
        omitted: proposals that no champion came of and for which there was no room.
    """

    name: str
    axis: str
    digits: int
    start: float
    branches: tuple[Branch, ...]
    levels: tuple[float, ...]
    omitted: int = 0

    @property
    def labels(self) -> list[str]:
        """Of the rows, the first of which is where the line began."""
        made = (f"{it.label}  (champion {it.champion})" if it.champion else it.label for it in self.branches)
        return ["the beginning", *made]


def champion_line(name: str, axis: str, digits: int, start: float, branches: Sequence[Branch],
                  champions: Sequence[float]) -> ChampionLine:  # fmt: skip
    """Rows of a line: of more than `MOST_ROWS` the latest, and all that became champions.

    Args:
        champions: level of each champion by its number, from 0, where the line began.
    """
    others = [it for it in branches if not it.champion]
    room = max(MOST_ROWS - (len(branches) - len(others)), 0)
    left_out = {id(it) for it in others[: max(len(others) - room, 0)]}
    shown, levels, level = [], [], start
    for it in branches:
        level = champions[it.champion] if it.champion else level
        if id(it) not in left_out:
            shown.append(it)
            levels.append(level)
    return ChampionLine(name, axis, digits, start, tuple(shown), tuple(levels), len(left_out))
