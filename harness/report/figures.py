"""The figures with plotly, for the page of a report and for notebooks; the only plotly import.

Each public function takes results (`harness.load_results`) or learning curves (`harness.load_curves`) and gives a
`plotly.graph_objects.Figure`; each `draw_...` draws what a data step of `effect_data.py` or `figure_data.py` found. The
figures carry no title: the page sets it as text. Nothing here reads a file or opens a window.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from harness.report.curve_data import Curve, Curves, curves_data
from harness.report.effect_data import (
    MOST_HEAT_TEXTS,
    Forest,
    Heat,
    Pairs,
    Waterfall,
    forest_data,
    heat_data,
    pairs_data,
    waterfall_data,
)
from harness.report.example_data import CLEAREST, Gallery
from harness.report.figure_data import Costs, FigureData, PublishedNumbers, costs_data, published_data
from harness.report.line_data import ChampionLine
from harness.report.look import LIGHT, NEUTRAL, VARIANT_COLOURS, colour_of_verdict, diverging
from harness.report.plot_parts import doublings, error_bars, estimates, none_or, template
from harness.report.tables import Tables
from harness.report.thumbnails import gallery_layout, gallery_points

ROW_PIXELS = 27
FRAME_PIXELS = 110  # axis title, ticks and legend
LEGEND_PIXELS = 20  # a line of it
SYMBOLS = {"improves": "diamond", "hurts": "square"}
LINE_SYMBOLS = {"proven": "diamond", "unproven": "circle", "refuted": "square"}
PAIR_COLOURS = VARIANT_COLOURS[:2]


def forest(results: pd.DataFrame, design: str = "", *, metric: str | None = None) -> go.Figure:
    """Effects of one design (by default the first) with t intervals and every seed as a point."""
    return draw_forest(forest_data(_tables(results, metric), design))


def learning_curves(curves: pd.DataFrame, variants: Sequence[str], quantity: str = "") -> go.Figure:
    """A quantity of a few variants on each split that it was logged on, mean and one sd over seeds.

    Args:
        quantity: what follows the slash in the names of metrics; by default the first that was logged.
    """
    return draw_curves(curves_data(curves, variants, quantity))


def add_one_against_leave_one_out(results: pd.DataFrame, *, metric: str | None = None) -> go.Figure:
    """Each change added to the baseline beside the same change taken out of a combination."""
    return draw_pairs(pairs_data(_tables(results, metric)))


def waterfall(results: pd.DataFrame, design: str = "path", *, metric: str | None = None) -> go.Figure:
    """The steps of a path."""
    return draw_waterfall(waterfall_data(_tables(results, metric), design))


def interaction_heatmap(results: pd.DataFrame, *, metric: str | None = None) -> go.Figure:
    """What each two changes do together beyond the sum of both alone."""
    return draw_heat(heat_data(_tables(results, metric)))


def effect_against_cost(results: pd.DataFrame, cost: str = "seconds", *, metric: str | None = None) -> go.Figure:
    """Effect against training time, or against `parameters` where training notes them."""
    return draw_costs(costs_data(_tables(results, metric), cost))


def observed_against_published(results: pd.DataFrame, quantity: str = "") -> go.Figure:
    """Our numbers beside the published ones, on every split.

    Args:
        quantity: what follows the slash in the names of metrics; by default what the study reports.
    """
    return draw_published(published_data(_tables(results), quantity))


def _tables(results: pd.DataFrame, metric: str | None = None) -> Tables:
    return Tables(results, load_curves=pd.DataFrame, metric=metric)


def draw_forest(data: Forest) -> go.Figure:
    figure = _figure(data.axis, height=FRAME_PIXELS + ROW_PIXELS * len(data.rows))
    marks = [(row.label, seed, value, at) for at, row in enumerate(data.rows) for seed, value in row.seeds]
    figure.add_scatter(
        name="one seed",
        x=[value for _, _, value, _ in marks],
        y=[at + 0.27 for *_, at in marks],
        mode="markers",
        marker={"size": 5, "color": NEUTRAL, "opacity": 0.6},
        customdata=[(label, seed) for label, seed, *_ in marks],
        hovertemplate=f"%{{customdata[0]}}<br>seed %{{customdata[1]}}: %{{x:+.{data.digits}f}}<extra></extra>",
    )
    for name in ("improves", "hurts", "not supported"):
        at = [index for index, row in enumerate(data.rows) if _group(row.verdict) == name]
        if at:
            found = [data.rows[index].estimate for index in at]
            figure.add_scatter(
                name=name if name == "not supported" else f"{name} (adjusted, .05)",
                y=at,
                **estimates(found, colour_of_verdict(name), SYMBOLS.get(name, "circle")),
                customdata=[(data.rows[index].label, data.rows[index].verdict) for index in at],
                hovertemplate=f"%{{customdata[0]}}: %{{x:+.{data.digits}f}}<br>%{{customdata[1]}}<extra></extra>",
            )
    figure.update_xaxes(autorangeoptions={"include": 0})  # an effect is read against none
    return _with_rows(figure, [row.label for row in data.rows])


def draw_curves(data: Curves) -> go.Figure:
    # In a narrow panel the legend has a line a curve, above the plot.
    height = 360 + LEGEND_PIXELS * max(0, len(data.curves) - 4)
    figure = _figure(data.x_axis, data.axis, height=height).update_yaxes(zeroline=False)
    for curve in data.curves:
        _draw_band(figure, curve, data.colours[curve.variant])
    for curve in data.curves:
        seeds = "" if curve.is_published else " (%{customdata} seeds)"
        figure.add_scatter(
            name=curve.words,
            x=curve.x,
            y=curve.mean,
            **_stroke(curve, data.colours[curve.variant]),
            customdata=curve.n,
            hovertemplate=f"{data.x_axis} %{{x:g}}: %{{y:.{max(data.digits, 3)}f}}{seeds}"
            "<extra>%{fullData.name}</extra>",
        )
    for variant, place in data.best.items():
        line = {"color": data.colours[variant], "width": 1, "dash": "dash"}
        figure.add_vline(x=place, line=line, layer="below")
    return figure


def _stroke(curve: Curve, colour: str) -> dict[str, Any]:
    if curve.is_published:
        marker = {"symbol": "x-thin", "size": 7, "line": {"color": colour, "width": 1.5}}
        return {"mode": "lines+markers", "marker": marker, "line": {"color": colour, "width": 1, "dash": curve.dash}}
    mode = "lines" if len(curve.x) > 1 else "markers"
    return {"mode": mode, "line": {"color": colour, "width": 2, "dash": curve.dash}}


def draw_pairs(data: Pairs) -> go.Figure:
    figure = _figure(data.axis, height=FRAME_PIXELS + (ROW_PIXELS + 8) * len(data.rows))
    sides = ((data.sides[0], -0.16, "circle"), (data.sides[1], 0.16, "diamond"))
    for index, (name, shift, symbol) in enumerate(sides):
        figure.add_scatter(
            name=name,
            y=[at + shift for at in range(len(data.rows))],
            **estimates([(row.added, row.left_out)[index] for row in data.rows], PAIR_COLOURS[index], symbol),
            customdata=[row.label for row in data.rows],
            hovertemplate=f"%{{customdata}}: %{{x:+.{data.digits}f}}<extra>%{{fullData.name}}</extra>",
        )
    figure.update_xaxes(autorangeoptions={"include": 0})
    return _with_rows(figure, [row.label for row in data.rows])


def draw_waterfall(data: Waterfall) -> go.Figure:
    figure = _figure(data.axis, height=FRAME_PIXELS + (ROW_PIXELS + 6) * (len(data.steps) + 1))
    figure.add_scatter(
        x=[data.steps[0].before],
        y=[0],
        mode="markers",
        marker={"size": 10, "color": NEUTRAL, "symbol": "line-ns", "line": {"width": 3, "color": NEUTRAL}},
        hovertemplate=f"{data.start}: %{{x:.{data.digits}f}}<extra></extra>",
        showlegend=False,
    )
    for at, step in enumerate(data.steps, start=1):
        link = {"color": NEUTRAL, "width": 1, "dash": "dot"}
        figure.add_shape(type="line", x0=step.before, x1=step.before, y0=at - 1, y1=at, line=link)
    figure.add_bar(
        orientation="h",
        base=[step.before for step in data.steps],
        x=[step.after - step.before for step in data.steps],
        y=list(range(1, len(data.steps) + 1)),
        width=0.55,
        marker={"color": [colour_of_verdict(step.verdict) for step in data.steps]},
        error_x=error_bars([step.effect for step in data.steps]) | {"color": NEUTRAL, "width": 3},
        customdata=[(step.label, step.effect.mean, step.after, step.verdict) for step in data.steps],
        hovertemplate=f"%{{customdata[0]}}: %{{customdata[1]:+.{data.digits}f}}, to %{{customdata[2]:.{data.digits}f}}"
        "<br>%{customdata[3]}<extra></extra>",
        showlegend=False,
    )  # fmt: skip
    labels = [data.start, *(f"{step.label}  <b>{step.effect.mean:+.{data.digits}f}</b>" for step in data.steps)]
    return _with_rows(figure, labels)


def draw_champions(data: ChampionLine) -> go.Figure:
    """The trunk goes down through the champions; a branch goes from it to each proposal's measured gain."""
    figure = _figure(data.axis, height=FRAME_PIXELS + ROW_PIXELS * (len(data.branches) + 1))
    trunk = [(data.start, 0)]
    for at, (branch, level) in enumerate(zip(data.branches, data.levels, strict=True), start=1):
        trunk += [(trunk[-1][0], at), (level, at)] if branch.champion else [(level, at)]
    figure.add_scatter(
        name="champion, on fresh seeds",
        x=[x for x, _ in trunk],
        y=[y for _, y in trunk],
        mode="lines",
        line={"color": NEUTRAL, "width": 3},
        hoverinfo="skip",
    )
    for verdict, symbol in LINE_SYMBOLS.items():
        rows = [(at, it) for at, it in enumerate(data.branches, start=1) if it.verdict == verdict]
        measured = [(at, it) for at, it in rows if not math.isnan(it.reached.mean)]
        if not rows:
            continue
        colour = colour_of_verdict(verdict)
        for at, it in measured:
            line = {"color": colour, "width": 1, "dash": "dot"}
            figure.add_shape(type="line", x0=it.level, x1=it.reached.mean, y0=at, y1=at, line=line, layer="below")
        drawn = estimates([it.reached for _, it in measured], colour, symbol)
        failed = [(at, it) for at, it in rows if math.isnan(it.reached.mean)]
        figure.add_scatter(
            name=verdict,
            y=[at for at, _ in measured],
            **drawn,
            customdata=[(it.label, it.reason, it.reached.mean - it.level) for _, it in measured],
            hovertemplate=f"%{{customdata[0]}}: %{{customdata[2]:+.{data.digits}f}}<br>{verdict}: %{{customdata[1]}}"
            "<extra></extra>",
        )
        if failed:
            figure.add_scatter(
                name="failed",
                x=[it.level for _, it in failed],
                y=[at for at, _ in failed],
                mode="markers",
                marker={"size": 9, "color": colour, "symbol": "x"},
                customdata=[(it.label, it.reason) for _, it in failed],
                hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
            )
    return _with_rows(figure.update_xaxes(zeroline=False), data.labels)


def draw_heat(data: Heat) -> go.Figure:
    size = len(data.changes)
    # The lower triangle, without the first row and the last column, which are empty.
    values = [[value if x < y else math.nan for x, value in enumerate(line[:-1])] for y, line in enumerate(data.values)]
    largest = max((abs(value) for line in values for value in line if value == value), default=1.0)
    figure = _figure("", "", height=240 + 32 * size)
    figure.add_heatmap(
        z=[[none_or(value) for value in line] for line in values[1:]],
        x=data.changes[:-1],
        y=data.changes[1:],
        zmin=-largest,
        zmax=largest,
        colorscale=[list(stop) for stop in diverging(data.is_maximized)],
        xgap=2,
        ygap=2,
        text=_heat_texts(data, values)[1:],
        texttemplate="%{text}",
        customdata=[line[:-1] for line in data.verdicts[1:]],
        hovertemplate=f"%{{y}} and %{{x}}: %{{z:+.{data.digits}f}}<br>%{{customdata}}<extra></extra>",
        hoverongaps=False,
        colorbar={"title": {"text": data.axis, "side": "top"}, "orientation": "h", "y": 1, "yanchor": "bottom",
                  "thickness": 10, "len": 0.8, "outlinewidth": 0},
    )  # fmt: skip
    figure.update_xaxes(showgrid=False, tickangle=-60, dtick=1)
    figure.update_yaxes(showgrid=False, autorange="reversed", dtick=1)
    return figure


def _heat_texts(data: Heat, values: Sequence[Sequence[float]]) -> list[list[str]]:
    """Every number where there is room; in a larger map those that the corrected test supports."""
    is_small = len(data.changes) <= MOST_HEAT_TEXTS
    return [
        [
            f"{value:+.{data.digits}f}" if value == value and (is_small or verdict in SYMBOLS) else ""
            for value, verdict in zip(line, verdicts, strict=False)
        ]
        for line, verdicts in zip(values, data.verdicts, strict=True)
    ]


def draw_costs(data: Costs) -> go.Figure:
    figure = _figure(data.cost_axis, data.axis, height=380)
    costs = [mark.cost for mark in data.rows]
    # Away from zero and to the left of a best value there is no point, by definition; but there may be the edge.
    outwards = "top" if data.is_maximized else "bottom"
    near_the_edge = min(costs) * (max(costs) / min(costs)) ** 0.25
    for name in ("improves", "hurts", "not supported"):
        marks = [mark for mark in data.rows if _group(mark.verdict) == name]
        if marks:
            figure.add_scatter(
                name=name if name == "not supported" else f"{name} (adjusted, .05)",
                x=[mark.cost for mark in marks],
                y=[mark.effect.mean for mark in marks],
                error_y=error_bars([mark.effect for mark in marks]),
                mode="markers+text",
                marker={"size": 9, "color": colour_of_verdict(name), "symbol": SYMBOLS.get(name, "circle")},
                text=[mark.label if mark.is_best_value else "" for mark in marks],
                textposition=[f"{outwards} {'right' if mark.cost < near_the_edge else 'left'}" for mark in marks],
                textfont={"size": 11},
                cliponaxis=False,
                customdata=[mark.label for mark in marks],
                hovertemplate=f"%{{customdata}}: %{{y:+.{data.digits}f}} at ×%{{x:.2f}}<extra></extra>",
            )
    figure.update_xaxes(type="log", **doublings(costs))
    return figure


def draw_published(data: PublishedNumbers) -> go.Figure:
    figure = _figure(data.axis, height=FRAME_PIXELS + (ROW_PIXELS + 6) * len(data.rows))
    rows = list(enumerate(data.rows))
    figure.add_scatter(
        name="one more run of ours would land here",
        x=[x for _, row in rows for x in (*map(none_or, row.one_more), None)],
        y=[y for at, _ in rows for y in (at, at, None)],
        mode="lines",
        line={"color": NEUTRAL, "width": 7},
        opacity=0.45,
        hoverinfo="skip",
    )
    figure.add_scatter(
        name="ours, mean and 95% t interval",
        y=[at for at, _ in rows],
        **estimates([row.ours for _, row in rows], VARIANT_COLOURS[0], "circle"),
        customdata=[row.label for _, row in rows],
        hovertemplate=f"%{{customdata}}: ours %{{x:.{data.digits}f}}<extra></extra>",
    )
    figure.add_scatter(
        name="published",
        x=[row.published for _, row in rows],
        y=[at for at, _ in rows],
        mode="markers",
        marker={"size": 10, "color": VARIANT_COLOURS[4], "symbol": "x"},
        customdata=[row.label for _, row in rows],
        hovertemplate=f"%{{customdata}}: published %{{x:.{data.digits}f}}<extra></extra>",
    )
    return _with_rows(figure, [row.label for row in data.rows])


def _figure(x: str, y: str = "", *, height: int) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template=template(LIGHT),
        height=height,
        margin={"l": 8, "r": 16, "t": 8, "b": 8},
        xaxis={"title": {"text": x}},
        yaxis={"title": {"text": y}},
    )
    return figure


def _with_rows(figure: go.Figure, labels: Sequence[str]) -> go.Figure:
    """Names the rows 0, 1, ... from the top."""
    ticks = {"tickvals": list(range(len(labels))), "ticktext": list(labels)}
    return figure.update_yaxes(range=[len(labels) - 0.4, -0.6], showgrid=False, zeroline=False, **ticks)


def _group(verdict: str) -> str:
    return verdict if verdict in SYMBOLS else "not supported"


def _draw_band(figure: go.Figure, curve: Curve, colour: str) -> None:
    """One sd around the mean; nothing where one seed has no sd."""
    if curve.low == curve.high:
        return
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    figure.add_scatter(
        x=[*curve.x, *reversed(curve.x)],
        y=[*curve.high, *reversed(curve.low)],
        mode="lines",  # of few points plotly would draw each one, too
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.18)",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def draw_gallery(data: Gallery) -> go.Figure:
    """Two rows of pictures, each with its class and in how many seeds it was right, without the change and with it."""
    figure = _figure("", height=360).update_layout(**gallery_layout(data))
    figure.update_xaxes(visible=False, range=[-0.02, CLEAREST]).update_yaxes(visible=False, range=[0, 3.3])
    return figure.add_scatter(**gallery_points(data))


def draw(data: FigureData) -> go.Figure:
    """The figure of whatever a data step found."""
    match data:
        case Forest():
            return draw_forest(data)
        case Curves():
            return draw_curves(data)
        case Pairs():
            return draw_pairs(data)
        case Waterfall():
            return draw_waterfall(data)
        case ChampionLine():
            return draw_champions(data)
        case Heat():
            return draw_heat(data)
        case Costs():
            return draw_costs(data)
        case PublishedNumbers():
            return draw_published(data)
        case Gallery():
            return draw_gallery(data)
