"""The figures as PNG files, drawn by matplotlib without a window or a browser: for papers and for tracking.

Why twice: plotly makes pictures with a Chrome alone (Kaleido), which a machine that trains has not, and a page of
matplotlib's would neither zoom nor say what a point is. What is shown is decided once, in the data steps that both
draw; only ink is doubled. Light paper only. The only matplotlib import.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.curve_data import SOLID, Curves
from harness.report.effect_data import MOST_HEAT_TEXTS, Forest, Heat, Pairs, Waterfall
from harness.report.estimate import Estimate
from harness.report.example_data import CLEAREST, Gallery
from harness.report.figure_data import Costs, FigureData, PublishedNumbers
from harness.report.line_data import ChampionLine
from harness.report.look import LIGHT, NEUTRAL, VARIANT_COLOURS, colour_of_verdict, diverging
from harness.report.plot_parts import doublings

WIDTH_INCHES = 7.0
ROW_INCHES = 0.27
FRAME_INCHES = 1.1
DPI = 150
MARKERS = {"improves": "D", "hurts": "s"}
LINE_MARKERS = {"proven": "D", "unproven": "o", "refuted": "s"}
LINES = {SOLID: "-", "dot": ":", "dash": "--", "dashdot": "-."}  # plotly's words for dashes, and matplotlib's


def png(data: FigureData) -> bytes:
    """The figure as the bytes of a PNG file, 1,050 pixels wide."""
    match data:
        case Forest():
            figure, axes = _rows_figure([row.label for row in data.rows], data.axis)
            _forest(axes, data)
        case Pairs():
            figure, axes = _rows_figure([row.label for row in data.rows], data.axis)
            _pairs(axes, data)
        case Waterfall():
            labels = [data.start, *(f"{step.label}  {step.effect.mean:+.{data.digits}f}" for step in data.steps)]
            figure, axes = _rows_figure(labels, data.axis, zero=False)
            _waterfall(axes, data)
        case ChampionLine():
            figure, axes = _rows_figure(data.labels, data.axis, zero=False)
            _champions(axes, data)
        case PublishedNumbers():
            figure, axes = _rows_figure([row.label for row in data.rows], data.axis, zero=False)
            _published(axes, data)
        case Curves():
            figure, axes = _figure(4.0, data.x_axis, data.axis)
            _curves(axes, data)
        case Costs():
            figure, axes = _figure(4.2, data.cost_axis, data.axis)
            _costs(axes, data)
        case Heat():
            figure, axes = _figure(1.6 + 0.36 * len(data.changes), "", "")
            _heat(figure, axes, data)
        case Gallery():
            figure = _gallery(data)
    return _encoded(figure)


def _forest(axes: Axes, data: Forest) -> None:
    for at, row in enumerate(data.rows):
        axes.plot([value for _, value in row.seeds], [at + 0.27] * len(row.seeds), ".", color=NEUTRAL, ms=4, alpha=0.7)
        _interval(axes, at, row.estimate, colour_of_verdict(row.verdict), MARKERS.get(row.verdict, "o"))
    _legend(axes, ("one seed", NEUTRAL, "."), *_verdicts({row.verdict for row in data.rows}))


def _pairs(axes: Axes, data: Pairs) -> None:
    for at, row in enumerate(data.rows):
        _interval(axes, at - 0.16, row.added, VARIANT_COLOURS[0], "o")
        _interval(axes, at + 0.16, row.left_out, VARIANT_COLOURS[1], "D")
    first, second = data.sides
    _legend(axes, (first, VARIANT_COLOURS[0], "o"), (second, VARIANT_COLOURS[1], "D"))


def _waterfall(axes: Axes, data: Waterfall) -> None:
    axes.plot([data.steps[0].before], [0], "|", color=NEUTRAL, ms=14, mew=3)
    for at, step in enumerate(data.steps, start=1):
        colour = colour_of_verdict(step.verdict)
        axes.barh(at, step.after - step.before, left=step.before, height=0.55, color=colour)
        bounds = Estimate(step.after, step.before + step.effect.low, step.before + step.effect.high)
        _interval(axes, at, bounds, LIGHT.faint, "")
        axes.plot([step.before, step.before], [at - 1, at], ":", color=NEUTRAL, lw=1)


def _champions(axes: Axes, data: ChampionLine) -> None:
    before = data.start
    for at, (branch, level) in enumerate(zip(data.branches, data.levels, strict=True), start=1):
        axes.plot([before, before, level], [at - 1, at, at], "-", color=NEUTRAL, lw=2.5, zorder=1)
        colour = colour_of_verdict(branch.verdict)
        if math.isnan(branch.reached.mean):
            axes.plot([branch.level], [at], "X", color=colour, ms=7)
        else:
            axes.plot([branch.level, branch.reached.mean], [at, at], ":", color=colour, lw=1)
            _interval(axes, at, branch.reached, colour, LINE_MARKERS[branch.verdict])
        before = level
    verdicts = [it for it in LINE_MARKERS if any(branch.verdict == it for branch in data.branches)]
    _legend(
        axes,
        ("champion, on fresh seeds", NEUTRAL, "_"),
        *((it, colour_of_verdict(it), LINE_MARKERS[it]) for it in verdicts),
    )


def _published(axes: Axes, data: PublishedNumbers) -> None:
    for at, row in enumerate(data.rows):
        axes.plot(row.one_more, [at, at], color=NEUTRAL, lw=6, alpha=0.45, solid_capstyle="butt")
        _interval(axes, at, row.ours, VARIANT_COLOURS[0], "o")
        axes.plot([row.published], [at], "X", color=VARIANT_COLOURS[4], ms=8)
    _legend(
        axes,
        ("ours, mean and 95% t interval", VARIANT_COLOURS[0], "o"),
        ("published", VARIANT_COLOURS[4], "X"),
        ("one more run of ours", NEUTRAL, "_"),
    )


def _curves(axes: Axes, data: Curves) -> None:
    for curve in data.curves:
        colour, style = data.colours[curve.variant], LINES.get(curve.dash, "-.")
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.16, lw=0)
        marker, width = ("x", 0.8) if curve.is_published else ("o" if len(curve.x) == 1 else "", 1.8)
        axes.plot(curve.x, curve.mean, style, color=colour, lw=width, marker=marker, ms=4, label=curve.words)
    if all(x == int(x) for curve in data.curves for x in curve.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for variant, place in data.best.items():
        axes.axvline(place, color=data.colours[variant], lw=1, ls="--")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)


def _costs(axes: Axes, data: Costs) -> None:
    for point in data.rows:
        bars = [[point.effect.mean - point.effect.low], [point.effect.high - point.effect.mean]]
        marker, colour = MARKERS.get(point.verdict, "o"), colour_of_verdict(point.verdict)
        axes.errorbar([point.cost], [point.effect.mean], yerr=bars, fmt=marker, color=colour, ms=5, lw=1.2)
        if point.is_best_value:
            place = (point.cost, point.effect.mean)
            offset = (4, 4 if data.is_maximized else -10)
            axes.annotate(point.label, place, xytext=offset, textcoords="offset points", fontsize=8, color=LIGHT.ink)
    _legend(axes, *_verdicts({point.verdict for point in data.rows}))
    ticks = doublings([point.cost for point in data.rows])
    axes.set_xscale("log", base=2)
    axes.set_xlim(*(10**end for end in ticks["range"]))
    axes.set_xticks(ticks["tickvals"], ticks["ticktext"])


def _heat(figure: Figure, axes: Axes, data: Heat) -> None:
    size = len(data.changes)
    # The lower triangle, without the first row and the last column, which are empty.
    below = [[value if x < y else math.nan for x, value in enumerate(line[:-1])] for y, line in enumerate(data.values)]
    values = below[1:]
    largest = max((abs(value) for line in values for value in line if value == value), default=1.0)
    colours = LinearSegmentedColormap.from_list("interaction", diverging(data.is_maximized))
    drawn = axes.imshow(values, cmap=colours, vmin=-largest, vmax=largest, aspect="auto")
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            if value == value and (size <= MOST_HEAT_TEXTS or data.verdicts[y + 1][x] in MARKERS):
                ink = "white" if abs(value) > 0.6 * largest else LIGHT.ink
                axes.text(x, y, f"{value:+.{data.digits}f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(size - 1), data.changes[:-1], rotation=60, ha="right")
    axes.set_yticks(range(size - 1), data.changes[1:])
    axes.grid(visible=False)
    figure.colorbar(drawn, ax=axes, label=data.axis, shrink=0.8)


def _gallery(data: Gallery) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 3.0), dpi=DPI, layout="constrained", facecolor=LIGHT.paper)
    for row, (title, shown) in enumerate((("gained", data.gained), ("lost", data.lost))):
        for place in range(CLEAREST):
            axes = figure.add_subplot(2, CLEAREST, row * CLEAREST + place + 1)
            axes.set_axis_off()
            if place == 0:
                axes.set_title(title, loc="left", fontsize=9, color=LIGHT.ink)
            if place < len(shown):
                it = shown[place]
                axes.imshow(it.pixels, interpolation="nearest")
                said = f"{it.label}\n{it.before}→{it.after} of {data.num_seeds}"
                axes.text(
                    0.5, -0.06, said, ha="center", va="top", fontsize=5.5, color=LIGHT.ink, transform=axes.transAxes
                )
    return figure


def _figure(height: float, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained", facecolor=LIGHT.paper)
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=LIGHT.ink)
    axes.set_ylabel(y, color=LIGHT.ink)
    axes.grid(color=LIGHT.grid, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9, colors=LIGHT.faint)
    return figure, axes


def _rows_figure(labels: Sequence[str], x: str, *, zero: bool = True) -> tuple[Figure, Axes]:
    """Rows named from the top down, for estimates along the x axis."""
    figure, axes = _figure(FRAME_INCHES + ROW_INCHES * len(labels), x, "")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    if zero:
        axes.axvline(0, color=LIGHT.faint, lw=1.2)
    return figure, axes


def _interval(axes: Axes, at: float, estimate: Estimate, colour: str, marker: str) -> None:
    if estimate.low == estimate.low:
        axes.plot([estimate.low, estimate.high], [at, at], color=colour, lw=1.4)
    axes.plot([estimate.mean], [at], marker=marker, color=colour, ms=5.5, ls="")


def _verdicts(shown: set[str]) -> list[tuple[str, str, str]]:
    """Entries of the legend: what the corrected test supports, and everything else together."""
    supported = [
        (f"{name} (adjusted, .05)", colour_of_verdict(name), MARKERS[name]) for name in MARKERS if name in shown
    ]
    return [*supported, *([("not supported", NEUTRAL, "o")] if shown - MARKERS.keys() else [])]


def _legend(axes: Axes, *entries: tuple[str, str, str]) -> None:
    handles: list[Any] = [axes.plot([], [], marker, color=colour, label=name)[0] for name, colour, marker in entries]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False, fontsize=8,
        labelcolor=LIGHT.ink, borderaxespad=0.2,
    )  # fmt: skip


def _encoded(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)  # drawn in memory, whatever backend the session has chosen
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # no version: the same data give the same bytes
    return buffer.getvalue()
