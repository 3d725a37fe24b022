"""The CUDA devices of this machine and who may share them: by the driver's library and NVIDIA's programs, not by torch.

Nothing here opens a context: a command that only plans, or starts workers, takes no memory of a device. What torch can
do on a device is the trainer's to find out.
"""

import ctypes
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

TAKING_TURNS = 4  # workers of a device without MPS: they hide each other's pauses, and more only take memory
MOST_CLIENTS = 48  # of MPS on a device, by NVIDIA's documentation (Volta and later)
EXCLUSIVE = 3  # CU_COMPUTEMODE_EXCLUSIVE_PROCESS of cuda.h

Mps = Literal["running", "not running", "not installed"]


@cache
def cuda_capabilities() -> tuple[tuple[int, int], ...]:
    """Compute capability (major, minor) of each visible CUDA device, by the driver's library; empty without one."""
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and ..._MINOR
    return tuple(zip(_attribute(75), _attribute(76), strict=True))


@cache
def is_exclusive() -> bool:
    """Whether a visible device admits one process only (`nvidia-smi --compute-mode=EXCLUSIVE_PROCESS`); the server of
    MPS may be that one."""
    return EXCLUSIVE in _attribute(20)  # CU_DEVICE_ATTRIBUTE_COMPUTE_MODE


def _attribute(number: int) -> list[int]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    found = []
    for index in range(count.value):
        device, value = ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        found.append(value.value)
    return found


def cuda_ids() -> tuple[str, ...]:
    """What $CUDA_VISIBLE_DEVICES calls each device that work can be shared out to; one process sees one MIG instance at
    most, however many there are, so that the driver's count is not enough.

    Returns:
        Where the variable is set, what it names. Else the UUIDs of MIG instances (and of whole GPUs beside them), where
        `nvidia-smi -L` lists any. Else the numbers of the devices that the driver shows.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return tuple(it.strip() for it in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if it.strip())
    if not cuda_capabilities():
        return ()
    return mig_ids(_listed()) or tuple(map(str, range(len(cuda_capabilities()))))


def num_cuda_devices() -> int:
    """How many devices work can be shared out to: `cuda:0`, `cuda:1`, ..."""
    shown, ids = len(cuda_capabilities()), cuda_ids()
    return len(ids) if shown and any(it.startswith("MIG-") for it in ids) else shown


def mig_ids(listed: str) -> tuple[str, ...]:
    """The devices that `nvidia-smi -L` lists, by UUID, where there is a MIG instance among them; else none.

    A line a GPU, `GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-...)`, under it one for each of its instances, indented,
    `MIG 1g.5gb      Device  0: (UUID: MIG-...)` (`MIG-GPU-.../7/0` with older drivers). A GPU that has instances can be
    used through them only.
    """
    found: list[str] = []
    for kind, uuid in re.findall(r"^\s*(GPU|MIG) .*\(UUID: ([^)\s]+)\)", listed, re.MULTILINE):
        if kind == "MIG" and found and found[-1].startswith("GPU-"):
            found.pop()
        found.append(uuid)
    return tuple(found) if any(it.startswith("MIG-") for it in found) else ()


@cache
def _listed() -> str:
    if max(cuda_capabilities()) < (8, 0):  # none of them has MIG
        return ""
    return _answer(["nvidia-smi", "-L"])


def seen_alone(device: str, ids: Sequence[str]) -> tuple[str, dict[str, str]]:
    """How a process sees no other CUDA device than this one.

    Args:
        device: such as `cuda:1`; ids: as `cuda_ids` gives them, in which it is the second.

    Returns:
        What the device is called there, and the variables to set before CUDA starts.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index:
        return device, {}
    return "cuda:0", {"CUDA_VISIBLE_DEVICES": ids[int(index)] if int(index) < len(ids) else index}


def mps_state() -> Mps:
    """Whether NVIDIA's Multi-Process Service serves this user: kernels of several processes then run side by side.

    Its control program knows, and finds the daemon by $CUDA_MPS_PIPE_DIRECTORY. A container may have the daemon's
    sockets without the program.
    """
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        return "running" if _is_listening() else "not installed"
    try:
        done = subprocess.run([control], input="get_server_list\n", capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "not running"
    return "running" if done.returncode == 0 and "Cannot find" not in done.stdout + done.stderr else "not running"


def _is_listening() -> bool:
    """Whether somebody is behind the `control` socket in the daemon's folder."""
    path = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control")
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return False
        for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
            with socket.socket(socket.AF_UNIX, kind) as probe:
                if probe.connect_ex(str(path)) == 0:
                    return True
    except OSError:
        pass
    return False


def most_workers(*, cores: int, memory_bytes: int, num_devices: int, mps: Mps, exclusive: bool) -> int:
    """Workers of each device at most, whatever its memory has room for.

    Args:
        cores: that workers may use, divided by the threads of one. memory_bytes: of the host, for them all.
        exclusive: whether a device admits one process only.
    """
    if mps != "running":
        return 1 if exclusive else TAKING_TURNS
    of_the_host = min(cores, memory_bytes // HOST_BYTES_A_WORKER) // num_devices
    return max(1, min(of_the_host, MOST_CLIENTS))


# Resident memory of a process that trains on CUDA: 1.8 to 1.9 GB (benchmarks/results/2026-11-26-nvidia-h200.json).
HOST_BYTES_A_WORKER = 2_500_000_000


def _answer(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
