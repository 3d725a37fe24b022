"""What a cell about to train really uses, read from the objects themselves, and compared with what was asked.

A setting that reached nothing would make its change a placebo with an effect of exactly zero: the worst bug that an
ablation tool can have. `readback` never looks at settings; `check_readback` compares.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.trainers.images.arithmetic import Replica
from harness.trainers.images.augment import (
    Brightness,
    Cutout,
    Edit,
    Grayscale,
    HorizontalFlip,
    PaddedCrop,
    ResizedCrop,
    Rotation,
    VerticalFlip,
)
from harness.trainers.images.data.batches import Preprocess, Splits, TrainingBatches
from harness.trainers.images.models.convnet import ACTIVATIONS, Block, ConvolutionalNetwork, Residual
from harness.trainers.images.models.logits import Logits
from harness.trainers.images.models.resnet18 import FrozenBatchNorm2d
from harness.trainers.images.optimizers import option_defaults
from harness.trainers.images.schedule import Schedule
from harness.trainers.images.settings import Settings
from harness.trainers.images.update import Update
from harness.trees import flatten

# What a trained object does not show: where its images and first weights came from (the cell's key holds their
# fingerprints), what somebody else's builder was asked for, which rows a seed chose, and a quotient that the schedule
# holds rounded.
UNREADABLE = (
    "data.",
    "model.weights",
    "model.factory",
    "model.name",
    "model.options",
    "training.split_seed",
    "training.validations_per_epoch",
)


def readback(
    replica: Replica,
    loss: nn.CrossEntropyLoss,
    update: Update,
    batches: TrainingBatches,
    schedule: Schedule,
    splits: Splits,
) -> dict[str, Any]:
    """Dotted paths of `Settings` to the values in use."""
    num_images = len(splits.train) + len(splits.validation)
    training = {
        "training.batch_size": batches.batch_size,
        "training.max_epochs": math.ceil(schedule.last_step / schedule.steps_per_epoch),
        "training.patience": schedule.patience,
        "training.validation_fraction": len(splits.validation) / num_images,
        "training.precision": _precision(replica),
        "training.threads": torch.get_num_threads(),
        "training.label_smoothing": loss.label_smoothing,
        "training.ema_decay": update.averages.decay if update.averages else 0.0,
    }
    return (
        _model(replica.master)
        | _optimizer(update, schedule.steps_per_epoch)
        | _augmentation(batches)
        | _preprocessing(batches.preprocess)
        | training
    )


def check_readback(settings: Settings, found: Mapping[str, Any], *, num_images: int) -> None:
    """Assert that every setting that can be read back is there, and is what was asked for.

    Args:
        num_images: of training and validation together; the validation fraction is exact to half an image.
    """
    asked = flatten(settings.model_dump())
    readable = {path for path in asked if not path.startswith(UNREADABLE)}
    assert readable == set(found), f"cannot be read back: {sorted(readable ^ set(found))}"
    # Half an image, and a little: 28.5 of 285 images round to 28, and the quotients do not come out even.
    tolerances = {"training.validation_fraction": 0.5001 / num_images}
    wrong = [
        f"{path} is {found[path]!r} in the trained object, but {asked[path]!r} was asked for"
        for path in sorted(readable)
        if not _equal(found[path], asked[path], tolerances.get(path, 0))
    ]
    assert not wrong, "; ".join(wrong)


def _equal(found: Any, asked: Any, tolerance: float) -> bool:
    if isinstance(asked, tuple) and isinstance(found, tuple):
        return len(found) == len(asked) and all(map(_equal, found, asked, [tolerance] * len(asked)))
    if isinstance(asked, float) and isinstance(found, float):
        return math.isclose(found, asked, rel_tol=1e-6, abs_tol=tolerance)  # means and deviations are float32
    return bool(found == asked)


def _model(model: nn.Module) -> dict[str, Any]:
    if isinstance(model, ConvolutionalNetwork):
        return _convnet(model)
    if _is_resnet18(model):
        return _resnet18(model)
    return {"model.kind": "torchvision" if type(model).__module__.startswith("torchvision.models.") else "plugin"}


def _convnet(model: ConvolutionalNetwork) -> dict[str, Any]:
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    return {
        "model.kind": "convnet",
        "model.filters": tuple(block.conv.out_channels for block in blocks),
        "model.kernel_size": _one({block.conv.kernel_size[0] for block in blocks}),
        "model.pooling": _one({_pooling(block) for block in blocks}),
        "model.activation": _one({_activation(it) for it in model.modules() if hasattr(it, "activation")}),
        "model.initialization": _initialization(model),
        "model.residual": sum(isinstance(it, Residual) for it in model.blocks) == len(blocks),
        "model.batch_norm": _one({isinstance(block.norm, nn.BatchNorm2d) for block in blocks}),
        "model.batch_norm_fc": isinstance(model.norm, nn.BatchNorm1d),
        "model.hidden_units": model.output.in_features,
        "model.dropout": float(model.dropout.p) if isinstance(model.dropout, nn.Dropout) else 0.0,
    }


def _activation(module: nn.Module) -> str:
    return next(name for name, made in ACTIVATIONS.items() if type(made()) is type(module.activation))


@torch.no_grad()
def _initialization(model: nn.Module) -> str:
    """What first weights show: which biases are zero, which matrices orthogonal, and how large the largest weight is.

    Normal weights of variance 2 / fan-in lie within Glorot's bound with probability 0.92 at most, each.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if any(layer.bias is not None and layer.bias.any() for layer in layers):
        return "default"
    if all(map(_is_orthogonal, layers)):
        return "orthogonal"
    bounds = [(6 / (layer.weight[0].numel() + layer.weight[:, 0].numel())) ** 0.5 for layer in layers]
    within = all(layer.weight.abs().max() <= bound for layer, bound in zip(layers, bounds, strict=True))
    return "xavier" if within else "kaiming"


def _is_orthogonal(layer: nn.Conv2d | nn.Linear) -> bool:
    rows = layer.weight.flatten(1).double()
    rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
    return torch.allclose(rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype, device=rows.device), atol=1e-4)


def _pooling(block: Block) -> str:
    return "stride" if block.conv.stride == (2, 2) else {nn.MaxPool2d: "max", nn.AvgPool2d: "avg"}[type(block.pool)]


def _is_resnet18(model: nn.Module) -> bool:
    from torchvision.models import ResNet

    return isinstance(model, ResNet) and type(model.fc) is Logits


def _resnet18(model: nn.Module) -> dict[str, Any]:
    layers = [(name, layer) for name, layer in model.named_children() if any(True for _ in layer.parameters())]
    trained = tuple(name for name, layer in layers if all(weight.requires_grad for weight in layer.parameters()))
    return {
        "model.kind": "resnet18",
        "model.trained_layers": ("all",) if len(trained) == len(layers) else trained,
        "model.frozen_batch_norm": any(isinstance(module, FrozenBatchNorm2d) for module in model.modules()),
    }


def _optimizer(update: Update, steps_per_epoch: int) -> dict[str, Any]:
    (group,) = update.optimizer.param_groups
    name = type(update.optimizer).__name__.lower()
    options = {option: group[option] for option, default in option_defaults(name).items() if group[option] != default}
    found = {
        "optimizer.name": name,
        "optimizer.learning_rate": float(group["lr"]),
        "optimizer.momentum": group.get("momentum", 0.0),
        "optimizer.weight_decay": group.get("weight_decay", 0.0),
        "optimizer.schedule": update.rates.kind,
        "optimizer.warmup_epochs": update.rates.warmup_steps / steps_per_epoch,
        "optimizer.gradient_clip": update.gradient_clip,
    }
    return found | flatten({"optimizer": {"options": options}})


def _augmentation(batches: TrainingBatches) -> dict[str, Any]:
    by_type: dict[type, Edit] = {type(edit): edit for edit in batches.edits}
    sources: dict[str, tuple[type, str, Any]] = {
        "crop_padding": (PaddedCrop, "padding", 0),
        "crop_size": (ResizedCrop, "size", None),
        "brightness": (Brightness, "strength", 0.0),
        "rotation_degrees": (Rotation, "degrees", 0.0),
        "horizontal_flip": (HorizontalFlip, "probability", 0.0),
        "vertical_flip": (VerticalFlip, "probability", 0.0),
        "grayscale": (Grayscale, "probability", 0.0),
        "cutout": (Cutout, "size", 0),
    }
    return {"augmentation.mixup": batches.mixup.alpha if batches.mixup else 0.0} | {
        f"augmentation.{name}": getattr(by_type[edit], attribute) if edit in by_type else absent
        for name, (edit, attribute, absent) in sources.items()
    }


def _preprocessing(preprocess: Preprocess) -> dict[str, Any]:
    return {
        "preprocessing.resize": preprocess.resize,
        "preprocessing.mean": tuple(preprocess.mean.tolist()),
        "preprocessing.std": tuple(preprocess.std.tolist()),
    }


def _precision(replica: Replica) -> str:
    """What the convolutions and matrix products before the logits compute in."""
    if replica.uses_autocast:
        return "bfloat16"
    heavy = [module for module in replica.network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    dtypes = {module.weight.dtype for module in heavy if not isinstance(module, Logits)} or {torch.float32}
    backends: Any = torch.backends
    rounding = {backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision}
    if _one(dtypes) == torch.float32 and rounding == {"tf32"}:
        return "tf32"
    return str(_one(dtypes)).removeprefix("torch.")


def _one(values: set[Any]) -> Any:
    """The one value that all blocks share; a tuple, equal to no setting, if they differ."""
    return next(iter(values)) if len(values) == 1 else tuple(values)
