"""Task 4 end to end: a ResNet18 from a local file of weights, on few images; what trains, what stays, what it costs."""

import json
import weakref

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from planted import Arrays, batches_between, image_cell, trained
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn import functional as F

from harness.cli import cli
from harness.errors import DataError, StudyError
from harness.plan.plan import make_plan
from harness.study.load import load_study
from harness.trainers.images.arithmetic import Replica
from harness.trainers.images.data.batches import Preprocess, TrainingBatches, evaluation_batches, make_splits
from harness.trainers.images.fingerprints import Fingerprints
from harness.trainers.images.models import build_model
from harness.trainers.images.prepare import prepare
from harness.trainers.images.settings import Preprocessing, ResNet18, Settings, with_overrides
from harness.trainers.images.trainer import METRICS

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
STUDY = load_study("task4")
SIDE = 48  # in the place of 224, for speed


def few_images(train=96, test=24):
    """Ten classes of 32x32; class k is brighter in the k-th of ten stripes."""
    random = np.random.default_rng(0)

    def draw(count):
        labels = np.arange(count, dtype=np.int64) % 10
        pixels = random.integers(0, 160, (count, 32, 32, 3))
        for image, label in zip(pixels, labels, strict=True):
            image[3 * label : 3 * label + 3] += 90
        return pixels.astype(np.uint8), labels

    return Arrays(*draw(train), *draw(test), tuple("abcdefghij"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as torchvision's: a ResNet18 of 1,000 classes; statistics of its own, as after training."""
    from torchvision.models import resnet18

    torch.manual_seed(3)
    network = resnet18()
    for name, values in network.named_buffers():
        if name.endswith("running_mean"):
            values.normal_(0, 0.1)
        elif name.endswith("running_var"):
            values.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


def a_cell(weights, **overrides):
    """A cell of task4's own baseline, with a file of weights, small images and one epoch."""
    dotted = {path.replace("__", "."): value for path, value in overrides.items()}
    small = {"model.weights": f"file:{weights}", "preprocessing.resize": SIDE, "training.max_epochs": 1}
    small |= {"training.precision": "float32"}
    return image_cell(with_overrides(STUDY.baseline, small | dotted), weights="file")


@pytest.fixture(scope="module")
def train_once(weights, tmp_path_factory):
    """Trains each kind of cell once: its final metrics and the best weights."""
    done = {}

    def train(**overrides):
        key = tuple(sorted(overrides.items()))
        if key not in done:
            folder = tmp_path_factory.mktemp("cell")
            run = trained(a_cell(weights, **overrides), folder, few_images())
            done[key] = run.final, load_file(folder / "best.safetensors")
        return done[key]

    return train


def moved(trained_state, weights):
    """The top-level modules in which a value differs from the file: (parameters, statistics of batch normalization)."""
    before = torch.load(weights)
    names = [name for name in trained_state if not name.startswith("fc.") and "num_batches" not in name]
    different = [name for name in names if not torch.equal(trained_state[name], before[name])]
    statistics = {name.partition(".")[0] for name in different if "running" in name}
    return {name.partition(".")[0] for name in different if "running" not in name}, statistics


def test_frozen_parameters_do_not_move_and_trained_ones_do(train_once, weights):
    final, state = train_once()
    parameters, _ = moved(state, weights)

    assert final.keys() == set(METRICS.names)
    assert parameters == {"layer4"}
    before = torch.load(weights)
    own = [name for name in state if name.startswith("layer4") and "running" not in name and "num_batches" not in name]
    assert len(own) == 15  # 5 convolutions, 5 normalizations with a scale and a shift: every one of them moved
    assert not any(torch.equal(state[name], before[name]) for name in own)
    fresh = build_model(a_cell(weights).settings.model, 10, image_size=(SIDE, SIDE), seed=0)
    assert state["fc.weight"].shape == (10, 512)
    assert not torch.equal(state["fc.weight"], fresh.fc.weight)


@pytest.mark.parametrize("layers", [("fc",), ("all",)])
def test_a_change_of_the_trained_layers_moves_those(train_once, weights, layers):
    parameters, _ = moved(train_once(model__trained_layers=layers)[1], weights)
    assert parameters == (set() if layers == ("fc",) else {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"})


def test_statistics_of_frozen_layers_move_on_unless_they_are_frozen_too(train_once, weights):
    normalized = {"bn1", "layer1", "layer2", "layer3", "layer4"}
    as_in_the_report, frozen = train_once(), train_once(model__frozen_batch_norm=True)

    assert moved(as_in_the_report[1], weights)[1] == normalized
    assert moved(frozen[1], weights)[1] == {"layer4"}
    # It is another network for the same images, not a detail.
    assert abs(as_in_the_report[0]["val/loss"] - frozen[0]["val/loss"]) > 1e-3
    assert moved(frozen[1], weights)[0] == {"layer4"}


@pytest.mark.parametrize("frozen_batch_norm", [False, True])
def test_in_bfloat16_the_same_layers_train(weights, tmp_path, frozen_batch_norm):
    cell = a_cell(weights, training__precision="bfloat16", model__frozen_batch_norm=frozen_batch_norm)
    run = trained(cell, tmp_path, few_images(80, 10))
    parameters, statistics = moved(load_file(tmp_path / "best.safetensors"), weights)
    assert run.final.keys() == set(METRICS.names)
    assert parameters == {"layer4"}
    assert statistics == ({"layer4"} if frozen_batch_norm else {"bn1", "layer1", "layer2", "layer3", "layer4"})


def saved_bytes(model):
    """Bytes that one training step of a batch of 4 keeps for the gradients, weights themselves apart."""
    network = Replica(build_model(model, 10, image_size=(SIDE, SIDE), seed=0), "float32", is_known=True).network.train()
    own = {weight.data_ptr() for weight in network.parameters()}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = F.cross_entropy(network(torch.randn(4, 3, SIDE, SIDE)), torch.zeros(4, dtype=torch.int64))
    loss.backward()
    gradients = sum(weight.grad.numel() * 4 for weight in network.parameters() if weight.grad is not None)
    return sum(kept.values()), gradients


def test_frozen_layers_cost_no_gradient_memory():
    everything, all_gradients = saved_bytes(ResNet18(weights="none", trained_layers=("all",)))
    partly, gradients = saved_bytes(ResNet18(weights="none"))
    head, head_gradients = saved_bytes(ResNet18(weights="none", trained_layers=("fc",)))

    assert gradients == 4 * 8_398_858  # layer4 and fc
    assert head_gradients == 4 * 5_130
    assert all_gradients == 4 * 11_181_642
    # By hand, the input of layer4 for 4 images of 48 pixels: 256 x 3 x 3. Layers before it keep nothing.
    assert partly < 0.1 * everything
    assert head < 4 * (512 + 10 + 10) * 4 * 2


class Counting:
    """A preprocessing that knows how many of its results are alive."""

    def __init__(self, preprocess):
        self._preprocess, self.alive, self.most = preprocess, weakref.WeakSet(), 0

    def __call__(self, pixels):
        images = self._preprocess(pixels)
        self.alive.add(images)
        self.most = max(self.most, len(self.alive))
        return images


def test_resized_images_live_as_long_as_their_batch_and_are_never_all_kept():
    splits = make_splits(few_images(), fraction=0.1, seed=0, device=CPU)
    assert splits.train.images.pixels.shape[1:] == (32, 32, 3)
    assert splits.train.images.pixels.dtype == torch.uint8
    settings = Preprocessing(resize=SIDE)
    counting = Counting(Preprocess(settings, width=32, device=CPU, dtype=torch.float32))
    batches = TrainingBatches(splits.train, batch_size=8, edits=(), preprocess=counting, seed=0)
    for inputs, _ in batches_between(batches, 0, 2 * batches.steps_per_epoch):
        assert inputs.shape == (8, 3, SIDE, SIDE)
    for inputs, _ in evaluation_batches(splits.train, batch_size=8, preprocess=counting):
        assert inputs.shape[1:] == (3, SIDE, SIDE)
    assert counting.most <= 2  # the batch at hand, and the next one while it is made
    del inputs
    assert not counting.alive


def test_the_study_is_the_reports_task_4():
    baseline = STUDY.baseline
    assert baseline.model == ResNet18(weights="imagenet", trained_layers=("layer4", "fc"), frozen_batch_norm=False)
    assert (baseline.optimizer.name, baseline.optimizer.learning_rate) == ("adam", 5e-4)
    assert (baseline.training.batch_size, baseline.training.max_epochs, baseline.training.patience) == (32, 10, 4)
    assert baseline.preprocessing.resize == 224


def planned(profile, **request):
    return make_plan(STUDY, fingerprints=lambda settings: {"data": "few"}, profile=profile, **request)


def test_pretraining_and_freezing_are_each_measured_with_and_without_the_other():
    compared = {(it.variant, it.reference) for it in planned("standard").comparisons}
    assert {(("random-weights",), ()), (("full-fine-tuning",), ())} <= compared  # each alone
    both = ("random-weights", "full-fine-tuning")  # from-scratch
    assert {(both, ()), (both, ("full-fine-tuning",)), (both, ("random-weights",))} <= compared


def test_the_quick_profile_needs_no_weights_and_says_what_it_leaves_out():
    plan = planned("quick")
    assert {variant.settings.model.weights for variant in plan.variants} == {"none"}
    assert {variant.name for variant in plan.variants} == {
        "baseline",
        "full-fine-tuning",
        "head-only",
        "frozen-batch-norm",
    }
    assert plan.notes[0] == "profile quick leaves out random-weights, from-scratch."
    assert plan.exploratory
    with pytest.raises(StudyError, match="--only from-scratch: profile 'quick' leaves it out"):
        planned("quick", only=["from-scratch"])


def test_a_profile_that_leaves_out_what_does_not_exist_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: Mine\nbaseline: {data: {kind: shapes}}\nchanges: [batch-norm]\n"
        "profiles: {standard: {skip: [batchnorm]}}\n"
    )
    with pytest.raises(StudyError, match=r"skip: unknown change 'batchnorm'\. Did you mean 'batch-norm'"):
        load_study(path)


def layers_of(*names, frozen_batch_norm=False):
    overrides = {"model.kind": "resnet18", "model.trained_layers": names, "model.frozen_batch_norm": frozen_batch_norm}
    return with_overrides(Settings(), overrides).model.trained_layers


def test_one_set_of_trained_layers_has_one_spelling():
    """Otherwise one computation would have two keys."""
    assert layers_of("fc", "layer4") == layers_of("layer4", "fc", "fc") == ("layer4", "fc")
    assert layers_of("fc", "layer4", "layer3", "layer2", "layer1", "bn1", "conv1") == ("all",)
    with pytest.raises(ValidationError, match="'all' beside others"):
        layers_of("all", "fc")


@pytest.mark.parametrize("names", [("all",), ("bn1", "layer1", "layer2", "layer3", "layer4", "fc")])
def test_freezing_batch_norms_of_layers_that_train_is_refused(names):
    assert layers_of("layer4", "fc", frozen_batch_norm=True)
    with pytest.raises(ValidationError, match="leave no batch normalization frozen"):
        layers_of(*names, frozen_batch_norm=True)


def test_what_is_missing_is_found_before_any_cell_starts(tmp_path, weights):
    shapes = {"data__kind": "shapes", "data__train_images": 100, "data__test_images": 10}
    prepare([a_cell(weights, **shapes).settings], cache=tmp_path)
    with pytest.raises(DataError, match=r"model.weights: .*missing.pth cannot be read"):
        prepare([a_cell(tmp_path / "missing.pth", **shapes).settings], cache=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        prepare(
            [a_cell(weights, data__kind="image-folder", data__path=str(tmp_path / "none")).settings], cache=tmp_path
        )


def test_weights_of_another_architecture_are_refused_before_any_cell_starts(tmp_path):
    from torchvision.models import resnet34

    path = tmp_path / "resnet34.pth"
    torch.save(resnet34().state_dict(), path)
    cell = a_cell(path, data__kind="shapes", data__train_images=100, data__test_images=10)
    with pytest.raises(DataError, match=r"resnet34.pth does not hold the weights of a ResNet18: .* is unexpected"):
        prepare([cell.settings], cache=tmp_path)


def test_weights_are_named_by_content_so_that_another_file_is_another_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    names = Fingerprints(tmp_path / "cache")
    found = []
    for content in (b"one", b"two", b"one"):
        path = tmp_path / f"{len(found)}.pth"
        path.write_bytes(content)
        settings = with_overrides(STUDY.baseline, {"model.weights": f"file:~/{path.name}"})
        found.append(names(settings)["weights"])
    assert found[0] == found[2] != found[1]


def test_a_local_file_of_weights_takes_the_place_of_the_download(tmp_path, weights):
    request = ["plan", "--study", "task4", "--data", "shapes", "--json", "--store", str(tmp_path)]
    by_default = CliRunner().invoke(cli, request, catch_exceptions=False)
    local = CliRunner().invoke(cli, [*request, "--weights", str(weights)], catch_exceptions=False)
    assert json.loads(by_default.stdout)["baseline"]["model"]["weights"] == "imagenet"
    assert json.loads(local.stdout)["baseline"]["model"]["weights"] == f"file:{weights}"
    assert json.loads(local.stdout)["id"] != json.loads(by_default.stdout)["id"]
    missing = CliRunner().invoke(cli, [*request, "--weights", str(tmp_path / "none.pth")])
    assert missing.exit_code == 2
    assert "none.pth cannot be read" in missing.output
