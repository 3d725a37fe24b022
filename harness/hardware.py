"""What this machine can do, found without importing torch: so that `plan` answers at once.

Devices, cores and memory, for whoever spreads work; what a device means for one kind of training is that trainer's.
"""

import ctypes
import os
import resource
import sys
from functools import cache
from pathlib import Path

from harness.errors import HarnessError


def resolve_device(requested: str) -> str:
    """`auto` becomes `cuda` where the driver shows a device, else `cpu`; an explicit device must be there.

    Raises:
        HarnessError: the word is unknown, or `cuda` was asked for and there is none.
    """
    if requested == "auto":
        return "cuda" if cuda_capabilities() else "cpu"
    kind, _, index = requested.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise HarnessError(f"--device {requested}: unknown device; expected auto, cpu, cuda or cuda:N.")
    count = len(cuda_capabilities())
    if kind == "cuda" and int(index or 0) >= count:
        raise HarnessError(f"--device {requested}: this machine shows {count} CUDA devices. Use --device cpu.")
    return requested


def peak_memory_bytes() -> int:
    """Peak of this process's resident memory."""
    try:
        status = Path("/proc/self/status").read_text()  # ru_maxrss starts from the peak of the process that forked
        return 1024 * int(next(it.split()[1] for it in status.splitlines() if it.startswith("VmHWM:")))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets that Linux lists; empty where there is no /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


@cache
def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


@cache
def cuda_capabilities() -> tuple[tuple[int, int], ...]:
    """Compute capability (major, minor) of each visible CUDA device, by the driver's library; empty without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    found = []
    for index in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # ..._MINOR
        found.append((major.value, minor.value))
    return tuple(found)
