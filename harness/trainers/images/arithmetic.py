"""How numbers are computed, whatever they mean: precision, threads, memory, devices.

`Replica` is the network as it computes; `environment` sets and restores the process-wide switches. What is computed is
`models.py`, and when, `train.py`.
"""

import copy
import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.hardware import cpu_name
from harness.hardware import peak_memory_bytes as process_peak_memory_bytes
from harness.trainers.images.kernels.winograd import WinogradBlock, suits
from harness.trainers.images.machine import Precision
from harness.trainers.images.models.convnet import Block
from harness.trainers.images.models.logits import Logits, load_weights


class Replica:
    """A network's computing twin: convolutions and fully connected layers in bfloat16, all else as it is.

    The master weights and the optimizer stay in float32. The twin's copies of them are made once a step, where
    autocast would make them in each operator; the numbers are the same. Batch normalizations and the last layer are
    shared with the master, not copied: they compute in float32, whatever the input is. In float32, or for a network of
    unknown operators (which runs under autocast), the twin is the master itself.

    With `is_winograd`, the blocks of a twin convolve by `winograd.py` where its kernels suit them.

    Args:
        master: float32, on its device; its `grad`s are filled by `backward`.
        is_known: whether every operator of it is known to take bfloat16 input.
    """

    def __init__(self, master: nn.Module, precision: Precision, *, is_known: bool, is_winograd: bool = False) -> None:
        self.uses_autocast = precision == "bfloat16" and not is_known
        self.master = master
        self.network = _twin(master) if precision == "bfloat16" and is_known else master
        if is_winograd and self.network is not master:
            _use_winograd(self.network)
        self._pairs = [
            (weight, copied)
            for weight, copied in zip(master.parameters(), self.network.parameters(), strict=True)
            if weight is not copied
        ]
        self._trained: list[Tensor] = [weight for weight, _ in self._pairs if weight.requires_grad]
        self._copies: list[Tensor] = [copied for _, copied in self._pairs if copied.requires_grad]
        self._gradients = [torch.zeros_like(weight) for weight in self._trained]
        self.input_dtype = torch.bfloat16 if self.network is not master else torch.float32

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits in float32, so that the loss is."""
        is_cached = inputs.device.type != "cuda"  # a graph must not meet a cast that an earlier step has made
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.uses_autocast, cache_enabled=is_cached):
            logits: Tensor = self.network(inputs)
        return logits.float()

    def backward(self, loss: Tensor) -> None:
        """Put the gradients of the loss into the master's `grad`s, in place of those of the step before."""
        for weight in self.network.parameters():
            weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if self._copies:
            torch._foreach_copy_(self._gradients, [copied.grad for copied in self._copies if copied.grad is not None])
            for trained, gradient in zip(self._trained, self._gradients, strict=True):
                trained.grad = gradient

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the trained master weights to the twin: after each optimizer step."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._trained)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Put other weights into the master and the twin."""
        load_weights(self.master, state)
        for weight, copied in self._pairs:
            copied.copy_(weight)


def _twin(master: nn.Module) -> nn.Module:
    shared = {id(module): module for module in master.modules() if isinstance(module, _BatchNorm | Logits)}
    twin = copy.deepcopy(master, memo=dict(shared))
    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, Logits):
            module.to(torch.bfloat16)
    return twin


def _use_winograd(network: nn.Module) -> None:
    """Replace the blocks that the kernels suit."""
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    suited = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, Block) and suits(child, is_first=child is blocks[0])
    ]
    for parent, name, block in suited:
        setattr(parent, name, WinogradBlock(block))


@contextmanager
def environment(*, threads: int, device: torch.device, precision: Precision) -> Iterator[None]:
    """Process-wide switches for the time of one cell; random state, threads and denormals are put back after it.

    * `threads` CPU threads.
    * Denormal numbers count as zero: moments of units that never fire decay into that range, where a CPU is slow.
    * float32 is float32 on CUDA too: TF32 only where it was asked for; and sums of bfloat16 products are in float32.
    * cuDNN's deterministic algorithms. PyTorch's own `use_deterministic_algorithms` stays off: it refuses the gradient
      of max pooling, which adds in an order of its own only where windows overlap (ResNet18's first one, when it
      trains).

    Memory that the cell cached on a CUDA device is given back, for it is shared with other workers.
    """
    _keep_freed_memory()
    before = torch.get_num_threads()
    devices = []
    if device.type == "cuda":
        devices = [device]
        torch.cuda.set_device(device.index or 0)
        torch.cuda.init()  # type: ignore[no-untyped-call]  # nothing below knows a device that is not initialised
        torch.cuda.reset_peak_memory_stats(device)  # of the cell before, in the same process
    with torch.random.fork_rng(devices=devices):
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        switches = _set_switches(precision)
        try:
            yield
        finally:
            for owner, name, value in switches:
                setattr(owner, name, value)
            torch.set_flush_denormal(False)
            torch.set_num_threads(before)
            if devices:
                torch.cuda.synchronize(device)  # nothing is outstanding when a worker ends, which MPS asks for
                torch.cuda.empty_cache()


def _set_switches(precision: Precision) -> list[tuple[Any, str, Any]]:
    """Sets PyTorch's switches for CUDA, and gives what they were: owner, name, value.

    Only the newer ones of TF32: the older `allow_tf32` raise once anybody has written the newer.
    """
    backends = torch.backends
    rounding = "tf32" if precision == "tf32" else "ieee"
    wanted = [
        (backends.cuda.matmul, "fp32_precision", rounding),
        (backends.cudnn.conv, "fp32_precision", rounding),  # type: ignore[attr-defined]
        (backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
        (backends.cudnn, "deterministic", True),
        (backends.cudnn, "benchmark", False),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
    for owner, name, value in wanted:
        setattr(owner, name, value)
    return before


def _keep_freed_memory() -> None:
    """Ask the C library to reuse freed memory instead of returning it to the system.

    By default glibc maps and unmaps each large tensor, so that every step pays for clearing and mapping its pages anew:
    a fifth of a baseline step's time. Other C libraries have no such switch, and need none.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    libc = ctypes.CDLL(None)
    if not libc.mallopt(mmap_threshold, 2**30):
        libc.mallopt(mmap_threshold, 2**25)  # the documented limit, which some versions keep to
    libc.mallopt(trim_threshold, 2**31 - 1)


def unrepeatable_because(network: nn.Module, device: torch.device) -> str:
    """Why the same cell may come out with other bits the next time on this device; empty where it does not.

    On CUDA the gradient of a max pooling whose windows overlap is added up in whatever order threads come, if one is
    asked for: if something before it is trained.
    """
    is_trained = False
    for module in network.modules() if device.type == "cuda" else ():  # in the order in which they were made
        if isinstance(module, nn.MaxPool2d) and is_trained and _pair(module.kernel_size) > _pair(module.stride):
            return "the gradient of a max pooling with overlapping windows is added up in no fixed order"
        is_trained |= any(weight.requires_grad for weight in module.parameters(recurse=False))
    return ""


def _pair(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else max(size)


def device_name(device: torch.device) -> str:
    """`cuda: <name>` or `cpu: <name>`."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {cpu_name()}"


def peak_memory_bytes(device: torch.device) -> int:
    """Peak of what this process held of the device's memory besides its context (tensors, graphs, what is cached for
    them), or on the CPU of its resident memory, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return process_peak_memory_bytes()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch or Python ran out of memory, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _OUT_OF_MEMORY)


def is_poisoned(error: BaseException) -> bool:
    """Whether a kernel failed in such a way (illegal access, assertion, ECC) that this process can use CUDA no more."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


# What PyTorch's allocators, the CUDA runtime, cuBLAS and cuDNN say besides `OutOfMemoryError`.
_OUT_OF_MEMORY = (
    "not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",
)
