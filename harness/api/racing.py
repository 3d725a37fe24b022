"""Racing: seeds in blocks; a change that is decided, or too small to matter, gets no more of them.

After each block the effects are looked at, which is counted and paid for like any look (`looking.py`); the baseline
and the undecided changes go on to the horizon. Giving up a small change spares cells and claims nothing, so that it
costs no error.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.api.looking import looked_at
from harness.api.work import Work
from harness.errors import StudyError
from harness.plan.plan import Plan
from harness.study.designs.comparisons import Comparison

FIRST_LOOK, BETWEEN_LOOKS = 8, 4  # seeds
DECIDED = ("improves", "hurts", "equivalent")


def planned_looks(horizon: int, declared: Sequence[int] = ()) -> tuple[int, ...]:
    """At how many seeds a race looks: as the profile declares, else at 8, 12, 16, ...; the last time at the horizon."""
    looks = declared or range(FIRST_LOOK, horizon, BETWEEN_LOOKS)
    return (*(it for it in looks if it < horizon), horizon)


def effect_of(work: Work, mde: float | None) -> float:
    """The smallest effect worth finding as the metric is logged, from the unit in which it is shown.

    Raises:
        StudyError: there is none.
    """
    if mde is None:
        unit = work.plan.study.trainer.metrics.reporting.difference_unit or "the unit of the reported metric"
        raise StudyError(f"--race needs --mde EFFECT, the smallest improvement worth finding, in {unit}.")
    return mde / work.plan.study.trainer.metrics.reporting.factor


def race(
    work: Work,
    effect: float,
    train: Callable[[Work], None],
    *,
    on_block: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Trains the plan's seeds block by block, each time for the baseline and the changes that are still open.

    A comparison is closed when its verdict is a claim, or when the upper end of its interval lies below `effect`: then
    it is unlikely to be worth finding.

    Args:
        work: whose plan has all seeds up to the horizon.
        effect: the smallest improvement worth finding, as the reported metric is logged.
        train: trains what a block needs.
        on_block: gets a sentence after each block.

    Raises:
        StudyError: the effect is not positive, or the plan has fewer than six seeds.
    """
    plan = work.plan
    if not effect > 0 or len(plan.seeds) <= FIRST_LOOK:
        raise StudyError(
            f"a race needs the smallest effect worth finding (--mde, positive) and more than {FIRST_LOOK} seeds, not "
            f"{len(plan.seeds)}: --seeds or the profile says how many there may be at most."
        )
    declared = plan.study.profile(plan.profile).looks
    is_open = list(plan.comparisons)
    for n in planned_looks(len(plan.seeds), declared):
        block = replace(work, plan=_block(plan, is_open, n))
        train(block)
        closed = _closed(block, is_open, effect)
        names = ", ".join(f"{it.label} ({why})" for it, why in closed) or "none"
        is_open = [it for it in is_open if it not in [one for one, _ in closed]]
        on_block(f"after {n} seeds: closed {names}; {len(is_open)} of {len(plan.comparisons)} go on.")
        if not is_open:
            break


def _block(plan: Plan, comparisons: Sequence[Comparison], num_seeds: int) -> Plan:
    """The first seeds of the variants of these comparisons; the baseline is always among them."""
    needed = {(), *(it.variant for it in comparisons), *(it.reference for it in comparisons)}
    seeds = plan.seeds[:num_seeds]
    variants = tuple(replace(it, cells=it.cells[:num_seeds]) for it in plan.variants if it.changes in needed)
    return replace(plan, seeds=seeds, variants=variants, comparisons=tuple(comparisons))


def _closed(block: Work, comparisons: Sequence[Comparison], effect: float) -> list[tuple[Comparison, str]]:
    from harness.report.tables import families, rows_of

    by_design = families(looked_at(block.cells, block.cells.known_manifest(block.plan.id)))
    found = []
    for it in comparisons:
        row = next(row for row in rows_of(by_design[it.design].effects) if row.variant == it.label)
        best = row.high if row.higher_is_better else -row.low
        if row.verdict in DECIDED:
            found.append((it, str(row.verdict)))
        elif best < effect:
            found.append((it, "too small to matter"))
    return found
