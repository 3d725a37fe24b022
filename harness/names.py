"""The nearest known name to a mistyped one, for messages."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches


def suggestion(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'batch-norm'?"` for the closest known name, or nothing.

    >>> suggestion("batchnorm", ["batch-norm", "kernel-3"])
    " Did you mean 'batch-norm'?"
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def with_hint(problem: str, known: Collection[str]) -> str:
    """Adds the nearest known key to a message about an unknown one."""
    if not problem.endswith(": unknown key"):
        return problem
    key = re.split(r"[.\]]", problem.removesuffix(": unknown key"))[-1]
    return f"{problem} {key!r}.{suggestion(key, [path.rpartition('.')[2] for path in known])}"
