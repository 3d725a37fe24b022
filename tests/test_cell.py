"""Cells: equal computations have equal keys, different ones different keys, and a specification reads back."""

import json

import fakes
import pytest

from harness.errors import StoreError
from harness.plan.cell import KEY_LENGTH, Cell, make_cells
from harness.trainers.images.settings import Settings, with_overrides
from harness.trainers.images.trainer import ImageTrainer
from harness.trainers.trainer import Trainer
from harness.trees import flatten

SETTINGS = with_overrides(Settings(), {"training.precision": "float32"})
DATA = {"data": "abc"}
TRAINER = ImageTrainer()

# Another value for every setting of the baseline: each of them must move the key.
OTHER_VALUES = {
    "model.filters": [32, 64],
    "model.kernel_size": 3,
    "model.pooling": "avg",
    "model.batch_norm": True,
    "model.batch_norm_fc": True,
    "model.hidden_units": 32,
    "model.dropout": 0.1,
    "model.activation": "elu",
    "model.initialization": "xavier",
    "model.residual": True,
    "preprocessing.resize": 64,
    "preprocessing.mean": [0.5, 0.5, 0.4],
    "preprocessing.std": [0.25, 0.25, 0.2],
    "augmentation.crop_padding": 4,
    "augmentation.crop_size": 20,
    "augmentation.brightness": 0.1,
    "augmentation.rotation_degrees": 10,
    "augmentation.horizontal_flip": 0.5,
    "augmentation.vertical_flip": 0.5,
    "augmentation.grayscale": 0.5,
    "augmentation.cutout": 8,
    "augmentation.mixup": 0.2,
    "optimizer.name": "adam",
    "optimizer.learning_rate": 0.051,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-5,
    "optimizer.options": {"dampening": 0.1},
    "optimizer.schedule": "one-cycle",
    "optimizer.warmup_epochs": 1,
    "optimizer.gradient_clip": 1,
    "training.batch_size": 65,
    "training.max_epochs": 11,
    "training.validations_per_epoch": 1,
    "training.patience": 5,
    "training.validation_fraction": 0.2,
    "training.split_seed": 1,
    "training.precision": "bfloat16",
    "training.threads": 2,
    "training.label_smoothing": 0.1,
    "training.ema_decay": 0.99,
}


class NextRecipe(ImageTrainer):
    recipe = ImageTrainer.recipe + 1


def key(settings=SETTINGS, seed=0, fingerprints=DATA, trainer=TRAINER):
    (cell,) = make_cells(trainer, settings, [seed], fingerprints)
    return cell.key


def test_the_table_above_holds_every_setting():
    kinds = {"model.kind", "data.kind"}
    assert set(OTHER_VALUES) == set(flatten(SETTINGS.model_dump())) - kinds


@pytest.mark.parametrize("path", OTHER_VALUES)
def test_every_setting_moves_the_key(path):
    assert key(with_overrides(SETTINGS, {path: OTHER_VALUES[path]})) != key()


@pytest.mark.parametrize("kind", ["cifar100", "shapes"])
def test_the_kind_of_data_moves_the_key(kind):
    assert key(with_overrides(SETTINGS, {"data.kind": kind})) != key()


def test_seed_and_fingerprints_move_the_key():
    assert len({key(), key(seed=1), key(seed=11), key(fingerprints={"data": "abd"})}) == 4
    assert key(fingerprints=DATA | {"weights": "w"}) != key()


def test_the_recipe_moves_the_key():
    assert key(trainer=NextRecipe()) != key()


def test_the_order_of_fingerprints_does_not_move_the_key():
    assert key(fingerprints={"weights": "w", "data": "d"}) == key(fingerprints={"data": "d", "weights": "w"})


def test_where_files_lie_does_not_move_the_key_but_what_they_hold_does():
    here = with_overrides(SETTINGS, {"data.kind": "image-folder", "data.path": "/here"})
    there = with_overrides(SETTINGS, {"data.kind": "image-folder", "data.path": "/there"})
    assert key(here) == key(there)
    assert key(here, fingerprints={"data": "other images"}) != key(here)
    weights = [with_overrides(SETTINGS, {"model.kind": "resnet18", "model.weights": f"file:{it}.pt"}) for it in "ab"]
    assert key(weights[0]) == key(weights[1]) != key(with_overrides(SETTINGS, {"model.kind": "resnet18"}))


def test_a_number_has_one_key_however_it_is_written():
    assert key(with_overrides(SETTINGS, {"optimizer.weight_decay": 0, "optimizer.learning_rate": 5e-2})) == key()
    assert key(with_overrides(SETTINGS, {"model.filters": (32, 64, 128)})) == key()


def test_the_key_is_stable_over_processes_and_releases():
    """Recorded with recipe 1 of 0.1. Whoever changes these values makes everyone train every stored cell again."""
    assert key() == "4fd459b1fd2b0d36"
    adam = with_overrides(SETTINGS, {"optimizer.name": "adam", "model.batch_norm": True})
    assert key(adam, seed=7, fingerprints=DATA | {"weights": "w"}) == "74ce5d8c8e99e77c"
    assert len(key()) == KEY_LENGTH


def test_a_cell_reads_back_from_its_json():
    settings = with_overrides(SETTINGS, {"model.kind": "plugin", "model.factory": "a.b:c"})
    (cell,) = make_cells(TRAINER, settings, [7], DATA)
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


def test_a_cell_that_this_version_would_train_in_another_way_is_refused_with_both_recipes():
    (cell,) = make_cells(NextRecipe(), SETTINGS, [7], DATA)
    spec = cell.to_json() | {"trainer": TRAINER.to_json()}
    with pytest.raises(StoreError, match=rf"cell {cell.key}: .*recipe 2 there, 1 here.*cell {key(seed=7)}") as error:
        Cell.from_json(spec)
    assert "The old cell's result stays as it is; plan the study again" in str(error.value)


def test_an_edited_specification_is_noticed():
    (cell,) = make_cells(TRAINER, SETTINGS, [7], DATA)
    with pytest.raises(StoreError, match=cell.key):
        Cell.from_json(cell.to_json() | {"seed": 8})


def test_two_trainers_of_somebodys_own_never_share_a_cell():
    class One(fakes.FakeTrainer):
        identity = Trainer.identity

    class Two(One):
        pass

    (one,), (two,) = (fakes.cells_for(1, trainer()) for trainer in (One, Two))
    (images,) = make_cells(ImageTrainer(), fakes.FLOAT32, [0], {"data": "abc"})

    assert len({one.key, two.key, images.key}) == 3
