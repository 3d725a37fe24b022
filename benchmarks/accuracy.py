"""No accuracy lost: the textbook loop in float32 and the harness's cell, on real images, over the same seeds.

Both start from the harness's split and first weights and take its order of batches, so that a pair differs in the loop
and the arithmetic alone: different splits and first weights move a test accuracy by a point and more.
"""

from pathlib import Path

import torch
from torch import nn

from benchmarks.bare import bare_run
from benchmarks.peer import build_network
from benchmarks.processes import Facts, Ready
from benchmarks.textbook import Start, train_by_protocol
from harness.files.atomic import remove
from harness.plan.cell import Cell, make_cells
from harness.trainers.images.data.cache import ImageArrays
from harness.trainers.images.data.sources import data_fingerprint, load_images
from harness.trainers.images.machine import Precision, native_precision
from harness.trainers.images.models.convnet import ConvolutionalNetwork
from harness.trainers.images.settings import ImageFolder, Settings, with_overrides
from harness.trainers.images.train import Parts, build_parts, train_on
from harness.trainers.images.trainer import ImageTrainer
from harness.trainers.run import CHECKPOINT, Event


def textbook_accuracy(ready: Ready, folder: Path, cache: Path, device: str, epochs: int, seed: int) -> Facts:
    """Test accuracy, a fraction, of the textbook loop's baseline at its lowest validation loss."""
    cell, arrays = _problem(folder, cache, epochs, "float32", seed)
    start = start_of(build_parts(cell.settings, arrays, seed=seed, device=torch.device("cpu")))
    ready()
    return train_by_protocol(cell.settings, arrays, torch.device(device), start)


def harness_accuracy(ready: Ready, folder: Path, cache: Path, device: str, epochs: int, seed: int) -> Facts:
    """The same of a cell in the device's native precision."""
    cell, arrays = _problem(folder, cache, epochs, native_precision(device), seed)
    place = cache / cell.key
    remove(place / CHECKPOINT)  # of a run before: this one trains from the start
    val_losses: list[float] = []

    def note(event: Event) -> None:
        if event["event"] == "validation":
            val_losses.append(event["metrics"]["val/loss"])

    ready()
    run = bare_run(cell, place, device, note)
    train_on(run, arrays)
    assert run.final is not None
    images = run.num_steps * cell.settings.training.batch_size
    return {"images": images, "test_accuracy": run.final["test/accuracy"], "val_losses": val_losses}


def start_of(parts: Parts) -> Start:
    """Split, first weights and orders of a cell that has not trained yet."""
    splits = parts.splits
    network, ours = build_network(parts.settings), parts.replica.master
    assert isinstance(ours, ConvolutionalNetwork)
    copy_weights(ours, network)
    return Start(
        network,
        splits.train.rows.tolist(),
        splits.validation.rows.tolist(),
        lambda epoch: parts.batches.order(epoch).tolist(),
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
    (cell,) = make_cells(ImageTrainer(cache), settings, [seed], {"data": data_fingerprint(data, cache=cache)})
    return cell, load_images(data, cache=cache)
