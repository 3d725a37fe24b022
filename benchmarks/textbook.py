"""The textbook loop: what most people write first, with the report's protocol in it.

A data set of PIL images with torchvision's transforms, `DataLoader` with two workers, float32, `.item()` in each step,
evaluation over loaders, the best weights saved by `torch.save`.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from benchmarks.peer import build_network, build_optimizer, should_stop, split_rows, wait_for
from benchmarks.processes import Facts, Ready
from benchmarks.workload import Workload
from harness.trainers.images.data.cache import ImageArrays
from harness.trainers.images.settings import Settings

LOADER_WORKERS = 2


class PictureDataset(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: an array in memory, each image through PIL and the transforms when it is asked for."""

    def __init__(self, images: Any, labels: Any, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


@dataclass(frozen=True)
class Start:
    """What a comparison of accuracies holds equal: where a training starts, and which way it takes.

    Attributes:
        network: with its first weights; trained in place.
        train_rows, val_rows: of the training images.
        order: from an epoch, counted from 0, to its rows in the order of training; None leaves it to the loader.
    """

    network: nn.Module
    train_rows: list[int]
    val_rows: list[int]
    order: Callable[[int], list[int]] | None = None


def train_textbook(ready: Ready, workload: Workload, variant: str) -> Facts:
    """One cell's work: training with two validations an epoch, then the best weights on all three splits."""
    arrays = workload.images()
    settings = workload.settings(variant)
    warm_up = build_network(settings)(torch.zeros(settings.training.batch_size, 3, 32, 32))
    warm_up.sum().backward()
    ready()
    torch.manual_seed(0)
    start = Start(build_network(settings), *split_rows(settings, len(arrays.train_labels)))
    return train_by_protocol(settings, arrays, torch.device(workload.device), start)


def train_by_protocol(settings: Settings, arrays: ImageArrays, device: torch.device, start: Start) -> Facts:
    """Returns images, the optimizer steps times the batch; test_accuracy, a fraction; and each validation's loss."""
    from torchvision import transforms

    training, means = settings.training, settings.preprocessing
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(means.mean, means.std)])
    pictures = PictureDataset(arrays.train_images, arrays.train_labels, transform)

    def loader(dataset: Dataset[tuple[Tensor, int]], is_training: bool) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(
            dataset, training.batch_size, shuffle=is_training, drop_last=is_training, num_workers=LOADER_WORKERS
        )

    def epoch_loader(epoch: int) -> DataLoader[tuple[Tensor, int]]:
        if start.order is None:
            return train_loader
        return loader(Subset(pictures, start.order(epoch)), False)

    train_loader = loader(Subset(pictures, start.train_rows), True)
    val_loader = loader(Subset(pictures, start.val_rows), False)
    test_loader = loader(PictureDataset(arrays.test_images, arrays.test_labels, transform), False)
    network = start.network.to(device)
    optimizer = build_optimizer(settings, network.parameters())
    interval = len(train_loader) // training.validations_per_epoch
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder) / "best.pt"
        epochs = (epoch_loader(epoch) for epoch in range(training.max_epochs))
        step, val_losses = _fit(network, optimizer, epochs, val_loader, device, best, interval, training.patience)
        network.load_state_dict(torch.load(best, map_location=device))
    evaluate(network, loader(Subset(pictures, start.train_rows), False), device)
    evaluate(network, val_loader, device)
    _, test_accuracy = evaluate(network, test_loader, device)
    wait_for(device)
    return {"images": step * training.batch_size, "test_accuracy": test_accuracy, "val_losses": val_losses}


def _fit(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: Iterable[DataLoader[Any]],
    val_loader: DataLoader[Any],
    device: torch.device,
    best: Path,
    interval: int,
    patience: int,
) -> tuple[int, list[float]]:
    """Trains until the last epoch or the early stop; returns the number of steps, and the validations' losses."""
    step, running_loss, val_losses = 0, 0.0, []
    for epoch in epochs:
        for images, labels in epoch:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            step += 1
            if step % interval == 0:
                val_loss, _ = evaluate(network, val_loader, device)
                val_losses.append(val_loss)
                if val_loss == min(val_losses):
                    torch.save(network.state_dict(), best)
                if should_stop(val_losses, patience):
                    return step, val_losses
    return step, val_losses


@torch.no_grad()
def evaluate(network: nn.Module, loader: DataLoader[Any], device: torch.device) -> tuple[float, float]:
    """Mean loss and accuracy over all images."""
    network.eval()
    loss_sum, num_correct, num_images = 0.0, 0, 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        logits = network(images)
        loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
        num_correct += int((logits.argmax(1) == labels).sum().item())
        num_images += len(labels)
    network.train()
    return loss_sum / num_images, num_correct / num_images
