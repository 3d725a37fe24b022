"""Lines of champions of another store, brought into this one.

A line that went on there is taken as it is; one that went on here stays. Two lines of one name that went different
ways stand side by side, each with its own cells: the other one gets a name that its beginning gives, so that it is
found again when the same store is merged once more.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import DamagedError
from harness.files.atomic import write_atomically
from harness.store.lines import Lines

Event = Mapping[str, Any]


def merge_line(here: Lines, there: Lines, name: str) -> str:
    """Brings one line; the name that it has here.

    Raises:
        DamagedError: it is no line of champions. StoreError: somebody judges in it now; nothing was brought.
    """
    coming = there.events(name)
    if there.read(name) is None:
        raise DamagedError(f"{there.path(name)}: does not say how it began; it is left out.")
    for patch in sorted(there.patches(name)):
        try:
            here.keep_patch(there.patch_path(patch).read_bytes())
        except FileNotFoundError:
            raise DamagedError(f"{there.path(name)}: its patch {patch} is gone; the line is left out.") from None
    for known_as in (name, f"{name}-{_beginning(coming)}"):
        with here.judging(known_as, waits=False):
            known = here.events(known_as)
            longer, shorter = sorted((_untimed(known), _untimed(coming)), key=len, reverse=True)
            if longer[: len(shorter)] != shorter:
                continue
            if len(coming) > len(known):
                write_atomically(here.path(known_as), "".join(f"{json.dumps(it)}\n" for it in coming))
            return known_as
    raise DamagedError(
        f"{there.path(name)}: went another way than {here.path(known_as)}, with which it began; it is left out."
    )


def _beginning(events: Sequence[Event]) -> str:
    """Four digits that tell one line from another of the same name, and stay as it grows."""
    return hashlib.sha256(json.dumps(events[0], sort_keys=True).encode()).hexdigest()[:4]


def _untimed(events: Sequence[Event]) -> list[Event]:
    return [{key: value for key, value in it.items() if key != "time"} for it in events]
