"""Giving up on a combination early, to save time: of the combinations that a sampler suggests, never of those that are
compared in the answer (the baseline, single changes, named combinations, and the best one without a change).

Wilcoxon, over seeds: after each seed, the trial's seeds against the same seeds of the best trial so far. Successive
halving, over epochs: the first seed's curve against those of the other trials at 1, 3, 9 ... epochs (of a trainer that
counts none: validations); the other seeds are trained once it has survived. A pruned trial has no value, and its cells
stay as they are: what has ended is a result, the one that was stopped continues from its checkpoint if anything asks
for it.
"""

import warnings

import optuna

from harness.plan.plan import Plan
from harness.search.choices import Prune

WILCOXON_P = 0.1  # one-sided, uncorrected for the repeated looks: it saves time, it proves nothing
HALVING_FACTOR = 3


def make_pruner(prune: Prune, plan: Plan) -> optuna.pruners.BasePruner:
    """The pruner; reports are by seed for Wilcoxon, by validation (counted from 1) of the first seed for halving."""
    if prune == "wilcoxon":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.pruners.WilcoxonPruner(p_threshold=WILCOXON_P)
    if prune == "halving":
        per_epoch = plan.study.trainer.validations_per_epoch(plan.variants[0].settings)
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=per_epoch, reduction_factor=HALVING_FACTOR)
    return optuna.pruners.NopPruner()


def pruning_note(prune: Prune, plan: Plan) -> str:
    """What this pruner can do with so many seeds and epochs, in a sentence; empty for none."""
    seeds, epochs = len(plan.seeds), plan.study.trainer.max_epochs(plan.variants[0].settings)
    if prune == "wilcoxon":
        smallest = 0.5**seeds
        if smallest >= WILCOXON_P:
            return (
                f"--prune wilcoxon cannot act with {seeds} seed{'s' * (seeds > 1)}: the smallest possible p is "
                f"{smallest:.3g} and it prunes below {WILCOXON_P}. It takes 4 seeds at least."
            )
        return f"--prune wilcoxon can act from the 4th of {seeds} seeds on, and only on sampled combinations."
    if prune == "halving":
        if epochs is not None and epochs <= 1:
            return "--prune halving cannot act: with one epoch there is nothing left to save after the first."
        return (
            f"--prune halving gives up on sampled combinations by the first {'epochs' if epochs else 'validations'} of "
            "their first seed: good for a first look, blind to what learns slowly."
        )
    return ""
