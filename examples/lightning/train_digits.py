"""Handwritten digits by a LightningModule: the training of one cell. Only `train` knows of the harness."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

import harness
from harness.integrations.lightning import EpochSampler, HarnessCallback, seed_all, trainer_options


class Digits(lightning.LightningModule):
    def __init__(self, hidden: int, dropout: float, learning_rate: float, momentum: float) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))
        self.learning_rate, self.momentum = learning_rate, momentum

    def training_step(self, batch, index):
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, batch, index):
        self._measure("val", *batch)

    def test_step(self, batch, index):
        self._measure("test", *batch)

    def _measure(self, split, images, labels):
        scores = self.network(images)
        self.log(f"{split}/loss", F.cross_entropy(scores, labels), on_epoch=True)
        self.log(f"{split}/accuracy", (scores.argmax(1) == labels).float().mean(), on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.learning_rate, momentum=self.momentum)


def train(run: harness.Run) -> None:
    settings = run.settings
    images, labels = load_digits(return_X_y=True)
    digits = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    parts = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0)).split([1000, 300, 497])
    fit, validation, test = (Subset(digits, part.tolist()) for part in parts)  # the same for all seeds

    seed_all(run, "weights")
    module = Digits(settings.hidden, settings.dropout, settings.learning_rate, settings.momentum)
    trainer = lightning.Trainer(
        **trainer_options(run), max_epochs=settings.epochs, callbacks=[HarnessCallback(run)], log_every_n_steps=1
    )
    loader = DataLoader(fit, settings.batch_size, sampler=EpochSampler(run, len(fit)))
    trainer.fit(module, loader, DataLoader(validation, 300), ckpt_path=run.saved())
    if run.should_stop:
        return
    (found,) = trainer.test(module, DataLoader(test, 497), verbose=False)
    run.finish(**{"test/accuracy": found["test/accuracy"]})
