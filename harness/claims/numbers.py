"""Printed numbers against measured ones, from one study run, with intervals over seeds.

A printed number comes from a single run, so the question is whether one more run of ours could give it: the 95%
prediction interval, which is wider than the interval of the mean. pandas and scipy are imported when a check runs.
"""

from dataclasses import dataclass
from math import isnan, sqrt
from types import SimpleNamespace
from typing import Any, Literal

from harness.claims import Evidence, Finding, Status, StudyRun

FEWEST_SEEDS = 3  # with two seeds, almost everything lies in the interval


@dataclass(frozen=True, slots=True)
class Number:
    """A printed number of one variant: confirmed if it lies where one more run of ours would land."""

    study: str
    variant: str
    metric: str
    printed: float

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        variant = run.variant(self.variant)
        from harness.stats import compare_published

        ours = compare_published(run.table, variant, self.printed, metric=self.metric)
        how = f"one more run of ours would land in [{ours.run_low:.4f}, {ours.run_high:.4f}]"
        return decided(ours.run_low <= self.printed <= ours.run_high, run, ours, how)


@dataclass(frozen=True, slots=True)
class Bound:
    """A variant reaches more (or less) than `bound`: confirmed if the interval of our mean lies on that side."""

    study: str
    variant: str
    metric: str
    bound: float
    side: Literal["above", "below"] = "above"

    @property
    def printed(self) -> str:
        return f"{'>' if self.side == 'above' else '<'} {self.bound:g}"

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        variant = run.variant(self.variant)
        from harness.stats import compare_published

        ours = compare_published(run.table, variant, self.bound, metric=self.metric)
        where = "above" if ours.low > self.bound else "below" if ours.high < self.bound else "on both sides of"
        return decided(where == self.side, run, ours, f"the interval lies {where} {self.bound:g}")


@dataclass(frozen=True, slots=True)
class Gain:
    """A printed gain, from a single run on each side, of one comparison of a design: confirmed if it lies where one
    more pair of runs of ours would land. Gains are positive where better, whatever the metric's goal.

    Attributes:
        design: empty for what a change does by itself.
    """

    study: str
    design: str
    label: str
    printed: float
    metric: str | None = None

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        asked = run.comparisons(self.design, [self.label])[self.label] if self.design else run.alone(self.label)
        from harness.stats import paired_effect

        effect = paired_effect(run.table, asked.variant, reference=asked.reference, metric=self.metric)
        gain, width = effect.improvement, effect.high - effect.mean
        half = width * sqrt(effect.n + 1)  # from the interval of the mean to that of one more pair
        ours = SimpleNamespace(mean=gain, low=gain - width, high=gain + width, n=effect.n)
        how = f"one more pair of runs of ours would land in [{gain - half:+.4f}, {gain + half:+.4f}]"
        return decided(abs(self.printed - gain) <= half, run, ours, how)


def decided(holds: bool, run: StudyRun, ours: Any, how: str) -> Finding:
    """Confirmed or not reproduced; not run where the seeds are too few for an interval that can exclude anything.

    Args:
        ours: has mean, low, high (NaN where there is no interval) and n.
    """
    if ours.n < FEWEST_SEEDS:
        return finding("not run", run, ours, f"it takes {FEWEST_SEEDS} seeds; {ours.n} finished so far")
    if isnan(ours.low):
        return finding("not run", run, ours, "all seeds gave the same number, so their spread is not known")
    return finding("confirmed" if holds else "not reproduced", run, ours, how)


def finding(status: Status, run: StudyRun, ours: Any, how: str) -> Finding:
    """A finding with the measured numbers; NaN becomes None."""
    mean, low, high = (None if isnan(it) else float(it) for it in (ours.mean, ours.low, ours.high))
    how = f"{how.removesuffix('.')}. {run.caveat}" if run.caveat else how
    return Finding(status=status, ours=mean, low=low, high=high, n=ours.n, how=how)
