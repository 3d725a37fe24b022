"""Verbal claims about changes, by measured effects: paired by seed, with intervals and tests of `harness.stats`.

A check needs seeds enough to be able to succeed; with fewer it is "not run", the numbers so far beside it. What does
not hold is "not reproduced", and `how` says whether the opposite was shown or nothing was. pandas and scipy are
imported when a check runs.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.claims import Evidence, Finding, NotRunError, Status, StudyRun
from harness.claims.numbers import finding
from harness.plan.manifest import RunComparison
from harness.study.designs.comparisons import BASELINE
from harness.texts import counted

if TYPE_CHECKING:
    from harness.stats import Effect


@dataclass(frozen=True, slots=True)
class ChangeEffect:
    """What a change does to a metric by itself, tested in the family of all changes of its design.

    Attributes:
        metric: by default the one that the study reports, here and below.
        printed: the claim. `no improvement`: one of `noticeable` or more is ruled out by the 95% interval; `no
            difference`: one of either sign is, by two one-sided tests.
        noticeable: in the metric's unit; smaller differences do not count.
    """

    study: str
    change: str
    printed: Literal["improves", "hurts", "no improvement", "no difference"]
    metric: str | None = None
    noticeable: float = 0.0

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        run.require(BASELINE)
        it = run.alone(self.change)
        from harness.stats import adjusted, effects, why_no_claim

        variants = [one.variant for one in run.comparisons(it.design, [it.label]).values()]
        options: Any = {"metric": self.metric, "delta": self.noticeable, "reference": it.reference}
        family = effects(run.table, variants=variants, **options)
        row: Any = next(one for one in family.itertuples() if one.variant == it.variant)
        why_not = why_no_claim(row) if row.n else "no seed has finished"
        if why_not:
            return finding("not run", run, row, why_not)
        largest_gain = row.high if row.higher_is_better else -row.low
        holds = {
            "improves": row.verdict == "improves",
            "hurts": row.verdict == "hurts",
            "no improvement": largest_gain <= self.noticeable,
            "no difference": row.verdict == "equivalent",
        }[self.printed]
        how = f"{row.verdict}: p {adjusted(row)}"
        how += f"; less than {self.noticeable:g} does not count" if self.noticeable else ""
        return finding("confirmed" if holds else "not reproduced", run, row, how)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the study run's own tables say of one of its comparisons, all of which they correct together.

    Attributes:
        reference: of the variant that is compared; of a change, by default what it stands on.
    """

    study: str
    variant: str
    printed: Literal["improves", "hurts"]
    reference: str = ""
    metric: str | None = None

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        if self.reference:
            sides = (run.variant(self.variant), run.variant(self.reference))
        else:
            alone = run.alone(self.variant)
            sides = (alone.variant, alone.reference)
        row = planned_row(run, *sides, self.metric)
        if row is None:
            return self._not_planned(run, *sides)
        from harness.stats import adjusted, why_no_claim

        why_not = why_no_claim(row) if row.n else "no seed has finished"
        if why_not:
            return finding("not run", run, row, why_not)
        status: Status = "confirmed" if row.verdict == self.printed else "not reproduced"
        return finding(status, run, row, f"{row.verdict}: p {adjusted(row)}")

    def _not_planned(self, run: StudyRun, variant: str, reference: str) -> Finding:
        """By a test of its own, once: nothing was planned to look at this pair on the way."""
        from harness.stats import paired_effect

        effect = paired_effect(run.table, variant, reference=reference, metric=self.metric)
        planned = min(len(it.cells) for it in run.manifest.variants if it.name in (variant, reference))
        if effect.n < max(planned, run.manifest.horizon):
            seeds = counted(max(planned, run.manifest.horizon), "seed")
            how = f"no design compares the two, so it is tested once, when all {seeds} are there"
            return finding("not run", run, effect, how)
        return of_one_test(run, effect, "no design compares the two: a test of its own")


def planned_row(run: StudyRun, variant: str, reference: str, metric: str | None) -> Any:
    """The row of the study run's tables that compares these two, or None where no design does."""
    from harness.report.tables import families

    for family in families(run.table, metric).values():
        for label, sides in family.sides.items():
            if sides == (variant, reference) and family.kind != "greedy":
                return next(it for it in family.effects.itertuples() if it.variant == label)
    return None


@dataclass(frozen=True, slots=True)
class Better:
    """One variant beats another; one comparison that stands alone."""

    study: str
    variant: str
    reference: str
    metric: str | None = None

    @property
    def printed(self) -> str:
        return f"better than {self.reference}"

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        run.require(self.variant, self.reference)
        from harness.stats import paired_effect

        effect = paired_effect(run.table, self.variant, reference=self.reference, metric=self.metric)
        return of_one_test(run, effect, "")


@dataclass(frozen=True, slots=True)
class Biggest:
    """One change helps more than each of its rivals does.

    Within each seed, the change's effect minus the rival's; sign-flip test. All of these have to succeed, so that none
    needs a correction (an intersection-union test; Berger 1982).

    Attributes:
        rivals: labels of the design: the other changes that were tried; by default all of them.
        design: `add-one`, each change against the baseline; or `path:NAME`, each step against the step before.
    """

    study: str
    change: str
    rivals: tuple[str, ...] = ()
    design: str = "add-one"
    metric: str | None = None
    printed: str = "the biggest"

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        steps = run.comparisons(self.design, (self.change, *self.rivals))
        rivals = self.rivals or tuple(label for label in steps if label != self.change)
        metric = self.metric or run.manifest.metrics.report
        margins = [_margin(run, steps[self.change], steps[rival], metric) for rival in rivals]
        if not margins:
            raise NotRunError("there is no other change to compare it with")
        if not all(it.n for it in margins):
            raise NotRunError("no seed has finished for each of the changes")
        closest = min(margins, key=lambda it: it.improvement)
        weakest = max(margins, key=lambda it: it.p if it.improvement > 0 else 1.0)
        how = f"effect minus that of {closest.reference}, the strongest of {len(margins)} rivals"
        return of_one_test(run, closest, how, deciding=weakest)


def of_one_test(run: StudyRun, effect: "Effect", how: str, *, deciding: "Effect | None" = None) -> Finding:
    """By the sign-flip test of one effect; `deciding` is another one whose test decides."""
    from harness.stats import refusal

    tested = deciding or effect
    alpha = 1 - tested.confidence
    why_not = refusal(tested.n, alpha) if tested.n else "no seed has finished on both sides"
    if why_not:
        return finding("not run", run, effect, why_not)
    how = f"{how}; p {tested.p:.3g}".removeprefix("; ")
    holds = tested.improvement > 0 and tested.p <= alpha
    return finding("confirmed" if holds else "not reproduced", run, effect, how)


def _margin(run: StudyRun, step: RunComparison, rival: RunComparison, metric: str) -> "Effect":
    """One step's effect minus a rival's, within each seed; what both share cancels."""
    from harness.stats.effect import Contrast
    from harness.stats.paired import measure
    from harness.stats.values import metric_values

    weights = Counter({step.variant: 1.0, step.reference: -1.0})
    weights.update({rival.variant: -1.0})
    weights.update({rival.reference: 1.0})
    contrast = Contrast(step.label, rival.label, {name: it for name, it in weights.items() if it})
    return measure(metric_values(run.table, metric), contrast)
