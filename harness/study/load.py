"""YAML to a `Study`; every error at once, with file and path. Built-in studies come with the package."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import StudyError
from harness.names import suggestion, with_hint
from harness.problems import problems_of
from harness.study.changes import Change, setting_paths
from harness.study.checks import as_list, declared_names, pruned, study_problems
from harness.study.compose import Composed, compose
from harness.study.study import Combination, Profile, Published, Study
from harness.trainers.registry import trainer_from_study
from harness.trainers.trainer import Location, Settings, SettingsError, Trainer


def studies() -> dict[str, Path]:
    """The built-in studies: name to file."""
    package = Path(__file__).parents[1]
    installed = package / "experiments"  # a wheel carries them inside the package; a checkout has them beside it
    folder = installed if installed.is_dir() else package.parent / "experiments"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_study(name_or_path: str | Path) -> Study:
    """A built-in study by name, or any study by the path of its YAML file.

    Raises:
        StudyError: there is no such study, or the file is wrong; holds every problem, each with file and place.
    """
    return study_of(read_composed(name_or_path))


def read_composed(name_or_path: str | Path) -> Composed:
    """A study's file with what it extends, not yet checked; see `load_study`."""
    return compose(_study_path(str(name_or_path)), _extended_path)


def study_of(composed: Composed) -> Study:
    """Raises StudyError with every problem of the first file that has any, what is extended first."""
    if composed.base:
        study_of(composed.base)
    tree, path = dict(composed.tree), composed.path
    tree.setdefault("name", re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-"))
    tree.setdefault("title", tree["name"])
    problems = composed.problems
    try:
        study = make_study(tree, root=composed.root, used=composed.lost)
    except StudyError as error:
        problems = [*problems, *map(composed.as_written, error.problems)]
    if problems:
        raise StudyError(*(f"{path}: {problem}" for problem in dict.fromkeys(problems)))
    return study.model_copy(update={"built_on": composed.built_on})


def make_study(tree: Mapping[str, Any], *, root: Path = Path(), used: Collection[str] = ()) -> Study:
    """A study from what stands in its file, extended and written out.

    Args:
        root: folder of the file that names the trainer, which resolves paths and modules against it.
        used: names that are no changes, which somebody else complains of.

    Raises:
        StudyError: every problem, each with its place in the file.
    """
    tree, problems = _look_up_changes(dict(tree))
    problems += (
        ["built_on: unknown key 'built_on'; `extends:` names the study to build on."] if "built_on" in tree else []
    )
    try:
        trainer = trainer_from_study(tree, root)
    except StudyError as error:
        raise StudyError(*problems, *error.problems) from None
    baseline, wrong_settings, doubtful = _baseline(trainer, tree)
    rest = {key: value for key, value in tree.items() if key not in TRAINER_KEYS}
    rest |= {"trainer": trainer, "baseline": baseline}
    study, wrong_parts, left_out = _without_wrong_parts(rest)
    problems += wrong_settings + wrong_parts
    if study:
        problems += study_problems(study, declared={*declared_names(tree), *used}, left_out=[*doubtful, *left_out])
    if study is None or problems:
        raise StudyError(*problems)
    return study


# What a trainer reads at the top level of a study.
TRAINER_KEYS = ("trainer", "baseline", "metrics", "select", "report", "settings", "commit", "fixed")


def _baseline(trainer: Trainer, tree: Mapping[str, Any]) -> tuple[Settings, list[str], list[Location]]:
    """The baseline, of its sound parts where some are wrong; what is wrong with it; the places of that."""
    declared = tree.get("baseline", {})
    sound: Mapping[str, Any] = {}
    problems = [f"baseline: expected a mapping of settings, not {declared!r}"]
    places: list[Location] = []
    if isinstance(declared, Mapping):
        try:
            return trainer.parse(declared), [], []
        except SettingsError as error:
            problems = [f"baseline.{problem}" for problem in error.problems]
            places = [("baseline", *place) for place in error.places]
        sound = pruned({"baseline": dict(declared)}, places).get("baseline", {})
    try:
        return trainer.parse(sound), problems, places or [("baseline", "")]
    except SettingsError:
        raise StudyError(*problems) from None


@dataclass(frozen=True)
class Outline:
    """What a built-in study consists of, without its settings: whose check may import what trains."""

    name: str
    title: str
    changes: tuple[Change, ...]
    combinations: tuple[Combination, ...]
    profiles: tuple[str, ...]


def outline(name: str) -> Outline:
    """Of a built-in study."""
    tree = _look_up_changes(compose(studies()[name], _extended_path).tree)[0]
    return Outline(
        name=name,
        title=str(tree.get("title", name)),
        changes=tuple(map(Change.model_validate, tree.get("changes", ()))),
        combinations=tuple(map(Combination.model_validate, tree.get("combinations", ()))),
        profiles=tuple(tree.get("profiles", Study.model_fields["profiles"].default)),
    )


@cache
def registry() -> dict[str, Change]:
    """Every change that a built-in study declares, by name; a study of one's own may use them by name."""
    found: dict[str, Change] = {}
    for path in studies().values():
        for declared in compose(path, _extended_path).tree.get("changes", []):
            if isinstance(declared, dict):
                change = Change.model_validate(declared)
                found.setdefault(change.name, change)
    return found


def _study_path(name: str) -> Path:
    if name in studies():
        return studies()[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if os.path.isfile(path):  # unlike a Path's, it also answers for a path that is too long
            return path
        raise StudyError(f"{path}: no such file. `harness studies` lists the built-in studies.")
    hint = suggestion(name, studies())
    raise StudyError(
        f"unknown study {name!r}.{hint} `harness studies` lists all {len(studies())}; or give a .yaml file."
    )


def _extended_path(name: str, folder: Path) -> Path:
    """The file of a study that another one extends: a built-in one, or a path relative to the folder of the other."""
    if name in studies():
        return studies()[name]
    path = folder / name
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise StudyError(f"{path}: no such file; expected a path relative to {folder}, or a built-in study.")
    near = [*studies(), *(it.name for it in sorted(folder.glob("*.y*ml")))]
    raise StudyError(
        f"unknown study {name!r}.{suggestion(name, near)} Expected a file, or one of {', '.join(studies())}."
    )


def _look_up_changes(tree: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Replaces changes that are given by name alone by their declarations in the registry."""
    declared = tree.get("changes")
    if not isinstance(declared, list):
        return tree, []
    changes, problems = list(declared), []
    for index, entry in enumerate(declared):
        if isinstance(entry, str) and entry in registry():
            changes[index] = registry()[entry].model_dump()
        elif isinstance(entry, str):
            hint = suggestion(entry, registry())
            lists = f"`harness changes` lists all {len(registry())}."
            problems.append(f"changes[{index}]: unknown change {entry!r}.{hint} {lists}")
    return tree | {"changes": changes}, problems


def _without_wrong_parts(tree: dict[str, Any]) -> tuple[Study | None, list[str], list[Location]]:
    """The study made of those parts that are valid by themselves, what is wrong with the others, and their places: so
    that one look finds also what is wrong between the parts that remain. None where nothing can be made of them."""
    try:
        return Study.model_validate(tree), [], []
    except ValidationError as error:
        known = {*setting_paths(tree["baseline"]), *TRAINER_KEYS}.union(*(part.model_fields for part in PARTS))
        unknown = {("changes", index) for index, it in enumerate(as_list(tree.get("changes"))) if isinstance(it, str)}
        places = [finding["loc"] for finding in error.errors()]
        problems = [with_hint(it, known) for it in problems_of(error, skip=unknown)]
    try:
        return Study.model_validate(pruned(tree, places)), problems, places
    except ValidationError:
        return None, problems, places


PARTS: tuple[type[BaseModel], ...] = (Study, Change, Combination, Profile, Published)
