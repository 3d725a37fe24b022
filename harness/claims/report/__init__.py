"""The list: every claim of the computer-vision report of 2022, with the check that recomputes it.

Printed values stand here as they are printed, errors included; those that a study publishes (`published` in
`experiments/*.yaml`) are taken from there.
"""

from functools import partial

from harness.claims import Claim
from harness.claims.effects import Better, Biggest, ChangeEffect
from harness.claims.numbers import Bound, Gain, Number
from harness.claims.report.arithmetic import (
    CaptionAgainstTable,
    CoarserMaps,
    Computed,
    LossBesideAccuracy,
    LossOrAccuracy,
    ResizedSides,
    Undecidable,
    convolved_row,
    convolved_size,
    kernel_that_gives,
    padding_that_keeps_the_size,
    parameters_in_all,
    parameters_of,
    shape_after,
    size_after,
)
from harness.claims.report.training import Faster, NoOverfitting
from harness.study.load import load_study

# One run each on 10,000 test images: at an accuracy of 0.75, two of them differ by 0.006 (one standard deviation) from
# the drawing of the images alone. Less than 0.01 could not be noticed, so it does not count as a difference.
NOTICEABLE = 0.01


def report_claims() -> list[Claim]:
    """Every claim, in the order of the report."""
    return [*task_1(), *task_2(), *task_3(), *task_4()]


def task_1() -> list[Claim]:
    """The arithmetic of convolutions."""
    sliding = "cross-correlation with zero padding 1, what deep-learning libraries call convolution"
    rows = ((2, -1, 13, -1, -17), (10, -4, 8, 2, -18), (14, -1, -5, 6, -9))
    size = "(input - kernel + 2 padding) / stride + 1"
    layers = (
        ("conv1", 2432, "(5*5*3 + 1) * 32"),
        ("conv2", 4864, "(5*5*32 + 1) * 64: the input has 32 channels, not 3"),
        ("conv3", 9728, "(5*5*64 + 1) * 128: the input has 64 channels, not 3"),
        ("linear1", 131_136, "(2048 + 1) * 64"),
        ("linear2", 650, "(64 + 1) * 10"),
    )
    return [
        Claim(
            "convolution-size",
            "Task 1(a)",
            "with padding 1 the output is 3x5",
            Computed((3, 5), convolved_size, sliding),
        ),
        *(
            Claim(
                f"convolution-row-{number}",
                "Task 1(a)",
                f"row {number} of the convolved image",
                Computed(row, partial(convolved_row, number), sliding),
            )
            for number, row in enumerate(rows, start=1)
        ),
        Claim(
            "translation",
            "Task 1(b)",
            "(i) and (iii)",
            Undecidable(
                "(i) and (iii)", "the report prints the labels of the options, but neither them nor the question"
            ),
        ),
        Claim(
            "same-padding",
            "Task 1(c)",
            "padding 2 keeps the size with a kernel of 5x5",
            Computed(2, partial(padding_that_keeps_the_size, 5), "(kernel - 1) / 2"),
        ),
        Claim(
            "kernel-size",
            "Task 1(d)",
            "a kernel of 9x9 takes 512 to 504 pixels",
            Computed(9, partial(kernel_that_gives, 512, 504), f"solved {size}"),
        ),
        Claim(
            "pooled-size",
            "Task 1(e)",
            "pooling by 2 gives 252 pixels",
            Computed(252, partial(size_after, 504, 2, 2), size),
        ),
        Claim(
            "second-size",
            "Task 1(f)",
            "a kernel of 3x3 gives 250 pixels",
            Computed(250, partial(size_after, 252, 3, 1), size),
        ),
        *(
            Claim(
                f"parameters-{layer}",
                "Task 1(g)",
                f"parameters of {layer}",
                Computed(printed, partial(parameters_of, layer), how),
            )
            for layer, printed, how in layers
        ),
        Claim(
            "flattened-shape",
            "Task 1(g)",
            "after layer three the dimensions are 4x4x128",
            Computed((4, 4, 128), partial(shape_after, "max-pool3"), "32 pixels, halved three times"),
        ),
        Claim(
            "flattened-length",
            "Task 1(g)",
            "flattened, that is 2048 values",
            Computed((2048,), partial(shape_after, "flatten1"), "4 * 4 * 128"),
        ),
        Claim(
            "parameters-total",
            "Task 1(g)",
            "parameters in total",
            Computed(148_810, parameters_in_all, "the sum over the five layers"),
        ),
    ]


def task_2() -> list[Claim]:
    """The baseline."""
    return [
        *published("task2"),
        Claim(
            "test-loss",
            "Task 2b",
            "the test loss is 0.7422",
            LossOrAccuracy(0.7422, train_loss=0.8677, val_accuracy=0.7413),
        ),
    ]


def task_3() -> list[Claim]:
    """The changes, and the two networks that they lead to."""
    tried = ("optimizer-adamax", "filters-64-128-256", "batch-norm-fc", "l2-1e-5", "dropout-0.2")
    return [
        *published("task3"),
        Claim(
            "model-1-train-loss",
            "Table 2",
            "train loss 1.2585 beside train accuracy 0.9433 (Model 1)",
            LossBesideAccuracy(1.2585, 0.9433, control=(0.0791, 0.9782)),
        ),
        Claim(
            "model-1-caption",
            "Table 1",
            "the first network that reached more than 85% accuracy",
            CaptionAgainstTable(0.85, test_accuracy=0.7742, val_accuracy=0.7698),
        ),
        Claim(
            "model-2-over-80",
            "Figure 4",
            "Model 2 achieves over 80% test accuracy",
            Bound("task3", "model-2", "test/accuracy", 0.8),
        ),
        Claim("model-2-better", "Figure 2", "Model 2 is the better of the two", Better("task3", "model-2", "model-1")),
        Claim(
            "adamax-improves",
            "Task 3(c)",
            "improvement with Adamax",
            ChangeEffect("task3", "optimizer-adamax", "improves"),
        ),
        Claim("adamax-faster", "Task 3(c)", "Adamax converges faster than SGD", Faster("task3", "optimizer-adamax")),
        Claim(
            "filters-improve",
            "Task 3(c)",
            "improvement with more filters",
            ChangeEffect("task3", "filters-64-128-256", "improves"),
        ),
        Claim(
            "batch-norm-improves",
            "Task 3(c)",
            "a big improvement with batch normalization",
            ChangeEffect("task3", "batch-norm", "improves"),
        ),
        *(
            claim
            for name, change in (("l2", "l2-1e-5"), ("dropout", "dropout-0.2"))
            for claim in (
                Claim(
                    f"{name}-improves",
                    "Task 3(c)",
                    f"{name} improves the accuracy on the test set",
                    ChangeEffect("task3", change, "improves"),
                ),
                Claim(
                    f"{name}-not-learning",
                    "Task 3(c)",
                    f"{name} does not improve the learning (the training accuracy)",
                    ChangeEffect("task3", change, "no improvement", metric="train/accuracy", noticeable=NOTICEABLE),
                ),
            )
        ),
        *(
            Claim(name, "Task 3(c)", text, ChangeEffect("task3", change, "no improvement", noticeable=NOTICEABLE))
            for name, change, text in (
                ("kernel-3", "kernel-3", "smaller kernels do not improve"),
                ("kernel-7", "kernel-7", "larger kernels do not improve"),
                ("augmentation", "augment-harsh", "data augmentation does not improve"),
            )
        ),
        Claim(
            "augmentation-harsh",
            "Task 3(c)",
            "milder augmentation might have improved",
            ChangeEffect("task3", "augment-gentle", "improves"),
        ),
        *(
            Claim(name, "Task 3(c)", text, ChangeEffect("task3", name, "no difference", noticeable=NOTICEABLE))
            for name, text in (
                ("pooling-average", "other pooling makes no noticeable difference"),
                ("pooling-stride", "striding makes no noticeable difference"),
            )
        ),
        Claim(
            "batch-norm-biggest",
            "Task 3(d)",
            "batch normalization is the biggest improvement (alone, on the baseline)",
            Biggest("task3", "batch-norm", (*tried, "filters-128-256-512", "dropout-0.6")),
        ),
        Claim(
            "batch-norm-biggest-step",
            "Task 3(d)",
            "batch normalization is the biggest improvement (in the report's order)",
            Biggest("task3", "batch-norm", tried, design="path:report"),
        ),
        Claim(
            "batch-norm-gain",
            "Figure 3",
            "batch normalization takes the test accuracy from 0.7549 to 0.7789",
            Gain("task3", "path:report", "batch-norm", 0.0240),
        ),
        Claim(
            "no-over-fitting",
            "Task 3(f)",
            "Model 2 looks as if it did not over-fit yet",
            NoOverfitting("task3", "model-2"),
        ),
    ]


def task_4() -> list[Claim]:
    """The fine-tuned ResNet18."""
    by_eye = "judged by eye; `harness visualize activations` draws the maps"
    return [
        *published("task4"),
        Claim("resize", "Task 4(a)", "images are resized to 224x244", ResizedSides((224, 244))),
        Claim(
            "first-layer",
            "Task 4(b)",
            "the first layer finds local features, edges",
            Undecidable("local features", by_eye),
        ),
        Claim("last-layer-size", "Task 4(c)", "the last layer's maps are coarser, each cell sees more", CoarserMaps()),
        Claim(
            "last-layer",
            "Task 4(c)",
            "the last layer finds structures, bigger areas",
            Undecidable("bigger areas", by_eye),
        ),
    ]


def published(study: str) -> list[Claim]:
    """The numbers that a study publishes, those of another study's baseline apart."""
    return [
        Claim(
            f"{study}-{it.variant}-{it.metric}".replace("/", "-"),
            it.source,
            f"{it.metric.replace('/', ' ')} of {it.variant}",
            Number(study, it.variant, it.metric, it.value),
        )
        for it in load_study(study).published
        if not (study == "task3" and it.variant == "baseline")
    ]
