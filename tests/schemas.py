"""The schemas that the documentation gives of what `--json` prints, and what holds an output against its own."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

DOCS = Path(__file__).parents[1] / "docs"


@cache
def schemas() -> dict[str, Any]:
    """By command, such as `conv size`."""
    found = [
        json.loads(text)
        for page in ("loops.md", "json.md")
        for text in re.findall(r"```json\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    ]
    return {it["title"].removeprefix("harness ").removesuffix(" --json"): it for it in found if "$schema" in it}


def fitting(command: str, printed: str) -> dict[str, Any]:
    """What a command printed, which is JSON to the letter and what its schema says."""
    told = json.loads(printed, parse_constant=_refuse)
    schema = schemas()[command]
    Draft202012Validator(schema).validate(told)
    assert told["format"] == schema["properties"]["format"]["const"]
    return told


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")
