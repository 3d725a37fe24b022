import pytest
import torch
from click.testing import CliRunner
from own import train_study, write_study
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from harness.api.work import save_manifest
from harness.cli import cli
from harness.errors import DataError, StudyError
from harness.study.load import load_study
from harness.trainers.images.model_summary import variant_settings
from harness.trainers.images.models import build_model
from harness.trainers.images.models.convnet import ACTIVATIONS, Block, ConvolutionalNetwork
from harness.trainers.images.models.logits import load_weights
from harness.trainers.images.models.resnet18 import FrozenBatchNorm2d
from harness.trainers.images.models.torchvision import check_options, check_size
from harness.trainers.images.settings import ConvNet, PluginModel, ResNet18, TorchvisionModel
from harness.trainers.images.streams import derive_seed


def convnet(seed: int = 0, *, side: int = 32, **settings: object) -> ConvolutionalNetwork:
    network = build_model(ConvNet(**settings), 10, image_size=(side, side), seed=seed)
    assert isinstance(network, ConvolutionalNetwork)
    return network


def images(count: int = 5, side: int = 32, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, side, side, generator=generator)


def test_the_baseline_has_the_390410_parameters_of_the_assignment():
    # (5*5*3+1)*32 + (5*5*32+1)*64 + (5*5*64+1)*128 + (128*4*4+1)*64 + (64+1)*10
    assert sum(weight.numel() for weight in convnet().parameters()) == 390_410


def test_blocks_are_convolution_relu_pooling_then_batch_norm():
    """Against the same layers written out in the order of the report's tables."""
    network = convnet(batch_norm=True, batch_norm_fc=True, filters=(4, 6)).train()
    x = expected = images()
    for block in network.blocks:
        expected = F.max_pool2d(F.relu(F.conv2d(expected, block.conv.weight, block.conv.bias, padding=2)), 2)
        expected = F.batch_norm(expected, None, None, block.norm.weight, block.norm.bias, training=True)
    expected = expected.permute(0, 2, 3, 1).flatten(1)
    expected = F.relu(F.linear(expected, network.hidden.weight, network.hidden.bias))
    expected = F.batch_norm(expected, None, None, training=True)
    expected = F.linear(expected, network.output.weight, network.output.bias)
    assert torch.equal(network(x), expected)


def test_logits_are_float32_under_autocast_too():
    """In bfloat16 one image in 15 would have two largest logits that tie, so that its class would go by number."""
    network = convnet()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images(1000))
    assert logits.dtype == torch.float32
    top = logits.topk(2).values
    assert (top[:, 0] == top[:, 1]).sum() == 0
    rounded = logits.bfloat16().topk(2).values
    assert (rounded[:, 0] == rounded[:, 1]).sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_before_the_relu_changes_no_bit_of_values_or_gradients(dtype):
    block = Block(3, 8, ConvNet()).to(dtype)
    x = images(16).to(dtype)
    target = torch.randn(16, 8, 16, 16, generator=torch.Generator().manual_seed(2)).to(dtype)

    def gradients(output: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((output * target).sum(), list(block.parameters())))

    fast = block(x)
    as_written = F.max_pool2d(F.relu(block.conv(x)), 2)
    assert torch.equal(fast, as_written)
    assert all(map(torch.equal, gradients(fast), gradients(as_written)))


def test_average_pooling_comes_after_the_relu_because_the_two_do_not_commute():
    block = Block(3, 8, ConvNet(pooling="avg"))
    x = images()
    assert torch.equal(block(x), F.avg_pool2d(F.relu(block.conv(x)), 2))
    assert not torch.equal(block(x), F.relu(F.avg_pool2d(block.conv(x), 2)))


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"relu"}))
def test_any_other_activation_comes_before_the_pooling(name):
    block = Block(3, 8, ConvNet(activation=name))
    functions = {"leaky-relu": F.leaky_relu, "elu": F.elu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}
    x = images()
    assert torch.equal(block(x), F.max_pool2d(functions[name](block.conv(x)), 2))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_residual_branch_is_added_to_its_input(batch_norm):
    network = convnet(filters=(4, 6), residual=True, batch_norm=batch_norm)
    block, residual, _, last = network.blocks
    x = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    branch = F.relu(F.conv2d(x, residual.conv.weight, residual.conv.bias, padding=2))
    if batch_norm:
        branch = F.batch_norm(branch, None, None, training=True)
    assert torch.equal(residual(x), x + branch)
    assert (block.conv.out_channels, last.conv.out_channels) == (4, 6)


@pytest.mark.parametrize(
    ("name", "spread"),
    [("kaiming", (2 / 2048) ** 0.5), ("xavier", (6 / (2048 + 64) / 3) ** 0.5), ("orthogonal", 2048**-0.5)],
)
def test_first_weights_have_the_spread_of_their_initialization(name, spread):
    """Of 131,072 weights: He et al. sqrt(2 / fan-in); Glorot's bound / sqrt 3; 64 rows of length one in 2048."""
    network = convnet(initialization=name)
    assert network.hidden.weight.std().item() == pytest.approx(spread, rel=0.01)
    assert all(not bias.any() for kind, bias in network.named_parameters() if kind.endswith("bias"))
    again, other = convnet(initialization=name), convnet(seed=1, initialization=name)
    assert torch.equal(again.hidden.weight, network.hidden.weight)
    assert not torch.equal(other.hidden.weight, network.hidden.weight)


def test_a_stride_halves_the_image_without_pooling():
    block = convnet(pooling="stride").blocks[0]
    assert block.conv.stride == (2, 2)
    assert block(images()).shape == (5, 32, 16, 16)


@pytest.mark.parametrize("pooling", ["max", "avg", "stride"])
@pytest.mark.parametrize("side", [9, 32, 33])
def test_every_pooling_fits_images_of_any_side(pooling, side):
    assert convnet(pooling=pooling, side=side)(images(side=side)).shape == (5, 10)


def test_too_many_blocks_for_the_image_are_an_error_that_names_the_setting():
    with pytest.raises(StudyError, match=r"model\.filters: 4 blocks halve the image 4 times and leave nothing"):
        convnet(filters=(4, 4, 4, 4), side=8)


def test_weights_are_the_default_initialisation_and_depend_on_the_seed():
    first, again, other = convnet(), convnet(), convnet(seed=1)
    assert torch.equal(first.hidden.weight, again.hidden.weight)
    assert not torch.equal(first.hidden.weight, other.hidden.weight)
    # nn.Linear draws uniformly from (-b, b) with b = 1 / sqrt(fan_in)
    bound = first.hidden.in_features**-0.5
    assert 0.99 * bound < first.hidden.weight.abs().max() <= bound


@pytest.mark.parametrize(
    "change",
    [
        *({"dropout": 0.5}, {"batch_norm": True}, {"batch_norm_fc": True}, {"pooling": "avg"}, {"pooling": "stride"}),
        {"activation": "gelu"},
    ],
)
def test_a_change_leaves_the_first_weights_of_shared_layers_alone(change):
    baseline = dict(convnet().named_parameters())
    changed = dict(convnet(**change).named_parameters())
    assert all(torch.equal(weight, changed[name]) for name, weight in baseline.items())


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    convnet()
    assert torch.equal(torch.rand(1), expected)


def test_dropout_zeroes_hidden_units_only_in_training():
    network = convnet(dropout=0.6).train()
    hidden = torch.ones(1000, 64)
    zeroed = (network.dropout(hidden) == 0).float().mean()
    assert abs(zeroed - 0.6) < 0.01  # 64,000 draws: a standard deviation of 0.002
    assert torch.equal(network.eval().dropout(hidden), hidden)


@pytest.fixture(scope="module")
def resnet_weights(tmp_path_factory):
    """A file of random weights of a real torchvision ResNet18, with another last layer than the tests ask for."""
    from torchvision.models import resnet18

    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "body.pt"
    torch.save(resnet18(num_classes=3).state_dict(), path)
    return path


def test_resnet18_takes_weights_from_a_file_and_a_new_last_layer(resnet_weights):
    network = build_model(ResNet18(weights=f"file:{resnet_weights}"), 10, image_size=(64, 64), seed=0)
    saved = torch.load(resnet_weights)
    assert torch.equal(network.layer4[0].conv1.weight, saved["layer4.0.conv1.weight"])
    assert network.fc.weight.shape == (10, 512)
    assert network(images(2, 64)).shape == (2, 10)


def test_resnet18_trains_the_named_layers_only(resnet_weights):
    network = build_model(ResNet18(weights=f"file:{resnet_weights}"), 10, image_size=(64, 64), seed=0)
    trained = {name.partition(".")[0] for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained == {"layer4", "fc"}
    everything = build_model(ResNet18(weights="none", trained_layers=("all",)), 10, image_size=(64, 64), seed=0)
    assert all(weight.requires_grad for weight in everything.parameters())


@pytest.mark.parametrize("is_frozen", [False, True])
def test_frozen_batch_norm_keeps_the_statistics_of_frozen_layers_only(resnet_weights, is_frozen):
    settings = ResNet18(weights=f"file:{resnet_weights}", frozen_batch_norm=is_frozen)
    network = build_model(settings, 10, image_size=(64, 64), seed=0).train()
    before = {name: value.clone() for name, value in network.named_buffers() if name.endswith("running_mean")}
    network(images(4, 64))
    moved = {name for name, value in network.named_buffers() if name in before and not torch.equal(value, before[name])}
    in_trained_layers = {name for name in before if name.startswith("layer4")}
    assert moved == (in_trained_layers if is_frozen else set(before))
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in network.modules()) == (15 if is_frozen else 0)


def test_one_set_of_trained_layers_has_one_form():
    assert ResNet18(trained_layers=("fc", "layer4")) == ResNet18(trained_layers=("layer4", "fc"))
    every = ("fc", "conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    assert ResNet18(trained_layers=every) == ResNet18(trained_layers=("all",))


def test_weights_of_another_network_are_refused_with_the_names_that_differ(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3), "head.weight": torch.zeros(1)}, path)
    with pytest.raises(DataError) as error:
        build_model(ResNet18(weights=f"file:{path}"), 10, image_size=(64, 64), seed=0)
    message = str(error.value)
    assert "bn1.bias is missing" in message
    assert "and 115 more" in message  # of 120 names without fc 119 are missing and 1 has another shape; 1 is unexpected


def test_the_weights_of_a_cell_are_those_of_another_but_for_its_last_layer(tmp_path):
    path = tmp_path / "best.safetensors"
    trained = build_model(ResNet18(weights="none", trained_layers=("all",)), 5, image_size=(64, 64), seed=1)
    path.write_bytes(save({name: value.contiguous() for name, value in trained.state_dict().items()}))
    network = build_model(ResNet18(weights=f"file:{path}"), 3, image_size=(64, 64), seed=0)

    state = network.state_dict()
    body = {name: value for name, value in trained.state_dict().items() if not name.startswith("fc.")}
    assert all(torch.equal(state[name], value) for name, value in body.items())
    assert state["fc.weight"].shape == (3, 512)


@pytest.mark.parametrize("name", ["weights.pt", "best.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"not weights", "not a file of weights"), (b"", "not a file of weights")],
)
def test_a_file_that_holds_no_weights_is_an_error_of_the_user(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        build_model(ResNet18(weights=f"file:{path}"), 10, image_size=(64, 64), seed=0)


def test_without_network_the_message_says_which_file_goes_where(monkeypatch, tmp_path):
    from torchvision.models import ResNet18_Weights

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("<urlopen error Name or service not known>")

    monkeypatch.setattr(torch.hub, "_dir", None, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.__class__, "get_state_dict", offline)
    with pytest.raises(DataError) as error:
        build_model(ResNet18(), 10, image_size=(64, 64), seed=0)
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in str(error.value)
    assert "file:PATH" in str(error.value)


def torchvision_model(name: str, side: int = 32, **options: object) -> nn.Module:
    model = TorchvisionModel(name=name, options=options)
    return build_model(model, 7, image_size=(side, side), seed=0)


@pytest.mark.parametrize("name", ["mnasnet0_5", "squeezenet1_1", "regnet_y_400mf"])
def test_a_model_of_torchvision_is_torchvision_s_by_the_seed(name):
    from torchvision.models import get_model

    network = torchvision_model(name)
    torch.manual_seed(derive_seed(0, "weights"))
    expected = get_model(name, weights=None, num_classes=7)
    assert network.state_dict().keys() == expected.state_dict().keys()
    assert all(map(torch.equal, network.state_dict().values(), expected.state_dict().values()))
    assert torch.equal(network.eval()(images()), expected.eval()(images()))


def test_options_reach_a_model_of_torchvision():
    plain, wide = (torchvision_model("resnet18", **it) for it in ({}, {"width_per_group": 64, "zero_init_residual": 1}))
    assert plain.layer1[0].bn2.weight.any()
    assert not wide.layer1[0].bn2.weight.any()


def test_a_model_that_does_not_take_the_images_is_an_error_that_names_the_way_out():
    message = r"model\.name: vit_b_16 cannot take images of 32x32 pixels \(Wrong image height.*preprocessing\.resize"
    with pytest.raises(StudyError, match=message):
        torchvision_model("vit_b_16")
    options = {"image_size": 32, "num_layers": 1, "hidden_dim": 12, "mlp_dim": 8}
    with pytest.raises(ValidationError, match="vit_b_16 refuses: TypeError"):
        torchvision_model("vit_b_16", **options)  # its builder sets the others itself
    assert torchvision_model("vit_b_16", image_size=32)(images(1)).shape == (1, 7)


def test_weights_without_the_versions_of_their_modules_are_taken():
    """MNASNet asks for them; a file of weights holds names and values alone."""
    network = torchvision_model("mnasnet0_5")
    load_weights(network, {name: value + 1 for name, value in network.state_dict().items()})
    with pytest.raises(RuntimeError, match="Missing key"):
        load_weights(network, {})


@pytest.mark.ordeal
@pytest.mark.slow
def test_every_model_of_torchvision_is_built_and_takes_images_of_its_own_size():
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) >= 80
    for name in names:
        check_options(name, {})
        check_size(TorchvisionModel(name=name), 7, image_size=(299, 299) if "inception" in name else (224, 224))


def test_a_plugin_is_any_function_that_returns_a_module(monkeypatch, tmp_path):
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\n"
        "def linear(num_classes, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * width * width, num_classes))\n"
        "def nothing(num_classes):\n"
        "    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def plugin(factory: str, **options: int) -> nn.Module:
        return build_model(PluginModel(factory=factory, options=options), 10, image_size=(8, 8), seed=0)

    assert plugin("my_models:linear", width=8)(images(2, 8)).shape == (2, 10)
    assert torch.equal(plugin("my_models:linear", width=8)[1].weight, plugin("my_models:linear", width=8)[1].weight)
    with pytest.raises(StudyError, match="returned a NoneType"):
        plugin("my_models:nothing")
    with pytest.raises(StudyError, match="has no function 'missing'"):
        plugin("my_models:missing")
    with pytest.raises(StudyError, match="cannot import 'no_such_module'"):
        plugin("no_such_module:linear")
    with pytest.raises(StudyError, match=r"my_models:linear.*width"):
        plugin("my_models:linear")


def test_networks_of_another_trainer_are_neither_counted_nor_drawn(tmp_path):
    path = write_study(tmp_path / "own")
    with pytest.raises(StudyError, match="study 'own' is trained by 'function', whose networks the harness does not"):
        variant_settings(load_study(path), "baseline")
    work, _ = train_study(path, tmp_path / "mlruns", seeds=1)
    save_manifest(work)
    where = ["--study", "own", "--store", str(tmp_path / "mlruns"), "--output", str(tmp_path / "filters.png")]
    answer = CliRunner().invoke(cli, ["visualize", "filters", *where])
    assert answer.exit_code == 2
    assert f"study run {work.plan.id} was trained by 'function', whose networks the harness does not" in answer.output
