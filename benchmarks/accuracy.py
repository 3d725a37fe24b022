"""No accuracy lost: the textbook loop in float32 and the harness's cell, on real images, over the same seeds.

Both start from the harness's split and first weights and take its order of batches, so that a pair differs in the loop
and the arithmetic alone: different splits and first weights move a test accuracy by a point and more.
"""

from pathlib import Path

import torch
from torch import nn

from benchmarks.peer import build_network
from benchmarks.processes import Facts, Ready
from benchmarks.textbook import Start, train_by_protocol
from harness.hardware import Precision, native_precision
from harness.plan.cell import Cell, make_cells
from harness.trainers.images.data.cache import ImageArrays
from harness.trainers.images.data.sources import data_fingerprint, load_images
from harness.trainers.images.models import ConvolutionalNetwork
from harness.trainers.images.settings import ImageFolder, Settings, with_overrides
from harness.trainers.images.train import Trainer, build_trainer, train_cell


def textbook_accuracy(ready: Ready, folder: Path, cache: Path, device: str, epochs: int, seed: int) -> Facts:
    """Test accuracy, a fraction, of the textbook loop's baseline at its lowest validation loss."""
    cell, arrays = _problem(folder, cache, epochs, "float32", seed)
    start = start_of(build_trainer(cell, arrays, torch.device("cpu")))
    ready()
    return train_by_protocol(cell.settings, arrays, torch.device(device), start)


def harness_accuracy(ready: Ready, folder: Path, cache: Path, device: str, epochs: int, seed: int) -> Facts:
    """The same of a cell in the device's native precision."""
    cell, arrays = _problem(folder, cache, epochs, native_precision(device), seed)
    place = cache / cell.key
    place.mkdir(parents=True, exist_ok=True)
    (place / "checkpoint.pt").unlink(missing_ok=True)  # of a run before: this one trains from the start
    val_losses: list[float] = []
    ready()
    result = train_cell(
        cell,
        arrays,
        place,
        device=torch.device(device),
        on_event=lambda event: val_losses.append(event["val_loss"]) if event["event"] == "validation" else None,
    )
    assert result.is_finished, result
    images = result.num_steps * cell.settings.training.batch_size
    return {"images": images, "test_accuracy": result.test_accuracy, "val_losses": val_losses}


def start_of(trainer: Trainer) -> Start:
    """Split, first weights and orders of a cell that has not trained yet."""
    splits = trainer.splits
    network, ours = build_network(trainer.cell.settings), trainer.replica.master
    assert isinstance(ours, ConvolutionalNetwork)
    copy_weights(ours, network)
    return Start(
        network,
        splits.train.rows.tolist(),
        splits.validation.rows.tolist(),
        lambda epoch: trainer.batches.order(epoch).tolist(),
    )


@torch.no_grad()
def copy_weights(ours: ConvolutionalNetwork, textbook: nn.Sequential) -> None:
    """From the harness's network, whose hidden layer sees row, column, channel, into the textbook's, whose hidden layer
    sees channel, row, column."""
    channels = ours.blocks[-1].conv.out_channels  # type: ignore[union-attr]
    for weight, copied in zip(ours.parameters(), textbook.parameters(), strict=True):
        if weight is ours.hidden.weight:
            side = round((weight.shape[1] / channels) ** 0.5)
            copied.copy_(weight.view(-1, side, side, channels).permute(0, 3, 1, 2).flatten(1))
        else:
            copied.copy_(weight)


def _problem(folder: Path, cache: Path, epochs: int, precision: Precision, seed: int) -> tuple[Cell, ImageArrays]:
    data = ImageFolder(path=str(folder.absolute()))
    settings = with_overrides(Settings(), {"training.precision": precision, "training.max_epochs": epochs})
    settings = settings.model_copy(update={"data": data})
    (cell,) = make_cells(settings, [seed], {"data": data_fingerprint(data, cache=cache)})
    return cell, load_images(data, cache=cache)
