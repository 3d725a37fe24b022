"""A change: one named edit of the baseline, as data: settings, code, or both.

Changes are declared in studies (YAML), each with a summary, a source and its overrides or its commit; this module says
what one is, which ones cannot go together, and what a set of them makes of a baseline and of its trainer. It does not
read files: which code there is, and how edits of it are merged, is the trainer's matter.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from harness.errors import StudyError
from harness.trainers.trainer import Edit, Settings, SettingsError, Trainer
from harness.trees import flatten


def _kebab_case(name: str) -> str:
    if re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", name) and name != "baseline":
        return name
    raise ValueError(f"{name!r} is no name; expected small letters and digits joined by - or ., such as batch-norm-2")


CODE = ("commit", "branch", "patch")  # keys of a change that is code
Name = Annotated[str, AfterValidator(_kebab_case)]  # `baseline` is taken


class Change(BaseModel):
    """One named edit.

    Attributes:
        name: kebab-case, what a person would say: `batch-norm`, `kernel-3`.
        summary: one line for people; what the overrides say by default.
        source: where the idea comes from (a section, a paper).
        group: changes of one group exclude each other; a combination holds at most one of them.
        needs: the changes without which this one makes no sense: it is compared with them, and no variant holds it
            without. Empty for most.
        overrides: dotted path of a setting to its new value.
        commit: the change is what these commits do to the code, in this order.
        branch: what this branch does to the code since it left the baseline's commit.
        patch: what a file that `git diff` printed does to it, by its path from the study's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    summary: Annotated[str, Field(min_length=1)]
    source: str = ""
    group: str = ""
    needs: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    overrides: dict[str, Any]
    commit: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    branch: str = ""
    patch: str = ""

    @model_validator(mode="before")
    @classmethod
    def _summarized(cls, declared: Any) -> Any:
        if not isinstance(declared, Mapping):
            return declared
        for key in CODE:
            if isinstance(declared.get(key), int | float):
                raise ValueError(f"{key}: {declared[key]!r} is read as a number; put it in quotes")
        if sum(bool(declared.get(key)) for key in CODE) > 1:
            raise ValueError("a change has one of commit, branch and patch; several commits are a list")
        is_code = any(declared.get(key) for key in CODE)
        names = {key: declared[key] for key in ("needs", "commit") if isinstance(declared.get(key), str)}
        lists = {key: (name,) if name else () for key, name in names.items()}
        declared = {**({"overrides": {}} if is_code else {}), **declared, **lists}
        overrides = declared.get("overrides", {})
        if "summary" not in declared and isinstance(overrides, Mapping) and (is_code or "overrides" in declared):
            commits = declared.get("commit", ())
            code = [f"commit {it}" for it in commits] if isinstance(commits, list | tuple) else []
            code += [f"{key} {declared[key]}" for key in ("branch", "patch") if declared.get(key)]
            settings = [f"{path} = {value}" for path, value in flatten(overrides).items()]
            return {**declared, "summary": ", ".join([*code, *settings]) or "nothing"}
        return {"summary": "nothing", **declared}  # what it lacks is said of its overrides

    @field_serializer("needs", "commit")
    def _as_written(self, names: tuple[str, ...]) -> str | list[str]:
        """One name as it is, several as a list."""
        return names[0] if len(names) == 1 else list(names)

    @property
    def code(self) -> Edit | None:
        """What it does to the code; None where it sets settings alone."""
        found = Edit(self.name, self.commit, self.branch, self.patch)
        return found if self.commit or self.branch or self.patch else None

    @model_validator(mode="after")
    def _does_something(self) -> "Change":
        if not self.overrides and self.code is None:
            raise ValueError("overrides: at least one setting; or the change is code, by commit, branch or patch")
        return self

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
        f"change {change.name!r} makes sense only with {needed!r}, which is not there (needs)."
        for change in changes
        for needed in change.needs
        if needed not in names
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
    if changed == before and not change.code:
        values = flatten(before.tree())
        already = ", ".join(f"{path} is already {values.get(path)!r}" for path in change.overrides)
        below = f"{needed[-1].name!r}" if needed else "the baseline"
        unchanged = f"change {change.name!r} leaves {below} as it is ({already})"
        return [f"{unchanged}, so its effect would be zero by construction."]
    return []


def edited(trainer: Trainer, changes: Sequence[Change]) -> Trainer:
    """The trainer with the code of these changes, each after what it needs.

    Raises:
        StudyError: their code does not merge, cannot be found, or edits what is fixed.
    """
    known = {change.name: change for change in changes}
    ordered: dict[str, Change] = {}

    def put(change: Change, above: Collection[str]) -> None:
        for needed in change.needs:
            if needed in known and needed not in above:
                put(known[needed], {*above, change.name})
        ordered.setdefault(change.name, change)

    for change in changes:
        put(change, {change.name})
    edits = [change.code for change in ordered.values() if change.code]
    return trainer.with_edits(edits) if edits else trainer


def check_code(trainer: Trainer, baseline: Settings, change: Change, needed: Sequence[Change] = ()) -> list[str]:
    """What is wrong with the code of one change, a sentence each: it cannot be found, does not merge into the
    baseline's, or leaves what training reads as it is.

    Args:
        needed: as for `check_change`.
    """
    if change.code is None:
        return []
    try:
        before = edited(trainer, needed)
    except StudyError:
        return []  # said of the needed change itself
    try:
        after = edited(trainer, [*needed, change])
    except StudyError as error:
        return list(error.problems)
    if after.fingerprints(baseline) == before.fingerprints(baseline):
        unread = "edits nothing that training reads" + (", or what others have edited already" if needed else "")
        hint = "what Python cannot follow is listed under trainer.sources."
        return [f"change {change.name!r}: {change.code} {unread}, so its effect would be zero by construction; {hint}"]
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
