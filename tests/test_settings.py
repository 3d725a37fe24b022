"""Settings: frozen, strict, ranges held; overrides by path; messages that say where and what."""

import json

import pytest
from pydantic import ValidationError

from harness.errors import StudyError
from harness.problems import problems_of
from harness.trainers.images.settings import KINDS, TAGGED, Settings, parse_settings, with_overrides
from harness.trainers.trainer import SettingsError
from harness.trees import flatten


def problems(overrides, settings=None):
    with pytest.raises(ValidationError) as error:
        with_overrides(settings or Settings(), overrides)
    return problems_of(error.value, tagged=TAGGED, tags=KINDS)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimizer.learning_rate", 0, "input should be greater than 0"),
        ("optimizer.learning_rate", float("nan"), "finite"),
        ("optimizer.learning_rate", float("inf"), "finite"),
        ("optimizer.weight_decay", -1e-5, "greater than or equal to 0"),
        ("optimizer.name", "lion", "'sgd', 'adam', 'adamw' or 'adamax' (found 'lion')"),
        ("model.dropout", 1.0, "less than 1"),
        ("model.dropout", -0.1, "greater than or equal to 0"),
        ("model.kernel_size", 4, "must be odd"),
        ("model.filters", [], "at least 1 item"),
        ("model.filters", [1] * 9, "at most 8 items"),
        ("model.filters", [32, 0], "greater than 0"),
        ("model.pooling", "mean", "'max', 'avg' or 'stride'"),
        ("model.kind", "vgg", "unknown 'vgg'; expected 'convnet', 'resnet18', 'plugin'"),
        ("data.kind", "mnist", "unknown 'mnist'"),
        ("preprocessing.std", [0.2, 0.2, 0], "greater than 0"),
        ("preprocessing.mean", [0.2, 0.2], "field required"),
        ("augmentation.horizontal_flip", 1.5, "less than or equal to 1"),
        ("training.patience", 1, "greater than or equal to 2"),
        ("training.validation_fraction", 1, "less than 1"),
        ("training.max_epochs", 0, "greater than 0"),
        ("training.precision", "float16", "'auto', 'float32', 'tf32' or 'bfloat16'"),
    ],
)
def test_values_out_of_range_are_refused_with_their_path(path, value, message):
    found = problems({path: value})
    assert len(found) == 1
    assert found[0].startswith(path) or (path == "preprocessing.mean" and found[0].startswith("preprocessing.mean[2]"))
    assert message in found[0] or "required, but missing" in found[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("augmentation.horizontal_flip", True),  # `horizontal_flip: yes` must not mean always
        ("model.kernel_size", "3"),
        ("model.kernel_size", 3.0),
        ("model.batch_norm", 1),
        ("model.batch_norm", "no"),
        ("model.filters", [True, 2]),
        ("model.filters", 32),
        ("optimizer.learning_rate", "1e-3"),
        ("training.split_seed", None),
    ],
)
def test_types_are_not_guessed(path, value):
    (problem,) = problems({path: value})
    assert problem.startswith(path)


def test_a_whole_number_may_stand_for_a_fraction():
    assert with_overrides(Settings(), {"augmentation.rotation_degrees": 45}).augmentation.rotation_degrees == 45.0


def test_every_problem_is_found_at_once():
    found = problems({"model.dropout": 2, "training.patience": 0, "nonsense.deep": 1, "optimizer.lr": 1})
    assert len(found) == 4
    assert "nonsense: unknown key" in found
    assert "optimizer.lr: unknown key" in found


def test_momentum_is_sgds_alone():
    assert (
        "momentum 0.9 is set, but adam takes none" in problems({"optimizer.name": "adam", "optimizer.momentum": 0.9})[0]
    )


def test_another_kind_starts_from_its_own_defaults_whatever_the_order_of_the_paths():
    for overrides in (
        {"model.weights": "none", "model.kind": "resnet18"},
        {"model.kind": "resnet18", "model.weights": "none"},
    ):
        assert with_overrides(Settings(), overrides).model.model_dump() == {
            "kind": "resnet18",
            "weights": "none",
            "trained_layers": ("layer4", "fc"),
            "frozen_batch_norm": False,
        }


def test_the_same_kind_keeps_what_was_set():
    wide = with_overrides(Settings(), {"model.filters": [64]})
    assert with_overrides(wide, {"model.kind": "convnet"}) == wide


def test_an_empty_branch_overrides_nothing():
    adam = with_overrides(Settings(), {"optimizer.name": "adam", "optimizer.learning_rate": 1e-3})
    assert with_overrides(adam, flatten({"optimizer": {}})) == adam


@pytest.mark.parametrize("weights", ["imagenet21k", "file:", "/a/path"])
def test_weights_have_three_forms(weights):
    assert (
        "must be 'imagenet', 'none' or 'file:PATH'" in problems({"model.kind": "resnet18", "model.weights": weights})[0]
    )


def test_frozen_layers_must_exist():
    found = problems({"model.kind": "resnet18", "model.trained_layers": ["layer5", "fc"]})
    assert "unknown 'layer5'; ResNet18 has conv1" in found[0]
    everything = {"model.kind": "resnet18", "model.trained_layers": ["all"]}
    assert with_overrides(Settings(), everything).model.trained_layers == ("all",)


@pytest.mark.parametrize("factory", ["module", "module:", ":f", "a b:f", "a:f.g", "a:f "])
def test_a_plug_in_is_named_by_module_and_function(factory):
    assert "must be 'package.module:function'" in problems({"model.kind": "plugin", "model.factory": factory})[0]


def test_options_of_a_plug_in_are_plain_values():
    plugin = {"model.kind": "plugin", "model.factory": "my.nets:tiny"}
    options = {"depth": 3, "wide": True, "rate": 0.5, "name": "x"}
    made = with_overrides(Settings(), plugin | {f"model.options.{name}": value for name, value in options.items()})
    assert made.model.options == options
    assert [type(it) for it in made.model.options.values()] == [int, bool, float, str]
    for bad in (float("nan"), [1], None, {"a": {"b": 1}}):
        assert "truth value" in problems(plugin | {"model.options.x": bad})[0]


def test_settings_are_frozen_and_survive_json():
    settings = with_overrides(Settings(), {"data.kind": "image-folder", "data.path": "images", "model.filters": [8]})
    with pytest.raises(ValidationError, match="frozen"):
        settings.training.threads = 2
    assert Settings.model_validate(json.loads(json.dumps(settings.model_dump(mode="json")))) == settings


def test_the_identity_leaves_out_where_files_lie_and_nothing_else():
    assert Settings().identity() == Settings().model_dump(mode="json")
    folder = with_overrides(Settings(), {"data.kind": "image-folder", "data.path": "x", "data.image_size": 64})
    assert folder.identity()["data"] == {"kind": "image-folder", "image_size": 64}
    weights = with_overrides(Settings(), {"model.kind": "resnet18", "model.weights": "file:x.pt"})
    assert weights.identity()["model"]["weights"] == "file"


def test_flatten_gives_dotted_paths_to_leaves():
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e.f": 3, "g": {}}) == {"a.b.c": 1, "a.d": [2], "e.f": 3, "g": {}}


def test_a_tree_is_parsed_into_the_settings_that_it_came_from():
    settings = with_overrides(Settings(), {"model.kind": "resnet18", "data.kind": "shapes", "optimizer.momentum": 0.9})
    assert parse_settings(json.loads(json.dumps(settings.tree()))) == settings
    assert parse_settings({}) == Settings()


def test_parsing_finds_everything_wrong_at_once_with_its_place_and_the_nearest_key():
    with pytest.raises(SettingsError) as error:
        parse_settings({"model": {"kernel_size": 4}, "training": {"max_epoch": 3}, "optimizer": {"momentum": 2}})
    assert isinstance(error.value, StudyError)
    kernel, momentum, epochs = sorted(error.value.problems)
    assert kernel.startswith("model.kernel_size: must be odd")
    assert momentum.startswith("optimizer.momentum: input should be less than 1")
    assert epochs == "training.max_epoch: unknown key 'max_epoch'. Did you mean 'max_epochs'?"
    assert ("training", "max_epoch") in error.value.places
    assert len(error.value.places) == 3


def test_an_override_of_a_setting_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(
        SettingsError, match=r"unknown setting 'training.max_epoch'. Did you mean 'training.max_epochs'"
    ):
        Settings().override({"training.max_epoch": 3})
    with pytest.raises(SettingsError, match=r"training.patience: input should be greater than or equal to 2"):
        Settings().override({"training.patience": 1})
    assert Settings().override({"training.patience": 5}).training.patience == 5
