"""Settings of training that is not ours: the baseline's YAML is the schema, or a pydantic model or dataclass is.

`UserSettings` is the value that the core plans and hashes; what the user's training gets is a view of it (`readable`)
that notes which settings were read. A change whose settings are never read is a placebo.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol

from pydantic import BaseModel, TypeAdapter, ValidationError

from harness.names import suggestion
from harness.problems import problems_of
from harness.trainers.trainer import SettingsError
from harness.trees import flatten

RULE_KEYS = frozenset({"default", "min", "max", "choices"})
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}


class Schema(Protocol):
    """What settings there are, and which values each may have."""

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All values by dotted path, in their declared types. Raises SettingsError with everything that is wrong."""

    def readable(self, values: Mapping[str, Any], on_read: Callable[[str], None]) -> Any:
        """What training gets as `run.settings`; calls `on_read` with the path of each setting that it reads."""


@dataclass(frozen=True)
class UserSettings:
    """Values by dotted path; equal, with equal keys, where all values are equal."""

    values: Mapping[str, Any]
    schema: Schema = field(compare=False, repr=False)

    def tree(self) -> dict[str, Any]:
        return nested(self.values)

    def identity(self) -> dict[str, Any]:
        return self.tree()

    def override(self, overrides: Mapping[str, Any]) -> "UserSettings":
        given = flatten(overrides)
        problems = [
            f"unknown setting {path!r}.{suggestion(path, self.values)}"
            for path in given
            if not isinstance(self.schema, ModelSchema) and path not in self.values and not self._is_inside(path)
        ]
        if problems:
            raise SettingsError(*problems)
        values = dict(self.values)
        for path, value in given.items():
            if value == {} and any(known.startswith(f"{path}.") for known in values):
                continue  # an empty branch overrides nothing
            for known in [it for it in values if it.startswith(f"{path}.") or path.startswith(f"{it}.")]:
                if isinstance(self.schema, ValueSchema) and known in self.schema.rules:
                    raise SettingsError(
                        f"{path}: is a group of settings, such as {known}; {value!r} cannot replace it."
                    )
                del values[known]  # part of a mapping that is a value as a whole
            values[path] = value
        return UserSettings(self.schema.check(values), self.schema)

    def __hash__(self) -> int:
        return hash(json.dumps(self.values, sort_keys=True))

    def _is_inside(self, path: str) -> bool:
        """Whether the path names a branch, or something in a mapping that is a value as a whole."""
        return any(
            known.startswith(f"{path}.") or (isinstance(value, Mapping) and path.startswith(f"{known}."))
            for known, value in self.values.items()
        )


@dataclass(frozen=True)
class Rule:
    """What one setting may be.

    Attributes:
        kind: bool, int, float, str, list or dict; None where the default is null, and anything goes.
        low, high: bounds of a number, included. choices: all values that there are; empty for any.
    """

    kind: type | None
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[Any, ...] = ()

    def check(self, path: str, value: Any, default: Any) -> Any:
        """The value in its declared type: a whole number where a float stands becomes one.

        Raises:
            SettingsError: another type, out of bounds, or no choice.
        """
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{path}: {value} is no finite number.")
        is_other = self.kind is not None and type(value) is not self.kind
        if is_other and not (value is None and None in self.choices):
            expected = _KINDS.get(self.kind or object, "a mapping")
            way_out = _way_out(value, default)
            raise SettingsError(
                f"{path}: expected {expected}, as the baseline's {default!r} is, not {value!r}.{way_out}"
            )
        if isinstance(value, int | float) and not isinstance(value, bool) and not self.low <= value <= self.high:
            bounds = [f"at least {self.low:g}"] * (self.low > -math.inf) + [f"at most {self.high:g}"] * (
                self.high < math.inf
            )
            raise SettingsError(f"{path}: expected {' and '.join(bounds)}, not {value}.")
        if self.choices and value not in self.choices:
            raise SettingsError(f"{path}: {value!r} is none of {', '.join(map(repr, self.choices))}.")
        return value


@dataclass(frozen=True)
class ValueSchema:
    """Types from the baseline's own values, or from `{default, min, max, choices}` in their place."""

    rules: Mapping[str, Rule]
    defaults: Mapping[str, Any]

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        checked: dict[str, Any] = {}
        problems: list[str] = []
        for path, value in values.items():
            rule = self.rules.get(path)
            try:
                checked[path] = rule.check(path, value, self.defaults[path]) if rule else value
            except SettingsError as error:
                problems += error.problems
        if problems:
            raise SettingsError(*problems)
        return checked

    def readable(self, values: Mapping[str, Any], on_read: Callable[[str], None]) -> "ReadableSettings":
        return ReadableSettings(nested(values), on_read)


class ModelSchema:
    """A pydantic model or a dataclass of the user's; it says what is allowed."""

    def __init__(self, model: type) -> None:
        self._model: TypeAdapter[Any] = TypeAdapter(model)

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            made = self._model.validate_python(nested(values))
        except ValidationError as error:
            raise SettingsError(*problems_of(error), places=[it["loc"] for it in error.errors()]) from None
        checked = flatten(self._model.dump_python(made, mode="json"))
        unknown = [
            path
            for path in values
            if path not in checked and not any(it.startswith(f"{path}.") or path.startswith(f"{it}.") for it in checked)
        ]
        if unknown:
            raise SettingsError(*(f"unknown setting {path!r}.{suggestion(path, checked)}" for path in unknown))
        return checked

    def readable(self, values: Mapping[str, Any], on_read: Callable[[str], None]) -> Any:
        made = self._model.validate_python(nested(values))
        _note_reads(made, "", on_read)
        return made


def parse_values(tree: Mapping[str, Any]) -> UserSettings:
    """Settings from the baseline of a study, whose values are the schema.

    Raises:
        SettingsError: everything that is wrong, at once.
    """
    rules: dict[str, Rule] = {}
    defaults: dict[str, Any] = {}
    problems: list[str] = []
    places: list[tuple[int | str, ...]] = []
    for path, value in _leaves(tree):
        try:
            if any(other.startswith(f"{path}.") or path.startswith(f"{other}.") or path == other for other in rules):
                raise SettingsError(f"{path}: stands twice, as a setting and as a branch or with another spelling.")
            rules[path], defaults[path] = _rule(path, value)
            rules[path].check(path, defaults[path], defaults[path])
        except SettingsError as error:
            problems += error.problems
            places.append(tuple(path.split(".")))
    if problems:
        raise SettingsError(*problems, places=places)
    schema = ValueSchema(rules, defaults)
    return UserSettings(schema.check(defaults), schema)


def parse_model(tree: Mapping[str, Any], model: type) -> UserSettings:
    """Settings of a pydantic model or dataclass. Raises SettingsError with everything that is wrong."""
    schema = ModelSchema(model)
    return UserSettings(schema.check(flatten(tree)), schema)


def planned_settings(tree: Mapping[str, Any]) -> UserSettings:
    """Settings of a cell that was planned, from its specification: checked then, and by the key."""
    values = flatten(tree)
    return UserSettings(values, ValueSchema({}, values))


def is_model(found: object) -> bool:
    """Whether this is a class that `parse_model` can use."""
    return isinstance(found, type) and (issubclass(found, BaseModel) or is_dataclass(found))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as a tree.

    >>> nested({"lr": 0.1, "model.hidden": 64, "model.act": "relu"})
    {'lr': 0.1, 'model': {'hidden': 64, 'act': 'relu'}}
    """
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *branches, leaf = path.split(".")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[leaf] = copy.deepcopy(value)
    return tree


class ReadableSettings(Mapping[str, Any]):
    """What training gets: `settings.model.hidden`, `settings["lr"]`, `settings["model.hidden"]`, `dict(settings)`.

    It cannot be changed, and notes what is read. Copied or sent to another process, all of it counts as read.
    """

    __slots__ = ("_on_read", "_prefix", "_tree")

    def __init__(self, tree: Mapping[str, Any], on_read: Callable[[str], None], prefix: str = "") -> None:
        for name, value in (("_tree", tree), ("_on_read", on_read), ("_prefix", prefix)):
            object.__setattr__(self, name, value)

    def __getitem__(self, path: str) -> Any:
        name, dot, rest = path.partition(".")
        if name not in self._tree:
            raise KeyError(f"there is no setting {self._prefix}{name}.{suggestion(name, self._tree)}")
        value = self._tree[name]
        if isinstance(value, Mapping) and value:
            branch = ReadableSettings(value, self._on_read, f"{self._prefix}{name}.")
            return branch[rest] if dot else branch
        if dot:
            raise KeyError(f"there is no setting {self._prefix}{path}: {self._prefix}{name} is {value!r}")
        self._on_read(f"{self._prefix}{name}")
        return copy.deepcopy(value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are frozen; {self._prefix}{name} cannot be set in training.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree)

    def __len__(self) -> int:
        return len(self._tree)

    def __repr__(self) -> str:
        return f"settings({self._tree!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        for path in flatten(self._tree, self._prefix):
            self._on_read(path)
        return _plain, (dict(self._tree),)


def _plain(tree: Mapping[str, Any]) -> ReadableSettings:
    return ReadableSettings(tree, _nobody)


def _nobody(path: str) -> None:
    """Reads of a copy in another process, which nobody hears of."""


def _way_out(value: Any, default: Any) -> str:
    """What to write in the baseline where the value was meant: its type says what a setting may be."""
    if type(default) is int and isinstance(value, float):
        return f" For any number write {float(default)} in the baseline."
    if value is None and isinstance(default, str | int | float):
        shown = default if isinstance(default, str) else json.dumps(default)
        return f" To allow it write {{default: {shown}, choices: [{shown}, null]}} in the baseline, with all others."
    return ""


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and not _is_rule(value):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _is_rule(value: Mapping[str, Any]) -> bool:
    return "default" in value and set(value) <= RULE_KEYS


def _rule(path: str, value: Any) -> tuple[Rule, Any]:
    """The rule of a setting and its value in the baseline."""
    if not (isinstance(value, Mapping) and _is_rule(value)):
        return Rule(_kind(path, value)), value
    default, low, high = value["default"], value.get("min", -math.inf), value.get("max", math.inf)
    choices = value.get("choices", ())
    problems = [
        f"{path}.{name}: expected a number, not {bound!r}."
        for name, bound in (("min", low), ("max", high))
        if not isinstance(bound, int | float) or isinstance(bound, bool)
    ]
    if not isinstance(choices, list | tuple) or ("choices" in value and not choices):
        problems.append(f"{path}.choices: expected a list of values, not {choices!r}.")
    if problems:
        raise SettingsError(*problems)
    kind = _kind(path, default)
    if kind is int and any(isinstance(it, float) for it in (*choices, value.get("min"), value.get("max"))):
        kind = float
    given = float(default) if kind is float else default
    return Rule(kind, low, high, tuple(choices)), given


def _kind(path: str, value: Any) -> type | None:
    if value is None:
        return None
    kind = dict if isinstance(value, Mapping) else type(value)
    if kind not in (*_KINDS, dict):
        raise SettingsError(f"{path}: {value!r} is a {kind.__name__}; write it as a text, in quotes.")
    return kind


def _note_reads(made: Any, prefix: str, on_read: Callable[[str], None]) -> None:
    """Lets an instance of a user's model, and those in it, tell of each field that is read."""
    names = _field_names(type(made))
    if names is None:
        return
    for name in names:
        _note_reads(getattr(made, name), f"{prefix}{name}.", on_read)
    try:
        object.__setattr__(made, "__class__", _noting(type(made), frozenset(names), prefix, on_read))
    except TypeError:  # a class with slots: its reads cannot be heard, so all of it counts as read
        for name in names:
            on_read(f"{prefix}{name}")


def _field_names(model: type) -> list[str] | None:
    if issubclass(model, BaseModel):
        return list(model.model_fields)
    return [it.name for it in fields(model)] if is_dataclass(model) else None


# Whoever asks for one of these may read every field at once.
_WHOLE = frozenset({"__dict__", "model_dump", "model_dump_json", "model_copy", "__reduce_ex__", "__iter__", "__eq__"})


def _noting(model: type, names: frozenset[str], prefix: str, on_read: Callable[[str], None]) -> type:
    """A subclass of a user's model that tells of reads; copied or sent to another process it is the model again."""

    def noting(self: Any, name: str) -> Any:
        if name in names:
            on_read(f"{prefix}{name}")
        elif name in _WHOLE:
            for each in names:
                on_read(f"{prefix}{each}")
        return object.__getattribute__(self, name)

    def plain(self: Any, protocol: Any) -> tuple[Any, ...]:
        make, (_, *arguments), *state = super(noted, self).__reduce_ex__(protocol)
        return make, (model, *arguments), *state

    methods = {"__getattribute__": noting, "__reduce_ex__": plain, "__module__": model.__module__}
    noted: Any = type(model)(model.__name__, (model,), methods)
    found: type = noted
    return found
