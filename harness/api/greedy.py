"""The greedy path: at each step, train the path so far with one more change and keep the one that helps most."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.api.training import Watch, train_work
from harness.api.work import Work, save_manifest, unfinished
from harness.metrics import Metric
from harness.plan.plan import Variant
from harness.store.cells import Cells
from harness.study.designs.comparisons import with_needed
from harness.study.designs.factorials import greedy_candidates
from harness.study.designs.registry import path

NAME = "greedy"  # the design is called `path:greedy`; its steps were chosen by their results, so it is exploratory


def walk_greedy_path(
    work: Work,
    *,
    only: Sequence[str],
    skip: Sequence[str],
    watch: Watch = Watch(),  # noqa: B008
    on_step: Callable[[str], None] = lambda sentence: None,
) -> Work:
    """Walks the path to its end: until no change is left, or none improves the mean of the selecting metric.

    Each step compares means over the same seeds; a candidate with a failed cell cannot be chosen. The choice looks at
    the metric by which the study selects only.

    Args:
        on_step: gets a sentence for each step, and one at the end.

    Returns:
        `work` with the steps of the path among its variants and comparisons; saved in the manifest.
    """
    study = work.plan.study
    asked = with_needed(study, only or [it.name for it in study.changes])
    selected = [it.name for it in study.changes if it.name in asked and it.name not in skip]
    metric = study.trainer.metrics.selecting
    steps: list[str] = []
    current = work.plan.make_variant(())
    while candidates := [work.plan.make_variant(it) for it in greedy_candidates(study, selected, steps)]:
        _train(work, watch, [work.plan.variants[0], current, *candidates])
        before = _mean(work.cells, current, metric)
        measured = [(mean, it) for it in candidates if (mean := _mean(work.cells, it, metric)) is not None]
        best, winner = max(measured, key=lambda pair: metric.sign * pair[0], default=(math.nan, current))
        if before is None or not metric.sign * (best - before) > 0:
            break
        steps += [name for name in winner.changes if name not in steps]
        current = winner
        gained = f"{metric.say_difference(best - before)} in {metric.words}"
        on_step(f"greedy path, step {len(steps)}: {steps[-1]} ({gained})")
    on_step(f"The greedy path ends after {len(steps)} steps: {' > '.join(steps) or 'nothing helps'}.")
    return _with_path(work, steps)


def _train(work: Work, watch: Watch, variants: Sequence[Variant]) -> None:
    distinct = tuple({it.changes: it for it in variants}.values())
    step = replace(work, plan=replace(work.plan, variants=distinct, comparisons=(), notes=()))
    todo, expected = unfinished(step)
    if todo:
        train_work(step, todo, lambda: save_manifest(step), expected, watch=watch)


def _mean(cells: Cells, variant: Variant, metric: Metric) -> float | None:
    results = [cells.result(cell.key) for cell in variant.cells]
    numbers = [it.metrics[metric.name] for it in results if it and metric.name in it.metrics]
    return sum(numbers) / len(numbers) if len(numbers) == len(results) else None


def _with_path(work: Work, steps: Sequence[str]) -> Work:
    design = path(work.plan.study, NAME, steps)
    added = [work.plan.make_variant(it.variant) for it in design.comparisons]
    variants = tuple({it.changes: it for it in (*work.plan.variants, *added)}.values())
    plan = replace(work.plan, variants=variants, comparisons=(*work.plan.comparisons, *design.comparisons))
    walked = replace(work, plan=plan)
    save_manifest(walked)
    return walked
