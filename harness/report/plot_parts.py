"""Parts of figures as the plain values that plotly takes: theme, intervals, ticks. Imports no plotly."""

import math
from collections.abc import Sequence
from typing import Any

from harness.report.estimate import Estimate
from harness.report.look import FONT, Theme


def template(theme: Theme) -> dict[str, Any]:
    """Ink, grid and font of one mode, as a plotly template; backgrounds are transparent."""
    axis = {
        "gridcolor": theme.grid, "linecolor": theme.grid, "zerolinecolor": theme.faint, "zerolinewidth": 1.5,
        "tickfont": {"color": theme.faint}, "automargin": True, "title": {"standoff": 10},
    }  # fmt: skip
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": theme.ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis | {"tickfont": {"color": theme.ink}},  # names of rows, as a rule
            "hoverlabel": {"bgcolor": theme.paper, "bordercolor": theme.faint, "font": {"color": theme.ink}},
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"},
        }
    }


def estimates(found: Sequence[Estimate], colour: str, symbol: str) -> dict[str, Any]:
    """The x of a scatter of estimates, with their intervals and markers."""
    return {
        "x": [estimate.mean for estimate in found],
        "error_x": error_bars(found),
        "mode": "markers",
        "marker": {"size": 9, "color": colour, "symbol": symbol},
    }


def error_bars(found: Sequence[Estimate]) -> dict[str, Any]:
    """Intervals as error bars; none where a seed has no interval."""
    return {
        "type": "data", "thickness": 1.6, "width": 0,
        "array": [none_or(it.high - it.mean) for it in found],
        "arrayminus": [none_or(it.mean - it.low) for it in found],
    }  # fmt: skip


def doublings(costs: Sequence[float]) -> dict[str, Any]:
    """Ticks of a logarithmic axis at 1/4, 1/2, 1, 2, 4, ... over the range of these numbers."""
    powers = range(math.floor(math.log2(min(costs)) - 0.2), math.ceil(math.log2(max(costs)) + 0.2) + 1)
    ends = [powers[0] * math.log10(2), powers[-1] * math.log10(2)]
    ticks = [2.0**power for power in powers]
    return {"tickvals": ticks, "ticktext": [f"×{tick:g}" for tick in ticks], "range": ends}


def none_or(value: float) -> float | None:
    """plotly leaves out what is None; a NaN would not be valid JSON."""
    return None if math.isnan(value) else value
