"""A small network for small images, trained as fast as it goes: airbench94, with each of its features as a setting.

Written from the paper (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498), which adds
its features to one training one by one. `airbench.yaml` says what was made smaller. Images are N x 3 x H x W.
"""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import harness

NUM_CLASSES = 10
WHITENED_PATCHES = 2_000  # images whose patches are measured
SYNCHRONIZED = 5  # steps from one synchronization of the slow weights to the next


def train(run: harness.Run) -> None:
    torch.use_deterministic_algorithms(True)
    data = load_images(run.settings)
    training = Training(run, *data["train"])
    run.note(images=data["sha256"], parameters=sum(it.numel() for it in training.network.parameters()))
    start = training.resume(run.saved())
    for epoch in range(start, run.settings.epochs):
        training.train_epoch(epoch)
        run.log(epoch + 1, epoch=epoch + 1, **training.measure("val", *data["val"])[0])
        with run.saving() as path:
            torch.save(training.state(epoch + 1), path.open("wb"))
        if run.should_stop:
            return
    found, is_right = training.measure("test", *data["test"])
    run.finish(**{"test/accuracy": found["test/accuracy"]}, examples={"test/accuracy": is_right})


class Training:
    """A network, its optimizer and, with lookahead, its slow weights."""

    def __init__(self, run: harness.Run, images: Tensor, labels: Tensor) -> None:
        self.run, self.images, self.labels = run, images, labels
        settings, features = run.settings, run.settings.features
        torch.manual_seed(run.seed_for("weights"))
        self.network = build_network(settings.widths, whitening=features.whitening, dirac=features.dirac)
        if features.whitening:
            whiten(self.network[0], images[:WHITENED_PATCHES])
        self.steps_per_epoch = len(images) // settings.batch_size  # a last, shorter batch is dropped
        self.num_steps = settings.epochs * self.steps_per_epoch
        self.optimizer = make_optimizer(self.network, settings)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.share_of_rate)
        self.slow = copied(self.network) if features.lookahead else None

    def share_of_rate(self, step: int) -> float:
        """Triangular: from a fifth of the rate to all of it at 23% of the steps, then down to 7%."""
        return float(np.interp(step / self.num_steps, [0, 0.23, 1], [0.2, 1, 0.07]))

    def train_epoch(self, epoch: int) -> None:
        settings = self.run.settings
        self.network.train()
        is_early = epoch < settings.whitening_bias_epochs
        self.network[0].bias.requires_grad_(is_early or not settings.features.whitening)
        for images, labels in self.batches(epoch):
            loss = F.cross_entropy(self.scores(images), labels, label_smoothing=settings.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            if self.slow is not None:
                self.look_ahead(self.schedule.last_epoch)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        run, size = self.run, self.run.settings.batch_size
        order = torch.from_numpy(np.random.default_rng(run.seed_for("order", epoch)).permutation(len(self.images)))
        images = flipped(self.images, self.flips(epoch))
        images = translated(images, run.settings.translation, np.random.default_rng(run.seed_for("crop", epoch)))
        for batch in order[: self.steps_per_epoch * size].split(size):
            yield images[batch].contiguous(memory_format=torch.channels_last), self.labels[batch]

    def flips(self, epoch: int) -> Tensor:
        """Which images are mirrored: alternating, half of them by chance in epoch 0, the others in epoch 1, and so on, so
        that two epochs show each image both ways (section 3.6); or by chance in every epoch."""  # noqa: E501
        alternating = self.run.settings.features.alternating_flip
        seed = self.run.seed_for("flip", 0 if alternating else epoch)
        mirrored = torch.from_numpy(np.random.default_rng(seed).random(len(self.images)) < 0.5)
        return ~mirrored if alternating and epoch % 2 else mirrored

    @torch.no_grad()
    def look_ahead(self, step: int) -> None:
        """Slow weights follow the fast ones, which go on from there; they follow less and less (section 3.4). Buffers,
        which are running statistics, too. The last step ends on the slow weights."""
        assert self.slow is not None
        if step % SYNCHRONIZED and step != self.num_steps:
            return
        keep = 0.95**SYNCHRONIZED * (step / self.num_steps) ** 3
        for name, fast in self.network.state_dict().items():
            if fast.is_floating_point():
                fast.copy_(self.slow[name].lerp_(fast, 1 - keep))

    @torch.no_grad()
    def measure(self, split: str, images: Tensor, labels: Tensor) -> tuple[dict[str, float], np.ndarray]:
        """Metrics, and which images are right. Logits are means over views (section 3.5): the image and its mirror
        image; with multi-crop also both of them moved by a pixel to either corner, with half the weight."""
        self.network.eval()
        logits = torch.cat([self.logits(batch) for batch in images.split(500)])
        is_right = (logits.argmax(1) == labels).numpy()
        loss = float(F.cross_entropy(logits, labels))
        return {f"{split}/accuracy": float(is_right.mean()), f"{split}/loss": loss}, is_right

    def logits(self, images: Tensor) -> Tensor:
        straight = self.both_ways(images)
        if not self.run.settings.features.multicrop:
            return straight
        side, padded = images.shape[-1], F.pad(images, (1, 1, 1, 1), "reflect")
        corners = [self.both_ways(padded[..., at : at + side, at : at + side]) for at in (0, 2)]
        return straight / 2 + (corners[0] + corners[1]) / 4

    def both_ways(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return (self.scores(images) + self.scores(images.flip(3))) / 2

    def scores(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.run.settings.bfloat16):
            return self.network(images).float()

    def state(self, epoch: int) -> dict[str, object]:
        parts = {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}
        return {"epoch": epoch, "slow": self.slow} | {name: it.state_dict() for name, it in parts.items()}

    def resume(self, path: Path | None) -> int:
        """The epoch to go on with: after the last checkpoint, or 0."""
        if path is None:
            return 0
        state = torch.load(path, weights_only=True)
        for part in ("network", "optimizer", "schedule"):
            getattr(self, part).load_state_dict(state[part])
        self.slow = state["slow"]
        return int(state["epoch"])


def build_network(widths: tuple[int, ...], *, whitening: bool, dirac: bool) -> nn.Sequential:
    """A convolution of 2x2 patches, then a block a width (section 3.1). Without whitening the first convolution trains,
    and is normalized as all others are."""
    patches = 2 * 3 * 2 * 2  # twice the dimensions of a patch: each direction, and its opposite
    layers = [nn.Conv2d(3, patches, 2), *([] if whitening else [Norm(patches)]), nn.GELU()]
    for before, width in zip((patches, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.MaxPool2d(2), Norm(width), nn.GELU()]
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), Norm(width), nn.GELU()]
    network = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), Head(widths[-1], NUM_CLASSES, bias=False))
    if dirac:
        for layer in network[1:]:
            if isinstance(layer, nn.Conv2d):  # the first filters pass their inputs on (section 3.3)
                nn.init.dirac_(layer.weight.data[: layer.in_channels])
    return network.to(memory_format=torch.channels_last)


class Norm(nn.BatchNorm2d):
    """Batch normalization without a scale, whose statistics forget fast."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad_(False)


class Head(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) / 9


@torch.no_grad()
def whiten(layer: nn.Conv2d, images: Tensor) -> None:
    """The filters become the directions in which patches of the images vary, and their opposites, each scaled such that
    its output has variance one; they stay so (section 3.2)."""
    patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 3 * 2 * 2)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))
    filters = (directions / (variances + 5e-4).sqrt()).T.reshape(-1, 3, 2, 2)
    layer.weight.copy_(torch.cat([filters, -filters]))
    layer.weight.requires_grad_(False)
    layer.bias.zero_()


def make_optimizer(network: nn.Module, settings: Any) -> torch.optim.Optimizer:
    """Nesterov's momentum; with scalebias a rate for the shifts of batch normalizations that is 64 times as high
    (section 3.4), and a decay that takes as much away from them as before."""
    shifts = [it.bias for it in network.modules() if isinstance(it, Norm)]
    others = [it for it in network.parameters() if it.requires_grad and all(it is not shift for shift in shifts)]
    factor = 64 if settings.features.scalebias else 1
    rate, decay = settings.learning_rate, settings.weight_decay
    groups = [
        {"params": shifts, "lr": rate * factor, "weight_decay": decay / factor},
        {"params": others, "lr": rate, "weight_decay": decay},
    ]
    return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=True)


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def flipped(images: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def translated(images: Tensor, pixels: int, random: np.random.Generator) -> Tensor:
    """Each image moved by up to so many pixels each way; what it leaves open mirrors what is beside it."""
    moves = torch.from_numpy(random.integers(0, 2 * pixels + 1, (len(images), 2)))
    padded, side = F.pad(images, (pixels,) * 4, "reflect"), images.shape[-1]
    places = moves.unsqueeze(2) + torch.arange(side)  # N x 2 x side
    each = torch.arange(len(images)).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[each, places[:, 0, :, None], places[:, 1, None, :]].permute(0, 3, 1, 2)


def load_images(settings: Any) -> dict:
    """`train`, `val` and `test`, each images and labels, and the checksum of their pixels; the same for all seeds.

    As many of each class; those for validation follow the ones that train."""
    return _load_images(
        settings.data, settings.image_size, *(settings[f"{it}_images"] for it in ("train", "val", "test"))
    )


@functools.cache  # a worker trains many cells
def _load_images(data: str, size: int, num_train: int, num_val: int, num_test: int) -> dict:
    read = draw_images if data == "drawn" else functools.partial(read_images, Path(data))
    pixels = {"train": read("train", 0, num_train, size), "val": read("train", num_train, num_val, size)}
    pixels["test"] = read("test", 0, num_test, size)
    mean, std = (f(pixels["train"] / 255, axis=(0, 1, 2)) for f in (np.mean, np.std))
    digest = hashlib.sha256()
    loaded: dict = {}
    for split, bytes_ in pixels.items():
        digest.update(bytes_.tobytes())
        images = torch.from_numpy(((bytes_ / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
        loaded[split] = images.contiguous(), torch.arange(len(images)) % NUM_CLASSES
    return loaded | {"sha256": digest.hexdigest()}


def read_images(folder: Path, split: str, skip: int, count: int, size: int) -> np.ndarray:
    """Files of FOLDER/SPLIT/CLASS/ in the order of their names, one of each class in turn; N x H x W x 3.

    Raises:
        ValueError: there are not ten classes, or too few files.
    """
    of_classes = [sorted(it.iterdir()) for it in sorted((folder / split).iterdir())]
    files = [file for of_each in zip(*of_classes, strict=False) for file in of_each][skip : skip + count]
    if len(of_classes) != NUM_CLASSES or len(files) != count:
        raise ValueError(f"{folder / split} must hold {NUM_CLASSES} folders, and {skip + count} images in all")
    pictures = (Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BOX) for file in files)
    return np.stack([np.asarray(picture) for picture in pictures])


def draw_images(split: str, skip: int, count: int, size: int) -> np.ndarray:
    """Five patterns, coarse and fine, in any two colours and under noise; a mirror image is of the same class."""
    random = np.random.default_rng([("train", "test").index(split), skip])
    down, right = np.mgrid[:size, :size] / size
    pictures = []
    for number in range(count):
        pattern, is_fine = divmod(number % NUM_CLASSES, 2)
        y, x = down - random.random(), right - random.random()
        frequency = 2 * np.pi * (5 if is_fine else 3)
        tone = np.sin(frequency * [y, x, y, np.hypot(y, x), np.maximum(abs(y), abs(x))][pattern])
        if pattern == 2:  # a chequerboard
            tone = tone * np.sin(frequency * x)
        ground, colour = random.uniform(60, 190, (2, 3))
        picture = ground + (colour - ground) * (tone[..., None] > 0) + random.normal(0, 40, (size, size, 3))
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(pictures)
