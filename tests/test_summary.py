import json

import pytest
import torch
from click.testing import CliRunner
from schemas import fitting
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.cli.summary import summary as command
from harness.errors import StudyError
from harness.study.load import load_study, studies
from harness.trainers.images.model_summary import summarize, summarize_settings, variant_settings
from harness.trainers.images.models import build_model
from harness.trainers.images.module_layers import module_rows
from harness.trainers.images.settings import ConvNet, PluginModel, ResNet18, Settings


def every_variant() -> list[tuple[str, str]]:
    """(study, variant) of every built-in study: the baseline, each change, each combination."""
    loaded = [load_study(name) for name in studies()]
    return [
        (study.name, name)
        for study in loaded
        for name in ("baseline", *(it.name for it in study.changes), *(it.name for it in study.combinations))
    ]


def built(settings: Settings, image_size: tuple[int, int]) -> nn.Module:
    model = settings.model
    if isinstance(model, ResNet18):
        model = model.model_copy(update={"weights": "none"})
    return build_model(model, 10, image_size=image_size, seed=0).eval()


def test_every_built_in_study_is_counted():
    assert {study for study, _ in every_variant()} == set(studies())
    assert len(every_variant()) > 20


@pytest.mark.parametrize(("study", "variant"), every_variant())
def test_counts_equal_torchs_on_the_built_module(study, variant):
    settings = variant_settings(load_study(study), variant)
    counted = summarize_settings(settings)
    module = built(settings, counted.image_size)
    shapes, names = {}, {layer: name for name, layer in module.named_modules()}
    counting = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]

    def note(layer, inputs, output):
        shapes[names[layer]] = tuple(output.shape[1:])

    handles = [layer.register_forward_hook(note) for layer in counting]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, *counted.image_size))
    for handle in handles:
        handle.remove()
    flops = {name.partition(".")[2]: sum(it.values()) for name, it in counter.get_flop_counts().items()}

    with_macs = [row for row in counted.rows if row.macs]
    # torch's own counter counts a multiplication and an addition separately.
    assert [2 * row.macs for row in with_macs] == [flops[name] for name in shapes]
    assert [row.output_shape for row in with_macs] == list(shapes.values())
    assert 2 * counted.macs == counter.get_total_flops()
    own = [sum(it.numel() for it in layer.parameters(recurse=False)) for layer in module.modules()]
    assert sorted(row.parameters for row in counted.rows if row.parameters) == sorted(filter(None, own))
    assert counted.parameters == sum(row.parameters for row in counted.rows)
    assert counted.trained_parameters == sum(it.numel() for it in module.parameters() if it.requires_grad)


@pytest.mark.parametrize("pooling", ["max", "avg", "stride"])
@pytest.mark.parametrize("side", [21, 32])
def test_description_and_built_module_agree_layer_by_layer(pooling, side):
    """`layers.py` and the hooks on `models.py` are two descriptions of one network; identities hold nothing."""
    model = ConvNet(filters=(4, 6), pooling=pooling, batch_norm=True, batch_norm_fc=True, dropout=0.2)
    described = summarize(model, 10, image_size=(side, side)).rows
    watched = module_rows(build_model(model, 10, image_size=(side, side), seed=0), (side, side))

    def in_numbers(rows, kinds):
        return [
            (row.kind, row.output_shape, row.kernel, row.stride, row.parameters, row.macs)
            for row in rows
            if row.kind in kinds
        ]

    kinds = ("conv", "max-pool", "avg-pool", "batch-norm", "linear", "dropout")
    assert in_numbers(watched, kinds) == in_numbers(described, kinds)
    convolutions = [row.receptive_field for row in watched if row.kind == "conv"]
    assert convolutions == [row.receptive_field for row in described if row.kind == "conv"]


def test_resnet18_has_torchvisions_documented_size_and_the_known_receptive_field():
    counted = summarize(ResNet18(trained_layers=("all",)), 1000, image_size=(224, 224))

    # torchvision's documentation of ResNet18_Weights: 11,689,512 parameters, 1.81 GMACs.
    assert counted.parameters == counted.trained_parameters == 11_689_512
    assert counted.macs / 1e9 == pytest.approx(1.81, abs=0.005)
    rows = {row.layer: row for row in counted.rows}
    # By hand: 7, +2*2 = 11, +4*(4 of 4) = 43, +4*2 ... 435; Araujo et al. 2019 give the same.
    assert (rows["conv1"].receptive_field, rows["conv1"].total_stride) == (7, 2)
    assert (rows["layer4.1.conv2"].receptive_field, rows["layer4.1.conv2"].total_stride) == (435, 32)
    assert rows["layer4.1.conv2"].output_shape == (512, 7, 7)
    # The shortcut sees what reaches its block, no more.
    assert rows["layer2.0.downsample.0"].receptive_field == rows["layer1.1.conv2"].receptive_field == 43
    assert rows["fc"].receptive_field is None


def test_frozen_layers_count_as_parameters_that_do_not_train():
    counted = summarize(ResNet18(), 10, image_size=(64, 64))

    # layer4 by hand: 2304*512 + 3 * 4608*512 + 256*512 weights, 5 normalizations of 2*512; fc 513*10.
    assert counted.trained_parameters == 8_393_728 + 5_130
    assert counted.parameters == 11_181_642


class Twice(nn.Module):
    """One layer called twice, a functional operation, a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 2, (1, 3))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.conv(self.conv(x * self.scale.view(1, 3, 1, 1)))
        return self.last(self.dropout(torch.relu(x))).mean((2, 3))


def test_a_layer_that_is_called_twice_has_its_parameters_once_and_its_operations_twice():
    module = Twice()
    rows = {}
    for row in module_rows(module, (8, 8)):
        rows.setdefault(row.layer, []).append(row)

    assert [row.parameters for row in rows["conv"]] == [84, 0]  # (3*3*3 + 1) * 3
    assert [row.macs for row in rows["conv"]] == [8 * 8 * 3 * 27] * 2
    assert sum(row.parameters for calls in rows.values() for row in calls) == sum(
        it.numel() for it in module.parameters()
    )


def test_a_receptive_field_is_unknown_rather_than_wrong_behind_operations_that_are_no_modules():
    rows = module_rows(Twice(), (8, 8))

    assert {row.receptive_field for row in rows} == {None}  # the first operation is a product without a module
    assert rows[-2].kernel is None  # not square


def test_watching_leaves_the_module_as_it_was():
    module = build_model(ConvNet(batch_norm=True), 10, image_size=(32, 32), seed=0).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    module_rows(module, (32, 32))

    assert module.training
    assert all(it.training for it in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(it._forward_hooks for it in module.modules())


def test_a_plug_in_is_counted_too(monkeypatch, tmp_path):
    (tmp_path / "plugged.py").write_text(
        "from torch import nn\n"
        "def linear(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    counted = summarize(PluginModel(factory="plugged:linear"), 10, image_size=(32, 32))

    assert [(row.layer, row.kind, row.parameters, row.macs) for row in counted.rows] == [
        ("0", "flatten", 0, 0),
        ("1", "linear", 30_730, 30_720),
    ]


def test_the_profiles_filter_scale_and_resize_reach_the_counts():
    study = load_study("task3")

    quick = variant_settings(study, "model-1", profile="quick")

    assert quick.model.filters == (16, 32, 64)
    assert quick.model.batch_norm_fc


def test_joined_changes_are_a_variant_and_unknown_ones_are_named():
    study = load_study("task3")

    assert variant_settings(study, "kernel-3+batch-norm").model == ConvNet(kernel_size=3, batch_norm=True)
    with pytest.raises(StudyError) as error:
        variant_settings(study, "kernel-3+batchnorm")
    assert "has no variant 'batchnorm'. Did you mean 'batch-norm'?" in str(error.value)
    assert "model-2" in str(error.value)
    with pytest.raises(StudyError, match="exclude each other"):
        variant_settings(study, "kernel-3+kernel-7")
    with pytest.raises(StudyError, match="has no profile 'quik'"):
        variant_settings(study, "baseline", profile="quik")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_prints_every_layer_and_the_total():
    output = run("--study", "task3", "--variant", "model-1")

    rows = [line.split() for line in output.splitlines()]
    # Table 1 of the report, from the network itself.
    block = ["conv", "relu", "max-pool", "batch-norm"]
    head = ["flatten", "linear", "relu", "batch-norm", "dropout", "linear"]
    assert [row[1] for row in rows[2:-1]] == [*block, *block, *block, *head]
    assert rows[2][2:] == ["64x32x32", "5", "1", "1", "5", "4,864", "4,915,200"]
    assert rows[-1][:2] == [
        "total",
        f"{json.loads(run('--study', 'task3', '--variant', 'model-1', '--json'))['parameters']:,}",
    ]


def test_the_command_says_what_is_frozen():
    assert "8,398,858 parameters train, 2,782,784 are frozen." in run("--study", "task4")


def test_the_json_holds_the_same_rows():
    printed = fitting("summary", run("--study", "task2", "--json"))

    assert printed["parameters"] == 390_410
    assert printed["rows"][0]["layer"] == "conv1"
    assert printed["image_size"] == [32, 32]
