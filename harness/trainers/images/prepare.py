"""What cells need from outside, fetched and checked once before any of them starts: images and pretrained weights.

Without them every single cell would fail, and several would download the same file at a time. Images that are decoded
already cost nothing here; torch is imported only for cells with pretrained weights.
"""

from collections.abc import Sequence
from pathlib import Path

from harness.trainers.images.data.sources import load_images
from harness.trainers.images.settings import ImageFolder, ResNet18, Settings, TorchvisionModel


def prepare(settings: Sequence[Settings], *, cache: Path) -> None:
    """Decodes (and downloads) the images that these settings name, reads (and downloads) their pretrained weights, and
    finds whether models that are named take images of that size.

    Args:
        cache: of decoded images.

    Raises:
        DataError: images or weights are missing, damaged or of another architecture, and cannot be downloaded.
        StoreError: the cache cannot be written. StudyError: a model does not take the images.
    """
    for data in dict.fromkeys(it.data for it in settings):
        load_images(data, cache=cache)
    weights = {it.model.weights: it.model for it in settings if isinstance(it.model, ResNet18)}
    for source, model in weights.items():
        if source != "none":
            from harness.trainers.images.models import build_model

            build_model(model, 10, image_size=(224, 224), seed=0)  # loads the weights; the network itself is not kept
    for named, side in dict.fromkeys((it.model, _side(it)) for it in settings):
        if isinstance(named, TorchvisionModel):
            from harness.trainers.images.models.torchvision import check_size

            check_size(named, 10, image_size=(side, side))


def _side(settings: Settings) -> int:
    stored = settings.data.image_size if isinstance(settings.data, ImageFolder) else 32
    return settings.preprocessing.resize or stored
