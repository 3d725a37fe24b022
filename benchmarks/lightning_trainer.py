"""Lightning at its best: bf16-mixed, channels-last, early stop, best checkpoint, images as tensors.

Kinder to it than most programs are: no PIL, no transform per image (whole batches are normalised), no logger, no
progress bar. The protocol is the same: two validations an epoch, then the best weights on all three splits.
"""

import logging
import tempfile
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from benchmarks.peer import build_network, build_optimizer, normalized, split_rows, wait_for
from benchmarks.processes import Facts, Ready
from benchmarks.workload import Workload
from harness.trainers.images.settings import Settings


class Classifier(lightning.LightningModule):
    """The network with its losses, as Lightning wants them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.network = build_network(settings).to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        inputs = normalized(pixels).contiguous(memory_format=torch.channels_last)
        return self.network(inputs)  # type: ignore[no-any-return]

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pixels, labels = batch
        loss = F.cross_entropy(self(pixels), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._measure("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_index: int, dataloader_idx: int = 0) -> None:
        self._measure("test", batch)

    def _measure(self, split: str, batch: tuple[Tensor, Tensor]) -> None:
        pixels, labels = batch
        logits = self(pixels)
        self.log(f"{split}_loss", F.cross_entropy(logits, labels), batch_size=len(labels))
        self.log(f"{split}_accuracy", (logits.argmax(1) == labels).float().mean(), batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.settings, self.network.parameters())


def train_lightning(ready: Ready, workload: Workload, variant: str, loader_workers: int) -> Facts:
    """One cell's work, by `Trainer.fit` and `Trainer.test`."""
    warnings.simplefilter("ignore")  # it advises more loader workers; both numbers are measured
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings = workload.settings(variant)
    train, val, test, whole_train = _loaders(settings, workload, loader_workers)
    build_network(settings)(torch.zeros(settings.training.batch_size, 3, 32, 32)).sum().backward()
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(settings, workload, folder)
        module = Classifier(settings)
        ready()
        trainer.fit(module, train, val)
        num_steps = trainer.global_step
        trainer.test(module, [whole_train, val, test], ckpt_path="best", verbose=False)
        wait_for(torch.device(workload.device))
    return {"images": num_steps * settings.training.batch_size}


def _trainer(settings: Settings, workload: Workload, folder: str) -> Any:
    training = settings.training
    return lightning.Trainer(
        accelerator="gpu" if workload.device.startswith("cuda") else "cpu",
        devices=1,
        precision="bf16-mixed" if workload.precision == "bfloat16" else "32-true",
        max_epochs=training.max_epochs,
        val_check_interval=1 / training.validations_per_epoch,
        num_sanity_val_steps=0,
        callbacks=[
            EarlyStopping("val_loss", patience=training.patience - 1),  # validations in a row without a new minimum
            ModelCheckpoint(folder, monitor="val_loss", save_top_k=1),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def _loaders(settings: Settings, workload: Workload, num_workers: int) -> tuple[DataLoader[Any], ...]:
    """Of training, validation, test, and the training images once more, in order."""
    arrays = workload.images()
    images, test = (
        TensorDataset(torch.tensor(pixels).permute(0, 3, 1, 2), torch.tensor(labels))
        for pixels, labels in (
            (arrays.train_images, arrays.train_labels),
            (arrays.test_images, arrays.test_labels),
        )
    )
    train_rows, val_rows = split_rows(settings, len(images))
    batch_size = settings.training.batch_size
    options: dict[str, Any] = {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": workload.device.startswith("cuda"),
    }
    return (
        DataLoader(Subset(images, train_rows), batch_size, shuffle=True, drop_last=True, **options),
        DataLoader(Subset(images, val_rows), batch_size, **options),
        DataLoader(test, batch_size, **options),
        DataLoader(Subset(images, train_rows), batch_size, **options),
    )
