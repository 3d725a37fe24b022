"""From sets of changes to variants: resolved settings and a cell for each seed.

Which sets are needed is said by the designs; `plan.py` puts both together.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.plan.cell import Cell, make_cells
from harness.study.changes import combine, edited
from harness.study.designs.comparisons import LONGEST_JOINED, Changes, combination_names, names_of_many, variant_name
from harness.study.study import Study
from harness.trainers.trainer import Settings


@dataclass(frozen=True)
class Variant:
    """The baseline plus zero or more changes.

    Attributes:
        name: `baseline`, a named combination, or the names of the changes joined by `+`; where these are many, a step
            of a path, a combination without a change, or their number and a hash.
        changes: names of changes, in the order of the study.
        cells: one a seed, in the order of `Plan.seeds`.
    """

    name: str
    changes: Changes
    summary: str
    settings: Settings
    cells: tuple[Cell, ...]

    @property
    def settings_hash(self) -> str:
        """Tells whether two variants of one name train the same thing, whatever their seeds."""
        cell = self.cells[0]
        content = [self.settings.identity(), cell.fingerprints]
        recipe = cell.trainer.identity
        # Cells of 0.1 had recipe 1 and a hash without it, so that a study run that it began is continued.
        identity = json.dumps(content if recipe == 1 else [recipe, *content], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:16]


class Variants:
    """Makes the variants of one plan; holds what all of them share, looked up once.

    Args:
        study: with the baseline of this run.
        resolve: settings as they are trained on this machine with the profile's options.
        fingerprints: what settings name but do not hold, by role, to hashes.
    """

    def __init__(
        self,
        study: Study,
        seeds: Sequence[int],
        *,
        resolve: Callable[[Settings], Settings],
        fingerprints: Callable[[Settings], Mapping[str, str]],
    ) -> None:
        self._trainer, self._baseline, self._seeds = study.trainer, study.baseline, seeds
        self._resolve, self._fingerprints = resolve, fingerprints
        self._changes = {change.name: change for change in study.changes}
        self._named = names_of_many(study) | combination_names(study)
        self._summaries = {combination.name: combination.summary for combination in study.combinations}

    def __call__(self, names: Changes) -> Variant:
        """Raises StudyError where the changes exclude each other, do not merge or make settings that are wrong here."""
        changes = [self._changes[name] for name in names]
        settings = self._resolve(combine(self._baseline, changes))
        name = variant_name(names, self._named)
        joined = " + ".join(change.summary for change in changes) or "the baseline"
        if len("+".join(names)) > LONGEST_JOINED:
            joined = f"{len(changes)} changes, the last one: {changes[-1].summary}"
        trainer, named = edited(self._trainer, changes), self._fingerprints(settings)
        if trainer is not self._trainer:
            named = {**named, **trainer.fingerprints(settings)}
        cells = make_cells(trainer, settings, self._seeds, named)
        return Variant(name, names, self._summaries.get(name) or joined, settings, tuple(cells))


def same_settings(variants: Sequence[Variant]) -> list[str]:
    """Variants that would train the same thing, a sentence a pair: their difference would be zero by construction."""
    first_of: dict[str, Variant] = {}
    problems = []
    for variant in variants:
        twin = first_of.setdefault(variant.cells[0].key, variant)  # all have the same seeds in the same order
        if twin is not variant:
            problems.append(
                f"variants {twin.name!r} and {variant.name!r} have the same settings and code, so their difference is "
                f"zero by construction. Take one of their changes out (--skip)."
            )
    return problems
