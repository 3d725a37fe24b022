"""Confirmation as one decision: what it takes, what it may spend, and what missing pairs do to it."""

import numpy as np
import pytest
from stats_tables import make_table, noisy

from harness.stats import confirmation_alpha, decide, paired_effect
from harness.stats.decision import worst_case_p

BASELINE = noisy(0.74, 10, 0)


def effect(by, n=10, metric=None, **without):
    """Of a change that adds `by` to each seed, with a little noise; `without` are seeds whose cell diverged."""
    noise = np.random.default_rng(1).normal(0, 0.0005, n)
    cells = {seed: float(x + by + d) for seed, (x, d) in enumerate(zip(BASELINE[:n], noise, strict=True))}
    cells |= dict.fromkeys(without.get("diverged", []), "diverged")
    return paired_effect(make_table({"baseline": BASELINE[:n], "a": cells}), "a", metric=metric)


def test_confirmations_of_one_study_run_share_an_error_budget():
    # 6 / pi^2 is the reciprocal of 1 + 1/4 + 1/9 + ...
    spent = [confirmation_alpha(number) for number in range(1, 10_000)]
    assert spent[:2] == pytest.approx([0.0303964, 0.0075991], abs=1e-7)
    assert sum(spent) == pytest.approx(0.05, abs=1e-5)
    assert sum(spent) < 0.05


@pytest.mark.parametrize(
    ("by", "n", "outcome"),
    [(0.02, 10, "confirmed"), (-0.02, 10, "refuted"), (0.0, 10, "not confirmed"), (0.02, 5, "not decided")],
)
def test_the_outcome_is_decided_by_the_test_alone(by, n, outcome):
    assert decide(effect(by, n), 0.05).outcome == outcome


def test_a_loss_that_falls_is_confirmed_and_one_that_rises_refuted():
    assert decide(effect(0.02, metric="test/loss"), 0.05).outcome == "confirmed"  # losses are 1 minus the accuracies
    assert decide(effect(-0.02, metric="test/loss"), 0.05).outcome == "refuted"


def test_a_later_confirmation_asks_for_more():
    small = effect(0.02, 7)  # smallest p 2^-6 = .0156

    assert decide(small, confirmation_alpha(1)).outcome == "confirmed"
    assert decide(small, confirmation_alpha(2)).outcome == "not decided"
    assert "7 seeds" in decide(small, confirmation_alpha(2)).reason


def test_seeds_that_diverged_count_against_the_winner():
    one, three = effect(0.02, diverged=[4]), effect(0.02, diverged=[1, 4, 7])

    # One large difference against nine leaves few sign vectors beyond it; three against seven leave many.
    assert one.p <= 0.05 < worst_case_p(three)
    assert decide(one, 0.05).outcome == "confirmed"
    found = decide(three, 0.05)
    assert (found.outcome, three.p <= 0.05) == ("not confirmed", True)
    assert found.reason == "It improves where it trains (7 of 10 seeds), which is not enough."
