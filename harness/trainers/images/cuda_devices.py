"""The CUDA devices as torch finds them, asked in a process of its own: this one takes no context on them."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass

PROBE = """
import ctypes, json, torch
version = ctypes.c_int()
ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
devices = []
for index in range(torch.cuda.device_count()):
    torch.cuda.set_device(index)
    about = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    x, problem = torch.zeros(4, device=f"cuda:{index}"), ""
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            x += 1
        graph.replay()
        assert x.sum().item() == 4
    except Exception as error:
        problem = str(error).partition(chr(10))[0] or type(error).__name__
    devices.append(dict(name=about.name, capability=[about.major, about.minor], free_bytes=free, total_bytes=total,
                        graph_problem=problem))
print(json.dumps(dict(driver=version.value, built_for=torch.version.cuda, kernels=torch.cuda.get_arch_list(),
                      devices=devices)))
"""


@dataclass(frozen=True)
class CudaDevice:
    """One device. `graph_problem` says why a CUDA graph cannot be captured and replayed on it; empty where it can."""

    name: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int
    graph_problem: str


@dataclass(frozen=True)
class CudaSetup:
    """What there is on this machine.

    Attributes:
        driver, built_for: version of CUDA that the driver can run, and that torch was built for, such as `13.0`.
        kernels: architectures that torch has kernels for, such as `sm_90`.
    """

    driver: str
    built_for: str
    kernels: tuple[str, ...]
    devices: tuple[CudaDevice, ...]


def cuda_setup() -> CudaSetup | None:
    """None where torch did not answer."""
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120, check=True)
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    devices = tuple(CudaDevice(**(it | {"capability": tuple(it["capability"])})) for it in found["devices"])
    driver = f"{found['driver'] // 1000}.{found['driver'] % 1000 // 10}"
    return CudaSetup(driver, found["built_for"] or "", tuple(found["kernels"]), devices)


def mps_state() -> str:
    """Whether NVIDIA's Multi-Process Service serves this user: `running`, `not running`, or `not installed`."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        return "not installed"
    try:
        done = subprocess.run([control], input="get_server_list\n", capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "not running"
    return "running" if done.returncode == 0 and "Cannot find" not in done.stdout + done.stderr else "not running"
