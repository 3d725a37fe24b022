"""`harness doctor`: what this machine has, and what to do about what it lacks."""

import os
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from harness.api.work import workers_a_device
from harness.cli.options import store_option
from harness.cli.progress import size
from harness.cli.screen import Screen
from harness.cuda import Mps, cuda_capabilities, is_exclusive, mps_state, num_cuda_devices
from harness.errors import HarnessError
from harness.execution.provenance import library_versions
from harness.hardware import cpu_name, resolve_device, usable_cores
from harness.store.cells import Cells
from harness.trainers.images.cuda_devices import CudaSetup, cuda_setup
from harness.trainers.images.machine import (
    cuda_refusal,
    native_precision,
    winograd_advice,
    winograd_pays,
    winograd_problem,
)


@click.command()
@store_option
@click.pass_context
def doctor(ctx: click.Context, store: Path) -> None:
    """Check device, precision, convolutions, versions, data, tracking and disk; exit code 1 if something is wrong."""
    cells = Cells(store.absolute())
    checks = [_device(), *_cuda(), _precision(), _convolutions()]
    checks += [_versions(), _data(), _tracking(cells.root), _disk(cells)]
    table = Table.grid(padding=(0, 2))
    for column in ("", "", ""):
        table.add_column(column, overflow="fold")
    for is_good, name, said in checks:
        table.add_row(Text("ok", "green") if is_good else Text("no", "red"), name, said)
    Screen().print(table)
    if not all(is_good for is_good, _, _ in checks):
        ctx.exit(1)


Check = tuple[bool, str, str]
LEAST_FREE_BYTES = 2_000_000_000  # of a device: a context, and a small network


def _device() -> Check:
    if not cuda_capabilities():
        return True, "device", f"{cpu_name()}, {usable_cores()} cores; no CUDA device"
    if problem := cuda_refusal():
        return False, "device", f"the driver shows a CUDA device, but {problem}"
    return True, "device", f"{num_cuda_devices()} CUDA; a product and a convolution on the first were right"


def _cuda() -> list[Check]:
    """What a CUDA machine has besides: nothing on others."""
    if not cuda_capabilities():
        return []
    setup = cuda_setup()
    if setup is None:
        said = "torch did not answer; `python -c 'import torch; torch.cuda.init()'` in this environment says why"
        return [(False, "CUDA", said)]
    most = workers_a_device(num_devices=num_cuda_devices())
    return cuda_checks(setup, mps_state(), most=most, exclusive=is_exclusive())


def cuda_checks(setup: CudaSetup, mps: Mps, *, most: int, exclusive: bool = False) -> list[Check]:
    """The lines of `doctor` about CUDA devices.

    Args:
        most: workers a device. exclusive: whether one admits a single process only.
    """
    built_for = f"{setup.built_for}: {', '.join(setup.kernels)}"
    if not setup.built_for:
        built_for = "the CPU alone; install PyTorch's build for CUDA"
    driver = f"the driver runs CUDA {setup.driver}; torch is built for {built_for}"
    checks = [(bool(setup.built_for), "CUDA", driver)]
    for index, device in enumerate(setup.devices):
        capability = ".".join(map(str, device.capability))
        memory = f"{size(device.free_bytes)} of {size(device.total_bytes)} free"
        is_free = device.free_bytes >= LEAST_FREE_BYTES
        if not is_free:
            memory += "; other programs hold the rest (`nvidia-smi` lists them): end them, or wait for them"
        checks.append((is_free, f"cuda:{index}", f"{device.name}, compute capability {capability}, {memory}"))
        steps = "one CUDA graph"
        if device.graph_problem:
            steps = (
                f"eager: a graph cannot be replayed: {device.graph_problem}; numbers are the same, each step slower. "
                "Install a newer driver, or another torch"
            )
        checks.append((not device.graph_problem, "steps", steps))
    together = {
        "running": "MPS is running: their kernels run side by side",
        "not running": "MPS is not running, so that they take turns; `nvidia-cuda-mps-control -d` starts it",
        "not installed": "without MPS (nvidia-cuda-mps-control) they take turns",
    }[mps]
    if exclusive and mps != "running":
        together = (
            "it admits one process only: start MPS (`nvidia-cuda-mps-control -d`), or have it shared "
            "(`nvidia-smi --compute-mode=DEFAULT`)"
        )
    counted = f"{most} cell{'s' * (most > 1)} a device at a time at most, as its memory has room (or --jobs)"
    return [*checks, (not exclusive or mps == "running", "workers", f"{counted}; {together}")]


def _precision() -> Check:
    device = resolve_device("auto")
    precision = native_precision(device)
    remark = "" if precision == "bfloat16" else "; bfloat16 is not native here, so training takes about twice as long"
    return True, "precision", f"{precision} ({device}){remark}"


def _convolutions() -> Check:
    if resolve_device("auto") != "cpu":
        return True, "convolutions", "cuDNN's"
    if winograd_pays():
        return True, "convolutions", "Winograd's algorithm in bfloat16, for 3x3 and 5x5 kernels"
    remark = "; training takes up to four times as long" if winograd_advice() else ""
    return True, "convolutions", f"PyTorch's ({winograd_problem() or 'this CPU has AMX'}){remark}"


def _versions() -> Check:
    found = library_versions()
    return True, "versions", ", ".join(f"{name} {version}" for name, version in found.items())


def _data() -> Check:
    from harness.trainers.images.data.sources import default_cache

    cache = default_cache()
    existing = cache if cache.exists() else "not made yet"
    return True, "data", f"image cache {cache} ({existing if existing != cache else 'there'}); shapes needs no file"


def _tracking(root: Path) -> Check:
    from harness.tracking import init, resolve_uri
    from harness.urls import masked

    try:
        uri = resolve_uri(None, root)
        if uri.startswith("sqlite") and not root.exists():
            return True, "tracking", f"{uri} (made at the first run)"
        init(uri, root)
        return True, "tracking", masked(uri)
    except HarnessError as error:
        return False, "tracking", str(error)


def _disk(cells: Cells) -> Check:
    free = cells.free_bytes()
    existing = next(path for path in (cells.root, *cells.root.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return False, "disk", f"{existing} cannot be written; choose another folder with --store"
    return free > 1e9, "disk", f"{size(free)} free at {cells.root}"
