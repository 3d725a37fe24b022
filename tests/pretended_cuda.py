"""A CUDA device that is none: whole cells train on `cuda:0` with real values, on a CPU, and are watched.

A tensor on the device wraps a CPU tensor. PyTorch's dispatcher and autograd take it for one of a Python backend
(`pretended:0`); Python code sees `cuda:0`. Each operator of forward, backward and optimizer passes `_operator`, which
refuses what CUDA refuses (operands on two devices, use before initialisation), counts where the host would wait for the
device, and runs the CPU's kernel on the wrapped tensors: so float32 values equal the CPU's to the bit.

Not seen: kernels, their numbers and types, memory, races, capture, several devices.
"""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
READS = {aten._local_scalar_dense.default, aten.item.default, aten.equal.default, aten.is_nonzero.default}
# The host needs values, or a size that depends on them.
WAITS = READS | {
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}


class Watch:
    """What was seen. `waits`: (what, file:line) -> how often the host waited for the device."""

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self.forbidden = False
        self.is_initialised = False
        self.random_state = torch.Generator().manual_seed(0).get_state()  # of the device's default generator

    def wait(self, what: str) -> None:
        frames = [it for it in reversed(traceback.extract_stack()) if "/torch/" not in it.filename]
        place = next((it for it in frames if it.filename != __file__), frames[0])
        self.waits[what, f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"] += 1
        if self.forbidden:
            raise RuntimeError(f"the host waits for the device: {what} at {place.filename}:{place.lineno}")

    @contextmanager
    def forbidding_waits(self) -> Iterator[None]:
        """Within, a wait raises."""
        self.forbidden = True
        try:
            yield
        finally:
            self.forbidden = False


watch = Watch()


def _random_state(*_: object) -> torch.Tensor:
    watch.is_initialised = True
    return watch.random_state.clone()


def _set_random_state(state: torch.Tensor, *_: object) -> None:
    watch.random_state = state.clone()


def _seed(seed: int) -> None:
    watch.random_state = torch.Generator().manual_seed(seed).get_state()


class _Backend:
    """What PyTorch asks an accelerator's module for."""

    is_initialized = is_available = staticmethod(lambda: True)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(_seed)
    get_rng_state = staticmethod(_random_state)
    set_rng_state = staticmethod(_set_random_state)


_setup_privateuseone_for_python_backend("pretended", backend_module=_Backend())
INNER, SHOWN = torch.device("pretended:0"), torch.device("cuda:0")


class OnDevice(torch.Tensor):
    """A tensor that says it is on cuda:0; `inner` is on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnDevice":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=INNER,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    device = property(lambda self: SHOWN)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __reduce_ex__(self, protocol):
        return self.inner.__reduce_ex__(protocol)  # as a CUDA tensor that is loaded with map_location="cpu"

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _operator(operator, args, kwargs or {})


def _operator(operator, args, kwargs):
    tensors = [it for it in tree_flatten((args, kwargs))[0] if isinstance(it, torch.Tensor)]
    ours = [it for it in tensors if isinstance(it, OnDevice)]
    device = kwargs.get("device")
    made_there = device is not None and torch.device(device).type in ("cuda", INNER.type)
    if not ours and not made_there:
        return operator(*args, **kwargs)
    if operator in COPIES:
        return _copy(operator, args, kwargs, made_there)
    _refuse_two_devices(operator, args, tensors, ours)
    if operator in WAITS or _has_mask(operator, args):
        watch.wait(str(operator))
    inner_args, inner_kwargs = tree_map_only(OnDevice, lambda it: it.inner, (args, kwargs))
    if device is not None:
        inner_kwargs = {**inner_kwargs, "device": torch.device("cpu")} | ({"pin_memory": False} if made_there else {})
        inner_kwargs = {name: it for name, it in inner_kwargs.items() if name != "pin_memory" or "pin_memory" in kwargs}
    is_random = torch.Tag.nondeterministic_seeded in operator.tags and kwargs.get("generator") is None
    with _device_generator() if is_random else nullcontext():
        out = operator(*inner_args, **inner_kwargs)
    stays_here = operator in READS or (device is not None and not made_there)
    return out if stays_here else _wrapped(out, ours)


def _refuse_two_devices(operator, args, tensors, ours) -> None:
    strangers = [tuple(it.shape) for it in tensors if not isinstance(it, OnDevice) and it.dim() > 0]
    if not ours or not strangers:
        return
    if operator in INDEXING and isinstance(args[0], OnDevice):
        watch.wait(f"{operator} by an index on the CPU")
        return
    raise RuntimeError(f"{operator}: expected all tensors on one device, found cuda:0 and cpu {strangers}")


def _has_mask(operator, args) -> bool:
    masks = (torch.bool, torch.uint8)
    return operator in INDEXING and any(it is not None and it.dtype in masks for it in args[1])


def _wrapped(out, ours):
    known = {id(it.inner): it for it in ours}  # an operator in place gives back the very object

    def wrapped(it):
        return it if type(it) is OnDevice else known[id(it)] if id(it) in known else OnDevice(it)

    return tree_map_only(torch.Tensor, wrapped, out)


def _copy(operator, args, kwargs, made_there):
    is_in_place = operator is aten.copy_.default
    source = args[1] if is_in_place else args[0]
    waits = not kwargs.get("non_blocking", args[2] if is_in_place and len(args) > 2 else False)
    if is_in_place:
        goes_there = isinstance(args[0], OnDevice)
    else:
        goes_there = made_there if kwargs.get("device") is not None else isinstance(source, OnDevice)
    if isinstance(source, OnDevice) != goes_there and source.numel():
        is_pinned = getattr(source, "pretended_pinned", False)
        if waits or (goes_there and not is_pinned) or not goes_there:
            watch.wait("a copy to the device" if goes_there else "a copy to the host")
    inner_args, inner_kwargs = tree_map_only(OnDevice, lambda it: it.inner, (args, kwargs))
    if "device" in inner_kwargs:
        inner_kwargs = {**inner_kwargs, "device": torch.device("cpu")}
    out = operator(*inner_args, **inner_kwargs)
    return args[0] if is_in_place else OnDevice(out) if goes_there else out


@contextmanager
def _device_generator() -> Iterator[None]:
    before = torch.get_rng_state()
    torch.set_rng_state(watch.random_state)
    try:
        yield
    finally:
        watch.random_state = torch.get_rng_state()
        torch.set_rng_state(before)


class _Factories(TorchDispatchMode):
    """Catches operators that make a tensor on the device from nothing."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled() and operator is not aten.item.default:
            with self:  # composite operators arrive whole there
                out = operator.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        return _operator(operator, args, kwargs or {})


class _Arguments(TorchFunctionMode):
    """Replaces `cuda` in arguments before PyTorch parses them, which would start CUDA."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.pin_memory:
            pinned = args[0].clone()
            pinned.pretended_pinned = True
            return pinned
        if function not in (torch.device, torch.Tensor.__format__):
            args, kwargs = tuple(map(_inner_device, args)), {name: _inner_device(it) for name, it in kwargs.items()}
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") == INNER:  # passes no dispatch mode
            rest = {name: it for name, it in kwargs.items() if name != "device"}
            return function(*args, **rest).to(INNER)
        if function is torch.Tensor.new_tensor and isinstance(args[0], OnDevice):
            return torch.tensor(*args[1:], **({"dtype": args[0].dtype} | kwargs)).to(INNER)
        if function is torch.Tensor.tolist and isinstance(args[0], OnDevice):
            watch.wait("tolist")
            return args[0].inner.tolist()
        return function(*args, **kwargs)


def _inner_device(value):
    if isinstance(value, torch.device) and value.type == "cuda":
        return INNER
    return str(INNER) if isinstance(value, str) and value.partition(":")[0] == "cuda" else value


def _reset_peak(*_: object) -> None:
    if not watch.is_initialised:
        raise RuntimeError("Invalid device argument 0: did you call init?")  # as PyTorch's allocator


def _initialise() -> None:
    watch.is_initialised = True


@contextmanager
def pretended_cuda() -> Iterator[Watch]:
    """Within, `cuda:0` is there. Gives the watch."""
    watch.__init__()  # type: ignore[misc]
    seed_host = torch.manual_seed

    def seed_all(seed):
        _seed(seed)
        return seed_host(seed)

    stand_ins = {
        "init": _initialise,
        "set_device": lambda index: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda *_: watch.wait("synchronize"),
        "empty_cache": lambda: None,
        "get_device_name": lambda *_: "Pretended",
        "get_device_capability": lambda *_: (9, 0),
        "reset_peak_memory_stats": _reset_peak,
        "mem_get_info": lambda *_: (10**10, 10**10),
        "memory_reserved": lambda *_: 0,
        "max_memory_reserved": lambda *_: 0,
        "get_rng_state": _random_state,
        "set_rng_state": _set_random_state,
        "manual_seed_all": _seed,
        "is_bf16_supported": lambda *_: True,
        "is_current_stream_capturing": lambda: False,
    }
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        stack.enter_context(mock.patch.object(torch, "manual_seed", seed_all))
        stack.enter_context(mock.patch.object(torch.random, "manual_seed", seed_all))
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # `param.data = ...` would not reach `inner`
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
        stack.enter_context(_Arguments())
        stack.enter_context(_Factories())
        yield watch
