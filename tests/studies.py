"""A small study for tests of the pure spine: a group, two changes of one setting, two whose values clash."""

from harness.study.load import make_study
from harness.study.study import Study

TREE = {
    "name": "small",
    "title": "A small study",
    "baseline": {"data": {"kind": "shapes"}, "training": {"precision": "auto"}},
    "changes": [
        {"name": "momentum", "summary": "momentum 0.9", "overrides": {"optimizer.momentum": 0.9}},
        {"name": "adam", "summary": "Adam", "overrides": {"optimizer.name": "adam"}},
        {"name": "norm", "summary": "batch normalization", "overrides": {"model.batch_norm": True}},
        {"name": "kernel-3", "summary": "3x3", "group": "kernel", "overrides": {"model.kernel_size": 3}},
        {"name": "kernel-7", "summary": "7x7", "group": "kernel", "overrides": {"model.kernel_size": 7}},
        {"name": "flip", "summary": "flips", "overrides": {"augmentation.horizontal_flip": 0.5}},
        {
            "name": "augment",
            "summary": "flips and crops",
            "overrides": {"augmentation": {"horizontal_flip": 0.5, "crop_padding": 4}},
        },
    ],
    "combinations": [
        {"name": "best", "summary": "the best of all", "changes": ["flip", "norm", "adam"]},
        {"name": "other", "changes": ["kernel-3", "momentum"]},
    ],
    "paths": {"report": ["norm", "flip", "adam"], "short": ["kernel-7"]},
    "profiles": {
        "standard": {"seeds": 10},
        "quick": {
            "seeds": 2,
            "exploratory": True,
            "trainer": {"filter_scale": 0.25},
            "overrides": {"training.max_epochs": 3},
        },
    },
}


def small_study(**changed: object) -> Study:
    """The study above, with some of its top-level keys replaced."""
    return make_study(TREE | changed)


def change(name: str, **overrides: object) -> dict[str, object]:
    """A change as in a file; `a__b=1` overrides `a.b`."""
    return {
        "name": name,
        "summary": name,
        "overrides": {path.replace("__", "."): value for path, value in overrides.items()},
    }


def independent(count: int) -> Study:
    """A study of so many changes that can all stand together."""
    settings = ["model__batch_norm", "model__batch_norm_fc"]
    switches = [change(path.partition("__")[2].replace("_", "-"), **{path: True}) for path in settings]
    numbers = ["augmentation__horizontal_flip", "augmentation__vertical_flip", "augmentation__grayscale"]
    numbers += ["augmentation__brightness", "optimizer__weight_decay", "model__dropout"]
    fractions = [change(path.partition("__")[2].replace("_", "-"), **{path: 0.5}) for path in numbers]
    sizes = [change(f"size-{index}", **{path: 8}) for index, path in enumerate(SIZES)]
    changes = switches + fractions + sizes
    assert count <= len(changes)
    return small_study(changes=changes[:count], combinations=[], paths={})


SIZES = [
    "augmentation__crop_padding",
    "augmentation__crop_size",
    "augmentation__rotation_degrees",
    "model__hidden_units",
    "training__batch_size",
    "training__max_epochs",
    "training__patience",
    "training__split_seed",
    "preprocessing__resize",
]
