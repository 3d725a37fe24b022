"""Learning rates by step against torch's own schedulers, and what an average has kept against hand computation."""

import pytest
import torch
from torch.optim import lr_scheduler

from harness.trainers.images.rates import Rates, kept_share, make_rates
from harness.trainers.images.settings import Optimizer


def rates_of(scheduler, num_steps):
    """What torch's scheduler makes of a rate of 0.3, step by step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.3)
    schedule = scheduler(optimizer)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("num_steps", [1, 7, 100])
def test_cosine_is_torch_s_without_restarts(num_steps):
    rates = Rates("cosine", 0.3, num_steps, 0.0)
    expected = rates_of(lambda it: lr_scheduler.CosineAnnealingLR(it, num_steps), num_steps)
    assert [rates.at(step) for step in range(num_steps)] == pytest.approx(expected)


@pytest.mark.parametrize("num_steps", [4, 11, 100])
def test_one_cycle_is_torch_s(num_steps):
    rates = Rates("one-cycle", 0.3, num_steps, 0.0)
    made = rates_of(lambda it: lr_scheduler.OneCycleLR(it, 0.3, num_steps, cycle_momentum=False), num_steps - 1)
    assert [rates.at(step) for step in range(num_steps - 1)] == pytest.approx(made, rel=1e-9)
    assert rates.at(num_steps - 1) == pytest.approx(0.3 / 25 / 1e4)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_the_shortest_cycles_stay_between_the_lowest_and_the_highest_rate(num_steps):
    found = [Rates("one-cycle", 0.3, num_steps, 0.0).at(step) for step in range(num_steps)]
    assert all(0.3 / 25 / 1e4 * 0.99 <= rate <= 0.3 for rate in found)


def test_a_warm_up_grows_in_equal_parts_and_need_not_end_with_a_step():
    """2.5 steps: 1/2.5, 2/2.5, and then the whole rate."""
    assert [Rates("constant", 0.5, 10, 2.5).at(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.5, 0.5])


def test_after_a_warm_up_cosine_falls_over_the_steps_that_are_left():
    rates = Rates("cosine", 1.0, 12, 2.0)
    assert rates.at(0) == 0.5
    assert rates.at(1) == rates.at(2) == 1.0
    assert rates.at(7) == pytest.approx(0.5)  # five of ten
    assert rates.at(11) == pytest.approx(0.0245, abs=1e-4)  # (1 + cos(0.9 pi)) / 2


def test_rates_are_made_of_epochs():
    optimizer = Optimizer(learning_rate=0.1, schedule="cosine", warmup_epochs=0.5)
    assert make_rates(optimizer, steps_per_epoch=7, max_epochs=3) == Rates("cosine", 0.1, 21, 3.5)
    plain = make_rates(Optimizer(), steps_per_epoch=7, max_epochs=3)
    assert plain.is_constant
    assert {plain.at(step) for step in range(21)} == {0.05}


def test_the_first_averages_keep_less():
    """(1 + n) / (10 + n) is 0.1, 2/11, ..., and reaches 0.9 at n = 80."""
    assert [kept_share(0.9, step) for step in (0, 1, 79, 80, 81)] == pytest.approx([0.1, 2 / 11, 80 / 89, 0.9, 0.9])
