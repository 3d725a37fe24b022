"""A plan: the union of all cells that the designs need, each distinct cell once.

Pure: no file is read and nothing is trained. What lies outside the settings (fingerprints of images and weights)
arrives as a function.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from harness.errors import StudyError
from harness.names import suggestion
from harness.plan.cell import Cell
from harness.plan.manifest import Manifest, RunComparison, RunVariant
from harness.plan.variants import Variant, Variants, same_settings
from harness.study.changes import check_change
from harness.study.designs.comparisons import BASELINE, Changes, Comparison, with_needed
from harness.study.designs.registry import make_designs
from harness.study.study import MOST_SEEDS, Profile, Study
from harness.texts import shortened
from harness.trainers.trainer import Settings, SettingsError
from harness.trees import flatten, layered

__all__ = ["Plan", "Variant", "make_plan", "parse_seeds"]

MOST_LISTED = 20  # names in a message
MOST_DIGITS = 18  # of one seed: what every database and random generator takes
MOST_CELLS = 200_000  # of one plan: 100 MB and some seconds, and far beyond what anyone trains


@dataclass(frozen=True)
class Plan:
    """What to train and what to compare; made by `make_plan`.

    Attributes:
        study: as it was declared; the baseline of this run is `variants[0].settings`.
        make_variant: any set of changes, in the order of the study, as a variant of this plan. Raises StudyError where
            they cannot stand together.
        horizon: how many seeds the study will have in the end; looking at fewer is looking early.
        suffix: of the id, where this is another run of the same study, such as a tuned one.
    """

    study: Study
    profile: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    comparisons: tuple[Comparison, ...]
    make_variant: Callable[[Changes], Variant] = field(compare=False, repr=False)
    notes: tuple[str, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    horizon: int = 0
    suffix: str = ""

    @property
    def exploratory(self) -> bool:
        """Too small for conclusions, or judged by the very metric that chooses."""
        return self.study.profiles[self.profile].exploratory or self.study.trainer.metrics.is_exploratory

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Each distinct cell once: seed by seed, so that an interrupted study has whole rows to compare."""
        by_seed = (variant.cells[index] for index in range(len(self.seeds)) for variant in self.variants)
        return tuple({cell.key: cell for cell in by_seed}.values())

    @cached_property
    def id(self) -> str:
        """Names the study run: the same for every plan of this study, profile, baseline and data, so that more seeds
        or more variants extend what is there."""
        baseline = self.variants[0]
        assert baseline.changes == (), "a plan starts with the baseline"
        recipe = self.study.trainer.identity
        content = [baseline.settings.identity(), sorted(self.fingerprints.items())]
        what = json.dumps(content if recipe == 1 else [recipe, *content], sort_keys=True)  # as `Variant.settings_hash`
        return f"{self.study.name}-{self.profile}-{hashlib.sha256(what.encode()).hexdigest()[:8]}{self.suffix}"

    @cached_property
    def _names(self) -> dict[Changes, str]:
        return {variant.changes: variant.name for variant in self.variants}

    def name_of(self, changes: Changes) -> str:
        """The name of one of this plan's variants, by its changes in the order of the study."""
        return self._names[changes]

    def manifest(self, command: str = "") -> Manifest:
        """The plan as a study run, for the folder of cells and for tracking."""
        varied, held = self.study.trainer.varied_by(self.variants[0].settings)
        is_another = bool(
            self.study.profile(self.profile).overrides
        )  # than the experiment whose numbers were published
        return Manifest(
            id=self.id,
            study=self.study.name,
            title=self.study.title,
            profile=self.profile,
            exploratory=self.exploratory,
            metrics=self.study.trainer.metrics,
            trainer=self.study.trainer.to_json(),
            fingerprints=dict(self.fingerprints),
            baseline=self.variants[0].settings.tree(),
            variants=tuple(
                RunVariant(
                    name=it.name,
                    changes=it.changes,
                    summary=it.summary,
                    settings=it.settings_hash,
                    cells={cell.seed: cell.key for cell in it.cells},
                )
                for it in self.variants
            ),
            comparisons=tuple(
                RunComparison(it.design, it.label, self.name_of(it.variant), self.name_of(it.reference))
                for it in self.comparisons
            ),
            notes=tuple(self.notes),
            published=tuple(it.model_dump() for it in self.study.published if not is_another),
            published_curves=tuple(it.model_dump(mode="json") for it in self.study.published_curves if not is_another),
            declared=self.study.baseline.tree(),
            tags=dict(self.study.tags),
            note=self.study.note,
            command=command,
            checkpoint_rule=self.study.trainer.checkpoint_rule,
            varied=varied,
            held=held,
            horizon=self.horizon if self.comparisons else 0,
        )


def make_plan(
    study: Study,
    *,
    device: str = "cpu",
    fingerprints: Callable[[Settings], Mapping[str, str]] | None = None,
    profile: str = "standard",
    designs: Sequence[str] = (),
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    horizon: int | None = None,
) -> Plan:
    """The variants, cells and comparisons that a study needs.

    Args:
        device: the kind that cells will be trained on (`cpu`, `cuda`); the trainer resolves settings for it.
        fingerprints: what settings name but do not hold, by role, to hashes; the trainer's by default.
        designs: names; empty for the study's own.
        seeds: empty for the profile's: 0, 1, 2, ...
        only, skip: names of changes and combinations; empty `only` means all.
        overrides: settings of the baseline by dotted path, over the profile's.
        horizon: number of seeds in the end; the profile's by default, or as many as `seeds` if those are more.

    Raises:
        StudyError: an unknown name, a change that alters nothing, changes that exclude each other, or settings that are
            not allowed; every problem at once.
    """
    chosen = study.profile(profile)
    selected, problems, forgone = _select(study, profile, only, skip)
    trainer, fingerprints = study.trainer, fingerprints or study.trainer.fingerprints
    baseline, more = _baseline(study, chosen, overrides or {})
    problems += more
    if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        problems.append(f"seeds {', '.join(map(str, seeds))}: expected different whole numbers from 0.")
    here = study.model_copy(update={"baseline": baseline})  # what can be combined depends on the baseline of this run
    try:
        designed = make_designs(here, designs or study.designs, selected)
    except StudyError as error:
        raise StudyError(*problems, *error.problems) from None
    comparisons = tuple(comparison for design in designed for comparison in design.comparisons)
    left_out = (f"profile {profile} leaves out {', '.join(chosen.skip)}.",) if chosen.skip else ()
    built_on = (study.built_on,) if study.built_on else ()
    notes = (*built_on, *left_out, *forgone, *(note for design in designed for note in design.notes))
    if not comparisons and (only or skip) and not problems:
        raise StudyError(*notes)
    needed: dict[Changes, None] = {(): None}
    for design in designed:
        needed |= dict.fromkeys(changes for it in design.comparisons for changes in (it.reference, it.variant))
        needed |= dict.fromkeys(design.further)
    used = {name for changes in needed for name in changes}
    needs = here.needs()
    for change in here.changes:
        problems += check_change(baseline, change, needs.get(change.name, ())) if change.name in used else []
    if problems:
        raise StudyError(*problems)
    seeds = tuple(seeds) or tuple(range(horizon or chosen.seeds))
    if horizon is not None and horizon < len(seeds):
        raise StudyError(
            f"--horizon {horizon}: fewer than the {len(seeds)} seeds of this plan. Name all that there will be."
        )
    if len(needed) * len(seeds) > MOST_CELLS:
        raise StudyError(
            f"{len(needed):,} variants with {len(seeds):,} seeds are {len(needed) * len(seeds):,} cells, more than "
            f"{MOST_CELLS:,}. Take fewer seeds (--seeds) or fewer changes (--only, --skip)."
        )
    resolve = partial(trainer.resolve, device=device, options=chosen.trainer)
    make = Variants(here, seeds, resolve=resolve, fingerprints=fingerprints)
    variants = tuple(_made(make, needed))
    problems = same_settings(variants)
    if problems:
        raise StudyError(*problems)
    end = horizon or max(chosen.seeds, len(seeds))
    return Plan(study, profile, seeds, variants, comparisons, make, notes, dict(fingerprints(baseline)), end)


def _made(make: Variants, needed: Iterable[Changes]) -> list[Variant]:
    """Each set of changes as a variant. Raises StudyError with each problem once, and a variant that has it."""
    variants: list[Variant] = []
    problems: dict[str, str] = {}
    for changes in needed:
        try:
            variants.append(make(changes))
        except StudyError as error:
            for problem in error.problems:
                problems.setdefault(problem, "+".join(changes) or BASELINE)
    if problems:
        raise StudyError(*(f"{problem} (variant {name})" for problem, name in problems.items()))
    return variants


def parse_seeds(text: str) -> tuple[int, ...]:
    """`10` means ten seeds, 0 to 9; `3,5,8` means those; `4,` means the one seed 4.

    Raises:
        StudyError: not that form, a negative number, or a seed that stands twice.
    """
    parts = [part.strip() for part in text.split(",")]
    listed = parts[:-1] if len(parts) > 1 and not parts[-1] else parts
    if not all(part.isascii() and part.isdecimal() for part in listed):
        raise StudyError(f"--seeds {text}: expected a count such as 10, or a list such as 0,1,2.")
    if any(len(part) > MOST_DIGITS for part in listed):
        raise StudyError(f"--seeds {shortened(text, 60)}: a number of more than {MOST_DIGITS} digits.")
    numbers = [int(part) for part in listed]
    if len(parts) == 1:
        if numbers[0] == 0:
            raise StudyError("--seeds 0: at least one seed is needed; for the one seed 0 write `0,`.")
        if numbers[0] > MOST_SEEDS:
            raise StudyError(f"--seeds {text}: more than {MOST_SEEDS:,}; for the one seed {text} write `{text},`.")
        return tuple(range(numbers[0]))
    if len(set(numbers)) < len(numbers):
        raise StudyError(f"--seeds {text}: a seed stands twice.")
    return tuple(numbers)


def _select(
    study: Study, profile: str, only: Sequence[str], skip: Sequence[str]
) -> tuple[frozenset[str], list[str], list[str]]:
    """The selected names, what is wrong with the request, and notes on what goes with what was skipped.

    A selected change brings what it needs; what needs a skipped one is skipped, too.
    """
    known = [change.name for change in study.changes] + [combination.name for combination in study.combinations]
    listed = f"It has {', '.join(known)}." if len(known) <= MOST_LISTED else f"`harness plan` shows all {len(known)}."
    problems = [
        f"{option} {name}: study {study.name!r} has no such change.{suggestion(name, known)} {listed}"
        for option, names in (("--only", only), ("--skip", skip))
        for name in names
        if name not in known
    ]
    left_out = study.profile(profile).skip
    problems += [f"--only {name}: profile {profile!r} leaves it out." for name in only if name in left_out]
    skipped = {*skip, *left_out}
    lost = {
        name: below[-1].name
        for name, below in study.needs().items()
        if skipped & {it.name for it in below} and name not in skipped and (name in only or not only)
    }
    problems += [f"--only {name}: needs {needed!r}, which is skipped." for name, needed in lost.items() if only]
    forgone = [f"{name} is left out, too: it needs {needed}." for name, needed in lost.items()]
    return with_needed(study, only or known) - {*skipped, *lost}, problems, forgone


def _baseline(study: Study, profile: Profile, overrides: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """The baseline of this run, and what is wrong with the request; with problems, the study's own baseline."""
    try:
        return study.baseline.override(layered(flatten(profile.overrides), flatten(overrides))), []
    except SettingsError as error:
        return study.baseline, [f"settings of this run: {problem}" for problem in error.problems]
