"""Settings: frozen, strict, ranges held; overrides by path; messages that say where and what."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.errors import StudyError
from harness.plan.cell import make_cells
from harness.problems import problems_of
from harness.study.changes import combine
from harness.study.load import load_study
from harness.trainers.images.settings import ADDED, KINDS, TAGGED, Settings, parse_settings, with_overrides
from harness.trainers.images.trainer import ImageTrainer
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
        ("optimizer.name", "lion", "unknown 'lion'. torch.optim has adadelta, adafactor, adagrad, adam"),
        ("optimizer.name", "adamv", "unknown 'adamv'. Did you mean 'adam"),
        ("optimizer.name", "lbfgs", "lbfgs needs the loss several times a step; choose one of adadelta"),
        ("optimizer.name", "muon", "takes matrices only"),
        ("optimizer.name", 3, "valid string"),
        ("optimizer.schedule", "step", "'constant', 'cosine' or 'one-cycle'"),
        ("optimizer.warmup_epochs", -1, "greater than or equal to 0"),
        ("optimizer.warmup_epochs", 10, "10 must be less than training.max_epochs, which is 10"),
        ("optimizer.gradient_clip", 0, "greater than 0"),
        ("model.activation", "swish", "'relu', 'leaky-relu', 'elu', 'gelu', 'silu' or 'tanh'"),
        ("model.initialization", "he", "'default', 'kaiming', 'xavier' or 'orthogonal'"),
        ("augmentation.cutout", -1, "greater than or equal to 0"),
        ("augmentation.mixup", -0.1, "greater than or equal to 0"),
        ("training.label_smoothing", 1.0, "less than 1"),
        ("training.ema_decay", 1.0, "less than 1"),
        ("model.dropout", 1.0, "less than 1"),
        ("model.dropout", -0.1, "greater than or equal to 0"),
        ("model.kernel_size", 4, "must be odd"),
        ("model.filters", [], "at least 1 item"),
        ("model.filters", [1] * 9, "at most 8 items"),
        ("model.filters", [32, 0], "greater than 0"),
        ("model.pooling", "mean", "'max', 'avg' or 'stride'"),
        ("model.kind", "vgg", "unknown 'vgg'; expected 'convnet', 'resnet18', 'torchvision', 'plugin'"),
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
        ("optimizer.schedule", True),
        ("model.residual", 1),
        ("augmentation.cutout", 2.5),
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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"options": [0.9]}, "must be names with values, not [0.9]"),
        ({"options.nesterov": True}, "sgd refuses: Nesterov momentum requires a momentum and zero dampening"),
        ({"options.nesterof": True}, "sgd takes no 'nesterof'. Did you mean 'nesterov'? It takes dampening, nes"),
        ({"options.nesterov": 1}, "nesterov must be true or false, not 1"),
        ({"options.dampening": True}, "dampening must be a number, not True"),
        ({"options.dampening": float("nan")}, "finite"),
        ({"options.lr": 0.1}, "lr has a setting of its own: optimizer.learning_rate"),
        ({"options.weight_decay": 0.1}, "weight_decay has a setting of its own: optimizer.weight_decay"),
        ({"options.fused": False}, "fused is chosen by the device; leave it out"),
        ({"name": "adam", "options.betas": [0.9]}, "betas must be a list of 2, such as [0.9, 0.999], not (0.9,)"),
        ({"name": "adam", "options.betas": [0.9, True]}, "betas[1] must be a number, not True"),
        ({"name": "adam", "options.betas": [0.9, 2]}, "adam refuses: Invalid beta parameter at index 1: 2.0"),
        ({"name": "rmsprop", "options.alpha": -1}, "rmsprop refuses: Invalid alpha value: -1.0"),
        ({"name": "adadelta", "momentum": 0.9}, "momentum 0.9 is set, but adadelta takes none"),
        ({"name": "rprop", "weight_decay": 0.1}, "weight_decay 0.1 is set, but rprop takes none"),
        ({"name": "rprop", "schedule": "cosine"}, "rprop uses the learning rate in its first step only"),
        (
            {"schedule": "one-cycle", "warmup_epochs": 1},
            "warmup_epochs 1 is set, but one-cycle has a warm-up of its own",
        ),
    ],
)
def test_what_an_optimizer_does_not_take_is_refused(overrides, message):
    (problem,) = problems({f"optimizer.{path}": value for path, value in overrides.items()})
    assert problem.startswith("optimizer")
    assert message in problem


def test_an_option_at_its_default_is_the_same_settings_as_none():
    plain = with_overrides(Settings(), {"optimizer.name": "adam"})
    said = {"optimizer.name": "adam", "optimizer.options": {"betas": [0.9, 0.999], "amsgrad": False, "eps": 1e-8}}
    assert with_overrides(Settings(), said) == plain
    assert hash(with_overrides(Settings(), said)) == hash(plain)
    other = with_overrides(Settings(), {"optimizer.name": "adam", "optimizer.options": {"betas": [0, 0.999]}})
    assert other.optimizer.options == {"betas": (0.0, 0.999)}
    assert parse_settings(json.loads(json.dumps(other.tree()))) == other
    assert hash(other) != hash(plain)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({}, "model.name: required, but missing"),
        ({"name": "resnet35"}, "model.name: unknown 'resnet35'. Did you mean 'resnet34'?"),
        ({"name": "resnet34", "options": {"width": 3}}, "model.options: resnet34 refuses: TypeError: "),
        ({"name": "resnet34", "options": {"weights": "DEFAULT"}}, "weights cannot be set: weights are random"),
        ({"name": "resnet34", "options": {"num_classes": 3}}, "num_classes cannot be set: the data say how many"),
        ({"name": "googlenet", "options": {"aux_logits": True}}, "aux_logits cannot be set: it is off"),
        (
            {"name": "resnet34", "options": {"groups": {"a": 1}}},
            "groups must be a truth value, a finite number, a text",
        ),
    ],
)
def test_a_model_of_torchvision_and_its_arguments_are_checked(model, message):
    found = problems({"model": {"kind": "torchvision"} | model})
    assert len(found) == 1
    assert message in found[0]


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
    other = {path: OTHER[path] for path in ADDED}
    everything = with_overrides(Settings(), {"optimizer.momentum": 0.5} | other)
    assert everything.identity() == everything.model_dump(mode="json")
    folder = with_overrides(Settings(), {"data.kind": "image-folder", "data.path": "x", "data.image_size": 64})
    assert folder.identity()["data"] == {"kind": "image-folder", "image_size": 64}
    weights = with_overrides(Settings(), {"model.kind": "resnet18", "model.weights": "file:x.pt"})
    assert weights.identity()["model"]["weights"] == "file"


# For each setting that came later, a value that is not the default.
OTHER = {
    "model.activation": "gelu",
    "model.initialization": "kaiming",
    "model.residual": True,
    "augmentation.cutout": 4,
    "augmentation.mixup": 0.2,
    "optimizer.options": {"nesterov": True},
    "optimizer.schedule": "cosine",
    "optimizer.warmup_epochs": 1.0,
    "optimizer.gradient_clip": 1.0,
    "training.label_smoothing": 0.1,
    "training.ema_decay": 0.99,
}
KEYS = Path(__file__).with_name("keys.json")


def first_key(settings):
    settings = with_overrides(settings, {"training.precision": "float32"})
    (cell,) = make_cells(ImageTrainer(), settings, [0], {"data": "planted"})
    return cell.key


def test_cells_keep_the_keys_that_they_had_before_settings_were_added():
    """`keys.json` was written before any of `ADDED` existed: study/profile/variant -> key of seed 0."""
    before = json.loads(KEYS.read_text())
    found = {}
    for place in before:
        name, profile, variant = place.split("/")
        study = load_study(name)
        names = {it.name: it.changes for it in study.combinations} | {"baseline": ()}
        baseline = study.baseline.override(flatten(study.profile(profile).overrides))
        changes = [study.change(it) for it in names.get(variant, (variant,))]
        found[place] = first_key(combine(baseline, changes))
    assert found == before
    assert len(found) == 48


def test_an_added_setting_is_no_part_of_the_identity_where_it_is_as_it_was_before():
    written = flatten(Settings().identity())
    assert not [path for path in written if path.startswith(tuple(ADDED))]
    assert Settings().identity().keys() == Settings().model_dump().keys()
    keys = {first_key(with_overrides(Settings(), {"optimizer.momentum": 0.5, path: OTHER[path]})) for path in ADDED}
    assert len(keys | {first_key(Settings())}) == len(ADDED) + 1


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
