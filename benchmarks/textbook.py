"""The textbook loop: what most people write first, with the report's protocol in it.

A data set of PIL images with torchvision's transforms, `DataLoader` with two workers, float32, `.item()` in each step,
evaluation over loaders, the best weights saved by `torch.save`.
"""

import tempfile
from collections.abc import Callable
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
from harness.image_cache import ImageArrays
from harness.settings import Settings

LOADER_WORKERS = 2


class PictureDataset(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: an array in memory, each image through PIL and the transforms when it is asked for."""

    def __init__(self, images: Any, labels: Any, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def train_textbook(ready: Ready, workload: Workload, variant: str) -> Facts:
    """One cell's work: training with two validations an epoch, then the best weights on all three splits."""
    arrays = workload.images()
    settings = workload.settings(variant)
    warm_up = build_network(settings)(torch.zeros(settings.training.batch_size, 3, 32, 32))
    warm_up.sum().backward()
    ready()
    return train_by_protocol(settings, arrays, torch.device(workload.device), seed=0)


def train_by_protocol(settings: Settings, arrays: ImageArrays, device: torch.device, *, seed: int) -> Facts:
    """Returns images, the optimizer steps times the batch, and test_accuracy, a fraction."""
    from torchvision import transforms

    torch.manual_seed(seed)
    training, means = settings.training, settings.preprocessing
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(means.mean, means.std)])
    pictures = PictureDataset(arrays.train_images, arrays.train_labels, transform)
    train_rows, val_rows = split_rows(settings, len(pictures))

    def loader(dataset: Dataset[tuple[Tensor, int]], is_training: bool) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(
            dataset, training.batch_size, shuffle=is_training, drop_last=is_training, num_workers=LOADER_WORKERS
        )

    train_loader = loader(Subset(pictures, train_rows), True)
    val_loader = loader(Subset(pictures, val_rows), False)
    test_loader = loader(PictureDataset(arrays.test_images, arrays.test_labels, transform), False)
    network = build_network(settings).to(device)
    optimizer = build_optimizer(settings, network.parameters())
    interval = len(train_loader) // training.validations_per_epoch
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder) / "best.pt"
        step = _fit(
            network, optimizer, train_loader, val_loader, device, best, training.max_epochs, interval, training.patience
        )
        network.load_state_dict(torch.load(best, map_location=device))
    evaluate(network, loader(Subset(pictures, train_rows), False), device)
    evaluate(network, val_loader, device)
    _, test_accuracy = evaluate(network, test_loader, device)
    wait_for(device)
    return {"images": step * training.batch_size, "test_accuracy": test_accuracy}


def _fit(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_loader: DataLoader[Any],
    val_loader: DataLoader[Any],
    device: torch.device,
    best: Path,
    max_epochs: int,
    interval: int,
    patience: int,
) -> int:
    """Trains until the last epoch or the early stop; returns the number of steps."""
    step, running_loss, val_losses = 0, 0.0, []
    for _ in range(max_epochs):
        for images, labels in train_loader:
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
                    return step
    return step


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
