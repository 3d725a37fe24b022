"""The nearest known name to a mistyped one, for messages."""

import re
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher

NEAR = 0.66  # `base` for `baseline` is just that near
LONGEST = 100  # characters of a name that anybody could have meant; comparing is quadratic


def suggestion(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'batch-norm'?"` for the closest known name, or nothing where none is near.

    >>> suggestion("batchnorm", ["batch-norm", "kernel-3"])
    " Did you mean 'batch-norm'?"
    >>> suggestion("blocks.0.conf", ["blocks.1.conv", "blocks.0.conv"])
    " Did you mean 'blocks.0.conv'?"
    >>> suggestion("gradient_clip", ["horizontal_flip"])
    ''
    """
    if len(name) > LONGEST:
        return ""
    near = [(_nearness(name, it), it) for it in dict.fromkeys(known) if len(it) <= LONGEST]
    best, closest = max(near, key=lambda pair: pair[0], default=(0.0, ""))
    return f" Did you mean {closest!r}?" if best >= NEAR else ""


def _nearness(name: str, known: str) -> float:
    """0 to 1 by the characters in common; of two settings in one branch, what comes after it must be near by itself."""
    branch = re.split(r"[^./]*$", known)[0]
    whole = SequenceMatcher(None, known, name).ratio()
    if not branch or not name.startswith(branch):
        return whole
    rest = SequenceMatcher(None, known.removeprefix(branch), name.removeprefix(branch)).ratio()
    return whole if rest >= NEAR else rest


def with_hint(problem: str, known: Collection[str]) -> str:
    """Adds the nearest known key to a message about an unknown one."""
    if not problem.endswith(": unknown key"):
        return problem
    key = re.split(r"[.\]]", problem.removesuffix(": unknown key"))[-1]
    return f"{problem} {key!r}.{suggestion(key, {path.rpartition('.')[2] for path in known} - {key})}"
