"""How long cells will take and how much disk they need, from what was measured so far.

A cell like one that was measured (same settings, another seed) takes as long as that one. Another one is scaled by its
multiply-accumulates from those that were measured; with nothing measured, by a guess for the device, and it says so.
"""

import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from harness.cell import Cell
from harness.cells import Cells
from harness.layers import Layer, convnet_layers, layer_table
from harness.settings import Cifar10, Cifar100, ConvNet, ResNet18, Settings, Shapes

# Multiply-accumulates a second that one worker makes of these models, before anything was measured. CPU: one core of
# an EPYC with AVX512-BF16, baseline, 1,100 images/s (benchmarks/). CUDA: a guess.
GUESSED_RATE = {"bfloat16": 9e10, "float32": 5e10, "cuda": 5e12}
RESNET18_MACS = 1.814e9  # one image of 224x224, forward; He et al. 2015, table 1
CHECKPOINT_COPIES = 4  # weights, best weights, and two moments of the optimizer, in float32


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of wall time and bytes of disk; `measured` says from how many ended cells (0: a guess)."""

    seconds: float
    disk_bytes: int
    measured: int


def estimate(todo: Sequence[Cell], ended: Iterable[Cell], cells: Cells, *, device: str, workers: int) -> Estimate:
    """What the cells of `todo` will take on this many workers, longest first.

    Args:
        ended: cells whose results tell how fast this machine is; those of other devices are left out.
    """
    by_settings: defaultdict[str, list[float]] = defaultdict(list)
    rates = []
    for cell in ended:
        result = cells.result(cell.key)
        if result and result.is_finished and result.device.startswith(device.partition(":")[0]) and result.seconds > 0:
            by_settings[_identity(cell.settings)].append(result.seconds)
            share = result.num_epochs / cell.settings.training.max_epochs  # early stopping
            rates.append(cell_macs(cell.settings) * share / result.seconds)
    guess = GUESSED_RATE["cuda" if device.startswith("cuda") else todo[0].settings.training.precision] if todo else 1.0
    rate = median(rates) if rates else guess
    seconds = [
        mean(known) if (known := by_settings.get(_identity(cell.settings))) else cell_macs(cell.settings) / rate
        for cell in todo
    ]
    disk = sum(CHECKPOINT_COPIES * 4 * _num_parameters(cell.settings) for cell in todo)
    return Estimate(makespan(seconds, workers), disk, len(rates))


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Wall time when each worker, as it gets free, takes the longest task left."""
    loads = [0.0] * workers
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(loads, loads[0] + each)
    return max(loads)


def cell_macs(settings: Settings) -> float:
    """Multiply-accumulates of one cell: forward and twice that backward in training, forward in evaluation."""
    train, test = _num_images(settings)
    held_out = train * settings.training.validation_fraction
    epochs, validations = settings.training.max_epochs, settings.training.validations_per_epoch
    passes = 3 * epochs * (train - held_out) + epochs * validations * held_out + train + test
    return passes * _macs(settings)


def _macs(settings: Settings) -> float:
    size = settings.preprocessing.resize or getattr(settings.data, "image_size", 32)
    if isinstance(settings.model, ConvNet):
        return float(sum(row.macs for row in layer_table(_layers(settings.model, size), (3, size, size))))
    return RESNET18_MACS * (size / 224) ** 2


def _num_parameters(settings: Settings) -> int:
    if isinstance(settings.model, ConvNet):
        size = settings.preprocessing.resize or getattr(settings.data, "image_size", 32)
        return sum(row.parameters for row in layer_table(_layers(settings.model, size), (3, size, size)))
    return 11_700_000 if isinstance(settings.model, ResNet18) else 1_000_000


def _layers(model: ConvNet, size: int) -> tuple[Layer, ...]:
    return convnet_layers(**model.model_dump(exclude={"kind"}), image_size=size)


def _num_images(settings: Settings) -> tuple[int, int]:
    match settings.data:
        case Shapes() as shapes:
            return shapes.train_images, shapes.test_images
        case Cifar10() | Cifar100():
            return 50_000, 10_000
        case _:
            return 50_000, 10_000  # a folder is counted when it is decoded; until then, as large as CIFAR


def _identity(settings: Settings) -> str:
    return json.dumps(settings.identity(), sort_keys=True)
