"""What a study is: a frozen, validated value. How it is read from a file is in `load.py`.

A study names a trainer, a baseline, the changes, named combinations and paths of changes, the designs that say what to
compare, the profiles (how big a run of it is), and the published numbers to compare with.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, SkipValidation, field_validator, model_validator

from harness.errors import StudyError
from harness.names import suggestion
from harness.study.changes import Change, Name
from harness.study.claimed import Claimed
from harness.study.nuisance import Nuisance
from harness.trainers.trainer import Settings, Trainer

AsTuple = Field(strict=False)  # YAML knows lists only
MOST_SEEDS = 10_000  # beyond it, a slip of the keyboard
MOST_PARTS = 1_000  # changes, or combinations, of one study
LONGEST_NOTE, LONGEST_TAG = 4_000, 500  # characters; MLflow's databases take no longer ones everywhere
OWN_TAGS = ("harness.", "mlflow.")  # beginnings of tags that are the programs' own


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Combination(_Part):
    """Several changes under one name, such as the report's Model 1.

    Attributes:
        name: kebab-case; the variant that holds them all is called so.
        summary: one line for people.
        source: where it comes from.
        changes: names of changes.
    """

    name: Name
    summary: str = ""
    source: str = ""
    changes: Annotated[tuple[str, ...], AsTuple, Field(min_length=1)]


class Profile(_Part):
    """How big a run of the study is.

    Attributes:
        summary: one line for people.
        seeds: how many, counted from 0.
        looks: at how many seeds a race (`ablate --race`) looks at the effects on the way; by default at 8, 12, 16, ...
        exploratory: too small for conclusions; every table of it says so.
        trainer: the trainer's own options, such as the image trainer's `filter_scale`.
        overrides: settings of the baseline, by dotted path.
        skip: changes and combinations that make no sense with these overrides; they are not run, and a note says so.
    """

    summary: str = ""
    seeds: Annotated[PositiveInt, Field(le=MOST_SEEDS)] = 10
    looks: Annotated[tuple[PositiveInt, ...], AsTuple] = ()
    exploratory: bool = False
    trainer: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    skip: Annotated[tuple[str, ...], AsTuple] = ()

    @field_validator("looks")
    @classmethod
    def _looks_rise(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        if list(looks) != sorted(set(looks)):
            raise ValueError("expected rising numbers of seeds, such as [8, 12, 20]")
        return looks


class Published(_Part):
    """A number that somebody printed, to stand beside ours.

    Attributes:
        variant: `baseline`, a change or a combination of the study.
        metric: a name that the trainer measures.
        value: as it is logged (percent as a fraction).
        source: where it was printed.
    """

    variant: str
    metric: str
    value: float
    source: str


class PublishedCurve(_Part):
    """A learning curve that somebody printed, to be drawn beside ours.

    Attributes:
        figure: what it was printed as; the curves of one figure are drawn together.
        variant: `baseline`, a change, a combination, or several changes joined by `+`, in the order of the study.
        label: what that figure calls it; by default the variant's name.
        source: where the values come from.
        epochs: where it was measured, rising.
        values: metric to its values at those epochs, as they are logged (percent as a fraction).
    """

    figure: Annotated[str, Field(min_length=1)]
    variant: str
    label: str = ""
    source: str
    epochs: Annotated[tuple[float, ...], AsTuple, Field(min_length=2)]
    values: Annotated[dict[str, Annotated[tuple[float, ...], AsTuple]], Field(min_length=1)]

    @model_validator(mode="after")
    def _a_value_at_each_epoch(self) -> "PublishedCurve":
        if list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError("epochs: expected rising numbers, such as [0.5, 1.0, 1.5]")
        for metric, values in self.values.items():
            if len(values) != len(self.epochs):
                raise ValueError(f"values: {metric} has {len(values)} values, but there are {len(self.epochs)} epochs")
        return self


class Study(_Part):
    """What `load_study` gives; see the module's text.

    Attributes:
        trainer: what trains; it has the metrics, and has parsed the settings of `baseline`.
        name: by default that of the file.
        title: what it asks, in a line.
        source: where the idea comes from.
        changes: declarations only: names were looked up.
        paths: name to changes that are added one by one, in this order.
        designs: what to compare with what; the first is what the study run is declared for.
        nuisance: settings, by dotted path, that `harness tune` gives each variant at its own best.
        claims: what somebody said about it, for `harness claims`.
        tags, note: what its study runs carry besides, in MLflow and in the report; they decide nothing.
        built_on: the study that this one extends and what it does to it, in a sentence; made by `load.py`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: Name
    title: str
    source: str = ""
    trainer: SkipValidation[Trainer]
    baseline: SkipValidation[Settings]
    changes: Annotated[tuple[Change, ...], AsTuple, Field(max_length=MOST_PARTS)] = ()
    combinations: Annotated[tuple[Combination, ...], AsTuple, Field(max_length=MOST_PARTS)] = ()
    paths: dict[Name, Annotated[tuple[str, ...], AsTuple, Field(min_length=1)]] = {}
    designs: Annotated[tuple[str, ...], AsTuple, Field(min_length=1)] = ("add-one",)
    profiles: Annotated[dict[Name, Profile], Field(min_length=1)] = {"standard": Profile()}
    published: Annotated[tuple[Published, ...], AsTuple] = ()
    claims: Annotated[tuple[Claimed, ...], AsTuple, Field(max_length=MOST_PARTS)] = ()
    published_curves: Annotated[tuple[PublishedCurve, ...], AsTuple] = ()
    nuisance: dict[str, Nuisance] = {}
    tags: dict[str, str] = {}
    note: Annotated[str, Field(max_length=LONGEST_NOTE)] = ""
    built_on: str = ""

    @field_validator("tags")
    @classmethod
    def _tags_can_be_kept(cls, tags: dict[str, str]) -> dict[str, str]:
        if problems := [found for name, text in tags.items() if (found := tag_problem(name, text))]:
            raise ValueError("; ".join(problems))
        return tags

    def with_notes(self, tags: Mapping[str, str], note: str) -> "Study":
        """The same study with further tags, and another note where one is given.

        Raises:
            StudyError: a tag that cannot be kept.
        """
        if problems := [f"tag {found}" for name, text in tags.items() if (found := tag_problem(name, text))]:
            raise StudyError(*problems)
        return self.model_copy(update={"tags": {**self.tags, **tags}, "note": note or self.note})

    def change(self, name: str) -> Change:
        return next(change for change in self.changes if change.name == name)

    def needs(self) -> dict[str, tuple[Change, ...]]:
        """For each change that needs others: all that it stands on, each after what it needs itself."""
        known = {change.name: change for change in self.changes}
        found: dict[str, tuple[Change, ...]] = {}
        for change in self.changes:
            below: dict[str, Change] = {}
            _gather(change, known, below, {change.name})
            if below:
                found[change.name] = tuple(below.values())
        return found

    def profile(self, name: str) -> Profile:
        """Raises StudyError for a profile that the study does not have."""
        if name not in self.profiles:
            known = ", ".join(self.profiles)
            hint = suggestion(name, self.profiles)
            raise StudyError(f"study {self.name!r} has no profile {name!r}.{hint} It has: {known}.")
        return self.profiles[name]


def tag_problem(name: str, text: str) -> str:
    """Why a tag cannot be kept, a sentence; or nothing."""
    if not re.fullmatch(r"[\w./ -]{1,100}", name):
        return f"{name!r}: a tag's name has letters, digits and _ - . / only, and at most 100 of them"
    if name.startswith(OWN_TAGS):
        return f"{name!r}: names that begin with {' or '.join(OWN_TAGS)} are taken"
    return f"{name!r}: at most {LONGEST_TAG} characters" if len(text) > LONGEST_TAG else ""


def _gather(change: Change, known: Mapping[str, Change], below: dict[str, Change], above: set[str]) -> None:
    """Adds what a change stands on to `below`, the lowest first; a circle ends where it closes."""
    for name in change.needs:
        if name in known and name not in above and name not in below:
            _gather(known[name], known, below, {*above, name})
            below[name] = known[name]
