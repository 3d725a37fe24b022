"""What `--json` prints: one object on standard output, with its format; docs/json.md has the schemas."""

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

FORMAT = 1  # of every command that names no other; raised for all when one changes what a field means


def print_json(told: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Prints an object; a number that JSON has no word for is null.

    Args:
        told: with a `format` of its own, or without one.
    """
    sys.stdout.write(json.dumps(_plain({"format": FORMAT, **told}), indent=indent, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(it) for name, it in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(it) for it in value]
    if hasattr(value, "item"):  # a number of numpy's
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
