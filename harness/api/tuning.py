"""`tune`: does a change help when both sides are at their best? Every variant gets the same trials."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.training import Placebos, Watch, train_work
from harness.api.work import Work, forget_failed, plan_work, save_manifest, unfinished
from harness.plan.cell import Cell
from harness.plan.tuning import Tuning, make_tuning
from harness.store.cells import Cells
from harness.study.nuisance import Nuisance
from harness.study.study import Study

if TYPE_CHECKING:
    import pandas as pd

Train = Callable[[Work], Placebos]
TRIALS = 8


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        work: every variant at its best trials; what `results`, `export` and `report` show of it.
        untuned: the same variants with their own settings.
    """

    work: Work
    untuned: Work
    tuning: Tuning

    @cached_property
    def effects(self) -> "pd.DataFrame":
        """A row a change, as `Ablation.effects`, of every variant at its best."""
        return _effects(self.work)

    @cached_property
    def untuned_effects(self) -> "pd.DataFrame":
        """The same with each variant's own settings."""
        return _effects(self.untuned)

    @cached_property
    def chosen(self) -> "pd.DataFrame":
        """A row a variant and seed: the values of the nuisance settings at the best trial, and that trial's number."""
        import pandas as pd

        rows = []
        for variant in self.work.plan.variants:
            for index, seed in enumerate(self.work.plan.seeds):
                trial = self.tuning.cells[variant.name][index].index(variant.cells[index])
                row = {"variant": variant.name, "seed": seed, "trial": trial}
                rows.append(row | self.tuning.values[seed][trial])
        return pd.DataFrame(rows)

    @cached_property
    def budgets(self) -> "pd.DataFrame":
        """A row a variant and budget b: the mean over tunings of the reported metric at the best of b trials."""
        import numpy as np
        import pandas as pd

        from harness.stats.tuning import expected_best

        name, score = self.work.plan.study.trainer.metrics.report, score_of(self.work)
        rows = []
        for variant, by_seed in self.tuning.cells.items():
            curves = []
            for cells in by_seed:
                results = [self.work.cells.result(cell.key) for cell in cells]
                shown = [it.metrics[name] if it and it.is_finished else math.nan for it in results]
                found = [score(cell) for cell in cells]
                curves.append(expected_best([-math.inf if it is None else it for it in found], shown))
            means = np.mean(curves, axis=0)
            rows += [{"variant": variant, "trials": b + 1, "mean": float(mean)} for b, mean in enumerate(means)]
        return pd.DataFrame(rows)


def tune(
    study: str | Path | Study,
    *,
    trials: int = TRIALS,
    nuisance: Mapping[str, Nuisance] = {},
    retry_failed: bool = False,
    watch: Watch = Watch(),  # noqa: B008
    **request: Any,
) -> Tuned:
    """Train every variant with its own settings, then so many trials of the nuisance settings each, and compare both.

    Args:
        trials: of each variant and seed; a seed is a tuning of its own.
        nuisance: over those that the study names, by dotted path.
        request: as `harness.api.work.plan_work`: profile, seeds, only, skip, designs, settings, store, jobs, ...

    Raises:
        HarnessError: the request is wrong, or something that it needs is missing.
        KeyboardInterrupt: what has ended is saved; the same call continues.
    """
    untuned, tuning = plan_tuning(study, trials=trials, nuisance=nuisance, **request)

    def train(part: Work) -> Placebos:
        if retry_failed:
            forget_failed(part)
        todo, expected = unfinished(part)
        return train_work(part, todo, lambda: save_manifest(part), expected, watch=watch)

    return train_tuning(untuned, tuning, train)


def plan_tuning(
    study: str | Path | Study, *, trials: int = TRIALS, nuisance: Mapping[str, Nuisance] = {}, **request: Any
) -> tuple[Work, Tuning]:
    """What `tune` would train, the untuned variants first. Raises what it raises."""
    work = plan_work(study, **request)
    return work, make_tuning(work.plan, {**work.plan.study.nuisance, **nuisance}, trials)


def train_tuning(untuned: Work, tuning: Tuning, train: Train) -> Tuned:
    """Trains with `train`, which is given one part after the other."""
    train(untuned)
    trials = replace(untuned, plan=tuning.trials)
    train(trials)
    tuned = replace(untuned, plan=tuning.tuned(score_of(trials)))
    train(tuned)  # nothing is left to train; its study run is written down and delivered
    return Tuned(tuned, untuned, tuning)


def score_of(work: Work) -> Callable[[Cell], float | None]:
    """By which a trial is chosen: the selected metric, larger is better; None where the cell has no number."""
    metrics = work.plan.study.trainer.metrics
    sign = metrics.selecting.sign

    def score(cell: Cell) -> float | None:
        result = work.cells.result(cell.key)
        value = result.metrics.get(metrics.select) if result and result.is_finished else None
        return sign * value if value is not None and math.isfinite(value) else None

    return score


def _effects(work: Work) -> "pd.DataFrame":
    from harness.report.tables import effects_table, families
    from harness.store.load import results_table

    cells: Cells = work.cells
    return effects_table(families(results_table(cells, cells.known_manifest(work.plan.id))))
