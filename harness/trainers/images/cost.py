"""What image cells cost before anything was measured: seconds by their arithmetic, disk, the expected spread.

Costs that were measured are `harness.plan.estimate`'s; it scales what is modelled here by them.
"""

import functools
import math

from harness.trainers.images.layers import LayerRow, convnet_layers, layer_table
from harness.trainers.images.machine import winograd_pays
from harness.trainers.images.settings import ConvNet, ImageFolder, ResNet18, Settings, Shapes, TorchvisionModel

# Multiply-accumulates a second that one worker makes of these models, before anything was measured. CPU: one core of
# an EPYC with AVX512-BF16, baseline, 1,100 images/s (benchmarks/). CUDA: a guess.
GUESSED_RATE = {"bfloat16": 9e10, "float32": 5e10, "cuda": 5e12}
WINOGRAD_SHARE = {3: 0.85, 5: 0.5}  # of the time that convolutions of this kernel size take without `winograd.py`
RESNET18_MACS = 1.814e9  # also a guess for any other network; one image of 224x224, forward; He et al. 2015, table 1
STEP_SECONDS = 2e-3  # of one optimizer step besides its arithmetic: indexing, dispatch, the optimizer
CELL_SECONDS = 1.0  # of one cell besides its steps: images, checkpoints, the journal
CHECKPOINT_COPIES = 4  # weights, best weights, and two moments of the optimizer, in float32
EXPECTED_ACCURACY = 0.75  # of the report's networks; enters the expected spread by its root


def disk_bytes(settings: Settings) -> int:
    """Of a cell's checkpoint and weights."""
    return CHECKPOINT_COPIES * 4 * _num_parameters(settings)


def expected_spread(settings: Settings) -> float:
    """Sd of the per-seed difference in test accuracy that the size of the test set lets expect, as a fraction.

    sqrt(error / (2 n)) between seeds (Jordan 2023); sqrt(2) of it for a difference, as if pairing brought nothing.
    """
    test = num_images(settings)[1]
    return math.sqrt(2) * math.sqrt((1 - EXPECTED_ACCURACY) / (2 * test))


def modelled_seconds(settings: Settings, device: str, num_epochs: float) -> float:
    """What a cell of so many epochs takes by its arithmetic alone, at the guessed rate of the device.

    Multiply-accumulates forward, twice that backward in training, and forward in evaluation, which is cheaper a pass.
    """
    train, test = num_images(settings)
    held_out = train * settings.training.validation_fraction
    validations = num_epochs * settings.training.validations_per_epoch
    passes = 3 * num_epochs * (train - held_out) + validations * held_out + train + test
    steps = num_epochs * (train - held_out) / settings.training.batch_size
    return CELL_SECONDS + STEP_SECONDS * steps + passes * _macs(settings) / _rate(settings, device)


def modelled_step_seconds(settings: Settings, device: str) -> float:
    """Of one optimizer step, as `modelled_seconds` has it."""
    return STEP_SECONDS + 3 * settings.training.batch_size * _macs(settings) / _rate(settings, device)


def _rate(settings: Settings, device: str) -> float:
    rate = GUESSED_RATE["cuda" if device == "cuda" else settings.training.precision]
    return rate / _winograd_share(settings) if device == "cpu" else rate


def _winograd_share(settings: Settings) -> float:
    """Of the time without `winograd.py`; as if it did every block, which it does for filters in multiples of 16."""
    model, training = settings.model, settings.training
    if not isinstance(model, ConvNet) or model.pooling == "stride" or training.precision != "bfloat16":
        return 1.0
    return WINOGRAD_SHARE.get(model.kernel_size, 1.0) if training.threads == 1 and winograd_pays() else 1.0


def _macs(settings: Settings) -> float:
    if isinstance(settings.model, ConvNet):
        return float(sum(row.macs for row in _rows(settings.model, image_side(settings))))
    return RESNET18_MACS * (image_side(settings) / 224) ** 2


def _num_parameters(settings: Settings) -> int:
    if isinstance(settings.model, ConvNet):
        return sum(row.parameters for row in _rows(settings.model, image_side(settings)))
    return 11_700_000 if isinstance(settings.model, ResNet18 | TorchvisionModel) else 1_000_000


@functools.cache  # the seeds of a variant share a network
def _rows(model: ConvNet, side: int) -> tuple[LayerRow, ...]:
    layers = convnet_layers(**model.model_dump(exclude={"kind", "initialization"}), image_size=side)
    return layer_table(layers, (3, side, side))


def image_side(settings: Settings) -> int:
    """Pixels of the images that the network gets."""
    stored = settings.data.image_size if isinstance(settings.data, ImageFolder) else 32
    return settings.preprocessing.resize or stored


def num_images(settings: Settings) -> tuple[int, int]:
    """Training (validation included) and test images."""
    if isinstance(settings.data, Shapes):
        return settings.data.train_images, settings.data.test_images
    return 50_000, 10_000  # CIFAR; a folder is taken to be as large, until its cells have been measured
