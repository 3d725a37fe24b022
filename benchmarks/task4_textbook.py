"""Task 4 as most people write it first: images through PIL, each resized by itself in a `DataLoader`; float32."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.models import resnet18

from benchmarks.peer import split_rows, wait_for
from benchmarks.processes import Facts, Ready
from benchmarks.task4 import SIDE, clocks, device_peak, passed, settings_of
from benchmarks.textbook import LOADER_WORKERS, PictureDataset, evaluate
from benchmarks.workload import Workload
from harness.trainers.images.settings import Settings


def train_textbook(ready: Ready, workload: Workload, side: int = SIDE) -> Facts:
    """Training with two validations; then all splits, as the harness measures them, for the peak of memory."""
    settings, arrays = settings_of("float32", 1, side), workload.images()
    means, device = settings.preprocessing, torch.device(workload.device)
    transform = transforms.Compose(
        [transforms.Resize(means.resize), transforms.ToTensor(), transforms.Normalize(means.mean, means.std)]
    )
    pictures = PictureDataset(arrays.train_images, arrays.train_labels, transform)
    train_rows, val_rows = split_rows(settings, len(pictures))
    train, validation = Subset(pictures, train_rows), Subset(pictures, val_rows)
    network = build_network().to(device)
    ready()
    began = clocks()
    steps = _one_epoch(network, settings, _loader(settings, train, True), _loader(settings, validation), device)
    wait_for(device)
    epoch = passed(began, clocks())
    for split in (train, validation, PictureDataset(arrays.test_images, arrays.test_labels, transform)):
        evaluate(network, _loader(settings, split), device)
    images = steps * settings.training.batch_size
    return {"images": images, **epoch, "device_peak_bytes": device_peak(workload.device)}


def build_network() -> nn.Module:
    """torchvision's, with a new last layer; only that and `layer4` train."""
    network: nn.Module = resnet18(num_classes=1000)
    network.requires_grad_(False)
    network.fc = nn.Linear(512, 10)
    network.layer4.requires_grad_(True)
    return network


def _loader(settings: Settings, split: Dataset[tuple[Tensor, int]], is_training: bool = False) -> DataLoader[Any]:
    batch_size = settings.training.batch_size
    return DataLoader(split, batch_size, shuffle=is_training, drop_last=is_training, num_workers=LOADER_WORKERS)


def _one_epoch(
    network: nn.Module, settings: Settings, train: DataLoader[Any], validation: DataLoader[Any], device: torch.device
) -> int:
    """Returns the number of steps."""
    trained = (weight for weight in network.parameters() if weight.requires_grad)
    optimizer = torch.optim.Adam(trained, settings.optimizer.learning_rate)
    interval, running_loss = len(train) // settings.training.validations_per_epoch, 0.0
    network.train()
    for step, (images, labels) in enumerate(train, start=1):
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        if step % interval == 0:
            evaluate(network, validation, device)
    return len(train)
