"""Whole cells on a pretended CUDA device: what the registry holds, no wait in a step, the CPU's values, resumption; and
negative controls, which show that the pretence would notice."""

from unittest import mock

import pytest
import torch
from image_cases import CASES, IS_CLOSE, PRECISIONS, SHORT, UNREPEATABLE, WAITS
from planted import tiny_cell, trained
from pretended_cuda import pretended_cuda, watch

from harness.errors import DeviceLostError
from harness.trainers.images import augment, graph, train
from harness.trainers.images.data.batches import TrainingBatches
from harness.trainers.images.trainer import METRICS

pytestmark = pytest.mark.slow

CUDA = torch.device("cuda:0")


def on_cpu(overrides, folder):
    return trained(tiny_cell(overrides), folder)


def on_cuda(overrides, folder, on_event=lambda event: None):
    return trained(tiny_cell(overrides), folder, device="cuda:0", on_event=on_event)


@pytest.fixture
def forbid_waits_in_steps(monkeypatch, request):
    """From an epoch's order to the optimizer's step, a wait raises. What is made once a device is made before."""
    if getattr(request.node, "callspec", None) and request.node.callspec.params["name"] in WAITS:
        return

    def watched(function):
        def call(*arguments):
            with watch.forbidding_waits():
                return function(*arguments)

        return call

    monkeypatch.setattr(train, "_train_step", watched(train._train_step))
    monkeypatch.setattr(TrainingBatches, "seek", watched(TrainingBatches.seek))
    with pretended_cuda():
        augment._luma(CUDA)


def test_the_registry_is_covered():
    assert len(CASES) > 20


@pytest.mark.parametrize(("name", "precision"), PRECISIONS)
@pytest.mark.usefixtures("forbid_waits_in_steps")
def test_every_change_trains_without_a_wait_in_a_step_and_with_the_values_of_the_cpu(tmp_path, name, precision):
    overrides = CASES[name] | {"training.precision": precision}
    here = on_cpu(CASES[name] | {"training.precision": precision.replace("tf32", "float32")}, tmp_path / "cpu")
    with pretended_cuda():
        there = on_cuda(overrides, tmp_path / "cuda")
    assert there.facts["device"] == "cuda: Pretended"
    assert there.final.keys() == set(METRICS.names)
    assert "unrepeatable" not in here.facts
    assert ("unrepeatable" in there.facts) == (name in UNREPEATABLE), there.facts.get("unrepeatable")
    ours, theirs = ([run.final[it] for it in METRICS.names] for run in (there, here))
    # The CPU's bfloat16 kernels round by the layout of what they get, which a wrapped tensor does not pass on. Adamax's
    # step size, which the CPU computes on the host, must be computed on the device; so must a rate that changes.
    tolerance = {"abs": 0.1} if precision == "bfloat16" else {"rel": 5e-3} if name in IS_CLOSE else None
    assert ours == (pytest.approx(theirs, **tolerance) if tolerance else theirs)


def graphs_that_replay(monkeypatch, replayed=lambda step: step):
    """Stands in for capturing, of which the pretended device knows nothing: replaying makes the step again."""

    def capture(step, device):
        step()  # on the host; the caller puts back what it changed
        return replayed(step)

    monkeypatch.setattr(graph, "capture", capture)


@pytest.mark.parametrize(
    "name",
    [
        *("baseline", "dropout", "optimizer-adamax", "batch-norm", "augment-gentle", "momentum"),
        *("cosine", "averages", "clipped", "mixup", "everything", "cosine nadam"),
    ],
)
def test_trying_a_graph_and_replaying_it_change_no_number(tmp_path, monkeypatch, name):
    overrides = CASES.get(name, SHORT) | {"training.precision": "float32"}
    with pretended_cuda():
        eager = on_cuda(overrides, tmp_path / "eager")
        graphs_that_replay(monkeypatch)
        replayed = on_cuda(overrides, tmp_path / "graph")
    assert (eager.facts["step_mode"], replayed.facts["step_mode"]) == ("eager", "graph")
    assert "a graph could not be captured: " in eager.facts["step_mode_reason"]
    assert "step_mode_reason" not in replayed.facts
    assert replayed.final == eager.final


WRONG = {
    "a step too many": (lambda step: lambda: (step(), step()), "tensors differed after replaying a graph"),
    "nothing": (lambda step: lambda: None, "tensors differed after replaying a graph"),
    "other draws": (
        lambda step: lambda: (step(), torch.cuda.set_rng_state(torch.Generator().manual_seed(5).get_state())),
        "drew other random numbers",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_graph_that_replays_something_else_is_given_up_and_costs_no_number(tmp_path, monkeypatch, what):
    replayed, reason = WRONG[what]
    overrides = DROPOUT if what == "other draws" else SHORT | {"training.precision": "float32"}
    with pretended_cuda():
        eager = on_cuda(overrides, tmp_path / "eager")
        graphs_that_replay(monkeypatch, replayed)
        tried = on_cuda(overrides, tmp_path / "tried")
    assert tried.facts["step_mode"] == "eager"
    assert reason in tried.facts["step_mode_reason"]
    assert tried.final == eager.final


DROPOUT = {"model.dropout": 0.5, "training.precision": "float32"}


def interrupted_and_resumed(folder):
    """Dies after its third validation, whose checkpoint is there; then goes on, in a process with another state."""
    events = []

    def die(event):
        events.append(event["event"])
        if events.count("validation") == 4:
            raise KeyboardInterrupt

    with pretended_cuda(), pytest.raises(KeyboardInterrupt):
        on_cuda(DROPOUT, folder, die)
    with pretended_cuda():
        torch.manual_seed(99)
        run = on_cuda(DROPOUT, folder, lambda event: events.append(event["event"]))
    # Of six: three and the one of the death before, from the fourth on after.
    assert events.count("validation") == 4 + 3
    assert "restarted" not in events
    return run


@pytest.fixture
def a_checkpoint_each_validation(monkeypatch):
    monkeypatch.setitem(train.LEAST_SECONDS_BETWEEN_CHECKPOINTS, "cuda", 0.0)


@pytest.mark.usefixtures("a_checkpoint_each_validation")
def test_an_interrupted_cell_ends_as_an_uninterrupted_one(tmp_path):
    with pretended_cuda():
        straight = on_cuda(DROPOUT, tmp_path / "a")
    resumed = interrupted_and_resumed(tmp_path / "b")
    assert resumed.final == straight.final


@pytest.mark.usefixtures("a_checkpoint_each_validation")
def test_control_a_forgotten_generator_shows_in_the_numbers_after_a_resume(tmp_path, monkeypatch):
    with pretended_cuda():
        straight = on_cuda(DROPOUT, tmp_path / "a")
    restore = train._restore

    def forgetful(parts, position, state):
        restore(parts, position, state | {"random_cuda": torch.Generator().manual_seed(5).get_state()})

    monkeypatch.setattr(train, "_restore", forgetful)
    assert interrupted_and_resumed(tmp_path / "b").final["train/loss"] != straight.final["train/loss"]


def test_control_a_tensor_on_the_wrong_device_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(train.F, "cross_entropy", lambda logits, labels, **options: (logits * torch.ones(3)).sum())
    with pretended_cuda(), pytest.raises(RuntimeError, match="expected all tensors on one device"):
        on_cuda(SHORT | {"training.precision": "float32"}, tmp_path / "a")


@pytest.mark.usefixtures("forbid_waits_in_steps")
def test_control_a_number_that_is_read_in_a_step_is_a_wait(tmp_path, monkeypatch):
    backward = train.Replica.backward
    monkeypatch.setattr(train.Replica, "backward", lambda self, loss: (loss.item(), backward(self, loss)))
    with (
        pretended_cuda(),
        pytest.raises(RuntimeError, match=r"the host waits for the device: aten\._local_scalar_dense"),
    ):
        on_cuda(SHORT | {"training.precision": "float32"}, tmp_path / "a")


@pytest.mark.usefixtures("forbid_waits_in_steps")
def test_control_a_constant_that_is_copied_in_a_step_is_a_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(augment, "_luma", lambda device: torch.tensor(augment._LUMA).to(device))
    overrides = SHORT | {"training.precision": "float32", "augmentation.grayscale": 0.5}
    with pretended_cuda(), pytest.raises(RuntimeError, match="the host waits for the device: a copy to the device"):
        on_cuda(overrides, tmp_path / "a")


def test_a_lost_context_is_told_even_though_giving_memory_back_fails_in_it_too(tmp_path, monkeypatch):
    def fail(*arguments):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(train, "_train_step", fail)
    with (
        pretended_cuda(),
        mock.patch.object(torch.cuda, "empty_cache", fail),
        pytest.raises(DeviceLostError, match="the CUDA context is lost: CUDA error: an illegal"),
    ):
        on_cuda(SHORT | {"training.precision": "float32"}, tmp_path / "a")


def test_control_use_before_initialisation_is_refused(tmp_path):
    with (
        pretended_cuda(),
        mock.patch.object(torch.cuda, "init", return_value=None),
        pytest.raises(RuntimeError, match="did you call init"),
    ):
        on_cuda(SHORT | {"training.precision": "float32"}, tmp_path / "a")
