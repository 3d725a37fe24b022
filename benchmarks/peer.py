"""The network and the optimizer as most people write them: ReLU before pooling, no option that is not the default.

The harness's own `models.py` is not used here: its order of operations and its copies of weights are what is measured.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from harness.trainers.images.settings import ConvNet, Settings


def build_network(settings: Settings) -> nn.Sequential:
    """The same layers, sizes and initialisation as the harness trains for these settings."""
    model = settings.model
    assert isinstance(model, ConvNet)
    assert model.pooling == "max"
    layers: list[nn.Module] = []
    channels, side = 3, 32
    for filters in model.filters:
        layers += [nn.Conv2d(channels, filters, model.kernel_size, padding=model.kernel_size // 2)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        if model.batch_norm:
            layers.append(nn.BatchNorm2d(filters))
        channels, side = filters, side // 2
    layers += [nn.Flatten(), nn.Linear(channels * side * side, model.hidden_units), nn.ReLU()]
    if model.batch_norm_fc:
        layers.append(nn.BatchNorm1d(model.hidden_units))
    if model.dropout:
        layers.append(nn.Dropout(model.dropout))
    return nn.Sequential(*layers, nn.Linear(model.hidden_units, 10))


def build_optimizer(settings: Settings, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = settings.optimizer
    if optimizer.name == "sgd":
        return torch.optim.SGD(
            weights, optimizer.learning_rate, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay
        )
    assert optimizer.name == "adamax"
    return torch.optim.Adamax(weights, optimizer.learning_rate, weight_decay=optimizer.weight_decay)


def split_rows(settings: Settings, num_images: int) -> tuple[list[int], list[int]]:
    """Rows for training and for validation, by the protocol's fraction and split seed."""
    shuffled = np.random.default_rng(settings.training.split_seed).permutation(num_images)
    held_out = round(num_images * settings.training.validation_fraction)
    return shuffled[held_out:].tolist(), shuffled[:held_out].tolist()


def should_stop(validation_losses: list[float], patience: int) -> bool:
    """Of the last `patience` losses, the oldest is the smallest."""
    recent = validation_losses[-patience:]
    return len(recent) == patience and recent[0] == min(recent)


def normalized(pixels: Tensor) -> Tensor:
    """uint8 (N, C, H, W) to float32 with the protocol's mean 0.5 and standard deviation 0.25 in every channel."""
    return (pixels.float() / 255 - 0.5) / 0.25


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given: clocks are read after it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
