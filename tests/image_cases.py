"""A small cell for every change of the registry, every optimizer, and the report's Model 1: overrides by name."""

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
CASES |= {f"optimizer {name}": SHORT | {"optimizer.name": name} for name in ("sgd", "adam", "adamw", "adamax")}
CASES["momentum"] = SHORT | {"optimizer.momentum": 0.9}
CASES["model-1"] = {
    path: it
    for name in next(it for it in load_study("task3").combinations if it.name == "model-1").changes
    for path, it in CASES[name].items()
}
IS_SLOW = {it.name for it in load_study("task4").changes} - {"frozen-batch-norm"}  # one ResNet18 in bfloat16 suffices
PRECISIONS = [(name, "float32") for name in CASES]
PRECISIONS += [(name, "bfloat16") for name in CASES if name not in IS_SLOW]
PRECISIONS += [(name, "tf32") for name in ("batch-norm", "optimizer-adamax", "model-1")]
