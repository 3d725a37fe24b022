"""How long cells will take and how much disk they need, from what was measured so far.

A cell like one that was measured (same settings, another seed) takes as long as that one. Another one is scaled by its
multiply-accumulates from those that were measured, and taken to stop as early as they did on average; with nothing
measured, by a guess for the device and the most epochs, and it says so.
"""

import functools
import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from harness.hardware import winograd_pays
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.trainers.images.layers import LayerRow, convnet_layers, layer_table
from harness.trainers.images.settings import ConvNet, ImageFolder, ResNet18, Settings, Shapes

# Multiply-accumulates a second that one worker makes of these models, before anything was measured. CPU: one core of
# an EPYC with AVX512-BF16, baseline, 1,100 images/s (benchmarks/). CUDA: a guess.
GUESSED_RATE = {"bfloat16": 9e10, "float32": 5e10, "cuda": 5e12}
WINOGRAD_SHARE = {3: 0.85, 5: 0.5}  # of the time that convolutions of this kernel size take without `winograd.py`
RESNET18_MACS = 1.814e9  # one image of 224x224, forward; He et al. 2015, table 1
STEP_SECONDS = 2e-3  # of one optimizer step besides its arithmetic: indexing, dispatch, the optimizer
CELL_SECONDS = 1.0  # of one cell besides its steps: images, checkpoints, the journal
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
    slowness = []  # measured over modelled seconds
    shares = []  # of the epochs that were allowed: early stopping
    kind = device.partition(":")[0]
    for cell in ended:
        result = cells.result(cell.key)
        if result and result.is_finished and result.device.startswith(kind) and result.seconds > 0:
            by_settings[_identity(cell.settings)].append(result.seconds)
            slowness.append(result.seconds / modelled_seconds(cell.settings, kind, result.num_epochs))
            shares.append(result.num_epochs / cell.settings.training.max_epochs)
    share = mean(shares) if shares else 1.0
    factor = median(slowness) if slowness else 1.0

    def expected(settings: Settings) -> tuple[float, int]:
        if known := by_settings.get(_identity(settings)):
            seconds = mean(known)
        else:
            seconds = factor * modelled_seconds(settings, kind, share * settings.training.max_epochs)
        return seconds, CHECKPOINT_COPIES * 4 * _num_parameters(settings)

    variants = {id(cell.settings): cell.settings for cell in todo}  # the seeds of a variant share one object
    each = {key: expected(settings) for key, settings in variants.items()}
    of_cells = [each[id(cell.settings)] for cell in todo]
    seconds = makespan((seconds for seconds, _ in of_cells), workers)
    return Estimate(seconds, sum(size for _, size in of_cells), len(slowness))


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Wall time when each worker, as it gets free, takes the longest task left."""
    loads = [0.0] * workers
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(loads, loads[0] + each)
    return max(loads)


def modelled_seconds(settings: Settings, device: str, num_epochs: float) -> float:
    """What a cell of so many epochs takes by its arithmetic alone, at the guessed rate of the device.

    Multiply-accumulates forward, twice that backward in training, and forward in evaluation, which is cheaper a pass.
    """
    train, test = num_images(settings)
    held_out = train * settings.training.validation_fraction
    validations = num_epochs * settings.training.validations_per_epoch
    passes = 3 * num_epochs * (train - held_out) + validations * held_out + train + test
    rate = GUESSED_RATE["cuda" if device == "cuda" else settings.training.precision]
    if device == "cpu":
        rate /= _winograd_share(settings)
    steps = num_epochs * (train - held_out) / settings.training.batch_size
    return CELL_SECONDS + STEP_SECONDS * steps + passes * _macs(settings) / rate


def _winograd_share(settings: Settings) -> float:
    """Of the time without `winograd.py`; as if it did every block, which it does for filters in multiples of 16."""
    model, training = settings.model, settings.training
    if not isinstance(model, ConvNet) or model.pooling == "stride" or training.precision != "bfloat16":
        return 1.0
    return WINOGRAD_SHARE.get(model.kernel_size, 1.0) if training.threads == 1 and winograd_pays() else 1.0


def _macs(settings: Settings) -> float:
    if isinstance(settings.model, ConvNet):
        return float(sum(row.macs for row in _rows(settings.model, _side(settings))))
    return RESNET18_MACS * (_side(settings) / 224) ** 2


def _num_parameters(settings: Settings) -> int:
    if isinstance(settings.model, ConvNet):
        return sum(row.parameters for row in _rows(settings.model, _side(settings)))
    return 11_700_000 if isinstance(settings.model, ResNet18) else 1_000_000


@functools.cache  # the seeds of a variant share a network
def _rows(model: ConvNet, side: int) -> tuple[LayerRow, ...]:
    layers = convnet_layers(**model.model_dump(exclude={"kind"}), image_size=side)
    return layer_table(layers, (3, side, side))


def _side(settings: Settings) -> int:
    stored = settings.data.image_size if isinstance(settings.data, ImageFolder) else 32
    return settings.preprocessing.resize or stored


def num_images(settings: Settings) -> tuple[int, int]:
    """Training (validation included) and test images."""
    if isinstance(settings.data, Shapes):
        return settings.data.train_images, settings.data.test_images
    return 50_000, 10_000  # CIFAR; a folder is taken to be as large, until its cells have been measured


def _identity(settings: Settings) -> str:
    return json.dumps(settings.identity(), sort_keys=True)
