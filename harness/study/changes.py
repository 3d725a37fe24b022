"""A change: one named edit of the baseline, as data.

Changes are declared in studies (YAML), each with a summary, a source and its overrides; this module says what one is,
which ones cannot go together, and what a set of them makes of a baseline. It does not read files.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.errors import StudyError
from harness.trainers.trainer import Settings, SettingsError
from harness.trees import flatten


def _kebab_case(name: str) -> str:
    if re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", name) and name != "baseline":
        return name
    raise ValueError(f"{name!r} is no name; expected small letters and digits joined by - or ., such as batch-norm-2")


Name = Annotated[str, AfterValidator(_kebab_case)]  # `baseline` is taken


class Change(BaseModel):
    """One named edit.

    Attributes:
        name: kebab-case, what a person would say: `batch-norm`, `kernel-3`.
        summary: one line for people; what the overrides say by default.
        source: where the idea comes from (a section, a paper).
        group: changes of one group exclude each other; a combination holds at most one of them.
        needs: the change without which this one makes no sense: it is compared with that one, and no variant holds it
            alone. Empty for most.
        overrides: dotted path of a setting to its new value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    summary: Annotated[str, Field(min_length=1)]
    source: str = ""
    group: str = ""
    needs: Annotated[str, AfterValidator(lambda name: name and _kebab_case(name))] = ""
    overrides: Annotated[dict[str, Any], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _summarized(cls, declared: Any) -> Any:
        overrides = declared.get("overrides") if isinstance(declared, Mapping) else None
        if isinstance(overrides, Mapping) and "summary" not in declared:
            said = ", ".join(f"{path} = {value}" for path, value in flatten(overrides).items())
            return {**declared, "summary": said}
        return declared

    @field_validator("overrides", mode="before")
    @classmethod
    def _dotted(cls, value: Any) -> Any:
        return flatten(value) if isinstance(value, Mapping) else value


def conflicts(changes: Sequence[Change]) -> list[str]:
    """Why these changes cannot stand in one combination, a sentence each; empty if they can."""
    found = []
    for first, second in combinations(changes, 2):
        if first.name == second.name:
            found.append(f"change {first.name!r} stands twice in one combination.")
        elif first.group and first.group == second.group:
            found.append(f"changes {first.name!r} and {second.name!r} exclude each other (group {first.group!r}).")
        else:
            found.extend(
                f"changes {first.name!r} and {second.name!r} both set {path}; a combination may set each setting once."
                for path in sorted(first.overrides.keys() & second.overrides.keys())
            )
    return found


def missing_needs(changes: Sequence[Change]) -> list[str]:
    """Which of these changes lack the one that they need, a sentence each; empty if none does."""
    names = {change.name for change in changes}
    return [
        f"change {change.name!r} makes sense only with {change.needs!r}, which is not there (needs)."
        for change in changes
        if change.needs and change.needs not in names
    ]


def check_change(baseline: Settings, change: Change, needed: Sequence[Change] = ()) -> list[str]:
    """What is wrong with one change of this baseline, a sentence each: a path or value that does not exist, or a
    change that leaves the baseline as it is (its effect would be zero by construction).

    Args:
        needed: the changes on top of which it stands, those that these need included.
    """
    try:
        before = baseline.override({path: value for it in needed for path, value in it.overrides.items()})
    except SettingsError:
        return []  # said of the needed change itself
    try:
        changed = baseline.override({path: value for it in (*needed, change) for path, value in it.overrides.items()})
    except SettingsError as error:
        return [f"change {change.name!r}: {problem}" for problem in error.problems]
    if changed == before:
        values = flatten(before.tree())
        already = ", ".join(f"{path} is already {values.get(path)!r}" for path in change.overrides)
        below = f"{needed[-1].name!r}" if needed else "the baseline"
        unchanged = f"change {change.name!r} leaves {below} as it is ({already})"
        return [f"{unchanged}, so its effect would be zero by construction."]
    return []


def placebo_problem(name: str, paths: Collection[str], unread: Collection[str]) -> str:
    """Why a change is a placebo, found when a cell of it has ended; empty where it is none.

    Args:
        paths: of the settings that the change sets; unread: of those that training never read.
    """
    ignored = [path for path in paths if path in unread or any(path.startswith(f"{it}.") for it in unread)]
    if len(ignored) < len(paths):
        return ""
    return (
        f"change {name!r} is a placebo: training never reads {', '.join(ignored)}, so its effect would be zero by "
        "construction. Read the setting in training, or take the change out (--skip)."
    )


def combine(baseline: Settings, changes: Sequence[Change]) -> Settings:
    """The settings of a variant: the baseline with the overrides of each change. The order does not matter.

    Raises:
        StudyError: the changes exclude each other, one lacks what it needs, or together they make settings that are
            not allowed.
    """
    problems = [*conflicts(changes), *missing_needs(changes)]
    if problems:
        raise StudyError(*problems)
    merged = {path: value for change in changes for path, value in change.overrides.items()}
    try:
        return baseline.override(merged)
    except SettingsError as error:
        names = " + ".join(change.name for change in changes)
        raise StudyError(*(f"{names}: {problem}" for problem in error.problems)) from None


def setting_paths(settings: Settings) -> list[str]:
    """Dotted paths of every setting that these settings have."""
    return list(flatten(settings.tree()))
