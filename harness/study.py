"""A study: YAML to a frozen, validated value; every error at once, with file and path.

A study names a baseline, the changes, named combinations and paths of changes, the designs that say what to compare,
the profiles (how big a run of it is), and the published numbers to compare with. Built-in ones come with the package.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from harness.changes import Change, Name, check_change, conflicts, setting_paths, suggestion
from harness.errors import StudyError
from harness.settings import Settings, flatten, problems_of, with_overrides

Metric = Literal["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Combination(_Part):
    """Several changes under one name, such as the report's Model 1."""

    name: Name
    summary: str = ""
    source: str = ""
    changes: Annotated[tuple[str, ...], Field(min_length=1)]


class Profile(_Part):
    """How big a run of the study is.

    Attributes:
        seeds: how many, counted from 0.
        exploratory: too small for conclusions; every table of it says so.
        filter_scale: all filter counts of the convolutional network are multiplied by this, after the changes.
        overrides: settings of the baseline, by dotted path.
    """

    summary: str = ""
    seeds: PositiveInt = 10
    exploratory: bool = False
    filter_scale: Annotated[float, Field(gt=0, le=4)] = 1.0
    overrides: dict[str, Any] = {}


class Published(_Part):
    """A number that somebody printed, to stand beside ours.

    Attributes:
        variant: `baseline`, a change or a combination of the study.
        value: an accuracy as a fraction, a loss in nats.
    """

    variant: str
    metric: Metric
    value: float
    source: str


class Study(_Part):
    """What `load_study` gives; see the module's text. `changes` holds declarations only: names are looked up."""

    name: Name
    title: str
    source: str = ""
    baseline: Settings = Settings()
    changes: tuple[Change, ...] = ()
    combinations: tuple[Combination, ...] = ()
    paths: dict[Name, tuple[str, ...]] = {}
    designs: Annotated[tuple[str, ...], Field(min_length=1)] = ("add-one",)
    profiles: Annotated[dict[Name, Profile], Field(min_length=1)] = {"standard": Profile()}
    published: tuple[Published, ...] = ()

    def change(self, name: str) -> Change:
        return next(change for change in self.changes if change.name == name)

    def profile(self, name: str) -> Profile:
        """Raises StudyError for a profile that the study does not have."""
        if name not in self.profiles:
            known = ", ".join(self.profiles)
            hint = suggestion(name, self.profiles)
            raise StudyError(f"study {self.name!r} has no profile {name!r}.{hint} It has: {known}.")
        return self.profiles[name]


def studies() -> dict[str, Path]:
    """The built-in studies: name to file."""
    package = Path(__file__).parent
    installed = package / "experiments"  # a wheel carries them inside the package; a checkout has them beside it
    folder = installed if installed.is_dir() else package.parent / "experiments"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_study(name_or_path: str | Path) -> Study:
    """A built-in study by name, or any study by the path of its YAML file.

    Raises:
        StudyError: there is no such study, or the file is wrong; holds every problem, each with file and place.
    """
    path = _study_path(str(name_or_path))
    tree = _read_yaml(path)
    if not isinstance(tree, dict):
        raise StudyError(f"{path}: expected a mapping with the keys of a study (name, title, baseline, changes, ...).")
    tree, problems = _look_up_changes(tree)
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        known = [*Study.model_fields, *Change.model_fields, *Profile.model_fields, *setting_paths(Settings())]
        problems += [_with_hint(problem, known) for problem in problems_of(error)]
        raise StudyError(*(f"{path}: {problem}" for problem in problems)) from None
    problems += list(_problems(study))
    if problems:
        raise StudyError(*(f"{path}: {problem}" for problem in problems))
    return study


@cache
def registry() -> dict[str, Change]:
    """Every change that a built-in study declares, by name; a study of one's own may use them by name."""
    found: dict[str, Change] = {}
    for path in studies().values():
        for declared in _read_yaml(path).get("changes", []):
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
    changes, problems = [], []
    declared = tree.get("changes") or []
    for index, entry in enumerate(declared if isinstance(declared, list) else []):
        if not isinstance(entry, str):
            changes.append(entry)
        elif entry in registry():
            changes.append(registry()[entry].model_dump())
        else:
            hint = suggestion(entry, registry())
            lists = f"`harness changes` lists all {len(registry())}."
            problems.append(f"changes[{index}]: unknown change {entry!r}.{hint} {lists}")
    return (tree | {"changes": changes} if isinstance(declared, list) else tree), problems


def _with_hint(problem: str, known: list[str]) -> str:
    if not problem.endswith(": unknown key"):
        return problem
    key = re.split(r"[.\]]", problem.removesuffix(": unknown key"))[-1]
    return f"{problem} {key!r}.{suggestion(key, [path.rpartition('.')[2] for path in known])}"


def _problems(study: Study) -> Iterator[str]:
    """What is wrong between the parts of a study; the parts by themselves are valid."""
    from harness.designs import DESIGNS

    names = [change.name for change in study.changes]
    combinations = [combination.name for combination in study.combinations]
    for repeated in sorted({name for name in names + combinations if (names + combinations).count(name) > 1}):
        yield f"changes: the name {repeated!r} stands more than once; each change needs its own."
    for index, change in enumerate(study.changes):
        yield from (f"changes[{index}]: {problem}" for problem in check_change(study.baseline, change))
    for kind, name, members in (
        *(("combinations", combination.name, combination.changes) for combination in study.combinations),
        *(("paths", name, members) for name, members in study.paths.items()),
    ):
        unknown = [member for member in members if member not in names]
        for member in unknown:
            yield f"{kind}: {name}: unknown change {member!r}.{suggestion(member, names)}"
        if not unknown:
            yield from (f"{kind}: {name}: {why}" for why in conflicts([study.change(member) for member in members]))
    for design in study.designs:
        if design not in DESIGNS:
            yield f"designs: unknown design {design!r}.{suggestion(design, DESIGNS)} There are: {', '.join(DESIGNS)}."
    for name, profile in study.profiles.items():
        yield from (f"profiles: {name}: {problem}" for problem in _profile_problems(study.baseline, profile))
    for index, published in enumerate(study.published):
        if published.variant not in ["baseline", *names, *combinations]:
            hint = suggestion(published.variant, ["baseline", *names, *combinations])
            yield f"published[{index}]: unknown variant {published.variant!r}.{hint}"


def _profile_problems(baseline: Settings, profile: Profile) -> list[str]:
    try:
        with_overrides(baseline, flatten(profile.overrides))
    except ValidationError as error:
        return [_with_hint(problem, setting_paths(baseline)) for problem in problems_of(error)]
    return []


class _Loader(yaml.SafeLoader):
    """Safe YAML, less two traps: a repeated key is an error, and `1e-3` is a number, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, yaml.Node] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen[key] = key_node
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read_yaml(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise StudyError(f"{path}{place}: {error.problem}. The file must be YAML with each key once.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: cannot be read as YAML ({error}).") from None
