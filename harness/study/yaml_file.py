"""Reads a YAML file without YAML's traps: a key that stands twice is an error, and `1e-3` is a number.

PyYAML lets the second of two equal keys win, and reads `1e-3` as a text
(YAML 1.1 wants a dot in a float, 1.2 does not). It also follows any depth of nesting, anchors that hold themselves, and
anchors of anchors that stand for billions of values; what a file may hold is in `bounds.py`.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from harness.errors import StudyError
from harness.study.bounds import MOST_BYTES, MOST_DEPTH, MOST_VALUES, value_problems
from harness.texts import shortened


def read_yaml(path: Path) -> Any:
    """The file's content as plain Python values.

    Raises:
        StudyError: the file cannot be read, is no YAML, holds a key twice or what no study may hold; the message has
            the line and column, or the place in the tree.
    """
    try:
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            raise StudyError(f"{path}: larger than {MOST_BYTES:,} bytes, which no study needs.")
        with path.open(encoding="utf-8") as file:
            tree = yaml.load(file, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise StudyError(f"{path}{place}: {error.problem}. The file must be YAML with each key once.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: cannot be read as YAML ({error}).") from None
    if problems := value_problems(tree):
        raise StudyError(*(f"{path}: {problem}" for problem in problems))
    return tree


def parse_value(text: str) -> Any:
    """One value as a file would hold it: `1e-3` is a number, `true` a truth value, `[1, 2]` a list.

    >>> parse_value("1e-3"), parse_value("adam"), parse_value("[32, 64]")
    (0.001, 'adam', [32, 64])

    Raises:
        StudyError: no YAML, or what no study may hold.
    """
    shown = shortened(repr(text), 200)
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise StudyError(f"{shown} cannot be read as a value ({error.problem}).") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{shown} cannot be read as a value ({' '.join(str(error).split())}).") from None
    if problems := value_problems(value):
        raise StudyError(*(f"{shown}: {problem}" for problem in problems))
    return value


def write_yaml(tree: Any) -> str:
    """Plain values as a file that `read_yaml` reads back: short lists and mappings on one line."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118, default_flow_style=None)


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would take for numbers; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses while it composes nodes, before any of them becomes a value."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # values below each node that is complete, by its identity

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth >= MOST_DEPTH:
            raise _refused(f"more than {MOST_DEPTH} lists and mappings inside each other", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._sizes:
            raise _refused(f"*{event.anchor} stands inside of what it names", event.start_mark)
        size = self._sizes.setdefault(id(node), 1 + sum(self._sizes[id(it)] for it in _children(node)))
        if size > MOST_VALUES:
            raise _refused(f"more than {MOST_VALUES:,} values", event.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            raise _refused(f"{shortened(repr(node.value), 60)} cannot be read as {kind}", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refused(f"the key {key!r} is not a text; put it in quotes", key_node.start_mark)
            if key in seen:
                raise _refused(f"the key {shortened(repr(key), 60)} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _children(node: yaml.Node | None) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


for _either in (_Loader, _Dumper):
    _either.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
