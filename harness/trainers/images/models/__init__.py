"""Settings to an `nn.Module`, pure: the same settings and seed give the same weights on every device.

A file a kind: the report's convolutional network, torchvision's ResNet18, any model of torchvision, a user's own one.
How numbers are computed (precision, device) is `arithmetic.py`; what trains them is `train.py`.

Axes: N images, C channels, H rows, W columns; inputs are (N, 3, H, W), outputs are logits (N, num_classes).
"""

import torch
from torch import nn

from harness.trainers.images.models.convnet import ConvolutionalNetwork
from harness.trainers.images.models.plugin import build_plugin
from harness.trainers.images.models.resnet18 import build_resnet18
from harness.trainers.images.settings import ConvNet, Model, ResNet18, TorchvisionModel
from harness.trainers.images.streams import derive_seed


def build_model(model: Model, num_classes: int, *, image_size: tuple[int, int], seed: int) -> nn.Module:
    """The network that the settings describe, in float32 on the CPU, with fresh weights.

    Weights are PyTorch's default initialisation where the settings name no other, drawn from (seed, "weights"); the
    global random state is left alone.

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
            return build_resnet18(model, num_classes)
        if isinstance(model, TorchvisionModel):
            from harness.trainers.images.models.torchvision import build_torchvision

            return build_torchvision(model, num_classes, image_size=image_size)
        return build_plugin(model, num_classes)
