"""Pydantic's findings as sentences for people: where, what, what was found."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

Location = tuple[int | str, ...]


def problems_of(
    error: ValidationError,
    *,
    skip: Collection[Location] = (),
    tagged: Collection[str] = (),
    tags: Collection[str] = (),
) -> list[str]:
    """Pydantic's findings as `path: sentence`, one a finding; without those at the places of `skip`.

    Args:
        tagged: names of tagged unions, behind which pydantic puts one of `tags` that nobody writes.
    """
    findings = [finding for finding in error.errors() if finding["loc"] not in skip]
    inside = {finding["loc"][:-1] for finding in findings}  # of a list with a wrong entry, the length is no finding
    problems = []
    for finding in findings:
        if not (finding["type"] == "too_short" and finding["loc"] in inside):
            path = location_path(finding["loc"], tagged, tags)
            found, context = finding.get("input"), finding.get("ctx", {})
            problems.append(_problem(path, finding["type"], finding["msg"], found, context))
    return problems


def _problem(path: str, kind: str, message: str, value: Any, context: Mapping[str, Any]) -> str:
    where = f"{path}: " if path else ""
    if kind == "extra_forbidden":
        return f"{path}: unknown key"
    if kind == "missing":
        return f"{where}required, but missing"
    if kind == "union_tag_not_found":
        return f"{path}.kind: required, but missing"
    if kind == "union_tag_invalid":
        return f"{path}.kind: unknown {context['tag']!r}; expected {context['expected_tags']}"
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    shown = repr(value) if isinstance(value, str | int | float | bool) or value is None else ""
    message = (message[:1].lower() + message[1:]).replace("tuple", "list")
    return f"{where}{message}" + (f" (found {shown})" if shown and shown not in message else "")


def location_path(location: Location, tagged: Collection[str] = (), tags: Collection[str] = ()) -> str:
    """A place in the tree as people write it.

    >>> location_path(("changes", 2, "name"))
    'changes[2].name'
    """
    parts = [
        part
        for before, part in zip(("", *location), location, strict=False)
        if part != "[key]" and not (before in tagged and part in tags)
    ]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
