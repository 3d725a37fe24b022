"""The network of an ended cell, with its best weights: for evaluation outside of training."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import StoreError
from harness.trainers.images.data.sources import load_images
from harness.trainers.images.models import build_model
from harness.trainers.images.models.logits import load_weights
from harness.trainers.images.settings import Preprocessing, Settings


def load_network(
    settings: Settings, seed: int, weights: Path, *, cache: Path
) -> tuple[nn.Module, tuple[str, ...], tuple[int, int]]:
    """A cell's network in float32, evaluation mode, on the CPU; the class names; and the images' height and width.

    Args:
        weights: `best.safetensors` in the cell's folder.
        cache: of decoded images, which say how many classes there are.

    Raises:
        StoreError: the weights are missing or are another network's.
        DataError: the cell's images are not there.
    """
    arrays = load_images(settings.data, cache=cache)
    height, width = arrays.train_images.shape[1:3]
    side = settings.preprocessing.resize
    seen = (side, side) if side else (height, width)
    model = settings.model
    if getattr(model, "weights", "none") != "none":  # they are overwritten below: nothing to download or read
        model = model.model_copy(update={"weights": "none"})
    network = build_model(model, len(arrays.class_names), image_size=seen, seed=seed)
    try:
        load_weights(network, load_file(weights))
    except (OSError, RuntimeError) as error:
        raise StoreError(
            f"{weights}: not the weights of cell {weights.parent.name} ({error}). Train the cell again."
        ) from None
    return network.eval(), arrays.class_names, (height, width)


class Classifier(nn.Module):
    """A network with its preprocessing in front: images (N, 3, H, W) in [0, 1] to logits (N, classes), float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.resize = preprocessing.resize
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images = (images - self.mean) / self.std
        if self.resize is not None:
            size = (self.resize, self.resize)
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        logits: Tensor = self.network(images)
        return logits
