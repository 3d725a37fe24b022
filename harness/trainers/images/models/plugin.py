"""A model of the user's own, by the name of a function that makes it."""

import importlib
import inspect

from torch import nn

from harness.errors import StudyError
from harness.trainers.images.settings import PluginModel


def build_plugin(model: PluginModel, num_classes: int) -> nn.Module:
    """Raises StudyError: there is no such function, or it cannot be called so, or gives no module."""
    module_name, _, function_name = model.factory.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise StudyError(
            f"model.factory: cannot import {module_name!r} ({error}); run from the folder that holds it, or install it"
        ) from error
    except AttributeError as error:
        raise StudyError(f"model.factory: module {module_name!r} has no function {function_name!r}") from error
    try:
        inspect.signature(factory).bind(num_classes=num_classes, **model.options)
    except TypeError as error:
        raise StudyError(
            f"model.options: {model.factory} cannot take them together with num_classes: {error}"
        ) from error
    network = factory(num_classes=num_classes, **model.options)
    if not isinstance(network, nn.Module):
        raise StudyError(
            f"model.factory: {model.factory} returned a {type(network).__name__}; it must return a torch.nn.Module"
        )
    return network
