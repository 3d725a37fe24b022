"""Checks of claims that need no results: the arithmetic of Task 1, and printed numbers held against each other.

Exact, without torch, at once. Measured numbers have no place here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log, sqrt

from harness.claims import Evidence, Finding, Value
from harness.claims.report.runs import image_settings
from harness.trainers.images.conv import Matrix, cross_correlate
from harness.trainers.images.conv_sizes import ReceptiveField, Window, receptive_fields, same_padding, solve_size
from harness.trainers.images.layers import LayerRow
from harness.trainers.images.model_summary import summarize_settings

IMAGE = ((1, 0, 2, 3, 1), (3, 2, 0, 7, 0), (0, 6, 1, 1, 4))  # of the assignment, as is the kernel
SOBEL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
TEST_IMAGES, VALIDATION_IMAGES, CLASSES = 10_000, 5_000, 10  # of CIFAR-10 in the report's protocol
STORED = (32, 32)  # height and width of its images


@dataclass(frozen=True, slots=True)
class Computed:
    """A value that follows from arithmetic alone: confirmed if it is what was printed, corrected otherwise.

    Attributes:
        compute: gives our value; how: the computation in words.
    """

    printed: Value
    compute: Callable[[], Value]
    how: str

    def __call__(self, evidence: Evidence) -> Finding:
        ours = self.compute()
        return judged(ours == self.printed, ours, self.how)


@dataclass(frozen=True, slots=True)
class Undecidable:
    """A claim that no computation decides; `reason` says why, and what there is instead."""

    printed: Value
    reason: str

    def __call__(self, evidence: Evidence) -> Finding:
        return Finding(status="not run", how=self.reason)


@cache
def convolved() -> Matrix:
    return cross_correlate(IMAGE, SOBEL, padding=1)


def convolved_size() -> Value:
    return convolved().shape


def convolved_row(number: int) -> Value:
    """A row, counted from 1."""
    return tuple(map(int, convolved()[number - 1]))


def padding_that_keeps_the_size(kernel: int) -> Value:
    return same_padding(kernel)


def kernel_that_gives(input_size: int, output_size: int) -> Value:
    return solve_size(input=input_size, output=output_size, padding=0, stride=1).kernel


def size_after(input_size: int, kernel: int, stride: int) -> Value:
    return solve_size(input=input_size, kernel=kernel, padding=0, stride=stride).output


@cache
def _baseline_layers() -> dict[str, LayerRow]:
    rows = summarize_settings(image_settings("task2")).rows
    return {row.layer: row for row in rows}


def parameters_of(layer: str) -> Value:
    """Of one layer of the baseline network, under its name in `harness summary --study task2`."""
    return _baseline_layers()[layer].parameters


def parameters_in_all() -> Value:
    return sum(row.parameters for row in _baseline_layers().values())


def shape_after(layer: str) -> Value:
    """Channels last, as the report writes it; (features,) once flattened."""
    channels, *sides = _baseline_layers()[layer].output_shape
    return (*sides, channels)


@cache
def resnet18_ends() -> tuple[ReceptiveField, ReceptiveField]:
    """The first and the last convolution of a ResNet18 on 224 pixels, along the path without shortcuts (He 2016)."""
    layers = [Window(3, stride, 1) for first in (1, 2, 2, 2) for stride in (first, 1, 1, 1)]
    fields = receptive_fields([Window(7, 2, 3), Window(3, 2, 1), *layers], 224)
    return fields[0], fields[-1]


@dataclass(frozen=True, slots=True)
class CoarserMaps:
    """Maps after the last convolution of a ResNet18 are coarser than after the first, and their cells see more."""

    printed: str = "much coarser, and each cell sees a larger area"

    def __call__(self, evidence: Evidence) -> Finding:
        first, last = resnet18_ends()
        assert first.output_size is not None
        assert last.output_size is not None
        ours = f"{last.output_size}x{last.output_size} cells that see {last.size} pixels each, "
        ours += f"against {first.output_size}x{first.output_size} that see {first.size}"
        holds = last.output_size < first.output_size and last.size > first.size
        return judged(holds, ours, "output sizes and receptive fields after the last and the first convolution")


@dataclass(frozen=True, slots=True)
class ResizedSides:
    """Height and width that images are resized to: a square image that is resized to one side stays square."""

    printed: tuple[int, int]

    def __call__(self, evidence: Evidence) -> Finding:
        side = image_settings("task4").preprocessing.resize
        assert side is not None
        height, width = STORED
        ours = (side, round(side * width / height))
        stretch = (self.printed[1] / width) / (self.printed[0] / height) - 1
        how = f"images of {height}x{width} resized to a side of {side} stay square, as the weights' own transform makes"
        how += f" them; {self.printed[0]}x{self.printed[1]} would stretch them by {100 * stretch:.0f}%"
        return judged(ours == self.printed, ours, how)


@dataclass(frozen=True, slots=True)
class LossOrAccuracy:
    """A number that is printed as a test loss: does it go with the loss or with the accuracy beside it?

    As a loss it is held against the training loss of the same weights: the network was fitted to the training images,
    so only chance can bring the test loss below. One image's loss is taken to spread as much as its mean (exact for an
    exponential law). As an accuracy it is held against the validation accuracy, by the binomial spread of both.
    """

    value: float
    train_loss: float
    val_accuracy: float

    @property
    def printed(self) -> str:
        return f"test loss {self.value:.4f}"

    def __call__(self, evidence: Evidence) -> Finding:
        variance = self.val_accuracy * (1 - self.val_accuracy) * (1 / TEST_IMAGES + 1 / VALIDATION_IMAGES)
        as_accuracy = abs(self.value - self.val_accuracy) / sqrt(variance)
        below = (self.train_loss - self.value) / (self.train_loss / sqrt(TEST_IMAGES))
        is_loss = below < 5 or as_accuracy > 2
        how = (
            f"as a loss it would lie {below:.0f} standard errors below the training loss ({self.train_loss:.4f}); as "
            f"an accuracy it lies {as_accuracy:.1f} from the validation accuracy ({self.val_accuracy:.4f})"
        )
        return judged(is_loss, f"test {'loss' if is_loss else 'accuracy'} {self.value:.4f}", how)


@dataclass(frozen=True, slots=True)
class LossBesideAccuracy:
    """A mean cross entropy beside an accuracy: can one network have both?

    Fano's inequality: the entropy of a label out of K, guessed with error e, is at most h(e) + e ln(K - 1), with
    h(e) = -e ln e - (1 - e) ln (1 - e). A network whose probabilities are right has that entropy as its cross entropy;
    above the bound they are wrong, however they are spread. On the images that it was trained on, training itself makes
    them right.

    Attributes:
        control: (loss, accuracy) of another network of the same table, which the bound has to let pass.
    """

    loss: float
    accuracy: float
    control: tuple[float, float]

    @property
    def printed(self) -> str:
        return f"loss {self.loss:.4f} at accuracy {self.accuracy:.4f}"

    def __call__(self, evidence: Evidence) -> Finding:
        bound = largest_loss(self.accuracy)
        control_loss, control_bound = self.control[0], largest_loss(self.control[1])
        assert control_loss <= control_bound
        how = (
            f"Fano's bound for {CLASSES} classes, which the table's other network keeps ({control_loss:.4f} of at most "
            f"{control_bound:.4f}); a loss of {self.loss:.4f} goes with an accuracy of at most "
            f"{largest_accuracy(self.loss):.2f}"
        )
        return judged(self.loss <= bound, f"loss at most {bound:.4f} at that accuracy", how)


def largest_loss(accuracy: float) -> float:
    """The largest cross entropy, in nats, of a network with this accuracy and right probabilities: see above.

    Source: Fano 1961; Cover and Thomas, "Elements of Information Theory", theorem 2.10.1.
    """
    error = 1 - accuracy
    return -sum(p * log(p) for p in (error, accuracy) if p > 0) + error * log(CLASSES - 1)


def largest_accuracy(loss: float) -> float:
    """The accuracy at which `largest_loss` is `loss`, by bisection: it falls from chance (ln K) to certainty (0)."""
    low, high = 1 / CLASSES, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if largest_loss(middle) > loss else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class CaptionAgainstTable:
    """A caption says that a network reached more than `bound`; a table prints that network's accuracies."""

    bound: float
    test_accuracy: float
    val_accuracy: float

    @property
    def printed(self) -> str:
        return f"> {self.bound:.2f}"

    def __call__(self, evidence: Evidence) -> Finding:
        spread = sqrt(self.test_accuracy * (1 - self.test_accuracy) / TEST_IMAGES)
        below = (self.bound - self.test_accuracy) / spread
        how = (
            f"for the same network Table 2 prints {self.test_accuracy:.4f} on the test images ({below:.0f} binomial "
            f"standard deviations below the caption) and {self.val_accuracy:.4f} on the validation images"
        )
        return judged(max(self.test_accuracy, self.val_accuracy) > self.bound, self.test_accuracy, how)


def judged(is_right: bool, ours: Value, how: str) -> Finding:
    """An exact finding."""
    return Finding(status="confirmed" if is_right else "corrected", ours=ours, how=how)
