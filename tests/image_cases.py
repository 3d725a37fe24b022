"""A small cell for every change of the registry, every setting and optimizer, and the report's Model 1: overrides by
name."""

from typing import Any

from harness.study.load import load_study, registry

SHORT = {"training.max_epochs": 2}
# What a change says, on images and networks that are small enough.
SMALL = {
    "filters-64-128-256": {"model.filters": (8, 12)},
    "filters-128-256-512": {"model.filters": (16, 24)},
    "augment-harsh": {"augmentation.crop_size": 5},
}
# Not 16 pixels, which leave 1x1 to the last stage: there PyTorch's CPU (2.15) gives a 3x3 kernel with stride 2 a
# gradient in bfloat16 that it has not written to the end; NaN, every few runs.
RESNET18 = {
    "model": {"kind": "resnet18", "weights": "none"},
    "preprocessing.resize": 32,
    "training.max_epochs": 1,
    "training.batch_size": 80,
}


def overrides_of(name: str) -> dict[str, Any]:
    change = registry()[name].overrides
    if name in {it.name for it in load_study("task4").changes}:
        kept = {path: it for path, it in change.items() if path != "model.weights"}
        model = RESNET18["model"] | {path.removeprefix("model."): it for path, it in kept.items()}
        return RESNET18 | {"model": model}
    return SHORT | change | SMALL.get(name, {})


CASES: dict[str, dict[str, Any]] = {name: overrides_of(name) for name in registry()}
OPTIMIZERS = (
    *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw"),
    *("asgd", "nadam", "radam", "rmsprop", "rprop", "sgd"),
)
RATE = {"optimizer.learning_rate": 0.01}
CASES |= {f"optimizer {name}": SHORT | {"optimizer.name": name} for name in OPTIMIZERS}
CASES["momentum"] = SHORT | {"optimizer.momentum": 0.9}
# Each makes another network of the same cell.
SETTINGS: dict[str, dict[str, Any]] = {
    "cosine": {"optimizer.schedule": "cosine"},
    "one-cycle": {"optimizer.schedule": "one-cycle"},
    "warm-up": {"optimizer.warmup_epochs": 0.75},
    "cosine with warm-up": {"optimizer.schedule": "cosine", "optimizer.warmup_epochs": 0.5},
    "clipped": {"optimizer.gradient_clip": 0.1},
    "options": {"optimizer.momentum": 0.9, "optimizer.options": {"nesterov": True}},
    "smoothing": {"training.label_smoothing": 0.2},
    "averages": {"training.ema_decay": 0.9},
    "averages of statistics": {"training.ema_decay": 0.9, "model.batch_norm": True},
    "cutout": {"augmentation.cutout": 3},
    "mixup": {"augmentation.mixup": 0.4},
    "residual": {"model.residual": True},
    "residual with batch norm": {"model.residual": True, "model.batch_norm": True},
    **{f"activation {it}": {"model.activation": it} for it in ("leaky-relu", "elu", "gelu", "silu", "tanh")},
    "gelu and average": {"model.activation": "gelu", "model.pooling": "avg"},
    **{f"initialization {it}": {"model.initialization": it} for it in ("kaiming", "xavier", "orthogonal")},
    "everything": {
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 0.01,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_epochs": 0.5,
        "optimizer.gradient_clip": 1.0,
        "optimizer.options": {"betas": [0.9, 0.99]},
        "training.label_smoothing": 0.1,
        "training.ema_decay": 0.9,
        "augmentation.crop_padding": 1,
        "augmentation.cutout": 2,
        "augmentation.mixup": 0.2,
        "model.residual": True,
        "model.batch_norm": True,
        "model.activation": "silu",
        "model.initialization": "kaiming",
        "model.dropout": 0.2,
    },
}
CASES |= {name: SHORT | it for name, it in SETTINGS.items()}
CASES |= {
    f"cosine {name}": SHORT | RATE | {"optimizer.name": name, "optimizer.schedule": "cosine"}
    for name in OPTIMIZERS
    if name != "rprop"
}
# Small ones of different make: batch norms, depthwise convolutions, layer norms and attention, no linear layer.
TORCHVISION = {
    "mobilenet_v2": {"dropout": 0.0},
    "shufflenet_v2_x0_5": {},
    "squeezenet1_1": {},
    "resnet18": {"width_per_group": 64, "norm_layer": None},
}
CASES |= {
    f"torchvision {name}": {
        "model": {"kind": "torchvision", "name": name, "options": options},
        "preprocessing.resize": 32,
        "training.max_epochs": 1,
        "training.batch_size": 80,
    }
    for name, options in TORCHVISION.items()
}
CASES["model-1"] = {
    path: it
    for name in next(it for it in load_study("task3").combinations if it.name == "model-1").changes
    for path, it in CASES[name].items()
}
# A CUDA device computes the rate in float32, or a step size on the device that the CPU computes on the host.
IS_CLOSE = {
    *(name for name, it in CASES.items() if {"optimizer.schedule", "optimizer.warmup_epochs"} & it.keys()),
    *(f"optimizer {name}" for name in ("adafactor", "adagrad", "adamax", "asgd", "nadam", "radam")),
    *(
        "optimizer-adamax",
        "model-1",
        "model-2",
        "activation silu",
        "torchvision shufflenet_v2_x0_5",
        "torchvision mobilenet_v2",
    ),
}
# On CUDA: what trains before a max pooling of 3x3 with stride 2.
UNREPEATABLE = {
    "full-fine-tuning",
    *("torchvision resnet18", "torchvision shufflenet_v2_x0_5", "torchvision squeezenet1_1"),
}
# Of torch's optimizers: one reads norms in each step, one makes numbers of the device in its first.
WAITS = {
    f"{kind} {name}": CASES[f"{kind} {name}"] for kind in ("optimizer", "cosine") for name in ("adafactor", "asgd")
}
IS_SLOW = {it.name for it in load_study("task4").changes} - {"frozen-batch-norm"}  # one ResNet18 in bfloat16 suffices
PRECISIONS = [(name, "float32") for name in CASES]
NOT_IN_BFLOAT16 = ("cosine ", "optimizer ", "initialization ", "activation ", "torchvision ")
PRECISIONS += [(name, "bfloat16") for name in CASES if name not in IS_SLOW and not name.startswith(NOT_IN_BFLOAT16)]
PRECISIONS += [(name, "tf32") for name in ("batch-norm", "optimizer-adamax", "model-1")]
