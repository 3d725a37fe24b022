"""What only a CUDA device shows: kernels, their numbers, capturing, memory, processes. `make gpu` runs these."""

import math

import pytest
import torch
from fakes import AssertsOnItsDeviceOnSeed1, cells_for, recorded_run
from image_cases import CASES, PRECISIONS, SETTINGS, SHORT, UNREPEATABLE
from planted import batches_between, planted_images, tiny_cell, trained
from test_train import LEARNS, parts_of

from harness.errors import OutOfMemoryError
from harness.execution.runner import run
from harness.store.cells import Cells
from harness.trainers.images import graph, train
from harness.trainers.images.optimizers import is_capturable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda:0")


def on_cuda(overrides, folder, **recording):
    return trained(tiny_cell(overrides), folder, device="cuda:0", **recording)


@pytest.fixture
def eagerly(monkeypatch):
    """No graph can be captured."""

    def refuse(step, device):
        raise RuntimeError("not here")

    monkeypatch.setattr(graph, "capture", refuse)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_cuda_sees_the_same_batches_and_first_weights_and_learns_the_same(tmp_path, precision):
    cell = tiny_cell(LEARNS | {"training.precision": precision})
    here = parts_of(tiny_cell(LEARNS | {"training.precision": precision.replace("tf32", "float32")}))
    there = parts_of(cell, device=CUDA)
    pairs = zip(batches_between(here.batches, 0, 20), batches_between(there.batches, 0, 20), strict=True)
    assert all(torch.equal(first, second.cpu()) for (_, first), (_, second) in pairs)
    weights = there.replica.master.state_dict()
    assert all(torch.equal(value, weights[name].cpu()) for name, value in here.replica.master.state_dict().items())
    run = trained(cell, tmp_path, device="cuda:0")
    assert run.final["test/accuracy"] > 0.9
    assert run.facts["device"].startswith("cuda: ")
    assert run.facts["step_mode"] == "graph", run.facts["step_mode_reason"]


@pytest.mark.parametrize(("name", "precision"), PRECISIONS)
def test_every_change_replays_a_graph_that_gives_the_numbers_of_eager_steps(tmp_path, monkeypatch, name, precision):
    overrides = CASES[name] | {"training.precision": precision}
    if "model" in overrides:  # ResNet18, and others of torchvision
        overrides |= {"training.batch_size": 20, "training.validations_per_epoch": 1}
    replayed = on_cuda(overrides, tmp_path / "graph")
    again = on_cuda(overrides, tmp_path / "again")
    monkeypatch.setattr(graph, "WARM_UP_STEPS", math.inf)
    eager = on_cuda(overrides, tmp_path / "eager")
    assert eager.facts["step_mode"] == "eager"
    optimizer = tiny_cell(overrides).settings.optimizer.name
    reason = "" if is_capturable(optimizer) else f"{optimizer} keeps numbers on the host"
    if name in UNREPEATABLE:  # so that a replay may differ from eager steps, and steps are eager then
        assert "unrepeatable" in replayed.facts
        assert replayed.final == pytest.approx(eager.final, rel=0.1, abs=0.1)
        return
    assert replayed.facts.get("step_mode_reason", "") == reason
    assert replayed.final == eager.final == again.final


def test_a_step_that_reads_a_number_cannot_be_captured_and_trains_eagerly(tmp_path, monkeypatch):
    backward = train.Replica.backward
    monkeypatch.setattr(train.Replica, "backward", lambda self, loss: (loss.item(), backward(self, loss)))
    run = on_cuda(SHORT, tmp_path / "reads")
    monkeypatch.undo()
    assert run.facts["step_mode"] == "eager"
    assert run.facts["step_mode_reason"].startswith("a graph could not be captured: ")
    assert run.final == on_cuda(SHORT, tmp_path / "plain").final


@pytest.mark.parametrize(
    "overrides",
    [{"model.dropout": 0.5}, {"optimizer.name": "adamax"}, {"optimizer.name": "adam"}, SETTINGS["everything"]],
)
def test_an_interrupted_cell_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, overrides):
    monkeypatch.setitem(train.LEAST_SECONDS_BETWEEN_CHECKPOINTS, "cuda", 0.0)
    straight = on_cuda(overrides, tmp_path / "a")
    events = []

    def die(event):
        events.append(event["event"])
        if events.count("validation") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_cuda(overrides, tmp_path / "b", on_event=die)
    torch.cuda.manual_seed(99)
    resumed = on_cuda(overrides, tmp_path / "b", on_event=lambda event: events.append(event["event"]))
    assert events.count("validation") == 4 + 3
    assert "restarted" not in events
    assert resumed.final == straight.final


def test_too_large_a_network_is_out_of_memory_and_the_next_cell_trains(tmp_path):
    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.mem_get_info()[1])
    try:
        with pytest.raises(OutOfMemoryError):
            on_cuda({"model.filters": (4096, 4096), "training.batch_size": 120}, tmp_path / "a")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert on_cuda(SHORT, tmp_path / "b").final


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_the_step_waits_for_nothing(tmp_path):
    cell = tiny_cell(SHORT | {"augmentation.grayscale": 0.5, "model.dropout": 0.5})
    recording = recorded_run(cell, tmp_path, "cuda:0")
    parts = train.build_parts(recording.settings, planted_images(), seed=0, device=CUDA)
    position = train.Position()
    position.loss_sum, position.num_correct = position.loss_sum.to(CUDA), position.num_correct.to(CUDA)
    parts.batches.seek(0)
    train._train_step(parts, position)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            parts.batches.seek(1)
            train._train_step(parts, position)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_failed_assertion_on_the_device_ends_the_process_and_not_the_queue(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(3, AssertsOnItsDeviceOnSeed1())
    run(todo, cells, devices=["cuda:0"], provenance={})
    results = [cells.result(cell.key) for cell in todo]
    assert [it.status for it in results] == ["finished", "failed", "finished"], [it.reason for it in results]
    assert "its CUDA context was lost" in cells.result(todo[1].key).reason
