"""A plan: the union of all cells that the designs need, each distinct cell once.

Pure: no file is read and nothing is trained. What lies outside the settings (fingerprints of images and weights)
arrives as a function.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.cell import Cell, make_cells
from harness.changes import Change, check_change, combine, suggestion
from harness.designs import DESIGNS, Changes, Comparison, Design, variant_name
from harness.errors import StudyError
from harness.settings import ConvNet, Settings, flatten, with_overrides
from harness.study import Study


@dataclass(frozen=True)
class Variant:
    """The baseline plus zero or more changes.

    Attributes:
        name: `baseline`, a named combination, or the names of the changes joined by `+`.
        changes: names of changes, in the order of the study.
        cells: one a seed, in the order of `Plan.seeds`.
    """

    name: str
    changes: Changes
    summary: str
    settings: Settings
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """What to train and what to compare; made by `make_plan`."""

    study: Study
    profile: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @property
    def exploratory(self) -> bool:
        return self.study.profiles[self.profile].exploratory

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
        what = json.dumps([baseline.settings.identity(), sorted(self.fingerprints.items())], sort_keys=True)
        return f"{self.study.name}-{self.profile}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"

    def name_of(self, changes: Changes) -> str:
        return variant_name(self.study, changes)

    def manifest(self, command: str = "") -> dict[str, Any]:
        """The plan as plain JSON, for the folder of cells and for tracking."""
        return {
            "id": self.id,
            "study": self.study.name,
            "title": self.study.title,
            "profile": self.profile,
            "exploratory": self.exploratory,
            "fingerprints": dict(self.fingerprints),
            "baseline": self.variants[0].settings.model_dump(mode="json"),
            "variants": [
                {
                    "name": variant.name,
                    "changes": list(variant.changes),
                    "summary": variant.summary,
                    "cells": {str(cell.seed): cell.key for cell in variant.cells},
                }
                for variant in self.variants
            ],
            "comparisons": [
                {
                    "design": it.design,
                    "label": it.label,
                    "variant": self.name_of(it.variant),
                    "reference": self.name_of(it.reference),
                }
                for it in self.comparisons
            ],
            "notes": list(self.notes),
            "command": command,
        }


def make_plan(
    study: Study,
    *,
    fingerprints: Callable[[Settings], Mapping[str, str]],
    precision: str,
    profile: str = "standard",
    designs: Sequence[str] = (),
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """The variants, cells and comparisons that a study needs.

    Args:
        fingerprints: what settings name but do not hold, by role, to hashes.
        precision: what `auto` means on this machine.
        designs: names; empty for the study's own.
        seeds: empty for the profile's: 0, 1, 2, ...
        only, skip: names of changes and combinations; empty `only` means all.
        overrides: settings of the baseline by dotted path, over the profile's.

    Raises:
        StudyError: an unknown name, a change that alters nothing, changes that exclude each other, or settings that are
            not allowed; every problem at once.
    """
    chosen = study.profile(profile)
    selected = _select(study, only, skip)
    baseline = with_overrides(study.baseline, _layered(flatten(chosen.overrides), overrides or {}))
    if baseline.training.precision == "auto":
        baseline = with_overrides(baseline, {"training.precision": precision})
    designed = _designed(study, designs or study.designs, selected)
    comparisons = tuple(comparison for design in designed for comparison in design.comparisons)
    needed: dict[Changes, None] = {(): None}
    for design in designed:
        needed |= dict.fromkeys(changes for it in design.comparisons for changes in (it.reference, it.variant))
        needed |= dict.fromkeys(design.further)
    _check_changes(study, baseline, {name for changes in needed for name in changes})
    seeds = tuple(seeds) or tuple(range(chosen.seeds))
    by_name = {change.name: change for change in study.changes}
    variants = tuple(
        _variant(study, [by_name[name] for name in changes], baseline, chosen.filter_scale, seeds, fingerprints)
        for changes in needed
    )
    _check_distinct(variants)
    notes = tuple(note for design in designed for note in design.notes)
    return Plan(study, profile, seeds, variants, comparisons, notes, dict(fingerprints(baseline)))


def extend_manifest(known: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """One manifest for two plans of the same study run: all variants, seeds and comparisons of both."""
    assert known["id"] == added["id"]
    variants = {it["name"]: it for it in known["variants"]}
    for it in added["variants"]:
        before = variants.get(it["name"], {"cells": {}})["cells"]
        cells = dict(sorted((before | it["cells"]).items(), key=lambda item: int(item[0])))
        variants[it["name"]] = it | {"cells": cells}
    comparisons = [*known["comparisons"], *(it for it in added["comparisons"] if it not in known["comparisons"])]
    notes = list(dict.fromkeys([*known["notes"], *added["notes"]]))
    return {**added, "variants": list(variants.values()), "comparisons": comparisons, "notes": notes}


def parse_seeds(text: str) -> tuple[int, ...]:
    """`10` means ten seeds, 0 to 9; `3,5,8` means those; `4,` means the one seed 4.

    Raises:
        StudyError: not that form, a negative number, or a seed that stands twice.
    """
    parts = [part.strip() for part in text.split(",")]
    listed = [part for part in parts if part]
    if not listed or not all(part.isdigit() for part in listed):
        raise StudyError(f"--seeds {text}: expected a count such as 10, or a list such as 0,1,2.")
    numbers = [int(part) for part in listed]
    if len(parts) == 1:
        if numbers[0] == 0:
            raise StudyError("--seeds 0: at least one seed is needed; for the one seed 0 write `0,`.")
        return tuple(range(numbers[0]))
    if len(set(numbers)) < len(numbers):
        raise StudyError(f"--seeds {text}: a seed stands twice.")
    return tuple(numbers)


def _layered(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Both sets of overrides, the upper one winning; where it names another kind, it replaces the whole branch."""
    replaced = tuple(path.removesuffix("kind") for path in upper if path.endswith(".kind"))
    return {path: value for path, value in lower.items() if not path.startswith(replaced)} | dict(upper)


def _select(study: Study, only: Sequence[str], skip: Sequence[str]) -> frozenset[str]:
    known = [change.name for change in study.changes] + [combination.name for combination in study.combinations]
    problems = [
        f"{option} {name}: study {study.name!r} has no such change.{suggestion(name, known)} "
        f"`harness changes --study {study.name}` lists all {len(known)}."
        for option, names in (("--only", only), ("--skip", skip))
        for name in names
        if name not in known
    ]
    if problems:
        raise StudyError(*problems)
    return frozenset(only or known) - frozenset(skip)


def _designed(study: Study, names: Sequence[str], selected: frozenset[str]) -> list[Design]:
    unknown = [name for name in names if name not in DESIGNS]
    if unknown:
        lists = f"There are: {', '.join(DESIGNS)}."
        raise StudyError(*(f"unknown design {name!r}.{suggestion(name, DESIGNS)} {lists}" for name in unknown))
    return [DESIGNS[name](study, selected) for name in dict.fromkeys(names)]


def _check_changes(study: Study, baseline: Settings, used: set[str]) -> None:
    """A profile or an override can turn a change into one that alters nothing; the study's own check saw neither."""
    problems = [
        problem for change in study.changes if change.name in used for problem in check_change(baseline, change)
    ]
    if problems:
        raise StudyError(*problems)


def _variant(
    study: Study,
    changes: Sequence[Change],
    baseline: Settings,
    filter_scale: float,
    seeds: Sequence[int],
    fingerprints: Callable[[Settings], Mapping[str, str]],
) -> Variant:
    settings = scale_filters(combine(baseline, changes), filter_scale)
    names = tuple(change.name for change in changes)
    name = variant_name(study, names)
    summaries = {it.name: it.summary for it in study.combinations} | {change.name: change.summary for change in changes}
    summary = summaries.get(name, " + ".join(change.summary for change in changes)) if changes else "the baseline"
    return Variant(name, names, summary, settings, tuple(make_cells(settings, seeds, fingerprints(settings))))


def scale_filters(settings: Settings, factor: float) -> Settings:
    """Settings with every filter count of a `convnet` multiplied (at least 1); other models stay as they are."""
    if factor == 1 or not isinstance(settings.model, ConvNet):
        return settings
    return with_overrides(settings, {"model.filters": [max(1, round(it * factor)) for it in settings.model.filters]})


def _check_distinct(variants: Sequence[Variant]) -> None:
    by_key: dict[str, Variant] = {}
    for variant in variants:
        twin = by_key.setdefault(variant.cells[0].key, variant)
        if twin is not variant:
            raise StudyError(
                f"variants {twin.name!r} and {variant.name!r} have the same settings, so their difference is zero by "
                f"construction. Take one of their changes out (--skip)."
            )
