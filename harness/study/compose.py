"""A study's file as it is meant: what it extends laid under it, and changes with a list of values written out.

Trees of plain values in, a tree of plain values out; whether they make a study is checked afterwards (`load.py`).

A study that `extends` another has its own name, title, source and published numbers. From the other one it takes the
baseline, over which its own is laid; changes, combinations, paths, profiles and metrics, of which its own
replace those of the same name in their place, and `drop` takes some out; and the rest as it stands, unless it says
something else (trainer, select, report, settings, designs).
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import StudyError
from harness.names import suggestion
from harness.study.yaml_file import read_yaml
from harness.trees import flatten, overlaid

NAMED = ("changes", "combinations")  # lists of entries with a name
OWN = ("name", "title", "source", "published", "published_curves", "claims", "tags", "note", "extends", "drop")
VALUE = "{}"  # in the name of a change that holds a list of values
Find = Callable[[str, Path], Path]


@dataclass
class Composed:
    """A study's file with what it extends.

    Attributes:
        path: of the file; root: folder of the file that names the trainer.
        places: (key, index in the tree) of an entry to its index in this file; without those of other files.
        values: the name of a change with `{}` to the names that it was written out as.
        built_on: what was extended and how, in a sentence; empty where nothing was.
        problems: of extending and writing out, a sentence each.
        lost: names that were dropped and are used all the same, of which the problems speak.
        base: what was extended, by itself.
    """

    tree: dict[str, Any]
    path: Path
    root: Path
    places: dict[tuple[str, int], int] = field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    built_on: str = ""
    problems: list[str] = field(default_factory=list)
    lost: frozenset[str] = frozenset()
    base: "Composed | None" = None

    def as_written(self, problem: str) -> str:
        """A problem with the place that the entry has in the file, not the one that it has in the tree."""
        found = re.match(r"(\w+)\[(\d+)\]", problem)
        place = self.places.get((found[1], int(found[2]))) if found else None
        return f"{found[1]}[{place}]{problem[found.end() :]}" if found and place is not None else problem


def compose(path: Path, find: Find, extending: Sequence[Path] = ()) -> Composed:
    """Reads a study's file, and those that it extends.

    Args:
        find: the file of a study, by what `extends` says and the folder of the file that says it.
        extending: files that led here, the first one first.

    Raises:
        StudyError: a file is no mapping or cannot be read; studies extend each other in a circle.
    """
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise StudyError(f"{path}: expected a mapping with the keys of a study (name, title, baseline, changes, ...).")
    own = _written_out(tree, path)
    if "extends" not in tree:
        if "drop" in tree:
            own.problems.append("drop: there is nothing to drop from; `extends:` names the study to build on.")
        own.tree.pop("drop", None)
        return own
    if not isinstance(tree["extends"], str) or not tree["extends"].strip():
        raise StudyError(
            f"{path}: extends: expected the name of a study, or the path of its file, not {tree['extends']!r}."
        )
    try:
        below = find(tree["extends"], path.parent)
    except StudyError as error:
        raise StudyError(*(f"{path}: extends: {problem}" for problem in error.problems)) from None
    chain = [*extending, path]
    if below.resolve() in [it.resolve() for it in chain]:
        circle = " > ".join(it.name for it in (*chain, below))
        raise StudyError(f"{path}: extends: studies extend each other in a circle ({circle}).")
    return _laid_over(compose(below, find, chain), own, tree["extends"])


def _written_out(tree: Mapping[str, Any], path: Path) -> Composed:
    """A file by itself, with each list of values as changes."""
    own = Composed(dict(tree), path, path.parent)
    for key in NAMED:
        if isinstance(tree.get(key), list):
            own.tree[key] = []
            for index, entry in enumerate(tree[key]):
                made = [entry]
                if key == "changes" and isinstance(entry, dict) and VALUE in str(entry.get("name", "")):
                    made, problems = _values_of(entry)
                    own.problems += [f"changes[{index}]: {problem}" for problem in problems]
                    own.values[str(entry["name"])] = tuple(it["name"] for it in made)
                for each in made:
                    own.places[key, len(own.tree[key])] = index
                    own.tree[key].append(each)
    return own


def _values_of(entry: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """A change for each value of the one override that is a list, all of one group; what is wrong."""
    name, overrides = entry["name"], entry.get("overrides")
    flat = flatten(overrides) if isinstance(overrides, Mapping) else {}
    lists = [path for path, value in flat.items() if isinstance(value, list)]
    if not isinstance(name, str) or name.count(VALUE) != 1:
        return [], [f"name {name!r}: expected {VALUE} once, where the value goes."]
    if len(lists) != 1:
        found = f"{' and '.join(lists)} are" if lists else "none is"
        return [], [
            f"change {name!r}: exactly one override must be a list of values, for the name holds {VALUE}; {found}."
        ]
    values, path = flat[lists[0]], lists[0]
    texts = [_text(value) for value in values]
    problems = [
        f"change {name!r}: {path}: {value!r} cannot stand in a name; name that change by itself."
        for value, text in zip(values, texts, strict=True)
        if not text
    ]
    problems += [
        f"change {name!r}: {path}: {text} stands twice."
        for text in dict.fromkeys(texts)
        if text and texts.count(text) > 1
    ]
    if not values:
        problems.append(f"change {name!r}: {path}: the list of values is empty.")
    group = entry.get("group") or re.sub(r"[-.]+$|^[-.]+", "", name.replace(VALUE, "")) or path
    made = [
        {
            **entry,
            **_filled(entry, text),
            "name": name.replace(VALUE, text),
            "group": group,
            "overrides": flat | {path: value},
        }
        for value, text in zip(values, texts, strict=True)
    ]
    return ([], problems) if problems else (made, [])


def _filled(entry: Mapping[str, Any], text: str) -> dict[str, str]:
    return {"summary": entry["summary"].replace(VALUE, text)} if isinstance(entry.get("summary"), str) else {}


def _text(value: Any) -> str:
    """A value as it stands in a name: `0.001`, `1e-5`, `adam`, `64-128`; empty where it cannot."""
    if isinstance(value, list):
        parts = [_text(it) for it in value]
        return "-".join(parts) if all(parts) else ""
    if value is None or isinstance(value, Mapping):
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        short = f"{value:g}"
        exact = short if float(short) == value else repr(value)
        value = re.sub(r"e([-+])0*", lambda found: "e" + found[1].strip("+"), exact)
    text = re.sub(r"^-(?=[0-9.])", "minus-", str(value).lower())
    return re.sub(r"[^a-z0-9.]+", "-", text).strip("-.")


def _laid_over(base: Composed, own: Composed, extends: str) -> Composed:
    dropped, problems = _dropped(base, own)
    made = Composed(
        {},
        own.path,
        own.root if "trainer" in own.tree else base.root,
        values={name: made for name, made in base.values.items() if name not in own.values} | own.values,
        problems=[*own.problems, *problems],
        base=base,
    )
    kept = {key: value for key, value in base.tree.items() if key not in OWN}
    made.tree = kept | {key: value for key, value in own.tree.items() if key not in ("extends", "drop")}
    said: list[str] = []
    for key in NAMED:
        if isinstance(kept.get(key), list) and isinstance(own.tree.get(key, []), list):
            made.tree[key], words = _entries(base, own, key, dropped, made.places)
            said += words
    made.tree |= _mappings(kept, own.tree, dropped)
    if isinstance(own.tree.get("baseline"), Mapping):
        said.append("sets " + ", ".join(flatten(own.tree["baseline"])))
    said += [f"drops {', '.join(dropped)}"] if dropped else []
    uses = [(where, name) for where, held in _uses(made.tree) for name in held if name in dropped]
    made.problems += [
        f"{where}: holds or needs {name!r}, which is dropped; drop it as well, or declare it anew."
        for where, name in uses
    ]
    made.lost = frozenset(name for _, name in uses)
    made.built_on = f"{own.path.stem} extends {extends}: {'; '.join(said) or 'as it is'}. {base.built_on}".strip()
    return made


def _mappings(below: Mapping[str, Any], above: Mapping[str, Any], dropped: Sequence[str]) -> dict[str, Any]:
    """What is a mapping in both: settings leaf by leaf, the others by name."""
    merged: dict[str, Any] = {}
    if "profiles" in above:
        below = {"profiles": {"standard": {}}, **below}  # which a study has that declares none
    for key in ("baseline", "metrics", "paths", "profiles", "nuisance"):
        lower, upper = below.get(key), above.get(key, {})
        if isinstance(lower, Mapping) and isinstance(upper, Mapping):
            merged[key] = overlaid(lower, upper) if key == "baseline" else {**lower, **upper}
            if key == "paths":
                merged[key] = {name: it for name, it in merged[key].items() if name in upper or name not in dropped}
            if key == "profiles":
                merged[key] = _without_skips(lower, dropped) | dict(upper)
    return merged


def _entries(
    base: Composed, own: Composed, key: str, dropped: Iterable[str], places: dict[tuple[str, int], int]
) -> tuple[list[Any], list[str]]:
    """The entries of both, those of one name in the place of the first; what was done, in words."""
    above = list(enumerate(own.tree.get(key, [])))
    replacing: dict[str, list[tuple[int, Any]]] = {}
    here, there = ({name: it for it, made in side.values.items() for name in made} for side in (own, base))
    for index, entry in above:
        replacing.setdefault(here.get(_name(entry), _name(entry)), []).append((index, entry))
    merged: list[Any] = []
    replaced: dict[str, None] = {}

    def put(entries: Iterable[tuple[int, Any]]) -> None:
        for index, entry in entries:
            places[key, len(merged)] = own.places[key, index]
            merged.append(entry)

    for entry in base.tree[key]:
        name = _name(entry)
        known = next((it for it in (name, there.get(name, name)) if it in replacing or it in replaced), name)
        if known in replacing:
            put(replacing.pop(known))
            replaced[known] = None
        elif known not in replaced and name not in dropped:
            merged.append(entry)
    added = [name for name in replacing if name]
    for entries in replacing.values():
        put(entries)
    said = [f"replaces {', '.join(replaced)}"] if replaced else []
    return merged, said + ([f"adds {', '.join(added)}"] if added else [])


def _name(entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else entry
    return name if isinstance(name, str) else ""


def _dropped(base: Composed, own: Composed) -> tuple[list[str], list[str]]:
    """The names to take out, those with `{}` written out; what is wrong with `drop`."""
    asked = own.tree.get("drop", [])
    if not isinstance(asked, list) or not all(isinstance(it, str) for it in asked):
        return [], [f"drop: expected a list of names of changes, combinations or paths, not {asked!r}."]
    there = [_name(entry) for key in NAMED for entry in _listed(base.tree.get(key))]
    there += [*base.values, *(base.tree["paths"] if isinstance(base.tree.get("paths"), Mapping) else ())]
    here = {_name(entry) for key in NAMED for entry in _listed(own.tree.get(key))} | {*own.values}
    problems = [
        f"drop: {name!r} is nothing that the extended study has.{suggestion(name, there)}"
        for name in asked
        if name not in there
    ]
    problems += [
        f"drop: {name!r} is declared here, too, which replaces it; take it out of drop."
        for name in asked
        if name in here
    ]
    problems += [f"drop: {name!r} stands twice." for name in dict.fromkeys(asked) if asked.count(name) > 1]
    return [it for name in dict.fromkeys(asked) for it in base.values.get(name, (name,))], problems


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _without_skips(profiles: Mapping[str, Any], dropped: Sequence[str]) -> dict[str, Any]:
    """What was dropped need not be skipped."""
    return {
        name: it | {"skip": [other for other in it["skip"] if other not in dropped]}
        if isinstance(it, dict) and isinstance(it.get("skip"), list)
        else it
        for name, it in profiles.items()
    }


def _uses(tree: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Where names of changes are used, and which."""
    for entry in _listed(tree.get("combinations")):
        yield f"combinations: {_name(entry)}", _listed(entry.get("changes")) if isinstance(entry, Mapping) else []
    for name, steps in tree["paths"].items() if isinstance(tree.get("paths"), Mapping) else ():
        yield f"paths: {name}", _listed(steps)
    for entry in _listed(tree.get("changes")):
        needs = entry.get("needs", []) if isinstance(entry, Mapping) else []
        yield f"changes: {_name(entry)}", needs if isinstance(needs, list) else [needs]
