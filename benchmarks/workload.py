"""The work that all contenders share: how much, synthetic images of CIFAR's size, a variant's settings.

The images are written once into a private cache under the name of CIFAR-10, so that the harness reads them by the way
that it always does, without a switch for benchmarks in it. Everybody else maps the same files.

Axes: N images, H rows, W columns, C channels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.plan.plan import make_plan
from harness.study.load import load_study
from harness.trainers.images.data.cache import ImageArrays, ImageChunks, store_images
from harness.trainers.images.data.sources import data_fingerprint, load_images
from harness.trainers.images.machine import Precision, native_precision
from harness.trainers.images.settings import Cifar10, Settings, with_overrides

CLASSES = 10
NEVER = 1_000_000  # validations
CHUNK = 2_500  # images drawn at a time: the peak memory of what starts processes counts as theirs on Linux


@dataclass(frozen=True)
class Workload:
    """How much is trained, on what. `scratch` is a folder that the caller removes.

    Attributes:
        num_images: training images, validation included; a fifth as many test images.
        epochs: each a pass over nine tenths of them, with two validations.
        stops_early: whether patience is the report's. Otherwise every training takes all epochs, so that all contenders
            and all cells of a study have the same work.
    """

    scratch: Path
    num_images: int
    epochs: int
    device: str
    stops_early: bool = False

    @property
    def cache(self) -> Path:
        return self.scratch / f"cache-{self.num_images}"

    @property
    def precision(self) -> Precision:
        return native_precision(self.device)

    @property
    def fingerprints(self) -> dict[str, str]:
        return {"data": data_fingerprint(Cifar10(), cache=self.cache)}

    def images(self) -> ImageArrays:
        return load_images(Cifar10(), cache=self.cache)

    def settings(self, variant: str) -> Settings:
        """Of a variant of `task3` (`baseline`, a change, a combination), with this workload's epochs and images."""
        plan = make_plan(
            load_study("task3"),
            fingerprints=lambda settings: self.fingerprints,
            device=self.device.partition(":")[0],
            designs=("add-one",) if variant == "baseline" else ("add-one", "combinations"),
            only=() if variant == "baseline" else (variant,),
        )
        (settings,) = (it.settings for it in plan.variants if it.name == variant)
        patience = settings.training.patience if self.stops_early else NEVER
        return with_overrides(settings, {"training.max_epochs": self.epochs, "training.patience": patience})


@dataclass(frozen=True)
class Request:
    """How large the measurement is.

    Attributes:
        processes: as many single-thread processes, and workers of a study, as cores; on CUDA as asked for.
        study_cells: seeds of the study.
        largest: most cells that are planned.
        real: an image folder for the comparison of accuracies, or None.
        real_epochs: the most epochs of that comparison.
        kept: the folder for what that comparison has found, so that a broken-off one goes on.
        kills: of the reliability trial, whose other troubles are in proportion.
        proposals: that `judge` itself judges, in streams of 300 at most.
        storms: on a Ray cluster; storm_cells: of the study in each.
        cluster_images: that a cluster is sent, where it was said how many.
        ends_at: figures of CUDA begin nothing that would take longer; by `time.monotonic`.
    """

    workload: Workload
    rounds: int
    processes: int
    study_cells: int
    largest: int
    real: Path | None
    real_epochs: int
    kept: Path
    kills: int
    proposals: int
    storms: int
    storm_cells: int
    cluster_images: int | None
    ends_at: float = math.inf


def write_images(workload: Workload) -> None:
    """Draws the images into the workload's cache."""
    train, test = workload.num_images, workload.num_images // 5
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 256, (CLASSES, 32, 32, 3), dtype=np.uint16)

    def labels(count: int) -> np.ndarray:
        return np.arange(count, dtype=np.int64) % CLASSES

    def chunks(count: int) -> Iterator[np.ndarray]:
        for start in range(0, count, CHUNK):
            yield _draw(labels(count)[start : start + CHUNK], patterns, generator)

    names = tuple(f"class {index}" for index in range(CLASSES))
    images = ImageChunks(chunks(train), labels(train), chunks(test), labels(test), names)
    store_images(workload.cache, images, workload.fingerprints["data"])


def _draw(labels: np.ndarray, patterns: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Mostly noise with a faint pattern of the class: there is something to learn, and not in a single step."""
    noise = generator.integers(0, 256, (len(labels), *patterns.shape[1:]), dtype=np.uint16)
    return ((9 * noise + patterns[labels]) // 10).astype(np.uint8)
