"""Trees of plain values: nested mappings as dotted paths, and back. What the values mean is a trainer's matter."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths to leaves.

    >>> flatten({"optimizer": {"name": "sgd", "momentum": 0.9}, "epochs": 3})
    {'optimizer.name': 'sgd', 'optimizer.momentum': 0.9, 'epochs': 3}
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{path}.")
        else:
            leaves[path] = value
    return leaves


def overlaid(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of settings as they stand in files, the upper one winning leaf by leaf.

    A branch that names another `kind` replaces the lower one; a plain value over `{default: ..., min: ...}` replaces
    its default. Dotted paths are branches.

    >>> overlaid({"lr": {"default": 0.1, "min": 0}, "model": {"width": 8}}, {"lr": 0.2, "model.depth": 2})
    {'lr': {'default': 0.2, 'min': 0}, 'model': {'width': 8, 'depth': 2}}
    """
    merged = _branched(lower)
    for key, above in _branched(upper).items():
        below = merged.get(key)
        if not isinstance(below, Mapping):
            merged[key] = above
        elif not isinstance(above, Mapping):
            merged[key] = {**below, "default": above} if "default" in below else above
        elif "default" in above or "default" in below or above.get("kind", below.get("kind")) != below.get("kind"):
            merged[key] = above
        else:
            merged[key] = overlaid(below, above)
    return merged


def _branched(tree: Mapping[str, Any]) -> dict[str, Any]:
    """With dotted keys as branches, where that says the same."""
    made: dict[str, Any] = {}
    for path, value in tree.items():
        key, dot, rest = path.partition(".")
        if dot and isinstance(made.get(key, {}), Mapping):
            made[key] = overlaid(made.get(key, {}), {rest: value})
        else:
            made[path] = value
    return made


def layered(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Two sets of overrides by dotted path, the upper one winning; where it names another `kind`, it replaces the whole
    branch of that kind."""
    replaced = tuple(path.removesuffix("kind") for path in upper if path.rpartition(".")[2] == "kind")
    return {path: value for path, value in lower.items() if not (replaced and path.startswith(replaced))} | dict(upper)
