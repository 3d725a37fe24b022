"""Settings to an `nn.Module`, pure: the same settings and seed give the same weights on every device.

Three kinds, one builder each: the report's convolutional network, torchvision's ResNet18, a user's own model. How
numbers are computed (precision, device) is `arithmetic.py`; what trains them is `train.py`.

Axes: N images, C channels, H rows, W columns; inputs are (N, 3, H, W), outputs are logits (N, num_classes).
"""

import importlib
import inspect
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.errors import DataError, StudyError
from harness.trainers.images.settings import ConvNet, Model, PluginModel, ResNet18
from harness.trainers.images.streams import derive_seed


def build_model(model: Model, num_classes: int, *, image_size: tuple[int, int], seed: int) -> nn.Module:
    """The network that the settings describe, in float32 on the CPU, with fresh weights.

    Weights are PyTorch's default initialisation, drawn from (seed, "weights"); the global random state is left alone.

    Args:
        image_size: height and width of what the network will see, in pixels.
        seed: the cell's.

    Raises:
        StudyError: the settings do not fit the images, or a plug-in cannot be used.
        DataError: pretrained weights are missing or are another network's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        if isinstance(model, ConvNet):
            return ConvolutionalNetwork(model, num_classes, image_size)
        if isinstance(model, ResNet18):
            return _resnet18(model, num_classes)
        return _plugin(model, num_classes)


class Logits(nn.Linear):
    """The last layer, in float32 whatever comes in and whatever precision the others have.

    Logits in bfloat16 would have 8 significant bits: the two largest would often tie, and a tie goes to the class with
    the lower number. The layer is too small for its precision to cost time.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Block(nn.Module):
    """Convolution, ReLU, pooling [, batch normalization]: (N, C, H, W) to (N, C', H // 2, W // 2)."""

    def __init__(self, in_channels: int, out_channels: int, model: ConvNet) -> None:
        super().__init__()
        stride = 2 if model.pooling == "stride" else 1
        padding = model.kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, model.kernel_size, stride, padding)
        self.activation = nn.ReLU(inplace=True)
        pooling: dict[str, nn.Module] = {"max": nn.MaxPool2d(2), "avg": nn.AvgPool2d(2), "stride": nn.Identity()}
        self.pool = pooling[model.pooling]
        self.norm: nn.Module = nn.BatchNorm2d(out_channels) if model.batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if isinstance(self.pool, nn.MaxPool2d):
            # max(relu(x)) is relu(max(x)) to the bit, the gradient too, and the ReLU sees a quarter of the values.
            return self.norm(self.activation(self.pool(x)))  # type: ignore[no-any-return]
        return self.norm(self.pool(self.activation(x)))  # type: ignore[no-any-return]


class ConvolutionalNetwork(nn.Module):
    """The report's network: blocks, then a hidden fully connected layer, then one logit a class."""

    def __init__(self, model: ConvNet, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        channels = (3, *model.filters)
        self.blocks = nn.Sequential(*(Block(channels[i], channels[i + 1], model) for i in range(len(model.filters))))
        height, width = (_pooled(side, model) for side in image_size)
        self.hidden = nn.Linear(channels[-1] * height * width, model.hidden_units)
        self.activation = nn.ReLU(inplace=True)
        self.norm: nn.Module = nn.BatchNorm1d(model.hidden_units) if model.batch_norm_fc else nn.Identity()
        self.dropout: nn.Module = nn.Dropout(model.dropout) if model.dropout else nn.Identity()
        self.output = Logits(model.hidden_units, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x).permute(0, 2, 3, 1).flatten(1)  # by row, column, channel: in channels-last, a view
        x = self.dropout(self.norm(self.activation(self.hidden(x))))
        return self.output(x)  # type: ignore[no-any-return]


def _pooled(side: int, model: ConvNet) -> int:
    """Pixels that are left of a side after all blocks; pooling rounds down, a strided convolution up."""
    for _ in model.filters:
        side = (side + 1) // 2 if model.pooling == "stride" else side // 2
    if side == 0:
        raise StudyError(
            f"model.filters: {len(model.filters)} blocks halve the image {len(model.filters)} times and leave nothing; "
            "choose fewer blocks or larger images"
        )
    return side


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that keeps its statistics: it stays in evaluation mode when its network trains."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        del mode
        super().train(False)
        return self


def _resnet18(model: ResNet18, num_classes: int) -> nn.Module:
    from torchvision.models import resnet18  # takes a second, and a study of small networks needs none of it

    network: nn.Module = resnet18(weights=None)
    network.fc = Logits(512, num_classes)
    if model.weights != "none":
        _load_body(network, _pretrained(model.weights), model.weights)
    for name, layer in network.named_children():
        if model.trained_layers != ("all",) and name not in model.trained_layers:
            layer.requires_grad_(False)
            if model.frozen_batch_norm:
                setattr(network, name, _with_frozen_norms(layer))
    return network


def _with_frozen_norms(layer: nn.Module) -> nn.Module:
    """The layer with its batch normalizations, which may be itself, as FrozenBatchNorm2d of the same values."""
    if isinstance(layer, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(layer.num_features, eps=layer.eps, momentum=layer.momentum)
        frozen.load_state_dict(layer.state_dict())
        return frozen.requires_grad_(False).train()
    for name, child in layer.named_children():
        setattr(layer, name, _with_frozen_norms(child))
    return layer


def _load_body(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load everything but the last layer, which is new."""
    body = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    expected = {name: value.shape for name, value in network.state_dict().items() if not name.startswith("fc.")}
    problems = [
        *(f"{name} is missing" for name in sorted(expected.keys() - body.keys())),
        *(f"{name} is unexpected" for name in sorted(body.keys() - expected.keys())),
        *(
            f"{name} has shape {tuple(body[name].shape)}, not {tuple(expected[name])}"
            for name in sorted(expected.keys() & body.keys())
            if body[name].shape != expected[name]
        ),
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise DataError(
            f"model.weights: {source} does not hold the weights of a ResNet18: {shown}. "
            "Give a state dict of torchvision's resnet18"
        )
    network.load_state_dict(body, strict=False)


def _pretrained(weights: str) -> Mapping[str, Tensor]:
    if weights == "imagenet":
        return _imagenet_weights()
    path = Path(weights.removeprefix("file:")).expanduser()
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise DataError(f"model.weights: {path} cannot be read: {error.strerror}; give an existing file") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise DataError(f"model.weights: {path} is not a file of weights that torch.save wrote: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"model.weights: {path} holds no state dict (names to tensors); save `model.state_dict()`")
    return state


def _imagenet_weights() -> Mapping[str, Tensor]:
    from torchvision.models import ResNet18_Weights

    weights = ResNet18_Weights.IMAGENET1K_V1
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; or what came has another checksum
        name = weights.url.rsplit("/", 1)[-1]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise DataError(
            f"model.weights: cannot download torchvision's ImageNet weights ({error}). Fetch {weights.url} elsewhere "
            f"and put it at {folder / name}, or name any copy of it: `--weights PATH`, or model.weights: 'file:PATH' "
            "in a study of your own"
        ) from error
    return state


def _plugin(model: PluginModel, num_classes: int) -> nn.Module:
    module_name, _, function_name = model.factory.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise StudyError(
            f"model.factory: cannot import {module_name!r} ({error}); run from the folder that holds it, or install it"
        ) from error
    except AttributeError as error:
        raise StudyError(f"model.factory: module {module_name!r} has no function {function_name!r}") from error
    try:
        inspect.signature(factory).bind(num_classes=num_classes, **model.options)
    except TypeError as error:
        raise StudyError(
            f"model.options: {model.factory} cannot take them together with num_classes: {error}"
        ) from error
    network = factory(num_classes=num_classes, **model.options)
    if not isinstance(network, nn.Module):
        raise StudyError(
            f"model.factory: {model.factory} returned a {type(network).__name__}; it must return a torch.nn.Module"
        )
    return network
