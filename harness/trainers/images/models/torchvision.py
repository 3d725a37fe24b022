"""torchvision's classification models by name, with random weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from harness.errors import StudyError
from harness.names import suggestion
from harness.trainers.images.models.logits import Logits
from harness.trainers.images.settings import Option, TorchvisionModel

OWN = {
    "weights": "weights are random; pretrained ones are `kind: resnet18`, or a plugin of your own",
    "num_classes": "the data say how many classes there are",
    "progress": "nothing is downloaded",
}
# Second heads, which give training another output than evaluation, are left out.
WITHOUT_SECOND_HEADS = {"googlenet": {"aux_logits": False}, "inception_v3": {"aux_logits": False}}
# These two warn where nobody says whether weights are to be drawn slowly, as their authors did.
DRAWN = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}


class Head(Logits):
    """The last layer of a model that was asked for by name: by it a ResNet18 differs from `resnet18`'s."""


def check_name(name: str) -> None:
    """Raises ValueError: torchvision has no classification model of this name."""
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ValueError(f"unknown {name!r}.{suggestion(name, known)} `torchvision.models.list_models()` lists them")


def check_options(name: str, options: Mapping[str, Option]) -> None:
    """Builds the model once, without memory for weights.

    Raises:
        ValueError: the builder does not take them, or not with these values.
    """
    fixed = OWN | dict.fromkeys(WITHOUT_SECOND_HEADS.get(name, {}), "it is off")
    for option in options:
        if option in fixed:
            raise ValueError(f"{option} cannot be set: {fixed[option]}")
    try:
        _weightless(name, 10, options)
    except Exception as error:  # whatever torchvision's code does with arguments that it was not written for
        raise ValueError(f"{name} refuses: {type(error).__name__}: {error}") from None


def check_size(model: TorchvisionModel, num_classes: int, *, image_size: tuple[int, int]) -> None:
    """Sends one image without pixels through a network without weights.

    Raises:
        StudyError: the network does not take images of this size.
    """
    network = _weightless(model.name, num_classes, model.options).to("meta").eval()
    try:
        with torch.device("meta"), torch.no_grad():
            network(torch.zeros(1, 3, *image_size))
    except Exception as error:
        height, width = image_size
        raise StudyError(
            f"model.name: {model.name} cannot take images of {height}x{width} pixels ({error}). Set "
            "preprocessing.resize, or model.options.image_size where it has one"
        ) from None


def build_torchvision(model: TorchvisionModel, num_classes: int, *, image_size: tuple[int, int]) -> nn.Module:
    """Raises StudyError: the network does not take images of this size."""
    check_size(model, num_classes, image_size=image_size)
    network = _built(model.name, num_classes, model.options)
    _last_in_float32(network, num_classes)
    return network


class _WithoutWeights(TorchFunctionMode):
    """Weights, which modules ask `torch.empty` for, get no memory. Not all of torch on the meta device: some builders
    compute their sizes by tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _weightless(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    with _WithoutWeights():
        return _built(name, num_classes, options)


def _built(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    from torchvision.models import get_model

    fixed = WITHOUT_SECOND_HEADS.get(name, {}) | DRAWN.get(name, {})
    network: nn.Module = get_model(name, weights=None, num_classes=num_classes, **fixed, **options)
    return network


def _last_in_float32(network: nn.Module, num_classes: int) -> None:
    """The last fully connected layer as a `Head`, with its weights. (SqueezeNet ends in a convolution.)"""
    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.out_features == num_classes
    ]
    if places:
        parent, name, layer = places[-1]
        last = Head(layer.in_features, num_classes, bias=layer.bias is not None)
        last.load_state_dict(layer.state_dict())
        setattr(parent, name, last)
