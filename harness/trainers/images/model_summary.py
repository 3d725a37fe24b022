"""A variant's model in numbers, layer by layer: what `harness summary` prints.

The report's network is counted from its description, without torch (`layers.py`); any other one is built and watched
(`module_layers.py`). The tests hold both against what torch counts on the built module.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.errors import StudyError
from harness.names import suggestion
from harness.study.changes import combine
from harness.study.designs.comparisons import BASELINE
from harness.study.study import Study
from harness.trainers.images.layers import LayerRow, convnet_layers, layer_table
from harness.trainers.images.settings import (
    Cifar100,
    ConvNet,
    Data,
    ImageFolder,
    Model,
    ResNet18,
    Settings,
)
from harness.trainers.images.trainer import scale_filters
from harness.trees import flatten


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The layers of one model for images of one size.

    Attributes:
        rows: one a layer, in the order in which an image passes them.
        image_size: height and width of what the network sees, in pixels.
        parameters: of the whole model; trained_parameters: those that are not frozen.
        macs: multiply-accumulate operations for one image, counted as `LayerRow.macs` says.
    """

    rows: tuple[LayerRow, ...]
    image_size: tuple[int, int]
    parameters: int
    trained_parameters: int
    macs: int


def variant_settings(study: Study, variant: str, *, profile: str = "standard") -> Settings:
    """The settings of one variant of a study.

    Args:
        variant: `baseline`, a change, a combination, or names of changes joined by `+`.

    Raises:
        StudyError: the study trains no networks on images, has no such profile or change, or the changes exclude each
            other.
    """
    if not isinstance(study.baseline, Settings):
        raise StudyError(
            f"study {study.name!r} is trained by {study.trainer.kind!r}, whose networks the harness does not know; it "
            "counts those of the image trainer."
        )
    chosen = study.profile(profile)
    names = {combination.name: combination.changes for combination in study.combinations} | {BASELINE: ()}
    wanted = names.get(variant, tuple(variant.split("+")))
    changes = {change.name: change for change in study.changes}
    known = [*names, *changes]
    unknown = [name for name in wanted if name not in changes]
    if unknown:
        raise StudyError(
            *(f"study {study.name!r} has no variant {it!r}.{suggestion(it, known)}" for it in unknown),
            f"It has: {', '.join(known)}; changes may be joined by +.",
        )
    baseline = study.baseline.override(flatten(chosen.overrides))
    settings = combine(baseline, [changes[name] for name in wanted])
    assert isinstance(settings, Settings)
    return scale_filters(settings, chosen.trainer.get("filter_scale", 1.0))


def summarize_settings(settings: Settings) -> Summary:
    """The layers of the model of these settings, for their images.

    Raises:
        StudyError: the model does not fit the images, or a plug-in cannot be used.
        DataError: an image folder, whose classes have to be counted, is not there.
    """
    side = settings.preprocessing.resize or _stored_size(settings.data)
    return summarize(settings.model, _num_classes(settings.data), image_size=(side, side))


def summarize(model: Model, num_classes: int, *, image_size: tuple[int, int]) -> Summary:
    """The layers of a model. Weights move no count, so none are read or downloaded.

    Args:
        image_size: height and width of what the network sees, in pixels; the report's network takes squares here.

    Raises:
        StudyError: the model does not fit the images, or a plug-in cannot be used.
    """
    if isinstance(model, ConvNet):
        height, width = image_size
        assert height == width, image_size
        layers = convnet_layers(
            **model.model_dump(exclude={"kind", "initialization"}), image_size=height, num_classes=num_classes
        )
        rows = layer_table(layers, (3, height, width))
        parameters = trained = sum(row.parameters for row in rows)
    else:
        from harness.trainers.images.models import build_model
        from harness.trainers.images.module_layers import module_rows

        if isinstance(model, ResNet18):
            model = model.model_copy(update={"weights": "none"})
        module = build_model(model, num_classes, image_size=image_size, seed=0)
        rows = module_rows(module, image_size)
        parameters = sum(it.numel() for it in module.parameters())
        trained = sum(it.numel() for it in module.parameters() if it.requires_grad)
    return Summary(
        rows=rows,
        image_size=image_size,
        parameters=parameters,
        trained_parameters=trained,
        macs=sum(row.macs for row in rows),
    )


def _stored_size(data: Data) -> int:
    return data.image_size if isinstance(data, ImageFolder) else 32


def _num_classes(data: Data) -> int:
    if isinstance(data, ImageFolder):
        from harness.trainers.images.data.folder import list_folder

        return len(list_folder(Path(data.path).expanduser()).class_names)
    return 100 if isinstance(data, Cifar100) else 10
