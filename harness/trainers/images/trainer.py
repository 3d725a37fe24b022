"""The image trainer as the harness sees it: metrics, settings, options, costs. Training itself is in `train.py`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import StudyError
from harness.metrics import PERCENT, Metric, Metrics
from harness.names import suggestion
from harness.trainers.images import cost
from harness.trainers.images.data.cache import images_folder, import_images, open_images
from harness.trainers.images.data.sources import data_fingerprint, default_cache, images_key, load_images, parse_data
from harness.trainers.images.fingerprints import Fingerprints
from harness.trainers.images.machine import cuda_refusal, native_precision, precision_problem, winograd_advice
from harness.trainers.images.prepare import prepare
from harness.trainers.images.settings import Cifar10, Cifar100, ConvNet, Settings, parse_settings, with_overrides
from harness.trainers.run import Run
from harness.trainers.trainer import DeviceMemory, Exported, Trainer
from harness.trainers.trainer import Settings as AnySettings
from harness.trees import flatten

RECIPE = 1  # bumped whenever the meaning of training changes
METRICS = Metrics(
    tuple(
        metric
        for split in ("train", "val", "test")
        for metric in (
            Metric.declared(f"{split}/loss", "minimize", "nats"),
            Metric.declared(f"{split}/accuracy", "maximize", PERCENT),
        )
    ),
    select="val/accuracy",
    report="test/accuracy",
)


class ImageTrainer(Trainer):
    """Convolutional networks on labelled images, by the protocol of the 2022 report.

    Args:
        cache: of downloads and decoded images; $HARNESS_CACHE or ~/.cache/harness by default.
    """

    kind = "images"
    recipe = RECIPE
    metrics = METRICS
    warm_up = ("harness.trainers.images.train", "torch._dynamo")  # PyTorch's first optimizer imports the second
    notes_reads = False  # `readback.py` reads back what the built objects use
    checkpoint_rule = "at the checkpoint with the lowest validation loss"
    varied = "initial weights, order, augmentation and dropout"
    held = "the test images, the training images and the split off for validation"

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache
        self._fingerprints = Fingerprints(self.cache)

    @property
    def cache(self) -> Path:
        return self._cache or default_cache()

    @classmethod
    def from_study(cls, tree: Mapping[str, Any], root: Path) -> "ImageTrainer":
        """Raises StudyError for keys of a study that this trainer answers itself."""
        problems = [
            f"{key}: the image trainer declares its own; leave it out, or name another trainer."
            for key in ("metrics", "select", "report", "settings")
            if key in tree
        ]
        if problems:
            raise StudyError(*problems)
        return cls()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ImageTrainer":
        return cls()

    def parse(self, tree: Mapping[str, Any]) -> Settings:
        return parse_settings(tree)

    def varied_by(self, settings: AnySettings) -> tuple[str, str]:
        assert isinstance(settings, Settings)
        if settings.training.split_seed != "seed":
            return self.varied, self.held
        return f"{self.varied.replace(' and ', ', ')} and the split off for validation", "the test images"

    def example_pictures(self, settings: AnySettings, places: Sequence[int]) -> list[tuple[Any, str]]:
        assert isinstance(settings, Settings)
        if isinstance(settings.data, Cifar10 | Cifar100):  # a report downloads nothing
            arrays = open_images(self.cache, data_fingerprint(settings.data, cache=self.cache))
        else:
            arrays = load_images(settings.data, cache=self.cache)
        if arrays is None:
            return []
        return [(arrays.test_images[it], arrays.class_names[int(arrays.test_labels[it])]) for it in places]

    def train(self, run: Run) -> None:
        from harness.trainers.images.train import train

        train(run, cache=self.cache)

    def resolve(self, settings: AnySettings, *, device: str, options: Mapping[str, Any]) -> Settings:
        """`auto` becomes the native precision of the device; `filter_scale` multiplies every filter count of a
        `convnet` (at least 1), after the changes."""
        assert isinstance(settings, Settings)
        unknown = [name for name in options if name != "filter_scale"]
        if unknown:
            raise StudyError(*(f"trainer: unknown option {it!r}.{suggestion(it, ['filter_scale'])}" for it in unknown))
        if settings.training.precision == "auto":
            settings = with_overrides(settings, {"training.precision": native_precision(device)})
        if problem := precision_problem(settings.training.precision, device):
            raise StudyError(problem)
        return scale_filters(settings, options.get("filter_scale", 1.0))

    def overrides(self, name: str, value: Any) -> dict[str, Any]:
        if name == "data":
            return flatten({"data": parse_data(value)})
        if name == "epochs":
            return {"training.max_epochs": value}
        if name == "vary" and value == "split":
            return {"training.split_seed": "seed"}
        if name == "weights":
            return {"model.weights": f"file:{Path(value).expanduser().absolute()}"}
        return super().overrides(name, value)

    def fingerprints(self, settings: AnySettings) -> dict[str, str]:
        assert isinstance(settings, Settings)
        if self._cache is None and self._fingerprints.cache != self.cache:  # $HARNESS_CACHE was set meanwhile
            self._fingerprints = Fingerprints(self.cache)
        return self._fingerprints(settings)

    def prepare(self, settings: Iterable[AnySettings], *, store: Path) -> None:
        prepare([it for it in settings if isinstance(it, Settings)], cache=self.cache)

    def supply(self, settings: AnySettings, fingerprints: Mapping[str, str]) -> Path | None:
        assert isinstance(settings, Settings)
        folder = images_folder(self.cache, images_key(settings.data, fingerprints["data"]))
        return folder if folder.is_dir() else None

    def has_supply(self, name: str) -> bool:
        return open_images(self.cache, name) is not None

    def receive_supply(self, name: str, files: Mapping[str, Callable[[], memoryview]]) -> None:
        import_images(self.cache, name, files)

    def export(self, settings: AnySettings, *, seed: int, folder: Path) -> Exported:
        """The network with its preprocessing in front, exported (format pt2): it takes images with values in [0, 1] and
        gives logits; loading it executes no pickle and needs torch, but not this package."""
        import torch

        from harness.trainers.images.train import BEST_WEIGHTS_FILE
        from harness.trainers.images.trained import Classifier, load_network

        assert isinstance(settings, Settings)
        network, _, (height, width) = load_network(settings, seed, folder / BEST_WEIGHTS_FILE, cache=self.cache)
        model = Classifier(network, settings.preprocessing).eval()
        example = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))  # one would fix the batch
        with torch.no_grad():
            output = model(example).numpy()
        required = (f"torch=={torch.__version__.partition('+')[0]}",)
        return Exported(model, "pytorch", example.numpy(), output, required, {"serialization_format": "pt2"})

    def device_memory(self, device: str) -> DeviceMemory | None:
        if not device.startswith("cuda"):
            return None
        import torch

        free, total = torch.cuda.mem_get_info(device)
        held, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
        return DeviceMemory(free, total, held, peak)

    def device_problem(self, device: str) -> str:
        return cuda_refusal(device) if device.startswith("cuda") else ""

    def device_advice(self, device: str) -> str:
        lacking = winograd_advice() if device == "cpu" else ""
        return lacking and f"Convolutions are PyTorch's here, up to four times slower than this CPU allows: {lacking}."

    def threads(self, settings: AnySettings) -> int:
        assert isinstance(settings, Settings)
        return settings.training.threads

    def modelled_seconds(self, settings: AnySettings, *, device: str, share: float = 1.0) -> float:
        assert isinstance(settings, Settings)
        return cost.modelled_seconds(settings, device, share * settings.training.max_epochs)

    def probed_seconds(self, settings: AnySettings, *, device: str) -> float | None:
        from harness.trainers.images.probe import step_seconds

        assert isinstance(settings, Settings)
        kind = device.partition(":")[0]
        step = step_seconds(settings, device)
        slowness = step / cost.modelled_step_seconds(settings, kind) if step else None
        return slowness * self.modelled_seconds(settings, device=kind) if slowness else None

    def share_trained(self, settings: AnySettings, facts: Mapping[str, Any]) -> float:
        assert isinstance(settings, Settings)
        return float(facts.get("num_epochs", 0.0)) / settings.training.max_epochs

    def disk_bytes(self, settings: AnySettings) -> int:
        assert isinstance(settings, Settings)
        return cost.disk_bytes(settings)

    def expected_spread(self, settings: AnySettings) -> float:
        assert isinstance(settings, Settings)
        return cost.expected_spread(settings)

    def validations_per_epoch(self, settings: AnySettings) -> int:
        assert isinstance(settings, Settings)
        return settings.training.validations_per_epoch

    def max_epochs(self, settings: AnySettings) -> float:
        assert isinstance(settings, Settings)
        return float(settings.training.max_epochs)


def scale_filters(settings: Settings, factor: object) -> Settings:
    """Settings with every filter count of a `convnet` multiplied (at least 1); other models stay as they are.

    Raises:
        StudyError: the factor is no number in (0, 4].
    """
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor <= 4:
        raise StudyError(f"trainer.filter_scale: expected a number above 0, at most 4, not {factor!r}.")
    model = settings.model
    if factor == 1 or not isinstance(model, ConvNet):
        return settings
    scaled = model.model_copy(update={"filters": tuple(max(1, round(count * factor)) for count in model.filters)})
    return settings.model_copy(update={"model": scaled})
