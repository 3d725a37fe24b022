"""Verbal claims of the report about how training went: how fast it converges, whether it over-fits."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from harness.claims import Evidence, Finding, NotRunError, StudyRun
from harness.claims.effects import of_one_test
from harness.claims.numbers import finding
from harness.study.designs.comparisons import BASELINE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Faster:
    """A variant has the lower validation loss after its first epoch: it converges faster, whatever it converges to."""

    study: str
    variant: str
    printed: str = "converges faster"

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        run.require(self.variant, BASELINE)
        from harness.stats import paired_effect

        effect = paired_effect(_after_first_epoch(run, self.variant, BASELINE), self.variant, metric="val/loss")
        return of_one_test(run, effect, "validation loss after the first epoch minus the baseline's")


@dataclass(frozen=True, slots=True)
class NoOverfitting:
    """A variant had not over-fitted when its training stopped.

    Over-fitting means here: from the validation with the lowest loss to the last one, the validation loss rose while
    the training loss went on falling. Ours is that rise, in nats.
    """

    study: str
    variant: str
    printed: str = "not over-fitted yet"

    def __call__(self, evidence: Evidence) -> Finding:
        run = evidence.run_of(self.study)
        run.require(self.variant)
        from harness.stats import refusal
        from harness.stats.intervals import t_interval
        from harness.stats.significance import sign_flip_p

        cells = run.table[(run.table["variant"] == self.variant) & (run.table["status"] == "finished")]
        if cells.empty:
            raise NotRunError("no seed has finished")
        curves = run.curves(self.variant).sort_values("step")
        by_seed = curves[curves["seed"].isin(cells["seed"])].groupby("seed")
        last, best = by_seed.last(), curves.loc[by_seed["val/loss"].idxmin()].set_index("seed")
        rises = (last["val/loss"] - best["val/loss"]).to_numpy(dtype="float64")
        low, high = map(float, t_interval(rises))
        ours = SimpleNamespace(mean=float(rises.mean()), low=low, high=high, n=len(rises))
        if refusal(len(rises)):
            return finding("not run", run, ours, refusal(len(rises)))
        falls = float((last["train/loss"] - best["train/loss"]).mean())
        has_overfitted = low > 0 and float(sign_flip_p(rises)) <= 0.05 and falls < 0
        gap = float((cells["train/accuracy"] - cells["val/accuracy"]).mean())
        how = (
            f"rise of the validation loss from its lowest to the last, the training loss changing by {falls:+.4f}; "
            f"the lowest comes after {cells['best_epoch'].mean():.1f} of {cells['num_epochs'].mean():.1f} epochs, and "
            f"there the training accuracy is {gap:.4f} above the validation accuracy"
        )
        return finding("not reproduced" if has_overfitted else "confirmed", run, ours, how)


def _after_first_epoch(run: StudyRun, *variants: str) -> "pd.DataFrame":
    """The rows of these variants with the validation loss that was measured nearest to the end of the first epoch."""
    curves = run.curves(*variants)
    nearest = curves.loc[(curves["epoch"] - 1).abs().groupby([curves["variant"], curves["seed"]]).idxmin()]
    losses = nearest.set_index(["variant", "seed"])["val/loss"].to_dict()
    table = run.table[run.table["variant"].isin(variants)].copy()
    table["val/loss"] = [losses.get(cell, float("nan")) for cell in zip(table["variant"], table["seed"], strict=True)]
    return table
