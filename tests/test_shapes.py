"""The drawn data set: the same bytes everywhere, balanced, and neither trivial nor hopeless."""

import hashlib
import math

import numpy as np
import pytest

from harness.trainers.images.data.shapes import (
    CHUNK,
    CLASS_NAMES,
    SHAPES,
    draw_shapes,
    shape_labels,
    shapes_fingerprint,
)
from harness.trainers.images.settings import Shapes

pytestmark = pytest.mark.slow

SMALL = Shapes(train_images=300, test_images=105)


def drawn(data=SMALL, split="train"):
    return np.concatenate(list(draw_shapes(data, split)))


def digests(images) -> set[str]:
    return {hashlib.sha256(image.tobytes()).hexdigest() for image in images}


def test_the_bytes_of_this_version_are_pinned():
    # Not derived: what version 1 drew on the day it was fixed. If this fails and the drawing was changed on purpose,
    # raise VERSION and put the new hash here; if nothing was changed, two machines would disagree about a data set.
    content = drawn().tobytes() + shape_labels(SMALL, "train").tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "d0f38fbd5e9f4d75"


def test_images_come_in_chunks_and_a_last_shorter_one():
    assert [part.shape for part in draw_shapes(SMALL, "train")] == [
        (CHUNK, 32, 32, 3),
        (CHUNK, 32, 32, 3),
        (300 - 2 * CHUNK, 32, 32, 3),
    ]
    assert drawn().dtype == np.uint8
    assert drawn().flags.c_contiguous


def test_drawing_twice_gives_the_same_images_and_another_seed_others():
    assert np.array_equal(drawn(), drawn())
    other = SMALL.model_copy(update={"seed": 1})
    assert not digests(drawn()) & digests(drawn(other))
    assert not np.array_equal(shape_labels(SMALL, "train"), shape_labels(other, "train"))


def test_all_images_differ_and_none_is_in_both_train_and_test():
    train, test = digests(drawn()), digests(drawn(split="test"))
    assert (len(train), len(test)) == (300, 105)
    assert not train & test


def test_classes_are_balanced_and_shuffled():
    labels = shape_labels(SMALL, "test")
    assert labels.dtype == np.int64
    assert sorted(np.bincount(labels, minlength=10)) == [10] * 5 + [11] * 5  # 105 images over ten classes
    assert len(CLASS_NAMES) == 10
    assert not np.array_equal(labels[:10], np.arange(10))


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disc", math.pi * 0.9**2),
        ("ring", math.pi * (0.98**2 - 0.5**2)),
        ("square", 1.5**2),
        ("triangle", 3 * math.sqrt(3) * 0.55**2),  # from the inradius
        ("hexagon", 2 * math.sqrt(3) * 0.86**2),
        ("cross", 2 * 1.9 * 0.6 - 0.6**2),
        ("heart", 1.04**2 + math.pi * 0.52**2),  # a square and two half discs on its edges
        # Pentagram with inradius r of its pentagon: ten triangles (centre, tip, dent), a tip at r / cos 72, a dent at
        # r / cos 36 degrees, 36 degrees apart.
        (
            "star",
            10 * 0.5 * 0.36**2 / math.cos(math.radians(72)) / math.cos(math.radians(36)) * math.sin(math.radians(36)),
        ),
    ],
)
def test_a_shape_has_the_area_that_geometry_gives_it(name, area):
    axis = ((np.arange(800) + 0.5) / 400 - 1).astype(np.float32) * np.float32(1.25)
    inside = SHAPES[name](axis[None, None, :], axis[None, :, None]) < 0
    assert inside.mean() * 2.5**2 == pytest.approx(area, rel=0.005)


def test_every_setting_of_the_drawing_moves_the_fingerprint():
    variants = [SMALL, *(SMALL.model_copy(update={key: 400}) for key in ("seed", "train_images", "test_images"))]
    assert len({shapes_fingerprint(data) for data in variants}) == 4
    assert shapes_fingerprint(SMALL) == shapes_fingerprint(Shapes(train_images=300, test_images=105, seed=0))


def test_a_linear_classifier_cannot_tell_the_shapes():
    data = Shapes(train_images=2000, test_images=500)
    (train, labels), (test, truth) = (
        (
            drawn(data, split).reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(-1, 192) / 255,
            shape_labels(data, split),
        )
        for split in ("train", "test")
    )
    train, test = (np.hstack([images, np.ones((len(images), 1))]) for images in (train, test))
    weights = np.linalg.lstsq(train, np.eye(10)[labels], rcond=None)[0]  # 4x4 block means: few enough not to overfit
    accuracy = (np.argmax(test @ weights, axis=1) == truth).mean()
    assert accuracy < 0.40


@pytest.mark.ordeal
def test_the_quick_baseline_lands_between_50_and_80_percent_and_a_real_change_shows(tmp_path):
    from fakes import recorded_run

    from harness.plan.plan import make_plan
    from harness.study.load import load_study
    from harness.trainers.images.train import train

    plan = make_plan(
        load_study("task3"),
        profile="quick",
        only=["batch-norm"],
        seeds=[0],
        overrides={"training.precision": "float32"},
        fingerprints=lambda settings: {"data": "shapes"},
    )

    def accuracy(cell):
        run = recorded_run(cell, tmp_path / cell.key)
        train(run, cache=tmp_path)
        return run.final["test/accuracy"]

    baseline, batch_norm = (accuracy(variant.cells[0]) for variant in plan.variants)

    assert 0.5 < baseline < 0.8
    assert batch_norm > baseline + 0.05
