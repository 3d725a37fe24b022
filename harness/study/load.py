"""YAML to a `Study`; every error at once, with file and path. Built-in studies come with the package."""

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.errors import StudyError
from harness.study.changes import Change, setting_paths, suggestion
from harness.study.checks import Location, as_list, declared_names, pruned, study_problems, with_hint
from harness.study.study import Combination, Profile, Published, Study
from harness.study.yaml_file import read_yaml
from harness.trainers.images.settings import Settings, problems_of


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
    path = _study_path(str(name_or_path))
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise StudyError(f"{path}: expected a mapping with the keys of a study (name, title, baseline, changes, ...).")
    tree, problems = _look_up_changes(tree)
    study, wrong_parts, left_out = _without_wrong_parts(tree)
    problems += wrong_parts
    if study:
        problems += study_problems(study, declared=declared_names(tree), left_out=left_out)
    if study is None or problems:
        raise StudyError(*(f"{path}: {problem}" for problem in problems))
    return study


@cache
def registry() -> dict[str, Change]:
    """Every change that a built-in study declares, by name; a study of one's own may use them by name."""
    found: dict[str, Change] = {}
    for path in studies().values():
        for declared in read_yaml(path).get("changes", []):
            if isinstance(declared, dict):
                change = Change.model_validate(declared)
                found.setdefault(change.name, change)
    return found


def _study_path(name: str) -> Path:
    if name in studies():
        return studies()[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        raise StudyError(f"{path}: no such file. `harness studies` lists the built-in studies.")
    hint = suggestion(name, studies())
    raise StudyError(
        f"unknown study {name!r}.{hint} `harness studies` lists all {len(studies())}; or give a .yaml file."
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
        known = {*setting_paths(Settings())}.union(*(part.model_fields for part in PARTS))
        unknown = {("changes", index) for index, it in enumerate(as_list(tree.get("changes"))) if isinstance(it, str)}
        places = [finding["loc"] for finding in error.errors()]
        problems = [with_hint(it, known) for it in problems_of(error, skip=unknown)]
    try:
        return Study.model_validate(pruned(tree, places)), problems, places
    except ValidationError:
        return None, problems, places


PARTS: tuple[type[BaseModel], ...] = (Study, Change, Combination, Profile, Published)
