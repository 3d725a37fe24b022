"""Trainers by name: from a study's `trainer:`, or from the JSON in a cell's specification, to a `Trainer`.

Importing this module imports no trainer: each is imported when a study or a cell names it.
"""

import importlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import StudyError
from harness.trainers.trainer import Trainer

# Kind -> module:class. A class has `from_study(tree, root)`, which takes a study's keys `trainer`, `metrics`, `select`,
# `report`, `settings`, and the folder of the study's file; and `from_json`, which takes what `to_json` gave.
KINDS: Mapping[str, str] = {
    "images": "harness.trainers.images.trainer:ImageTrainer",
    "function": "harness.trainers.function:FunctionTrainer",
    "command": "harness.trainers.command:CommandTrainer",
}
DEFAULT = "images"  # of a study that names no trainer: the built-in ones


def trainer_from_study(tree: Mapping[str, Any], root: Path) -> Trainer:
    """The trainer that a study asks for.

    Args:
        tree: the study's top level; `trainer` is a name, `{function: "module:train"}`, `{command: [...]}`, or
            `{class: "module:Class"}` for a `Trainer` of one's own.
        root: folder of the study's file, against which paths are resolved.

    Raises:
        StudyError: everything that is wrong with the trainer and its metrics.
    """
    asked = tree.get("trainer", DEFAULT)
    kinds = [kind for kind in ("function", "command", "class") if isinstance(asked, Mapping) and kind in asked]
    if isinstance(asked, str) and asked in KINDS and asked not in ("function", "command"):
        kind = asked
    elif len(kinds) == 1:
        kind = str(asked["class"]) if kinds == ["class"] else kinds[0]
    else:
        raise StudyError(
            f"trainer: expected images, {{function: 'module:train'}}, {{command: [...]}} or {{class: 'module:Class'}}, "
            f"not {asked!r}."
        )
    if kind not in ("function", "command") and (unknown := [key for key in ("commit", "fixed") if key in tree]):
        said = f"of a function or a command of your own; the trainer {kind} has no code of the study's"
        raise StudyError(*(f"{key}: is about the code {said}." for key in unknown))
    return trainer_class(kind).from_study(tree, root)  # type: ignore[attr-defined, no-any-return]


def trainer_from_json(data: Mapping[str, Any]) -> Trainer:
    """An equal trainer to the one whose `to_json` gave this, its metrics in that order; the same object for the same
    text."""
    return _from_text(json.dumps(data))


@lru_cache(maxsize=256)
def _from_text(text: str) -> Trainer:
    data = json.loads(text)
    return trainer_class(data["kind"]).from_json(data)  # type: ignore[attr-defined, no-any-return]


def trainer_class(kind: str) -> type[Trainer]:
    """The class of a kind. Raises StudyError where there is none."""
    module, colon, name = KINDS.get(kind, kind).partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), name)):
        raise StudyError(f"trainer: unknown {kind!r}; there are {', '.join(KINDS)}, or 'module:Class' of one's own.")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise StudyError(f"trainer: {kind} cannot be imported ({type(error).__name__}: {error}).") from error
    if not (isinstance(found, type) and issubclass(found, Trainer)):
        raise StudyError(f"trainer: {kind} is no harness.trainers.trainer.Trainer.")
    return found
