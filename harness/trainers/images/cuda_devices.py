"""The CUDA devices as torch finds them, asked in a process of its own: this one takes no context on them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from harness.cuda import cuda_ids

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
    """None where torch did not answer. One process sees one MIG instance at most, so each is asked about alone."""
    ids = cuda_ids()
    alone = [{"CUDA_VISIBLE_DEVICES": it} for it in ids] if any(it.startswith("MIG-") for it in ids) else [{}]
    answers = [_probed(variables) for variables in alone]
    found = answers[0]
    if found is None:
        return None
    devices = tuple(
        CudaDevice(**(it | {"capability": tuple(it["capability"])}))
        for answer in answers
        for it in (answer or {"devices": []})["devices"]
    )
    driver = f"{found['driver'] // 1000}.{found['driver'] % 1000 // 10}"
    return CudaSetup(driver, found["built_for"] or "", tuple(found["kernels"]), devices)


def _probed(variables: dict[str, str]) -> dict[str, Any] | None:
    command, known = [sys.executable, "-c", PROBE], os.environ | variables
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=known)
        found: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found
