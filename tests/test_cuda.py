"""What a CUDA device asks of the harness, as far as it shows without one: stand-ins for the runtime, real processes."""

import os
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import gpu
import pytest
import torch
from click.testing import CliRunner
from fakes import LosesItsDeviceOnSeed1, cells_for, recorded_run
from planted import planted_images, tiny_cell, trained

from harness import cuda
from harness.api import training
from harness.api.work import worker_devices
from harness.cli import cli, doctor
from harness.cli.doctor import cuda_checks
from harness.cuda import mps_state
from harness.errors import DeviceLostError
from harness.execution.runner import run
from harness.store.cells import Cells
from harness.study.changes import combine
from harness.study.load import load_study, studies
from harness.trainers.images import augment, machine, train
from harness.trainers.images.arithmetic import environment, is_out_of_memory, is_poisoned, peak_memory_bytes
from harness.trainers.images.cuda_devices import CudaDevice, CudaSetup, cuda_setup
from harness.trainers.images.probe import step_seconds
from harness.trainers.images.settings import ConvNet
from harness.trainers.images.train import EVALUATION_PIXELS
from harness.trainers.images.trainer import ImageTrainer
from harness.trainers.trainer import DeviceMemory

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


def test_memory_is_what_the_process_reserves_not_what_its_tensors_fill(monkeypatch):
    numbers = {"mem_get_info": (60, 80), "memory_reserved": 5, "max_memory_reserved": 7}
    numbers |= {"memory_allocated": 1, "max_memory_allocated": 3}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: number)
    assert peak_memory_bytes(torch.device("cuda:0")) == 7
    assert ImageTrainer().device_memory("cuda:0") == DeviceMemory(60, 80, 5, 7)
    assert ImageTrainer().device_memory("cpu") is None


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


@pytest.mark.slow
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


def lines_of(setup, mps="running", **given):
    return {name: (is_good, said) for is_good, name, said in cuda_checks(setup, mps, **({"most": 4} | given))}


def test_doctor_says_what_there_is_and_what_to_do_about_each_lack():
    old = replace(H200, graph_problem="operation not permitted when stream is capturing", free_bytes=10**9)
    setup = CudaSetup("13.0", "13.0", ("sm_80", "sm_90"), (H200, old))
    lines = lines_of(setup, "not running")
    assert lines["CUDA"] == (True, "the driver runs CUDA 13.0; torch is built for 13.0: sm_80, sm_90")
    assert lines["cuda:0"] == (True, "NVIDIA H200, compute capability 9.0, 150.0 GB of 150.7 GB free")
    is_good, said = lines["cuda:1"]
    assert not is_good
    assert "1.0 GB of 150.7 GB free; other programs hold the rest (`nvidia-smi` lists them)" in said
    is_good, said = lines["steps"]
    assert not is_good
    assert said.startswith(f"eager: a graph cannot be replayed: {old.graph_problem}; numbers are the same")
    assert lines["workers"][0]
    assert "4 cells a device at a time at most" in lines["workers"][1]
    assert "`nvidia-cuda-mps-control -d` starts it" in lines["workers"][1]
    assert "side by side" in lines_of(setup)["workers"][1]


def test_doctor_says_that_a_device_admits_one_process_and_that_torch_is_made_for_the_cpu():
    setup = CudaSetup("13.0", "", (), (H200,))
    assert lines_of(setup)["CUDA"] == (
        False,
        "the driver runs CUDA 13.0; torch is built for the CPU alone; install PyTorch's build for CUDA",
    )
    is_good, said = lines_of(setup, "not running", most=1, exclusive=True)["workers"]
    assert not is_good
    assert "`nvidia-smi --compute-mode=DEFAULT`" in said
    assert lines_of(setup, "running", most=1, exclusive=True)["workers"][0]


def test_doctor_says_that_torch_did_not_answer(monkeypatch):
    monkeypatch.setattr(doctor, "cuda_capabilities", lambda: ((9, 0),))
    monkeypatch.setattr(doctor, "cuda_setup", lambda: None)
    ((is_good, _, said),) = doctor._cuda()
    assert not is_good
    assert "torch did not answer" in said


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("AssertionError: Torch not compiled with CUDA enabled", "install PyTorch's build for CUDA."),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "has no kernels for it"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB.", "`nvidia-smi` lists them"),
        ("RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", "--compute-mode=DEFAULT"),
        ("RuntimeError: The NVIDIA driver on your system is too old", "Install a driver and a torch that go together"),
    ],
)
def test_doctor_ablate_and_make_gpu_refuse_a_device_with_one_sentence_and_what_to_do(monkeypatch, capsys, said, advice):
    monkeypatch.setattr(machine, "cuda_problem", lambda device="cuda": said)
    for module in (doctor, gpu):
        monkeypatch.setattr(module, "cuda_capabilities", lambda: ((9, 0),))
    sentence = ImageTrainer().device_problem("cuda")
    assert sentence.startswith(f"torch cannot compute on it: {said.rstrip('.')}. ")
    assert advice in sentence
    assert doctor._device() == (False, "device", f"the driver shows a CUDA device, but {sentence}")
    assert gpu.main() == 2
    assert capsys.readouterr().err == f"make gpu: the driver shows a CUDA device, but {sentence}\n"


def test_make_gpu_ends_with_one_sentence_and_exit_code_2_where_there_is_no_device(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "cuda_capabilities", lambda: ())
    assert gpu.main() == 2
    said = capsys.readouterr()
    assert said.err == "make gpu: the driver shows no CUDA device here; run it on a machine that has one.\n"
    assert said.out == ""


@pytest.mark.slow
def test_doctor_asks_no_cuda_where_the_driver_shows_none(monkeypatch):
    monkeypatch.setattr(doctor, "cuda_capabilities", lambda: ())
    assert doctor._cuda() == []
    assert cuda_setup() is None  # torch asks for the driver's library, and there is none


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
    ("is_there", "state"), [("nothing", "not installed"), ("a listener", "running"), ("what is left", "not installed")]
)
def test_where_the_control_program_is_missing_the_daemon_is_found_by_its_socket(tmp_path, monkeypatch, is_there, state):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        if is_there != "nothing":
            daemon.bind(str(tmp_path / "control"))
        if is_there == "a listener":
            daemon.listen()
        assert mps_state() == state


# As NVIDIA's guide and drivers since 470 print it; the form of the last one is that of older drivers.
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-2927d07e-3fe9-7904-9e08-b08b82d9a37d)
  MIG 3g.20gb     Device  0: (UUID: MIG-6e95ef19-5145-571b-b040-7e731f1c1af3)
  MIG 1g.5gb      Device  1: (UUID: MIG-27b1a30b-e164-5ba8-9904-9d949f65d8e4)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-e109d8d9-923e-7235-0429-96b7fdbcbd30)
GPU 2: A100-SXM4-40GB (UUID: GPU-fcf41002-68b6-5900-d7d1-74026173bb44)
  MIG 1g.5gb Device 0: (UUID: MIG-GPU-fcf41002-68b6-5900-d7d1-74026173bb44/7/0)
"""
INSTANCES = (
    "MIG-6e95ef19-5145-571b-b040-7e731f1c1af3",
    "MIG-27b1a30b-e164-5ba8-9904-9d949f65d8e4",
    "GPU-e109d8d9-923e-7235-0429-96b7fdbcbd30",
    "MIG-GPU-fcf41002-68b6-5900-d7d1-74026173bb44/7/0",
)


def test_mig_instances_are_found_by_their_uuids():
    assert cuda.mig_ids(LISTED) == INSTANCES
    assert cuda.mig_ids("GPU 0: NVIDIA H200 (UUID: GPU-2927d07e)\n") == ()
    assert cuda.mig_ids("") == ()


@pytest.mark.parametrize(
    ("variable", "shown", "listed", "ids", "count"),
    [
        (None, 0, LISTED, (), 0),  # a program without a driver
        (None, 2, "", ("0", "1"), 2),
        (None, 1, LISTED, INSTANCES, 4),  # one process sees one instance, whatever there is
        ("4, 6", 2, "", ("4", "6"), 2),
        ("0,9", 1, "", ("0", "9"), 1),  # there is no tenth: the driver stops counting
        ("MIG-a,MIG-b", 1, LISTED, ("MIG-a", "MIG-b"), 2),
        ("", 0, LISTED, (), 0),
    ],
)
def test_work_is_shared_out_to_devices_and_mig_instances(monkeypatch, variable, shown, listed, ids, count):
    monkeypatch.setattr(cuda, "cuda_capabilities", lambda: ((9, 0),) * shown)
    monkeypatch.setattr(cuda, "_listed", lambda: listed)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert cuda.cuda_ids() == ids
    assert cuda.num_cuda_devices() == count


def test_workers_are_spread_over_all_instances_and_each_sees_its_own(monkeypatch):
    monkeypatch.setattr(cuda, "cuda_capabilities", lambda: ((8, 0),))
    monkeypatch.setattr(cuda, "_listed", lambda: LISTED)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("harness.api.work.mps_state", lambda: "not running")
    devices = worker_devices("cuda", None, 1)
    assert devices == tuple(f"cuda:{index}" for index in range(4)) * 4
    assert worker_devices("cuda", 3, 1) == ("cuda:0", "cuda:1", "cuda:2")
    assert worker_devices("cuda:2", 2, 1) == ("cuda:2", "cuda:2")
    seen = [cuda.seen_alone(device, cuda.cuda_ids()) for device in devices[:4]]
    assert seen == [("cuda:0", {"CUDA_VISIBLE_DEVICES": it}) for it in INSTANCES]


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


def test_training_that_was_asked_to_stop_before_it_began_does_not_touch_the_device(tmp_path, monkeypatch):
    # And has looked: a worker whose training never looks is ended by SIGTERM wherever it is (`processes._Stop`).
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: pytest.fail("the device was used"))
    run = recorded_run(tiny_cell(), tmp_path, "cuda:0", should_stop=lambda: True)
    train.train_on(run, planted_images())
    assert run.asks_to_stop
    assert run.final is None


def test_a_try_and_a_probe_see_the_device_that_is_meant(monkeypatch):
    seen = []

    def note(command, *, env, **options):
        seen.append((" ".join(command), env["CUDA_VISIBLE_DEVICES"]))
        return subprocess.CompletedProcess(command, 0, "0.5", "")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    monkeypatch.setattr(subprocess, "run", note)
    assert machine.cuda_problem("cuda:1") == ""
    assert step_seconds(tiny_cell().settings, "cuda:1") == 0.5
    assert [it for _, it in seen] == ["MIG-b", "MIG-b"]
    assert all("cuda:0" in command and "cuda:1" not in command for command, _ in seen)


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


def test_workers_begin_to_import_before_the_device_is_tried(monkeypatch):
    order = []
    for name in ("check_disk", "warm_up_workers", "check_device", "prepare"):
        monkeypatch.setattr(training, name, lambda *arguments, name=name: order.append(name))
    training.get_ready(SimpleNamespace(executor="ray"), ["a cell"], None)
    assert order == ["check_disk", "warm_up_workers", "check_device", "prepare"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_torch_cannot_use_is_refused_before_anything_starts(tmp_path, monkeypatch):
    # The driver's library is there and shows a GPU; torch, for real, in a process of its own, finds none.
    for module in ("harness.cuda", "harness.hardware"):
        monkeypatch.setattr(f"{module}.cuda_capabilities", lambda: ((9, 0),))
    monkeypatch.setattr("harness.cuda._listed", lambda: "")
    options = ["--study", "task3", "--profile", "quick", "--only", "batch-norm", "--store", str(tmp_path / "mlruns")]

    answer = CliRunner().invoke(cli, ["ablate", *options, "--device", "cuda"])

    assert answer.exit_code == 2
    assert "error: --device cuda: torch cannot compute on it: " in answer.output
    assert "nothing was started" in answer.output
    assert "Traceback" not in answer.output
    assert not (tmp_path / "mlruns").exists()
