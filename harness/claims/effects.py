"""Verbal claims about changes, by measured effects: paired by seed, with intervals and tests of `harness.stats`.

A check needs seeds enough to be able to succeed; with fewer it is "not run", the numbers so far beside it. What does
not hold is "not reproduced", and `how` says whether the opposite was shown or nothing was. pandas and scipy are
imported when a check runs.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.claims import Evidence, Finding, NotRunError, StudyRun
from harness.claims.numbers import finding
from harness.plan.manifest import RunComparison
from harness.study.designs.comparisons import BASELINE

if TYPE_CHECKING:
    from harness.stats import Effect


@dataclass(frozen=True, slots=True)
class ChangeEffect:
    """What a change does to a metric, against the baseline, tested in the family of all add-one changes of the run.

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
        comparisons = run.comparisons("add-one", [self.change])
        from harness.stats import adjusted, effects, why_no_claim

        variants = [it.variant for it in comparisons.values()]
        family = effects(run.table, variants=variants, metric=self.metric, delta=self.noticeable)
        row: Any = next(it for it in family.itertuples() if it.variant == self.change)
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
        rivals: labels of the design: the other changes that were tried.
        design: `add-one`, each change against the baseline; or `path:NAME`, each step against the step before.
    """

    study: str
    change: str
    rivals: tuple[str, ...]
    design: str = "add-one"
    metric: str | None = None
    printed: str = "the biggest"

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        steps = run.comparisons(self.design, (self.change, *self.rivals))
        metric = self.metric or run.manifest.metrics.report
        margins = [_margin(run, steps[self.change], steps[rival], metric) for rival in self.rivals]
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
