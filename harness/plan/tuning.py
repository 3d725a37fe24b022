"""A tuning as plans: the trials of every variant, and then each variant at its best trial.

Each seed is a tuning of its own: it draws its own values of the nuisance settings, the same ones for every variant, and
trains each with that seed. Of a variant's trials the one with the best selected metric stands for it at that seed. So
what is compared in the end is an ordinary plan, a cell a variant and seed, and its pairs are independent tunings.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.errors import StudyError
from harness.plan.cell import Cell, make_cells
from harness.plan.plan import MOST_CELLS, Plan
from harness.plan.variants import Variant, same_settings
from harness.study.nuisance import Nuisance, draw
from harness.trainers.trainer import SettingsError


@dataclass(frozen=True)
class Tuning:
    """Made by `make_tuning`.

    Attributes:
        untuned: every variant with its own settings, as `ablate` trains it.
        values: (seed) to the drawn values of each trial, by dotted path.
        cells: variant's name to, for each seed of the plan, the cells of its trials.
    """

    untuned: Plan
    nuisance: Mapping[str, Nuisance]
    num_trials: int
    values: Mapping[int, list[dict[str, Any]]]
    cells: Mapping[str, tuple[tuple[Cell, ...], ...]]

    @cached_property
    def _name(self) -> str:
        content = json.dumps({path: it.model_dump() for path, it in sorted(self.nuisance.items())}, default=str)
        return f"{self.num_trials}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"

    @cached_property
    def trials(self) -> Plan:
        """All trials of all variants, as a plan without comparisons."""
        variants = [
            Variant(
                name=f"{variant.name} trial {trial}",
                changes=variant.changes,
                summary=f"{variant.summary}; trial {trial} of {self.what}, drawn anew for each seed",
                settings=self.cells[variant.name][0][trial].settings,
                cells=tuple(cells[trial] for cells in self.cells[variant.name]),
            )
            for trial in range(self.num_trials)
            for variant in self.untuned.variants
        ]
        return replace(self.untuned, variants=tuple(variants), comparisons=(), notes=(), suffix=f"-trials-{self._name}")

    def tuned(self, score: Callable[[Cell], float | None]) -> Plan:
        """Every variant at its best trials, compared as the untuned plan compares.

        Args:
            score: of an ended cell, larger is better; None where it has no number. The first of equals is taken; where
                no trial has a number, the first trial, which then is missing in the pair.
        """
        variants = tuple(
            replace(
                variant,
                summary=f"{variant.summary}, at its best {self.what}",
                cells=tuple(_best(cells, score) for cells in self.cells[variant.name]),
            )
            for variant in self.untuned.variants
        )
        note = (
            f"Every variant, the baseline too, is shown at its best of {self.num_trials} trials of {self.what}, chosen "
            f"by {self.untuned.study.trainer.metrics.select} for each seed anew: a seed is a tuning of its own."
        )
        notes = (*self.untuned.notes, note)
        return replace(self.untuned, variants=variants, notes=notes, suffix=f"-tuned-{self._name}")

    @property
    def what(self) -> str:
        """The nuisance settings, in words."""
        return " and ".join(sorted(self.nuisance))


def make_tuning(plan: Plan, nuisance: Mapping[str, Nuisance], num_trials: int) -> Tuning:
    """The trials of a plan's variants.

    Raises:
        StudyError: there is nothing to tune, too few trials or too many cells, or a value that a variant does not take.
    """
    if not nuisance:
        raise StudyError(
            f"study {plan.study.name!r} names no nuisance settings. Add them to its file, such as "
            "`nuisance: {optimizer.learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}}`, or name one with "
            "--nuisance optimizer.learning_rate=1e-4:1e-1:log."
        )
    if num_trials < 2:
        raise StudyError(f"--trials {num_trials}: at least two, of which the better one is taken.")
    count = len(plan.variants) * len(plan.seeds) * num_trials
    if count > MOST_CELLS:
        raise StudyError(
            f"{len(plan.variants):,} variants with {len(plan.seeds):,} seeds and {num_trials:,} trials are {count:,} "
            f"cells, more than {MOST_CELLS:,}. Take fewer trials (--trials), seeds (--seeds) or changes (--only)."
        )
    if problems := nuisance_problems(plan, nuisance):
        raise StudyError(*problems)
    values = {seed: draw(nuisance, seed=seed, num_trials=num_trials) for seed in plan.seeds}
    cells = {
        variant.name: tuple(tuple(_cell(plan, variant, seed, it) for it in values[seed]) for seed in plan.seeds)
        for variant in plan.variants
    }
    tuning = Tuning(plan, nuisance, num_trials, values, cells)
    if problems := same_settings(tuning.trials.variants[: len(plan.variants)]):
        raise StudyError(*(f"{it} Both set nothing but {tuning.what} otherwise, which is tuned." for it in problems))
    return tuning


def nuisance_problems(plan: Plan, nuisance: Mapping[str, Nuisance]) -> list[str]:
    """Values that some variant does not take, a sentence each."""
    problems: dict[str, None] = {}
    for variant in plan.variants:
        for path, it in nuisance.items():
            for value in it.ends:
                try:
                    variant.settings.override({path: value})
                except SettingsError as error:
                    problems |= dict.fromkeys(
                        f"nuisance: {problem} (variant {variant.name})" for problem in error.problems
                    )
    return list(problems)


def _cell(plan: Plan, variant: Variant, seed: int, values: Mapping[str, Any]) -> Cell:
    settings = variant.settings.override(values)
    (cell,) = make_cells(variant.cells[0].trainer, settings, [seed], dict(variant.cells[0].fingerprints))
    return cell


def _best(cells: tuple[Cell, ...], score: Callable[[Cell], float | None]) -> Cell:
    scored = [(found, -index) for index, cell in enumerate(cells) if (found := score(cell)) is not None]
    return cells[-max(scored)[1]] if scored else cells[0]
