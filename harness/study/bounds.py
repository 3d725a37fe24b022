"""What a study's file may hold: the one place that bounds sizes, depths and kinds of values.

A study holds what JSON knows: texts, numbers, truth values, null, lists and mappings. The bounds are far beyond any
study that a person or a program writes, and far below what makes a command slow. What each key means, and which values
it may have, is not said here.
"""

from collections.abc import Iterator
from typing import Any

from harness.texts import UNPRINTABLE, shortened

MOST_BYTES = 5_000_000  # of a file
MOST_DEPTH = 32  # lists and mappings inside each other
MOST_VALUES = 100_000  # in a file, each use of an anchor counted
MOST_CHARACTERS = 50_000  # of a text
MOST_KEY = 1_000  # characters of a key; a dotted path
LARGEST_INTEGER = 2**63 - 1  # what tables and databases hold


def value_problems(tree: Any) -> list[str]:
    """What no study may hold, with its place, a sentence each; of a tree of bounded depth."""
    return list(_problems("", tree))


def _problems(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            problem = _key_problem(key)
            if problem:
                yield f"{path or 'top level'}: the key {shortened(ascii(key), 60)} {problem}"
            else:
                yield from _problems(f"{path}.{key}" if path else key, entry)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _problems(f"{path}[{index}]", entry)
    elif problem := _scalar_problem(value):
        yield f"{path or 'value'}: {problem}"


def _key_problem(key: str) -> str:
    if len(key) > MOST_KEY:
        return f"has {len(key):,} characters; at most {MOST_KEY:,} are allowed."
    return "holds a character that cannot be printed; take it out." if UNPRINTABLE.search(key) or "\n" in key else ""


def _scalar_problem(value: Any) -> str:
    if isinstance(value, str):
        if len(value) > MOST_CHARACTERS:
            return f"a text of {len(value):,} characters; at most {MOST_CHARACTERS:,} are allowed."
        found = UNPRINTABLE.search(value.replace("\r\n", "\n"))
        return f"the text holds {found[0]!a}, which cannot be printed; take it out." if found else ""
    if isinstance(value, bool | float) or value is None:
        return ""
    if isinstance(value, int):
        is_small = -LARGEST_INTEGER <= value <= LARGEST_INTEGER
        return "" if is_small else f"a whole number beyond {LARGEST_INTEGER:,}; write it as 1e30, or smaller."
    return f"{shortened(repr(value), 60)} is a {type(value).__name__}; write it as a text, in quotes."
