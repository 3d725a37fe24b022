"""What the live pages show of a study run: plain values for the templates, and the fragments that a page replaces.

A fragment is replaced where its text has changed, so that what a reader has opened elsewhere stays open.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template

from harness.live.time_left import time_left
from harness.live.watch import FAILED, RunNow, Started, State, measured
from harness.plan.manifest import Manifest, RunVariant
from harness.report.template import environment, part
from harness.report.wording import format_seconds
from harness.texts import printable, shortened

TEMPLATES = environment("harness.live")
MOST_CURVES, MOST_FAILURES, MOST_RUNS = 12, 40, 100
CURVE_WIDTH, CURVE_HEIGHT = 240, 64
LISTED_CELLS = 6  # of one failure, with a link each
# How one cell is drawn, and what it is called; the order of the legend.
MARKS: Mapping[State, tuple[str, str]] = {
    "finished": ("■", "finished"), "training": ("▶", "trains now"), "interrupted": ("◧", "interrupted"),
    "failed": ("✕", "failed"), "diverged": ("✕", "diverged"), "out-of-memory": ("✕", "out of memory"),
    "refused": ("✕", "refused"), "unread": ("■", "ended"), "waiting": ("□", "waits"),
}  # fmt: skip


WHAT = {
    "MLflow": "every run with its settings, metrics and files; nested as study, variant, cell",
    "Optuna dashboard": "searches over combinations of changes",
}


@dataclass(frozen=True, slots=True)
class Link:
    """Another service, with its address for people."""

    name: str
    address: str

    @property
    def what(self) -> str:
        """What is found there."""
        return WHAT.get(self.name, "")


def index_fragments(runs: Sequence[RunNow]) -> dict[str, str]:
    rows = [_row(it) for it in runs[:MOST_RUNS]]
    return {"runs": _part("runs.html.j2").render(rows=rows, more=max(len(runs) - MOST_RUNS, 0))}


def run_fragments(now: RunNow, effects: Mapping[str, Mapping[str, Any]], seconds_now: float) -> dict[str, str]:
    """Element of the page to its HTML.

    Args:
        effects: as `harness.live.effects` gives them, by variant; empty before the first look.
        seconds_now: POSIX time.
    """
    training = [it for it in now.started.values() if now.states[it.key].state == "training"]
    ranges = _left(now, training, seconds_now)
    return {
        "progress": _part("progress.html.j2").render(it=_row(now), left=ranges),
        "training": _part("training.html.j2").render(
            curves=[_curve(it, now.manifest) for it in training[:MOST_CURVES]],
            more=max(len(training) - MOST_CURVES, 0),
            metric=now.manifest.metrics.selecting.words,
        ),
        "failures": _part("failures.html.j2").render(**_failures(now)),
        "table": _part("table.html.j2").render(
            rows=[_variant(it, now, effects.get(it.name)) for it in now.manifest.variants],
            legend=_legend(now),
            has_effects=bool(effects),
            unit=now.manifest.metrics.reporting.difference_unit,
        ),
        "looks": _part("looks.html.j2").render(**_looks(now)),
    }


def warm_up(runs: Sequence[RunNow]) -> None:
    """Renders both pages once, which compiles their templates: the first reader need not wait for that."""
    page("index", fragments=index_fragments(runs), links=[], store="", title="", study="", version="")
    for now in runs[:1]:
        parts = run_fragments(now, {}, 0.0)
        page("run", fragments=parts, links=[], version="", id="", title="", study="", profile="")


def page(kind: str, **values: Any) -> str:
    """`index` or `run`: the whole page, with its fragments in place."""
    return _part(f"{kind}.html.j2").render(style=part("page.css") + part("live.css", "harness.live"), **values)


def _part(name: str) -> Template:
    return TEMPLATES.get_template(name)


def _row(now: RunNow) -> dict[str, Any]:
    it, total = now.manifest, len(now.states)
    num_failed = now.count(*FAILED)
    num_ended = now.count("finished", "unread") + num_failed
    heard = max((one.heard for one in now.started.values()), default=0.0)
    return {
        "id": it.id,
        "study": it.study,
        "title": it.title,
        "profile": it.profile,
        "is_confirmation": bool(it.confirms),
        "total": total,
        "num_ended": num_ended,
        "num_failed": num_failed,
        "num_training": now.count("training"),
        "num_interrupted": now.count("interrupted"),
        "num_unread": now.count("unread"),
        "num_looks": len(it.looks),
        "finished_share": 100 * (num_ended - num_failed) / total if total else 0,
        "failed_share": 100 * num_failed / total if total else 0,
        "heard": heard,
        "command": _command(it),
    }


def _command(manifest: Manifest) -> str:
    """What goes on with a study run; it was recorded as typed."""
    return shortened(printable(manifest.command), 300)


def _left(now: RunNow, training: Sequence[Started], seconds_now: float) -> str:
    where = {key: it.name for it in now.manifest.variants for key in it.cells.values()}
    waiting = [where[key] for key, it in now.states.items() if it.state in ("waiting", "interrupted")]
    elapsed = {f"{it.variant}/{it.key}": it.seconds + max(seconds_now - it.heard, 0.0) for it in training}
    found = time_left(waiting, elapsed, measured(now), len(training))
    if found is None:
        return ""
    low, high = (format_seconds(it) for it in found)
    number, unit = low.split()
    if low == high:
        return low
    return f"{number} to {high}" if unit == high.split()[1] else f"{low} to {high}"


def _curve(it: Started, manifest: Manifest) -> dict[str, Any]:
    metric = manifest.metrics.selecting
    finite = [(x, y) for x, y in it.points if abs(y) != float("inf") and y == y]
    shown: dict[str, Any] = {"variant": it.variant, "seed": it.seed, "key": it.key, "heard": it.heard, "path": ""}
    shown["where"] = f"{it.clock} {it.points[-1][0]:g}" if it.points else f"step {it.step}" if it.step else "has begun"
    shown["value"] = metric.say(it.points[-1][1]) if it.points else ""
    if len(finite) > 1:
        xs, ys = zip(*finite, strict=True)
        low, high = min(ys), max(ys)
        wide, tall = (xs[-1] - xs[0]) or 1.0, (high - low) or 1.0
        places = (
            (4 + (x - xs[0]) / wide * (CURVE_WIDTH - 8), 4 + (high - y) / tall * (CURVE_HEIGHT - 8)) for x, y in finite
        )
        shown["path"] = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        shown |= {"low": metric.say(low), "high": metric.say(high), "width": CURVE_WIDTH, "height": CURVE_HEIGHT}
    return shown


def _failures(now: RunNow) -> dict[str, Any]:
    """Failures of one variant for one reason together; interrupted cells with how far they came."""
    found: defaultdict[tuple[str, str, str], list[tuple[int, str]]] = defaultdict(list)
    for variant in now.manifest.variants:
        for seed, key in variant.cells.items():
            it = now.states[key]
            if it.state in FAILED:
                found[variant.name, it.state, it.reason].append((seed, key))
            elif it.state == "interrupted":
                reached = f"stopped at step {now.started[key].step}; the study's command goes on from its checkpoint"
                found[variant.name, it.state, reached].append((seed, key))
    groups = [
        {
            "variant": variant,
            "state": MARKS[state][1],  # type: ignore[index]
            "is_failure": state in FAILED,
            "reason": shortened(printable(reason)) or "no reason recorded",
            "cells": cells[:LISTED_CELLS],
            "more": max(len(cells) - LISTED_CELLS, 0),
        }
        for (variant, state, reason), cells in found.items()
    ]
    groups.sort(key=lambda it: not it["is_failure"])
    return {"groups": groups[:MOST_FAILURES], "more": max(len(groups) - MOST_FAILURES, 0)}


def _variant(it: RunVariant, now: RunNow, effect: Mapping[str, Any] | None) -> dict[str, Any]:
    states = [now.states[key].state for key in it.cells.values()]
    num_ok = sum(state in ("finished", "unread") for state in states)
    return {"name": it.name, "summary": it.summary, "n": f"{num_ok}/{len(states)}", "strip": list(_strip(states))} | {
        "effect": effect
    }


def _strip(states: Sequence[State]) -> Iterator[tuple[str, str, str]]:
    """(class, marks, what they are) for neighbours alike, in the order of seeds."""
    for state, alike in itertools.groupby(states):
        mark, words = MARKS[state]
        count = len(list(alike))
        yield state, mark * count, f"{count} {words}"


def _legend(now: RunNow) -> list[tuple[str, str, str]]:
    there = {it.state for it in now.states.values()}
    return [(state, mark, words) for state, (mark, words) in MARKS.items() if state in there]


def _looks(now: RunNow) -> dict[str, Any]:
    it = now.manifest
    ended, seen = now.ended_seeds(), now.seen_seeds()
    return {
        "looks": [(look.time[:16].replace("T", " "), len(look.seeds), look.command) for look in it.looks],
        "num_ended": len(ended),
        "num_new": len(set(ended) - seen),
        "num_seen": len(seen),
        "horizon": it.horizon,
        "is_last": bool(it.horizon) and len(set(ended) | seen) == it.horizon,
        "is_beyond": bool(it.horizon) and len(set(ended) | seen) > it.horizon,
        "is_confirmation": bool(it.confirms),
        "outcome": it.headline or it.outcome,
        "compares": bool(it.comparisons),
        "shares_metric": it.metrics.select == it.metrics.report,
    }
