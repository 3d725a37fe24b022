"""What this machine means for training on images, found without importing torch: so that `plan` answers at once.

Which precision `auto` is here, and whether our own convolutions pay.
"""

import ctypes
import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from harness.cuda import cuda_capabilities, cuda_ids, seen_alone
from harness.hardware import cpu_flags

Precision = Literal["float32", "tf32", "bfloat16"]

# As `_winograd.c` is compiled (pyproject.toml), and the version of what it exports.
WINOGRAD_FLAGS = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "fma"})
WINOGRAD_INTERFACE = 1


def cuda_problem(device: str = "cuda") -> str:
    """Why torch cannot compute on this CUDA device, by one real product and convolution in a process of its own; empty
    where it can. The driver's library alone does not tell: this torch may be made for the CPU, for a newer driver, or
    for other GPUs."""
    name, variables = seen_alone(device, cuda_ids())
    code = (
        f"import torch; device = torch.device({name!r}); x = torch.ones(1, 8, 8, 8, device=device); "
        "y = torch.nn.functional.conv2d(x, torch.ones(8, 8, 3, 3, device=device)).flatten(); "
        "assert (y @ y).item() == 8 * 36 * 72**2, y"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ | variables
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"torch did not answer on {device} ({error})"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else said[-1] if said else f"torch ended with exit code {done.returncode}"


def cuda_refusal(device: str = "cuda") -> str:
    """Why torch cannot compute on this CUDA device and what to do about it, in two sentences; empty where it can. What
    `doctor` says, and what whoever would train there is refused with."""
    problem = cuda_problem(device).rstrip(".")
    advice = next((it for said, it in _ADVICE.items() if said in problem), _USUAL_ADVICE)
    return problem and f"torch cannot compute on it: {problem}. {advice}"


_ADVICE = {
    "not compiled with CUDA": "This torch is made for the CPU; install PyTorch's build for CUDA.",
    "no kernel image": "This torch has no kernels for it; install a build that has (`harness doctor` lists them).",
    "out of memory": "Other programs hold its memory (`nvidia-smi` lists them); end them, or wait for them.",
    "busy or unavailable": (
        "Another process has it for itself; end that one (`nvidia-smi` lists it), start MPS (`nvidia-cuda-mps-control "
        "-d`), or have it shared: `nvidia-smi --compute-mode=DEFAULT`."
    ),
}
_USUAL_ADVICE = "Install a driver and a torch that go together (`harness doctor` says which there are)."


def native_precision(device: str) -> Precision:
    """`bfloat16` where the device computes in it natively (CUDA 8.0 and later; AVX512-BF16 or AMX), else `float32`."""
    if device.startswith("cuda"):
        capabilities = cuda_capabilities()
        return "bfloat16" if capabilities and min(capabilities) >= (8, 0) else "float32"
    return "bfloat16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "float32"


def precision_problem(precision: str, device: str) -> str | None:
    """Why the device cannot compute in this precision; None where it can."""
    if precision == "tf32" and not device.startswith("cuda"):
        return "training.precision: tf32 is a format of CUDA devices; choose float32 or bfloat16 here, or --device cuda"
    return None


def winograd_pays() -> bool:
    """Whether a core of this machine convolves in bfloat16 faster by `winograd.py` than by PyTorch: not with AMX."""
    return "amx_bf16" not in cpu_flags() and not winograd_problem()


def winograd_advice() -> str:
    """What the installation lacks to convolve fast on this CPU; empty where it lacks nothing, or where the CPU does."""
    return "" if "amx_bf16" in cpu_flags() or WINOGRAD_FLAGS - cpu_flags() else winograd_problem()


def winograd_problem() -> str:
    """Why the compiled kernels of `winograd.py` cannot run here; empty where they can."""
    if missing := sorted(WINOGRAD_FLAGS - cpu_flags()):
        return f"the CPU lacks {', '.join(missing)}"
    library = winograd_library()
    if library is None:
        return (
            "harness was installed without a C compiler that knows -mavx512bf16 (gcc 10, clang 9, or later); "
            "install one, then harness anew (with make: `make clean` first)"
        )
    if _interface(library) != WINOGRAD_INTERFACE:
        return f"{library.name} was compiled from other sources; install harness anew (with make: `make clean` first)"
    return ""


@cache
def winograd_library() -> Path | None:
    """The file of the compiled kernels; None where the installation could not compile them."""
    spec = importlib.util.find_spec("harness.trainers.images.kernels._winograd")
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _interface(library: Path) -> int | None:
    try:
        return int(ctypes.CDLL(str(library)).winograd_interface())
    except (OSError, AttributeError):
        return None
