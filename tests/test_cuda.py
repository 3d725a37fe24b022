"""What a CUDA device asks of the harness, as far as it shows without one: stand-ins for the runtime, real processes."""

import os
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from fakes import LosesItsDeviceOnSeed1, cells_for
from planted import tiny_cell, trained

from harness import hardware
from harness.cli import cli, doctor
from harness.cli.doctor import cuda_checks
from harness.errors import DeviceLostError
from harness.execution.runner import run
from harness.store.cells import Cells
from harness.study.changes import combine
from harness.study.load import load_study, studies
from harness.trainers.images import augment, train
from harness.trainers.images.arithmetic import environment, is_out_of_memory, is_poisoned
from harness.trainers.images.cuda_devices import CudaDevice, CudaSetup, cuda_setup, mps_state
from harness.trainers.images.settings import ConvNet
from harness.trainers.images.train import EVALUATION_PIXELS

CPU = torch.device("cpu")


@contextmanager
def stand_ins(monkeypatch, **more):
    """`torch.cuda` without a device: what `environment` calls."""
    calls = []
    known = {
        "init": lambda: None,
        "set_device": lambda index: None,
        "reset_peak_memory_stats": lambda device: None,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
        "synchronize": lambda device: calls.append("synchronize"),
        "empty_cache": lambda: calls.append("empty_cache"),
    }
    for name, stand_in in (known | more).items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    yield calls


def switches():
    backends = torch.backends
    return (
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        backends.cudnn.deterministic,
        backends.cudnn.benchmark,
    )


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_cell_computes_deterministically_in_its_own_precision_and_leaves_the_switches_as_they_were(
    monkeypatch, precision
):
    before = switches()
    rounding = "tf32" if precision == "tf32" else "ieee"
    with stand_ins(monkeypatch), environment(threads=1, device=torch.device("cuda:0"), precision=precision):
        assert switches() == (rounding, rounding, False, True, False)
    assert switches() == before


def test_switches_work_where_somebody_has_used_the_newer_ones_of_tf32():
    # PyTorch 2.15 raises from the older `allow_tf32` once the newer was written.
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        with environment(threads=1, device=CPU, precision="float32"):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_cached_memory_is_given_back_after_a_cell(monkeypatch):
    with stand_ins(monkeypatch) as calls:
        with environment(threads=1, device=torch.device("cuda:0"), precision="float32"):
            assert calls == []
        assert calls == ["synchronize", "empty_cache"]


@pytest.mark.parametrize("study", studies())
def test_no_evaluation_batch_has_more_elements_than_32_bits_can_count(study):
    loaded = load_study(study)
    variants = [loaded.baseline, *(combine(loaded.baseline, [change]) for change in loaded.changes)]
    filters = [max(it.model.filters) for it in variants if isinstance(it.model, ConvNet)] or [512]  # ResNet18's widest
    assert EVALUATION_PIXELS["cuda"] * max(filters) < 2**31


def test_greyscale_copies_its_constants_to_the_device_once(monkeypatch):
    images, draws = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8), torch.zeros(4, augment.DRAWS_PER_IMAGE)
    first = augment.Grayscale(1.0)(images, draws)

    def refuse(*arguments, **options):
        raise AssertionError("a copy from the host in a step")

    monkeypatch.setattr(torch, "tensor", refuse)
    monkeypatch.setattr(torch.Tensor, "new_tensor", refuse)
    assert torch.equal(augment.Grayscale(1.0)(images, draws), first)


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA error: device-side assert triggered", False),
    ],
)
def test_what_the_libraries_say_is_told_apart(said, is_memory):
    error = torch.AcceleratorError(said)
    assert (is_out_of_memory(error), is_poisoned(error)) == (is_memory, not is_memory)
    assert is_out_of_memory(RuntimeError(said)) is is_memory
    assert not is_poisoned(RuntimeError(said))  # of no device: a mistake in the training's own arithmetic


def test_a_poisoned_context_is_no_outcome_of_the_cell(tmp_path, monkeypatch):
    def broken(*arguments):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nSearch for more.")

    monkeypatch.setattr(train, "_train_step", broken)
    with pytest.raises(
        DeviceLostError, match=r"^the CUDA context is lost: CUDA error: an illegal memory access was en"
    ):
        trained(tiny_cell(), tmp_path)


def test_a_poisoned_context_ends_the_process_not_the_queue(tmp_path):
    cells, todo = Cells(tmp_path), cells_for(4, LosesItsDeviceOnSeed1())

    run(todo, cells, devices=["cpu"], provenance={})

    assert [cells.result(cell.key).status for cell in todo] == ["finished", "failed", "finished", "finished"]
    assert "exit code 70; its CUDA context was lost" in cells.result(todo[1].key).reason
    pids = [(cells.folder(cell.key) / "calls").read_text().split()[0] for cell in todo]
    assert pids[0] != pids[2]  # another process trains the next cell
    failures = [event["reason"] for event in cells.events(todo[1].key) if event["event"] == "failed"]
    assert any("illegal memory access" in reason for reason in failures)


def test_a_poisoned_context_stops_a_run_in_this_process(tmp_path):
    with pytest.raises(DeviceLostError):
        run(cells_for(3, LosesItsDeviceOnSeed1()), Cells(tmp_path), devices=["cpu"], provenance={}, executor="here")


H200 = CudaDevice("NVIDIA H200", (9, 0), 150_000_000_000, 150_700_000_000, "")


def test_doctor_says_what_there_is_and_what_to_do_about_each_lack():
    old = replace(H200, graph_problem="operation not permitted when stream is capturing")
    setup = CudaSetup("13.0", "13.0", ("sm_80", "sm_90"), (H200, old))
    lines = {name: (is_good, said) for is_good, name, said in cuda_checks(setup, "not running")}
    assert lines["CUDA"] == (True, "the driver runs CUDA 13.0; torch is built for 13.0: sm_80, sm_90")
    assert lines["cuda:0"] == (True, "NVIDIA H200, compute capability 9.0, 150.0 GB of 150.7 GB free")
    assert lines["steps"] == (False, f"eager: a graph cannot be replayed: {old.graph_problem}")
    assert "`nvidia-cuda-mps-control -d` starts it" in lines["workers"][1]
    assert "side by side" in cuda_checks(setup, "running")[-1][2]


@pytest.mark.slow
def test_doctor_asks_no_cuda_where_the_driver_shows_none(monkeypatch):
    monkeypatch.setattr(doctor, "cuda_capabilities", lambda: ())
    assert doctor._cuda() == []
    assert cuda_setup() is None


@pytest.mark.parametrize(
    ("code", "said", "state"), [(0, "", "running"), (1, "Cannot find MPS control daemon", "not running")]
)
def test_whether_mps_runs_is_asked_of_its_control_program(tmp_path, monkeypatch, code, said, state):
    program = tmp_path / "nvidia-cuda-mps-control"
    program.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert mps_state() == state


@pytest.mark.parametrize(
    ("listed", "shown"),
    [(None, {"0", "1"}), ("4,6", {"4", "6"}), ("MIG-a, MIG-b", {"MIG-a", "MIG-b"})],
)
def test_a_worker_sees_its_own_device_only(tmp_path, monkeypatch, listed, shown):
    if listed is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    cells, todo = Cells(tmp_path), cells_for(8)

    run(todo, cells, devices=["cuda:0", "cuda:1"], provenance={})

    calls = [(cells.folder(cell.key) / "calls").read_text().split() for cell in todo]
    assert {device for _, device, *_ in calls} == {"cuda:0"}
    assert {visible for *_, visible in calls} == shown
    assert len({(pid, visible) for pid, _, visible in calls}) == 2
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == listed


def test_validations_close_together_make_one_checkpoint_and_the_end_makes_one(tmp_path, monkeypatch):
    saved = []
    keep = train._save
    monkeypatch.setattr(train, "_save", lambda *arguments: (saved.append(arguments[1].step), keep(*arguments)))
    usual = trained(tiny_cell(), tmp_path / "a")
    every, saved[:] = list(saved), []
    monkeypatch.setitem(train.LEAST_SECONDS_BETWEEN_CHECKPOINTS, "cpu", 3600.0)
    rare = trained(tiny_cell(), tmp_path / "b")
    assert len(every) > 2
    assert saved == every[-1:]
    assert rare.final == usual.final


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_torch_cannot_use_is_refused_before_anything_starts(tmp_path, monkeypatch):
    # The driver's library is there and shows a GPU; torch, for real, in a process of its own, finds none.
    monkeypatch.setattr(hardware, "cuda_capabilities", lambda: ((9, 0),))
    monkeypatch.setattr("harness.api.work.cuda_capabilities", lambda: ((9, 0),))
    options = ["--study", "task3", "--profile", "quick", "--only", "batch-norm", "--store", str(tmp_path / "mlruns")]

    answer = CliRunner().invoke(cli, ["ablate", *options, "--device", "cuda"])

    assert answer.exit_code == 2
    assert "error: --device cuda: torch cannot compute on it: " in answer.output
    assert "nothing was started" in answer.output
    assert "Traceback" not in answer.output
    assert not (tmp_path / "mlruns").exists()
