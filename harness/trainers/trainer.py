"""What the harness knows of training: a trainer, and the settings that it reads.

A trainer turns settings and a seed into metrics. The core plans, runs, stores and compares through `Trainer` and
`Settings` alone; which settings there are, what they mean and what is measured is the trainer's own. A new family is a
class like this one, in a package of its own, and a line in `registry.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from harness.errors import StudyError
from harness.metrics import Metrics
from harness.trainers.run import Run

Location = tuple[int | str, ...]


class SettingsError(StudyError):
    """Settings that are not allowed.

    Args:
        problems: `path: sentence`, one a finding.
        places: where in the tree of settings each is, keys from the root.
    """

    def __init__(self, *problems: str, places: Iterable[Location] = ()) -> None:
        super().__init__(*problems)
        self.places: tuple[Location, ...] = tuple(places)


class Settings(Protocol):
    """Everything that can move a cell's number but the seed: frozen, hashable, equal where they mean the same."""

    def tree(self) -> dict[str, Any]:
        """As nested plain values (JSON), defaults included; `Trainer.parse` reads it back."""

    def identity(self) -> dict[str, Any]:
        """The tree without what cannot move the number, such as where a file lies."""

    def override(self, overrides: Mapping[str, Any]) -> Self:
        """These settings with some leaves replaced.

        Args:
            overrides: dotted path to value; an empty mapping as value overrides nothing.

        Raises:
            SettingsError: a path does not exist (with the nearest that does), or a value is not allowed.
        """


@dataclass(frozen=True)
class Exported:
    """A trained model, as MLflow's registry takes it.

    Attributes:
        flavor: the module of MLflow that logs it, such as `pytorch`; options: what that one takes besides.
        example, output: arrays that it takes and gives: they say its signature.
        requirements: of whoever loads it, as pip writes them.
    """

    model: Any
    flavor: str
    example: Any
    output: Any
    requirements: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of an accelerator, as a process that trains on it sees it.

    Attributes:
        free_bytes: that nobody has, now. total_bytes: of the device.
        held_bytes: what this process has for its tensors, now; peak_bytes: the most of it during this cell. Both are
            without the process's context.
    """

    free_bytes: int
    total_bytes: int
    held_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Edit:
    """What a change does to the code that trains; one of the three is there.

    Attributes:
        change: its name, for messages.
        commits: by hash or name, in the order in which they are applied.
        branch: all that it holds since it left the baseline's commit. patch: path of a file that `git diff` printed.
    """

    change: str
    commits: tuple[str, ...] = ()
    branch: str = ""
    patch: str = ""

    def __str__(self) -> str:
        what = {"commit": ", ".join(self.commits), "branch": self.branch, "patch": self.patch}
        return next(f"{kind} {name}" for kind, name in what.items() if name)


class Trainer:
    """One kind of training, as a study names it. Equal trainers train the same; cheap to make, and sent as JSON.

    Attributes:
        kind: its name in `registry.py`, or `module:Class` of somebody's own.
        recipe: JSON; a part of each cell's identity that says which trainer this is, and which meaning of training:
            bumped whenever the same settings and seed would give another number by design.
        metrics: what it measures.
        warm_up: modules that a worker imports while the command does other things.
        notes_reads: whether settings that training never reads are found by noting reads; a trainer that reads back
            what its objects use needs no such guard.
        checkpoint_rule: when what a cell reports was measured, in words that may follow a metric's.
        varied: what differs between the seeds, in words; held: what does not, whatever the seed.
    """

    kind: str
    recipe: Any
    metrics: Metrics
    warm_up: tuple[str, ...] = ()
    notes_reads: bool = True

    @property
    def identity(self) -> Any:
        """What of this trainer is in every cell's key: its recipe, and the class's name where it is somebody's own (two
        classes may well count their recipes alike)."""
        return [self.kind, self.recipe] if ":" in self.kind else self.recipe

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results should know about this training's identity, a sentence each."""
        return ()

    checkpoint_rule: str = "as training reports it"
    varied: str = "all random draws of training"
    held: str = "whatever training does not draw from its seed, such as the data and how they are split"

    def varied_by(self, settings: Settings) -> tuple[str, str]:
        """What differs between seeds with these settings, and what does not, in words."""
        return self.varied, self.held

    def to_json(self) -> dict[str, Any]:
        """From which `registry.trainer_from_json` makes an equal trainer, in any process."""
        return {"kind": self.kind}

    def parse(self, tree: Mapping[str, Any]) -> Settings:
        """Settings from a study's `baseline`, or from `Settings.tree`.

        Raises:
            SettingsError: everything that is wrong, at once.
        """
        raise NotImplementedError(f"{type(self).__name__} must parse its settings")

    def train(self, run: Run) -> None:
        """Train one cell, or continue it, in a worker; reports through `run`.

        Raises:
            DivergedError: the outcome is that training does not converge. OutOfMemoryError: the device is too small.
            Anything else is recorded as the cell's failure, with its traceback.
        """
        raise NotImplementedError(f"{type(self).__name__} must train")

    def before_attempt(self, folder: Path) -> None:
        """Puts a cell's folder in order before it is trained or continued, in the worker; most trainers need not."""

    def resolve(self, settings: Settings, *, device: str, options: Mapping[str, Any]) -> Settings:
        """Settings as they are trained: `auto` replaced by what it means on this device, `options` applied.

        Args:
            options: the trainer's own, of a profile (`trainer:` in it).

        Raises:
            StudyError: the device cannot do what they ask for, or an option is unknown.
        """
        if options:
            raise StudyError(f"trainer: the trainer {self.kind} takes no options, but got {', '.join(options)}.")
        return settings

    def overrides(self, name: str, value: Any) -> dict[str, Any]:
        """What an option of the command line (`data`, `epochs`, `weights`, `vary`) means for the settings, by path.

        Raises:
            StudyError: this trainer has no such option.
        """
        raise StudyError(
            f"--{name} {value}: the trainer of this study ({self.kind}) has no such option; --set path=value changes "
            "a setting of the baseline."
        )

    def fingerprints(self, settings: Settings) -> dict[str, str]:
        """Hashes of what settings name but do not hold, by role: data, weights, the user's sources.

        Raises:
            DataError, StudyError: it is not there, or cannot be read.
        """
        return {}

    def with_edits(self, edits: Sequence[Edit]) -> "Trainer":
        """The same training by edited code: its cells have another fingerprint of their sources, unless the edits are
        of nothing that training reads.

        Args:
            edits: merged into the code in this order, what one needs before it.

        Raises:
            StudyError: the edits do not merge, cannot be found or are of what is fixed; the trainer has no code of the
                user's.
        """
        raise StudyError(
            *(
                f"change {it.change!r}: {it}: the trainer {self.kind} has no code of the study's own that a change "
                "could edit; a change of its settings has overrides."
                for it in edits
            )
        )

    def edited_since(self, fingerprints: Mapping[str, str], store: Path) -> str:
        """What was edited since cells with these fingerprints were planned, in words; empty where nothing was.

        Args:
            store: where snapshots of sources are kept, under `sources/`.
        """
        return ""

    def prepare(self, settings: Iterable[Settings], *, store: Path) -> None:
        """What cells need from outside, fetched and checked once a node, before any of them starts.

        Args:
            store: where a snapshot of sources may be kept, under `sources/`.

        Raises:
            DataError, StudyError, StoreError: something is missing, damaged or cannot be written.
        """

    def supply(self, settings: Settings, fingerprints: Mapping[str, str]) -> Path | None:
        """A folder of this machine with what a cell of these settings needs on any other one, after `prepare`; None
        where nothing has to travel. Its name says what is in it: equal names, equal files."""
        return None

    def has_supply(self, name: str) -> bool:
        """Whether a folder that another machine's `supply` gave is here, too, whole."""
        return True

    def receive_supply(self, name: str, files: Mapping[str, Callable[[], memoryview]]) -> None:
        """Puts it where training will find it; once, whoever else on this machine receives it now.

        Args:
            files: the folder's, by name; each is fetched when it is called for.

        Raises:
            StoreError: it cannot be written, or what arrived is not whole.
        """

    def device_memory(self, device: str) -> DeviceMemory | None:
        """Of an accelerator on which this process is training a cell; None on a CPU, and where it is not known.

        Asked when a cell has validated for the first time: from it follows how many cells fit beside each other.
        """
        return None

    def device_problem(self, device: str) -> str:
        """Why this trainer cannot compute on a device that is there, in a sentence; empty where it can, or cannot tell.

        Asked once before anything is trained, so it may take a second.
        """
        return ""

    def device_advice(self, device: str) -> str:
        """What would make this trainer faster on a device, in a sentence; empty where nothing is known that would."""
        return ""

    def doubts(self) -> list[str]:
        """What may be wrong although it is valid, and only training itself knows: a sentence each."""
        return []

    def export(self, settings: Settings, *, seed: int, folder: Path) -> Exported | None:
        """The model that an ended cell has trained, from what it keeps in its folder; None where there is none to give.

        Raises:
            StoreError, DataError: what it is made of is missing.
        """
        return None

    def example_pictures(self, settings: Settings, places: Sequence[int]) -> list[tuple[Any, str]]:
        """Pictures of test examples with their labels, where this training has such.

        Args:
            places: of the examples whose results cells keep (`Run.finish`), in their order.

        Returns:
            uint8 (H, W, 3) and the name of the class, one an example; nothing where examples are no images.

        Raises:
            DataError: the images are not there.
        """
        return []

    def threads(self, settings: Settings) -> int:
        """CPU threads that one cell uses."""
        return 1

    def modelled_seconds(self, settings: Settings, *, device: str, share: float = 1.0) -> float | None:
        """What a cell takes by its arithmetic alone, or None where the trainer has no model of it.

        Args:
            share: of the training that the settings allow at most; less where cells stop early.
        """
        return None

    def probed_seconds(self, settings: Settings, *, device: str) -> float | None:
        """What a cell of these settings takes on this device, from a few steps made now; None where the trainer has no
        way to find out, or it takes longer than a minute."""
        return None

    def share_trained(self, settings: Settings, facts: Mapping[str, Any]) -> float:
        """Share of the training allowed at most that an ended cell with these facts has done."""
        return 1.0

    def max_epochs(self, settings: Settings) -> float | None:
        """How many epochs the settings allow at most; None where the trainer counts none."""
        return None

    def validations_per_epoch(self, settings: Settings) -> int:
        """How often an epoch is logged."""
        return 1

    def disk_bytes(self, settings: Settings) -> int:
        """What a cell's checkpoints and weights take, roughly."""
        return 1_000_000

    def expected_spread(self, settings: Settings) -> float:
        """Sd between seeds of the reported metric before any run, a guess; NaN where the trainer knows none."""
        return float("nan")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trainer) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.kind)
