"""From gradients to weights: clipping, rates, averages; what is measured are the averages."""

import pytest
import torch
from image_cases import OPTIMIZERS, SETTINGS
from planted import planted_images, tiny_cell, trained
from safetensors.torch import load_file
from torch import nn

from harness.trainers.images import train
from harness.trainers.images.arithmetic import Replica
from harness.trainers.images.optimizers import make_optimizer, optimizer_classes
from harness.trainers.images.rates import Rates
from harness.trainers.images.settings import ADDED, Optimizer
from harness.trainers.images.update import Averages, Update

CPU = torch.device("cpu")


def one_weight(value=1.0):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


def update_of(network, *, rates=None, gradient_clip=None, averages=None, rate=1.0):
    optimizer = torch.optim.SGD(network.parameters(), rate)
    rates = rates or Rates("constant", rate, 100, 0.0)
    return Update(optimizer, rates, gradient_clip=gradient_clip, averages=averages, device=CPU)


def best(folder):
    return load_file(folder / train.BEST_WEIGHTS_FILE)


def test_every_optimizer_of_torch_that_suits_is_tested():
    assert set(OPTIMIZERS) == set(optimizer_classes())


def test_every_added_setting_is_tested():
    used = {path for it in SETTINGS.values() for path in it}
    assert {path for path in ADDED if path not in used} == set()


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_makes_other_weights(tmp_path, name):
    plain, other = tiny_cell({"training.max_epochs": 2}), tiny_cell(SETTINGS[name] | {"training.max_epochs": 2})
    trained(plain, tmp_path / "plain")
    trained(other, tmp_path / "other")
    assert plain.key != other.key
    one, two = best(tmp_path / "plain"), best(tmp_path / "other")
    assert any(one[it].shape != two[it].shape or not torch.equal(one[it], two[it]) for it in one.keys() & two.keys())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_torch_s_with_its_defaults(name):
    """Three steps with the gradients of a plain loop; rate and decay are given, all else is torch's default."""
    weights = [nn.Linear(3, 2) for _ in range(2)]
    weights[1].load_state_dict(weights[0].state_dict())
    plain = {"weight_decay": 0.0} if name in ("adamw", "adafactor") else {}
    ours = make_optimizer(Optimizer(name=name, learning_rate=0.03), weights[0].parameters(), CPU)
    theirs = optimizer_classes()[name](weights[1].parameters(), lr=0.03, **plain)
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for network, optimizer in zip(weights, (ours, theirs), strict=True):
            optimizer.zero_grad()
            network(inputs).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(weights[0].weight, weights[1].weight)


def test_options_reach_the_optimizer():
    settings = Optimizer(name="rmsprop", momentum=0.5, weight_decay=0.1, options={"alpha": 0.7, "centered": True})
    (group,) = make_optimizer(settings, one_weight().parameters(), CPU).param_groups
    assert (group["momentum"], group["weight_decay"], group["alpha"], group["centered"]) == (0.5, 0.1, 0.7, True)


def test_a_long_gradient_is_scaled_down_and_a_short_one_is_not():
    network = nn.Linear(2, 1, bias=False)
    for gradient, moved in (([3.0, 4.0], [0.6, 0.8]), ([0.3, 0.4], [0.3, 0.4])):  # norms 5 and 0.5; at most 1
        nn.init.zeros_(network.weight)
        network.weight.grad = torch.tensor([gradient])
        update_of(network, gradient_clip=1.0)(0)
        torch.testing.assert_close(-network.weight.data, torch.tensor([moved]))


def test_each_step_is_made_at_its_own_rate():
    network = one_weight(0.0)
    update = update_of(network, rates=Rates("constant", 1.0, 10, 4.0))
    moved = []
    for step in range(5):
        network.weight.grad = torch.tensor([[-1.0]])
        before = network.weight.item()
        update(step)
        moved.append(network.weight.item() - before)
    assert moved == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_averages_by_hand():
    """Weights 2, 3, 4 after each step, from 1. Kept: 1/10, 2/11 and 0.2 (3/12 is more): 1.9, 2.8, 3.76."""
    network = one_weight(1.0)
    averages = Averages(network, 0.2, 10)
    update = update_of(network, averages=averages)
    update.seek(0)
    for step, expected in enumerate([1.9, 2.8, 3.76]):
        network.weight.grad = torch.tensor([[-1.0]])
        update(step)
        assert averages.values["weight"].item() == pytest.approx(expected)
    replica = Replica(network, "float32", is_known=True)
    with update.measured(replica):
        assert network.weight.item() == pytest.approx(3.76)
    assert network.weight.item() == 4.0


def test_what_is_kept_and_measured_are_the_averages(tmp_path, monkeypatch):
    """As an average by hand beside a plain loop has them after the last step of one epoch with one validation."""
    cell = tiny_cell({"training.ema_decay": 0.5, "training.max_epochs": 1, "training.validations_per_epoch": 1})
    steps = []
    train_step = train._train_step

    def watched(parts, position):
        if not steps:
            steps.append({name: value.clone() for name, value in parts.replica.master.state_dict().items()})
        train_step(parts, position)
        steps.append({name: value.clone() for name, value in parts.replica.master.state_dict().items()})

    monkeypatch.setattr(train, "_train_step", watched)
    trained(cell, tmp_path)
    expected = steps[0]
    for n, weights in enumerate(steps[1:]):
        kept = min(0.5, (1 + n) / (10 + n))
        expected = {name: kept * value + (1 - kept) * weights[name] for name, value in expected.items()}
    for name, value in best(tmp_path).items():
        torch.testing.assert_close(value, expected[name])


def test_frozen_weights_have_no_average():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network[0].requires_grad_(False)
    averages = Averages(network, 0.9, 10)
    assert set(averages.values) == {"1.weight", "1.bias", "1.running_mean", "1.running_var"}


def test_smoothing_and_mixup_train_on_shares_of_labels(tmp_path):
    parts = train.build_parts(
        tiny_cell({"augmentation.mixup": 0.4, "training.label_smoothing": 0.1}).settings,
        planted_images(),
        seed=0,
        device=CPU,
    )
    parts.seek(0)
    _, labels = parts.batches.next()
    assert labels.shape == (15, 3)
    torch.testing.assert_close(labels.sum(1), torch.ones(15))
    logits = torch.randn(15, 3, generator=torch.Generator().manual_seed(1))
    smooth = 0.9 * labels + 0.1 / 3  # Szegedy et al. 2016, section 7
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(parts.loss(logits, labels), expected)
