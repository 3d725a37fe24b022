"""The answer of a search in words, as rows of a table, and as JSON. Numbers are written as their metric says."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from harness.metrics import PERCENT, Metric
from harness.report.tables import records, rows_of
from harness.search.answer import Answer
from harness.stats.wording import describe_seeds

HEADINGS = ("change", "over the baseline", "out of the best", "averaged")
MOST_INTERACTIONS = 3  # in the sentence; the tables hold all


def rows(answer: Answer) -> list[tuple[str, ...]]:
    """A row per change under `HEADINGS` (and `exact Shapley value`, where there is one), the best average first."""
    alone, left_out = _by_name(answer.alone), _by_name(answer.left_out)
    averaged = {row.change: row for row in rows_of(answer.averaged)}
    shapley = _by_name(answer.shapley) if answer.shapley is not None else {}
    metric = answer.metric

    def mean(name: str) -> float:
        row = averaged.get(name)
        return metric.sign * row.mean if row and math.isfinite(row.mean) else -math.inf

    table = []
    for name in sorted(averaged, key=lambda name: (-mean(name), name)):
        cells = [
            name,
            _cell(metric, alone.get(name)),
            _left_out_cell(answer, name, left_out),
            _cell(metric, averaged[name]),
        ]
        table.append((*cells, *([_cell(metric, shapley[name])] if shapley else [])))
    return table


def caption(answer: Answer) -> str:
    """What the numbers of the table are."""
    metric = answer.metric
    unit = f"percentage {metric.difference_unit}" if metric.unit == PERCENT else metric.difference_unit
    less = "" if metric.is_maximized else " (less is better)"
    return f"Effects on {metric.words}{less}{f' in {unit}' if unit else ''}"


def headings(answer: Answer) -> tuple[str, ...]:
    return HEADINGS + ("exact Shapley value",) * (answer.shapley is not None)


def sentences(answer: Answer) -> list[str]:
    """What the table says, and what it does not."""
    said = [_best(answer), _simplest(answer), _biggest(answer), _agreement(answer), _importance(answer)]
    return [sentence for sentence in said if sentence]


def to_json(answer: Answer) -> dict[str, Any]:
    """For programs: numbers as they were logged, None for no number."""
    simplest = answer.simplest
    return {
        "search": answer.search,
        "study_run": answer.plan.id,
        "metric": answer.metric.name,
        "seeds": list(answer.plan.seeds),
        "trials": answer.outcomes,
        "best": {"variant": answer.best.name, "changes": list(answer.best.changes), "mean": answer.best_mean},
        "simplest": simplest and {"variant": simplest.simplest, "mean": simplest.simplest_mean},
        "biggest": {name: top and {"change": top[0], "mean": top[1]} for name, top in biggest(answer).items()},
        "over_the_baseline": records(answer.alone),
        "out_of_the_best": records(answer.left_out),
        "averaged": records(answer.averaged),
        "shapley": None if answer.shapley is None else records(answer.shapley),
        "alone_minus_left_out": records(answer.gaps),
        "interactions": records(answer.pairs),
        "fanova_importance": answer.importance,
        "sentences": sentences(answer),
        "notes": list(answer.notes),
    }


def biggest(answer: Answer) -> dict[str, tuple[str, float] | None]:
    """The change with the best estimate, three ways; None where no estimate is an improvement."""
    sign = answer.metric.sign
    return {
        "over_the_baseline": _top(sign, ((row.variant, row.mean) for row in rows_of(answer.alone))),
        "out_of_the_best": _top(sign, ((row.variant, row.mean) for row in rows_of(answer.left_out))),
        "averaged": _top(sign, ((row.change, row.mean) for row in rows_of(answer.averaged))),
    }


def _top(sign: float, estimates: Iterable[tuple[str, float]]) -> tuple[str, float] | None:
    better = [(name, mean) for name, mean in estimates if sign * mean > 0]
    return min(better, key=lambda it: (-sign * it[1], it[0]), default=None)


def _best(answer: Answer) -> str:
    seeds = describe_seeds(answer.plan.seeds)
    metric = answer.metric
    most, wrong = ("largest", "high") if metric.is_maximized else ("smallest", "low")
    return (
        f"Best of {answer.num_combinations} combinations: {answer.best.name}, {metric.say(answer.best_mean)} of "
        f"{metric.words} (seed{'s' * (len(answer.plan.seeds) > 1)} {seeds}); the {most} of so many noisy means, so "
        f"probably too {wrong}."
    )


def _simplest(answer: Answer) -> str:
    simplest = answer.simplest
    if not answer.best.changes:
        return "Nothing that was tried is better than the baseline."
    if simplest is None:
        return "How simple it may be without loss cannot be said: the standard error takes two seeds at least."
    if simplest.simplest == answer.best.name:
        return "None with fewer changes comes within one standard error, paired by seed, of it."
    error = answer.metric.say_difference(simplest.standard_error, signed=False)
    mean = answer.metric.say(simplest.simplest_mean)
    return f"The simplest within one standard error ({error}, paired by seed) of it: {simplest.simplest}, {mean}."


def _biggest(answer: Answer) -> str:
    tops = biggest(answer)
    averaged = {row.change: row for row in rows_of(answer.averaged)}
    places = [
        ("over the baseline", tops["over_the_baseline"], _by_name(answer.alone)),
        (f"out of the best ({answer.best.name})", tops["out_of_the_best"], _by_name(answer.left_out)),
        (f"averaged over {answer.num_combinations} combinations", tops["averaged"], averaged),
    ]
    if not answer.best.changes:
        del places[1]  # there is nothing to take out of the baseline
    found = [
        f"{where}, {f'{top[0]} ({_cell(answer.metric, by_name[top[0]])})' if top else 'none'}"
        for where, top, by_name in places
    ]
    if not any(tops.values()):
        return "No change improves: not over the baseline, nor out of the best combination, nor on average."
    unit = answer.metric.difference_unit
    return f"The biggest single improvement, {f'in {unit} ' if unit else ''}with 95% intervals: {'; '.join(found)}."


def _agreement(answer: Answer) -> str:
    """Whether the three ways name one change, and which changes are worth something else in company than alone; empty
    where there is nothing to say."""
    tops = biggest(answer)
    if not answer.best.changes:
        del tops["out_of_the_best"]
    named = {top[0] if top else "none" for top in tops.values()}
    beyond_noise = [row for row in rows_of(answer.gaps) if row.low > 0 or row.high < 0]
    beyond_noise.sort(key=lambda row: -abs(row.mean))
    head = f"The ways agree on {next(iter(named))}." if len(named) == 1 else "The ways disagree."
    head = head if any(tops.values()) else ""  # that no change improves was said
    if beyond_noise:
        alone, left_out, metric = _by_name(answer.alone), _by_name(answer.left_out), answer.metric
        worth = [
            f"{row.variant} adds {metric.format_signed(alone[row.variant].mean)} alone and "
            f"{metric.format_signed(left_out[row.variant].mean)} in company, difference {_cell(metric, row)}"
            for row in beyond_noise[:MOST_INTERACTIONS]
        ]
        return f"{head} The changes interact: {'; '.join(worth)}.{_pairs(answer)}".lstrip()
    if len(named) < 2:
        return head
    if answer.gaps.empty or len(answer.plan.seeds) == 1:
        return f"{head} The changes may interact; these trials cannot tell that from noise."
    return (
        f"{head} Either the changes interact, or it is noise: with {len(answer.plan.seeds)} seeds, no change is worth "
        f"more or less in company than alone by more than its interval.{_pairs(answer)}"
    )


def _pairs(answer: Answer) -> str:
    sure = [row for row in rows_of(answer.pairs) if row.low > 0 or row.high < 0]
    sure.sort(key=lambda row: -abs(row.mean))
    if not sure:
        return ""
    said = [f"{row.variant} {_cell(answer.metric, row)}" for row in sure[:MOST_INTERACTIONS]]
    return f" Two at a time: {'; '.join(said)}."


def _importance(answer: Answer) -> str:
    if not answer.importance:
        return "Too few trials for fANOVA."
    shares = sorted(answer.importance.items(), key=lambda it: -it[1])
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005)
    return f"fANOVA importance (share of the variance between trials, no direction): {said}."


def _by_name(frame: pd.DataFrame) -> dict[str, Any]:
    return {row.variant: row for row in rows_of(frame)}


def _left_out_cell(answer: Answer, name: str, left_out: dict[str, Any]) -> str:
    return _cell(answer.metric, left_out.get(name)) if name in answer.best.changes else "not in it"


def _cell(metric: Metric, row: Any) -> str:
    if row is None or row.n == 0:
        return "not trained"
    if not math.isfinite(row.mean):
        return "not separable"
    return metric.format_estimate(row.mean, row.low, row.high)
