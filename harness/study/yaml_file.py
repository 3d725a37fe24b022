"""Reads a YAML file without YAML's traps: a key that stands twice is an error, and `1e-3` is a number.

PyYAML lets the second of two equal keys win, and reads `1e-3` as a text
(YAML 1.1 wants a dot in a float, 1.2 does not).
"""

import re
from pathlib import Path
from typing import Any

import yaml

from harness.errors import StudyError


def read_yaml(path: Path) -> Any:
    """The file's content as plain Python values.

    Raises:
        StudyError: the file cannot be read, is no YAML, or holds a key twice; the message has line and column.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise StudyError(f"{path}{place}: {error.problem}. The file must be YAML with each key once.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: cannot be read as YAML ({error}).") from None


def parse_value(text: str) -> Any:
    """One value as a file would hold it: `1e-3` is a number, `true` a truth value, `[1, 2]` a list.

    >>> parse_value("1e-3"), parse_value("adam"), parse_value("[32, 64]")
    (0.001, 'adam', [32, 64])

    Raises:
        StudyError: no YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise StudyError(f"{text!r} cannot be read as a value ({error}).") from None


def write_yaml(tree: Any) -> str:
    """Plain values as a file that `read_yaml` reads back: short lists and mappings on one line."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118, default_flow_style=None)


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would take for numbers; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a text; put it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


for _either in (_Loader, _Dumper):
    _either.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
