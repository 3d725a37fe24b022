"""What a study is: a frozen, validated value. How it is read from a file is in `load.py`.

A study names a baseline, the changes, named combinations and paths of changes, the designs that say what to compare,
the profiles (how big a run of it is), and the published numbers to compare with.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from harness.errors import StudyError
from harness.study.changes import Change, Name, suggestion
from harness.trainers.images.settings import AsTuple, Settings

Metric = Literal["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Combination(_Part):
    """Several changes under one name, such as the report's Model 1."""

    name: Name
    summary: str = ""
    source: str = ""
    changes: Annotated[tuple[str, ...], AsTuple, Field(min_length=1)]


class Profile(_Part):
    """How big a run of the study is.

    Attributes:
        seeds: how many, counted from 0.
        exploratory: too small for conclusions; every table of it says so.
        filter_scale: all filter counts of the convolutional network are multiplied by this, after the changes.
        overrides: settings of the baseline, by dotted path.
        skip: changes and combinations that make no sense with these overrides; they are not run, and a note says so.
    """

    summary: str = ""
    seeds: PositiveInt = 10
    exploratory: bool = False
    filter_scale: Annotated[float, Field(gt=0, le=4)] = 1.0
    overrides: dict[str, Any] = {}
    skip: Annotated[tuple[str, ...], AsTuple] = ()


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
    changes: Annotated[tuple[Change, ...], AsTuple] = ()
    combinations: Annotated[tuple[Combination, ...], AsTuple] = ()
    paths: dict[Name, Annotated[tuple[str, ...], AsTuple, Field(min_length=1)]] = {}
    designs: Annotated[tuple[str, ...], AsTuple, Field(min_length=1)] = ("add-one",)
    profiles: Annotated[dict[Name, Profile], Field(min_length=1)] = {"standard": Profile()}
    published: Annotated[tuple[Published, ...], AsTuple] = ()

    def change(self, name: str) -> Change:
        return next(change for change in self.changes if change.name == name)

    def profile(self, name: str) -> Profile:
        """Raises StudyError for a profile that the study does not have."""
        if name not in self.profiles:
            known = ", ".join(self.profiles)
            hint = suggestion(name, self.profiles)
            raise StudyError(f"study {self.name!r} has no profile {name!r}.{hint} It has: {known}.")
        return self.profiles[name]
