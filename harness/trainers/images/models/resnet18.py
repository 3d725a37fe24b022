"""torchvision's ResNet18 with a new last layer, from weights of ImageNet, of a file, or at random."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from harness.errors import DataError
from harness.trainers.images.models.logits import Logits
from harness.trainers.images.settings import ResNet18


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that keeps its statistics: it stays in evaluation mode when its network trains."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        del mode
        super().train(False)
        return self


def build_resnet18(model: ResNet18, num_classes: int) -> nn.Module:
    """Raises DataError: pretrained weights are missing or are another network's."""
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
        if path.suffix == ".safetensors":
            state = load(path.read_bytes())
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise DataError(f"model.weights: {path} cannot be read: {error.strerror}; give an existing file") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, SafetensorError) as error:
        raise DataError(
            f"model.weights: {path} is not a file of weights that torch.save or safetensors wrote: {error}"
        ) from error
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
