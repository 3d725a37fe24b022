"""What a measurement was made on: without it, no number means anything."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.cuda import cuda_capabilities
from harness.execution.provenance import library_versions, provenance
from harness.hardware import cpu_flags, cpu_name, usable_cores

TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
LIBRARIES = ("harness", "torch", "torchvision", "lightning", "numpy", "pillow", "mlflow", "pandas")


def machine(device: str) -> dict[str, Any]:
    """Plain values: the device's name, cores, instruction sets, memory, versions, commit, load when it began."""
    origin = provenance("", folder=Path(__file__).parent)
    return {
        "device": device_name(device),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "cpu_flags": [flag for flag in TELLING_FLAGS if flag in cpu_flags()],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "cuda_capabilities": cuda_capabilities(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": dict(library_versions(LIBRARIES)),
        "commit": origin["commit"],
        "dirty": origin["dirty"],
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_MATTERING)},
    }


_MATTERING = ("OMP_", "MKL_", "KMP_", "GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_", "PYTORCH_", "CUDA_VISIBLE")


def device_name(device: str) -> str:
    """`<name of the CPU>` or the GPU's; asked of a new process, because importing torch takes memory and seconds."""
    if device == "cpu":
        return cpu_name()
    code = f"import torch; print(torch.cuda.get_device_name({device!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
