"""torch.optim by name: which optimizers there are, which arguments they take, and the fastest form of each."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from harness.names import suggestion
from harness.trainers.images.settings import Optimizer, Option

# Not for the weights of a network in general -> why.
UNSUITED = {
    "lbfgs": "needs the loss several times a step",
    "sparseadam": "takes sparse gradients only",
    "muon": "takes matrices only, and a network has biases and convolutions",
}
# Arguments that settings of their own hold, or that choose an implementation.
OWN = {"params", "lr", "momentum", "weight_decay"}
IMPLEMENTATION = {"foreach", "fused", "capturable", "differentiable", "maximize"}


def optimizer_classes() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """Those that suit, by their names in small letters."""
    named = {name.lower(): it for name, it in vars(torch.optim).items() if inspect.isclass(it)}
    base = torch.optim.Optimizer
    return {
        name: it
        for name, it in sorted(named.items())
        if issubclass(it, base) and it is not base and name not in UNSUITED
    }


def arguments_of(name: str) -> dict[str, Any]:
    """The arguments of an optimizer with their defaults."""
    parameters = inspect.signature(optimizer_classes()[name]).parameters
    return {argument: it.default for argument, it in parameters.items()}


def option_defaults(name: str) -> dict[str, Any]:
    """What `optimizer.options` may set, with torch's defaults."""
    return {argument: it for argument, it in arguments_of(name).items() if argument not in OWN | IMPLEMENTATION}


def check_name(name: str) -> None:
    """Raises ValueError: there is no such optimizer, or it cannot train a network."""
    known = optimizer_classes()
    if name in UNSUITED:
        raise ValueError(f"{name} {UNSUITED[name]}; choose one of {', '.join(known)}")
    if name not in known:
        raise ValueError(f"unknown {name!r}.{suggestion(name, known)} torch.optim has {', '.join(known)}")


def checked_options(
    name: str, learning_rate: float, own: Mapping[str, float], options: Mapping[str, Option]
) -> dict[str, Option]:
    """The options in the types of the defaults, without those that are the default.

    Args:
        own: `momentum` and `weight_decay`, which have settings of their own.

    Raises:
        ValueError: an optimizer of this name takes no such argument, or not with this value.
    """
    takes, defaults = arguments_of(name), option_defaults(name)
    for argument, number in own.items():
        if number and argument not in takes:
            raise ValueError(f"{argument} {number:g} is set, but {name} takes none")
    made = {}
    for option, value in options.items():
        if option in OWN:
            raise ValueError(f"{option} has a setting of its own: {_setting(option)}")
        if option in IMPLEMENTATION:
            raise ValueError(f"{option} is chosen by the device; leave it out")
        if option not in defaults:
            hint = suggestion(option, defaults)
            raise ValueError(f"{name} takes no {option!r}.{hint} It takes {', '.join(defaults) or 'none'}")
        made[option] = _typed(option, value, defaults[option])
    made_own = {argument: number for argument, number in own.items() if argument in takes}
    try:
        optimizer_classes()[name]([nn.Parameter(torch.zeros(1))], lr=learning_rate, **made_own, **made)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} refuses: {error}") from None
    return {option: value for option, value in made.items() if value != defaults[option]}


def _setting(argument: str) -> str:
    return {"lr": "optimizer.learning_rate", "params": "model.trained_layers"}.get(argument, f"optimizer.{argument}")


def _typed(option: str, value: Any, default: Any) -> Any:
    """The value in the type of the default: True is no number, and 1 is 1.0 where the default has a fraction."""
    if isinstance(default, tuple):
        if not isinstance(value, tuple) or len(value) != len(default):
            raise ValueError(f"{option} must be a list of {len(default)}, such as {list(default)}, not {value!r}")
        return tuple(_typed(f"{option}[{i}]", *pair) for i, pair in enumerate(zip(value, default, strict=True)))
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{option} must be true or false, not {value!r}")
        return value
    if default is None and value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{option} must be a number, not {value!r}")
    return float(value)


def make_optimizer(
    settings: Optimizer, weights: Iterable[nn.Parameter], device: torch.device, *, is_constant: bool = True
) -> torch.optim.Optimizer:
    """The optimizer over the weights that train, in its fastest form: fused where PyTorch has that; on CUDA such that a
    graph can hold its step, if there is such a form.

    Args:
        is_constant: the learning rate. On CUDA one that is not becomes a tensor, where a graph can hold the step.
    """
    is_cuda = device.type == "cuda"
    trained = [weight for weight in weights if weight.requires_grad]
    takes = arguments_of(settings.name)
    arguments: dict[str, Any] = {
        argument: value
        for argument, value in (("momentum", settings.momentum), ("weight_decay", settings.weight_decay))
        if argument in takes
    }
    if "fused" in takes and (settings.name != "adagrad" or not is_cuda):
        arguments["fused"] = True
    elif "foreach" in takes:
        arguments["foreach"] = is_cuda
    if "capturable" in takes:
        arguments["capturable"] = is_cuda
    rate: float | torch.Tensor = settings.learning_rate
    if is_cuda and not is_constant and is_capturable(settings.name):
        rate = torch.tensor(rate, device=device)
    return optimizer_classes()[settings.name](trained, lr=rate, **arguments, **settings.options)


def is_capturable(name: str) -> bool:
    """Whether a step can be made of device tensors alone. SGD counts no steps, and needs no form of its own for it."""
    return name == "sgd" or "capturable" in arguments_of(name)
