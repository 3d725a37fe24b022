"""`ablate`: train what a study needs; which changes helped?"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.greedy import walk_greedy_path
from harness.api.racing import effect_of
from harness.api.racing import race as run_race
from harness.api.training import Watch, train_work
from harness.api.work import Work, failed_cells, forget_failed, plan_work, save_manifest, unfinished
from harness.plan.cell import Cell
from harness.store.result import Result
from harness.study.study import Study
from harness.texts import counted

if TYPE_CHECKING:
    import pandas as pd

    from harness.report.tables import Tables
    from harness.stats.headline import Headline


@dataclass(frozen=True, repr=False)
class Ablation:
    """What a study's cells say; tables are read from the store when they are asked for.

    Attributes:
        placebos: variant's name to why its change was given up: training never reads what it sets.
    """

    work: Work
    placebos: dict[str, str]

    @cached_property
    def results(self) -> "pd.DataFrame":
        """A row per cell that the study run holds, as `harness.load_results`: what is tested together is corrected
        together, whoever asked for it when."""
        from harness.store.load import results_table

        return results_table(self.work.cells, self.work.cells.known_manifest(self.work.plan.id))

    @cached_property
    def effects(self) -> "pd.DataFrame":
        """A row per effect and design; `harness.report.tables.EFFECTS_TABLE_COLUMNS`."""
        from harness.report.tables import effects_table, families

        return effects_table(families(self.results))

    @cached_property
    def headline(self) -> "Headline":
        """The biggest single improvement, or why there is none to name."""
        return self._tables.headline

    @cached_property
    def _tables(self) -> "Tables":
        import pandas as pd

        from harness.report.tables import Tables
        from harness.store.load import confirmed

        decided = confirmed(self.work.cells, self.results.attrs["manifest"])
        return Tables(self.results, load_curves=pd.DataFrame, confirmed=decided)

    def __repr__(self) -> str:
        return f"<Ablation: study run {self.work.plan.id}, {counted(len(self.work.plan.cells), 'cell')}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the sentence, then the effects of each design."""
        import html

        from harness.report.display import effects_grid
        from harness.report.formats import html_table

        tables = self._tables
        grids = [effects_grid(family, tables.variants) for family in tables.families.values()]
        return f"<p><b>{html.escape(self.headline.sentence)}</b></p>\n" + "\n".join(map(html_table, grids))

    @property
    def failed(self) -> dict[Cell, Result]:
        """Cells that ended without a number."""
        results = {cell: self.work.cells.result(cell.key) for cell in failed_cells(self.work)}
        return {cell: result for cell, result in results.items() if result}


def ablate(
    study: str | Path | Study,
    *,
    greedy: bool = False,
    race: bool = False,
    mde: float | None = None,
    retry_failed: bool = False,
    watch: Watch = Watch(),  # noqa: B008
    **request: Any,
) -> Ablation:
    """Train every cell that a study needs; what has ended is read, never trained again.

    Args:
        race: seeds in blocks, no more for changes that are decided or too small to matter (`racing.race`).
        mde: with `race` or `seeds="auto"`, the smallest effect worth finding, in the unit in which the reported metric
            is shown.
        greedy: then walk a path: at each step the change that helps most.
        retry_failed: train cells again that failed or diverged.
        request: as `harness.api.work.plan_work`: profile, seeds, only, skip, designs, settings, store, jobs, ...

    Raises:
        HarnessError: the request is wrong, or something that it needs is missing.
        KeyboardInterrupt: what has ended is saved; the same call continues.
    """
    work = plan_work(study, mde=mde if request.get("seeds") == "auto" or not race else None, **request)
    if retry_failed:
        forget_failed(work)
    problems: dict[str, str] = {}

    def train(part: Work) -> None:
        todo, expected = unfinished(part)
        found = train_work(part, todo, lambda: save_manifest(part), expected, watch=watch)
        problems.update(found.problems)

    if race:
        run_race(work, effect_of(work, mde), train)
    else:
        train(work)
    if greedy:
        work = walk_greedy_path(work, only=request.get("only", ()), skip=request.get("skip", ()), watch=watch)
    return Ablation(work, problems)
