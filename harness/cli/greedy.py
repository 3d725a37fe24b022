"""The greedy path: at each step, train the path so far with one more change and keep the one that helps most."""

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from harness.cli.options import Planned
from harness.cli.training import save_manifest, train_plan, unfinished
from harness.plan.plan import Variant
from harness.store.cells import Cells
from harness.study.designs.factorials import greedy_candidates
from harness.study.designs.registry import path

NAME = "greedy"  # the design is called `path:greedy`; its steps were chosen by their results, so it is exploratory


def walk_greedy_path(console: Console, work: Planned, *, only: Sequence[str], skip: Sequence[str]) -> Planned:
    """Walks the path to its end: until no change is left, or none raises the mean validation accuracy.

    Each step compares means over the same seeds; a candidate with a failed cell cannot be chosen. The choice looks at
    validation only.

    Returns:
        `work` with the steps of the path among its variants and comparisons; saved in the manifest.
    """
    study = work.plan.study
    selected = [it.name for it in study.changes if it.name in (only or [it.name]) and it.name not in skip]
    steps: list[str] = []
    current = work.plan.make_variant(())
    while candidates := [work.plan.make_variant(it) for it in greedy_candidates(study, selected, steps)]:
        _train(console, work, [work.plan.variants[0], current, *candidates])
        before = _mean_validation(work.cells, current)
        measured = [(mean, it) for it in candidates if (mean := _mean_validation(work.cells, it)) is not None]
        best, winner = max(measured, key=lambda pair: pair[0], default=(0.0, current))
        if before is None or best <= before:
            break
        steps += [name for name in winner.changes if name not in steps]
        current = winner
        gained = f"{100 * (best - before):+.2f} points of validation accuracy"
        console.print(f"greedy path, step {len(steps)}: {steps[-1]} ({gained})")
    console.print(f"The greedy path ends after {len(steps)} steps: {' > '.join(steps) or 'nothing helps'}.")
    return _with_path(work, steps)


def _train(console: Console, work: Planned, variants: Sequence[Variant]) -> None:
    distinct = tuple({it.changes: it for it in variants}.values())
    step = work._replace(plan=replace(work.plan, variants=distinct, comparisons=(), notes=()))
    todo, expected = unfinished(step)
    if todo:
        train_plan(console, step, todo, save_manifest(step), expected)


def _mean_validation(cells: Cells, variant: Variant) -> float | None:
    accuracies = [it.val_accuracy if it else None for it in map(cells.result, (cell.key for cell in variant.cells))]
    numbers = [it for it in accuracies if it is not None]
    return sum(numbers) / len(numbers) if len(numbers) == len(accuracies) else None


def _with_path(work: Planned, steps: Sequence[str]) -> Planned:
    design = path(work.plan.study, NAME, steps)
    added = [work.plan.make_variant(it.variant) for it in design.comparisons]
    variants = tuple({it.changes: it for it in (*work.plan.variants, *added)}.values())
    plan = replace(work.plan, variants=variants, comparisons=(*work.plan.comparisons, *design.comparisons))
    walked = work._replace(plan=plan)
    save_manifest(walked)
    return walked
