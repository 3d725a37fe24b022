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


def layered(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Two sets of overrides by dotted path, the upper one winning; where it names another `kind`, it replaces the whole
    branch of that kind."""
    replaced = tuple(path.removesuffix("kind") for path in upper if path.rpartition(".")[2] == "kind")
    return {path: value for path, value in lower.items() if not (replaced and path.startswith(replaced))} | dict(upper)
