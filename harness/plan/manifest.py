"""A manifest: what a study run is, frozen, for the folder of cells and for tracking.

A study run is a study with one profile, baseline and data. Its manifest says which variants use which cells, and what
is compared with what. No file is read or written here.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from typing import Any

from harness.errors import StoreError
from harness.metrics import Metrics
from harness.trainers.registry import DEFAULT, trainer_class

FORMAT = 2  # 1 had no trainer and no metrics: there was one of each
# Comparisons of what variants were before their changes were edited, looked at by then.
EARLIER = "before-edit"
GREEDY = "path:greedy"  # its steps were chosen by the very results that are tested
# Left out where they are empty.
_OPTIONAL = (
    "asked", "checkpoint_rule", "varied", "held", "confirms", "winner", "headline", "outcome", "alpha", "horizon",
    "looks", "frozen", "tags", "note", "belongs_to", "published_curves",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunVariant:
    """One variant of a study run.

    Attributes:
        changes: names, in the order of the study.
        settings: a hash that tells whether two variants of one name train the same thing, whatever their seeds.
        cells: seed to key, by seed.
        tags: what its runs in MLflow carry besides, such as a search's name and the trial's number.
    """

    name: str
    changes: tuple[str, ...]
    summary: str
    settings: str
    cells: Mapping[int, str]
    tags: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        cells = {str(seed): key for seed, key in self.cells.items()}
        plain = {"name": self.name, "changes": list(self.changes), "summary": self.summary, "settings": self.settings}
        return plain | {"cells": cells} | ({"tags": dict(self.tags)} if self.tags else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunVariant":
        cells = {int(seed): key for seed, key in data["cells"].items()}
        settings, tags = data.get("settings", ""), data.get("tags", {})
        return cls(data["name"], tuple(data["changes"]), data.get("summary", ""), settings, cells, tags)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """One effect that a study run asks for: `variant` minus `reference`, by the names of variants."""

    design: str
    label: str
    variant: str
    reference: str


@dataclass(frozen=True, slots=True)
class Look:
    """One time that the effects of a study run were shown, with seeds that no look before had.

    Attributes:
        seeds: those whose cells had ended on both sides of a comparison, by then.
        time: ISO 8601. command: what showed them.
    """

    seeds: tuple[int, ...]
    time: str
    command: str

    def to_json(self) -> dict[str, Any]:
        return {"seeds": list(self.seeds), "time": self.time, "command": self.command}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Look":
        return cls(tuple(data["seeds"]), data["time"], data["command"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One study run.

    Attributes:
        id: the same for every plan of this study, profile, baseline and data.
        metrics: of the study; every table, figure and sentence takes them from here.
        trainer: as `Trainer.to_json` gives it.
        checkpoint_rule, varied, held: of the trainer, in words, so that a report need not import it; empty where not
            known. What differs between seeds is `varied`, what does not `held`.
        baseline: the settings of this run's baseline, as a tree; `declared`: those of the study's file, before the
            profile and the command line.
        published: `variant`, `metric`, `value` and `source` of numbers to stand beside ours.
        published_curves: `figure`, `variant`, `label`, `source`, `epochs` and `values` of curves to draw beside ours.
        asked: how a command names the study; empty where 0.1 wrote it: by its name.
        confirms: of a confirmation, the id of the study run whose winner it confirms; `winner` `alpha`, at which it
            is tested (0 where 0.1 began it: .05); once it has ended, `headline` and `outcome`.
        horizon: the number of seeds that the study run declared before its first cell; 0 where it declared none.
        looks: the times that its effects were shown, in order.
        frozen: what `harness plan --freeze` wrote down before the first cell; empty where nothing was.
        tags, note: the user's own, of the study and of the commands that trained it.
        belongs_to: of what `prune` and `judge` train, the id of the study run that they serve; it is asked for by its
            own id only.
    """

    id: str
    study: str
    title: str
    profile: str
    exploratory: bool
    metrics: Metrics
    trainer: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    baseline: Mapping[str, Any]
    variants: tuple[RunVariant, ...]
    comparisons: tuple[RunComparison, ...]
    notes: tuple[str, ...] = ()
    published: tuple[Mapping[str, Any], ...] = ()
    declared: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    asked: str = ""
    checkpoint_rule: str = ""
    varied: str = ""
    held: str = ""
    confirms: str = ""
    winner: str = ""
    headline: str = ""
    outcome: str = ""
    alpha: float = 0.0
    horizon: int = 0
    looks: tuple[Look, ...] = ()
    frozen: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    belongs_to: str = ""
    published_curves: tuple[Mapping[str, Any], ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Manifest":
        """Shared, not copied: pandas copies a table's `attrs`, to the last leaf, at each access to a column."""
        return self

    def variant(self, name: str) -> RunVariant | None:
        return next((it for it in self.variants if it.name == name), None)

    def to_json(self) -> dict[str, Any]:
        plain = {it.name: getattr(self, it.name) for it in fields(self)}
        comparisons = [
            {"design": it.design, "label": it.label, "variant": it.variant, "reference": it.reference}
            for it in self.comparisons
        ]
        made = {
            "metrics": self.metrics.to_json(),
            "variants": [it.to_json() for it in self.variants],
            "comparisons": comparisons,
            "looks": [it.to_json() for it in self.looks],
            "notes": list(self.notes),
            "published": [dict(it) for it in self.published],
            "published_curves": [dict(it) for it in self.published_curves],
        }
        optional = {name for name in _OPTIONAL if not plain[name]}
        return {"format": FORMAT, **{name: it for name, it in (plain | made).items() if name not in optional}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Manifest":
        """What `to_json` gave, of this format or the first.

        Raises:
            StoreError: a format that a newer harness wrote. KeyError, TypeError, ValueError: not a manifest.
        """
        data = dict(data)
        written = data.pop("format", 1)
        if written == 1:
            data |= _unsaid_in_the_first_format(data)
        elif written != FORMAT:
            raise StoreError(
                f"study run {data.get('id', '?')}: its manifest has format {written}, this harness reads up to "
                f"{FORMAT}. Install the version that wrote it; nothing is damaged."
            )
        made = {
            "metrics": Metrics.from_json(data["metrics"]),
            "variants": tuple(map(RunVariant.from_json, data["variants"])),
            "comparisons": tuple(RunComparison(**it) for it in data["comparisons"]),
            "notes": tuple(data.get("notes", ())),
            "looks": tuple(map(Look.from_json, data.get("looks", ()))),
            "published": tuple(data.get("published", ())),
            "published_curves": tuple(data.get("published_curves", ())),
        }
        return cls(**data | made)

    def without_looks(self) -> "Manifest":
        """As if nothing had been declared of looks: for what is tested once, and is no effect of this study run."""
        return replace(self, horizon=0, looks=(), frozen={})

    def comparable_seeds(self, ended: Mapping[str, Set[int]]) -> tuple[int, ...]:
        """The seeds for which both sides of some comparison have ended, in order.

        Args:
            ended: variant to the seeds of its cells that have ended.
        """
        nothing: Set[int] = frozenset()
        sides = ((ended.get(it.variant, nothing), ended.get(it.reference, nothing)) for it in self.comparisons)
        return tuple(sorted({seed for variant, reference in sides for seed in variant & reference}))

    def looked_at(self, seeds: Iterable[int], time: str, command: str) -> "Manifest":
        """With one look more, where it sees seeds that none before saw; else the same manifest."""
        new = sorted(set(seeds).difference(*(it.seeds for it in self.looks)))
        if not new:
            return self
        seen = tuple(sorted({*seeds}))
        return replace(self, looks=(*self.looks, Look(seen, time, command)))


def _unsaid_in_the_first_format(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the first format left unsaid: there was one trainer, whose metrics had other names."""
    trainer = trainer_class(DEFAULT)()
    published = [{**it, "metric": it["metric"].replace("_", "/", 1)} for it in data.get("published", ())]
    words = {"checkpoint_rule": trainer.checkpoint_rule, "varied": trainer.varied, "held": trainer.held}
    return {"trainer": trainer.to_json(), "metrics": trainer.metrics.to_json(), "published": published, **words}
