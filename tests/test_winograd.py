"""The compiled convolutions against PyTorch's, in float64 and in training; skipped where the CPU cannot run them."""

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import image_cell, planted_images, tiny_cell, trained
from torch import Tensor, nn
from torch.nn import functional as F

from harness.plan.plan import make_plan
from harness.study.load import load_study, studies
from harness.trainers.images import machine, train
from harness.trainers.images.arithmetic import Replica, environment
from harness.trainers.images.kernels import winograd
from harness.trainers.images.kernels.winograd import WinogradBlock, convolve
from harness.trainers.images.models import build_model
from harness.trainers.images.settings import ConvNet, with_overrides
from harness.trainers.images.train import build_parts
from harness.trainers.images.trainer import ImageTrainer
from harness.trainers.run import Event

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
CPU = torch.device("cpu")
LACKS_FLAGS = bool(machine.WINOGRAD_FLAGS - machine.cpu_flags())
needs_kernels = pytest.mark.skipif(machine.winograd_problem() != "", reason=machine.winograd_problem())

# (images, channels, filters, height, width, kernel): the baseline's layers; sides that leave partial tiles, odd ones
# that pooling cuts; 48 filters (a group of 32 and one of 16); many images (several blocks, the last shorter).
SHAPES = [
    (3, 3, 32, 32, 32, 5),
    (3, 32, 64, 16, 16, 5),
    (11, 64, 128, 8, 8, 5),
    (2, 32, 48, 9, 13, 5),
    (3, 3, 16, 5, 11, 3),
    (40, 16, 16, 7, 7, 3),
    (2, 48, 32, 16, 16, 3),
    (1, 16, 16, 1, 1, 5),
    (2, 15, 16, 6, 6, 5),
]


def tensors(shape: tuple[int, ...], *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weight and bias in bfloat16, the first two channels-last."""
    n, ci, co, height, width, size = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, ci, height, width, generator=generator).bfloat16().to(memory_format=torch.channels_last)
    weight = torch.randn(co, ci, size, size, generator=generator) / (ci * size * size) ** 0.5
    bias = torch.randn(co, generator=generator).bfloat16()
    return x, weight.bfloat16().to(memory_format=torch.channels_last), bias


def share_of_last_bits(found: Tensor, exact: Tensor) -> float:
    """The share of results that are not the exact value rounded once; asserts that none is further off than a bit.

    One bit of bfloat16 is at most 2^-7 of a value. Sums that cancel are off by float32 rounding of their terms: up to
    2e-5 of the largest result, which is no share of a bit.
    """
    rounding = 2e-5 * exact.abs().max()
    assert ((found.double() - exact).abs() <= exact.abs() * 2**-7 + rounding).all()
    return ((found != exact.to(torch.bfloat16)) & (exact.abs() > rounding)).double().mean().item()


def test_the_kernels_are_compiled_where_they_can_be():
    if LACKS_FLAGS or not (shutil.which("gcc") or shutil.which("clang")):
        pytest.skip("another kind of CPU, or no compiler")
    assert machine.winograd_library() is not None, machine.winograd_problem()


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_results_are_those_of_exact_sums_rounded_once(shape):
    x, weight, bias = tensors(shape)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=shape[-1] // 2)
    found = convolve(x, weight, bias, pool=False)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Where the exact value is close to half between two bfloat16 numbers, float32 sums can fall to the other side: an
    # error of 1e-5 in steps of 2^-8 is one result in 400.
    assert share_of_last_bits(found, exact) < 0.005


@needs_kernels
@pytest.mark.parametrize("size", [3, 5])
def test_one_very_large_pixel_costs_its_neighbours_what_float32_loses(size):
    """A thousand times the others: values beside it are off by 1e-5 of it, and in its own tile alone."""
    x, weight, bias = tensors((4, 16, 32, 16, 16, size))
    x[0, 3, 8, 8] = 1000
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=size // 2)
    found = convolve(x, weight, bias, pool=False)
    assert ((found.double() - exact).abs() <= exact.abs() * 2**-7 + 2e-5 * 1000 * weight.abs().max()).all()
    assert share_of_last_bits(found[1:], exact[1:]) < 0.005


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_exact_sums_rounded_once(shape):
    x, weight, bias = (it.requires_grad_() for it in tensors(shape))
    doubles = [it.detach().double().requires_grad_() for it in (x, weight, bias)]
    exact = F.conv2d(*doubles, padding=shape[-1] // 2)
    gradient = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact.backward(gradient.double())
    wanted = [x, weight, bias] if shape[1] % 16 == 0 else [weight, bias]
    image = x if shape[1] % 16 == 0 else x.detach()
    found = torch.autograd.grad(convolve(image, weight, bias, pool=False), wanted, gradient)
    for ours, theirs in zip(found, doubles[-len(found) :], strict=True):
        assert share_of_last_bits(ours, theirs.grad) < 0.02


@needs_kernels
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if min(shape[3:5]) > 1])
@pytest.mark.parametrize("rounded", [False, True], ids=["any values", "many ties"])
def test_pooling_and_relu_are_pytorchs_to_the_bit(shape, rounded):
    """The largest of four and where it came from, ties and all: the same bits after, and the same gradients."""
    x, weight, bias = tensors(shape)
    if rounded:  # sums of small whole numbers: a handful of values, so that many of the four are equal, or zero
        x, weight, bias = x.sign(), (weight * 0).index_fill_(1, torch.tensor([0]), 1.0), torch.zeros_like(bias)
    inputs = [it.requires_grad_(it is not x or shape[1] % 16 == 0) for it in (x, weight, bias)]
    wanted = [it for it in inputs if it.requires_grad]
    one = convolve(*inputs, pool=True)
    other = F.relu(F.max_pool2d(convolve(*inputs, pool=False), 2))
    assert torch.equal(one, other)
    gradient = torch.randn(one.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    pairs = zip(torch.autograd.grad(one, wanted, gradient), torch.autograd.grad(other, wanted, gradient), strict=True)
    for ours, theirs in pairs:
        if ours.ndim == 4:
            assert torch.equal(ours, theirs)
        else:  # the bias: the same terms, added up in another order
            torch.testing.assert_close(ours, theirs, atol=0.1, rtol=2**-7)


@needs_kernels
def test_nothing_is_kept_for_gradients_that_nobody_wants():
    x, weight, bias = tensors(SHAPES[1])
    with torch.no_grad():
        without = convolve(x, weight.requires_grad_(), bias, pool=True)
    assert not without.requires_grad
    assert torch.equal(without, convolve(x, weight, bias, pool=True))


@needs_kernels
@pytest.mark.parametrize("pool", [True, False])
def test_a_number_that_is_none_stays_one(pool):
    x, weight, bias = tensors(SHAPES[1])
    x[1, 5, 8, 8] = torch.nan
    found = convolve(x, weight, bias, pool=pool)
    assert found[1].isnan().any()
    assert found[[0, 2]].isfinite().all()


@needs_kernels
def test_a_gradient_of_a_gradient_is_refused():
    x, weight, bias = (it.requires_grad_() for it in tensors(SHAPES[1]))
    loss = convolve(x, weight, bias, pool=True).square().sum()
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@needs_kernels
def test_a_default_type_that_somebody_set_changes_nothing():
    inputs = [it.requires_grad_() for it in tensors(SHAPES[1])]

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(convolve(*inputs, pool=True).float().square().sum(), inputs)

    expected = gradients()
    torch.set_default_dtype(torch.float64)
    try:
        found = gradients()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


@needs_kernels
def test_any_layout_is_taken():
    x, weight, bias = tensors(SHAPES[1])
    assert torch.equal(
        convolve(x.contiguous(), weight.contiguous(), bias, pool=True), convolve(x, weight, bias, pool=True)
    )


# --- in training -----------------------------------------------------------------------------------------------------

WIDE = {"model.filters": (16, 32), "training.precision": "bfloat16", "training.max_epochs": 4}


def replicas(model: ConvNet) -> list[Replica]:
    """One that convolves by PyTorch, one by Winograd, with the same weights."""
    return [
        Replica(build_model(model, 10, image_size=(32, 32), seed=0), "bfloat16", is_known=True, is_winograd=flag)
        for flag in (False, True)
    ]


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (ConvNet(), 3),
        (ConvNet(kernel_size=3, batch_norm=True), 3),
        (ConvNet(pooling="avg"), 3),
        (ConvNet(activation="gelu"), 3),
        (ConvNet(kernel_size=7), 0),
        (ConvNet(pooling="stride"), 0),
        (ConvNet(filters=(32, 40, 64)), 1),  # 40 are no whole vectors, neither as outputs nor as inputs
        (ConvNet(filters=(8, 16, 32)), 1),  # the second block has 8 inputs, and gradients by them
    ],
)
def test_the_blocks_that_the_kernels_suit_are_computed_by_them(model, count):
    direct, ours = replicas(model)
    assert sum(isinstance(module, WinogradBlock) for module in ours.network.modules()) == count
    assert not any(isinstance(module, WinogradBlock) for module in direct.network.modules())
    names = [name.rpartition(".")[2] for name, _ in ours.network.named_parameters()]
    assert names == [name.rpartition(".")[2] for name, _ in direct.network.named_parameters()]


@needs_kernels
@pytest.mark.parametrize(
    "model",
    [
        *(ConvNet(), ConvNet(kernel_size=3), ConvNet(batch_norm=True, batch_norm_fc=True), ConvNet(pooling="avg")),
        *(ConvNet(activation="gelu"), ConvNet(residual=True)),
    ],
    ids=["baseline", "kernel-3", "batch-norm", "average", "gelu", "residual"],
)
def test_gradients_of_a_network_differ_less_from_pytorchs_than_those_from_float32(model):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.arange(64) % 10

    def gradient(replica: Replica) -> Tensor:
        replica.backward(F.cross_entropy(replica(inputs.to(replica.input_dtype)), labels))
        return torch.cat([weight.grad.flatten() for weight in replica.master.parameters()])

    direct, ours = (gradient(replica) for replica in replicas(model))
    exact = gradient(Replica(build_model(model, 10, image_size=(32, 32), seed=0), "float32", is_known=True))
    assert not torch.equal(direct, ours), "both went the same way"
    assert (ours - direct).norm() < (direct - exact).norm()
    assert (ours - exact).norm() < 1.05 * (direct - exact).norm()


@needs_kernels
@pytest.mark.parametrize(("side", "expected"), [(4, []), (5, [5]), (10, [10, 5]), (112, [112, 56]), (113, [56])])
def test_images_that_are_too_small_or_too_large_are_pytorchs(monkeypatch, side, expected):
    """Two blocks, which see the image and one half as large; the smaller ones and the larger ones are PyTorch's."""
    model = ConvNet(filters=(16, 16), kernel_size=3)
    network = build_model(model, 10, image_size=(side, side), seed=0)
    replica = Replica(network, "bfloat16", is_known=True, is_winograd=True)
    sides = []
    compute = winograd.convolve

    def record(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        sides.append(x.shape[2])
        return compute(x, *arguments, **options)

    monkeypatch.setattr(winograd, "convolve", record)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected_logits = Replica(network, "bfloat16", is_known=True)(x)
    torch.testing.assert_close(replica(x), expected_logits, atol=0.02, rtol=0.02)
    assert sides == expected


def built_in_baselines() -> list[Any]:
    """Of every built-in study and profile that trains a convolutional network, as bfloat16 cells with one epoch."""
    found = {}
    for name in studies():
        study = load_study(name)
        for profile in study.profiles:
            precision = {"training.precision": "bfloat16"}
            plan = make_plan(study, fingerprints=lambda _: {"data": "planted"}, profile=profile, overrides=precision)
            found |= {it.settings.model: it.settings for it in plan.variants if isinstance(it.settings.model, ConvNet)}
    return [pytest.param(settings, id=str(model)) for model, settings in found.items()]


@needs_kernels
@pytest.mark.parametrize("settings", built_in_baselines())
def test_every_network_of_the_built_in_studies_trains(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(train, "winograd_pays", lambda: True)
    tiny = {"training.max_epochs": 1, "training.batch_size": 8}
    cell = image_cell(with_overrides(settings, tiny))
    assert trained(cell, tmp_path, planted_images(train=20, test=4, side=32)).final


def train_both_ways(tmp_path: Path, monkeypatch: Any, overrides: dict[str, Any]) -> list[Any]:
    """Without our convolutions and with them: what computed, and the validation losses."""
    found = []
    for is_winograd in (False, True):
        monkeypatch.setattr(train, "winograd_pays", lambda answer=is_winograd: answer)
        events: list[Event] = []
        run = trained(tiny_cell(overrides), tmp_path / str(is_winograd), events=events)
        losses = [event["metrics"]["val/loss"] for event in events if event["event"] == "validation"]
        found.append((run.facts["versions"], losses))
    return found


@needs_kernels
def test_a_cell_trains_alike_both_ways(tmp_path, monkeypatch):
    """32 steps: validation losses are within 1%, as far as the same training in bfloat16 is from float32."""
    (versions, losses), (other_versions, other_losses) = train_both_ways(tmp_path, monkeypatch, WIDE)
    assert other_losses == pytest.approx(losses, rel=0.01)
    assert other_losses != losses, "both went the same way"
    assert other_versions == f"{versions}, harness's convolutions"


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("more", [{"training.precision": "float32"}, {"training.threads": 2}])
def test_float32_and_two_threads_are_pytorchs(tmp_path, monkeypatch, more):
    (_, losses), (_, other_losses) = train_both_ways(tmp_path, monkeypatch, WIDE | more)
    assert losses == other_losses


@needs_kernels
def test_what_trains_is_read_back_where_blocks_are_replaced(monkeypatch):
    monkeypatch.setattr(train, "winograd_pays", lambda: True)
    with environment(threads=1, device=CPU, precision="bfloat16"):
        parts = build_parts(tiny_cell(WIDE).settings, planted_images(), seed=0, device=CPU)
        train._check(parts)
    assert sum(isinstance(module, WinogradBlock) for module in parts.replica.network.modules()) == 2
    convolutions = [it for it in parts.replica.network.modules() if isinstance(it, nn.Conv2d)]
    assert {it.weight.dtype for it in convolutions} == {torch.bfloat16}


@needs_kernels
def test_an_interrupted_cell_has_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "winograd_pays", lambda: True)

    class Killed(BaseException):
        pass

    def die(event: Event) -> None:
        if [it["event"] for it in events].count("validation") == 3:
            raise Killed

    events: list[Event] = []
    whole = trained(tiny_cell(WIDE), tmp_path / "whole")
    with pytest.raises(Killed):
        trained(tiny_cell(WIDE), tmp_path / "killed", events=events, on_event=die)
    run = trained(tiny_cell(WIDE), tmp_path / "killed")
    assert (run.final, run.num_steps) == (whole.final, whole.num_steps)


# --- which machines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "library", "pays", "problem"),
    [
        (machine.WINOGRAD_FLAGS, Path("kernels.so"), True, ""),
        (machine.WINOGRAD_FLAGS | {"amx_bf16"}, Path("kernels.so"), False, ""),
        (machine.WINOGRAD_FLAGS - {"avx512_bf16"}, Path("kernels.so"), False, "the CPU lacks avx512_bf16"),
        (machine.WINOGRAD_FLAGS, None, False, "without a C compiler"),
        (machine.WINOGRAD_FLAGS, Path("older.so"), False, "older.so was compiled from other sources"),
    ],
)
def test_a_machine_that_cannot_says_why(monkeypatch, flags, library, pays, problem):
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(machine, "winograd_library", lambda: library)
    monkeypatch.setattr(machine, "_interface", lambda path: machine.WINOGRAD_INTERFACE - (path.name == "older.so"))
    assert machine.winograd_pays() is pays
    assert problem in machine.winograd_problem()
    assert bool(problem) == bool(machine.winograd_problem())
    is_advised = bool(problem) and "the CPU lacks" not in problem  # there nobody can do anything about it
    assert bool(ImageTrainer().device_advice("cpu")) == is_advised
    assert ImageTrainer().device_advice("cuda") == ""


def test_a_library_that_was_compiled_from_other_sources_is_known_by_its_number(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    for name, source in {"other": "int winograd_interface(void) { return 0; }", "none": "int x;"}.items():
        (tmp_path / f"{name}.c").write_text(source)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", f"{name}.so", f"{name}.c"], cwd=tmp_path, check=True)
    assert machine._interface(tmp_path / "other.so") == 0
    assert machine._interface(tmp_path / "none.so") is None
    assert machine._interface(tmp_path / "missing.so") is None
    if library := machine.winograd_library():
        assert machine._interface(library) == machine.WINOGRAD_INTERFACE


def test_the_kernels_are_compiled_for_the_flags_that_are_asked_for():
    """GCC's name of a flag is Linux's without underscores."""
    (module,) = tomllib.loads(PYPROJECT.read_text())["tool"]["setuptools"]["ext-modules"]
    compiled = {argument.removeprefix("-m") for argument in module["extra-compile-args"] if argument.startswith("-m")}
    assert compiled == {flag.replace("_", "") for flag in machine.WINOGRAD_FLAGS}
    assert module["optional"] is True
