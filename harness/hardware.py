"""What this machine can do, found without importing torch: so that `plan` answers at once.

Devices, cores and memory, for whoever spreads work; what a device means for one kind of training is that trainer's.
"""

import os
import resource
import sys
from functools import cache
from pathlib import Path

from harness.cuda import cuda_capabilities, num_cuda_devices
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
    count = num_cuda_devices() if kind == "cuda" else 0
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


def free_memory_bytes() -> int:
    """Of the host, as Linux estimates what new processes can have; all of it where there is no /proc."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(it.split()[1] for it in lines if it.startswith("MemAvailable:")))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
