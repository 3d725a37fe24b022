"""`harness mcp`: the harness as a judge for programs that speak the Model Context Protocol, over standard input.

One study, one store, one budget of cells, declared by whoever starts the server. Needs the extra `[mcp]`, the official
SDK. Tools run one at a time, in the main thread: training takes signals and processes.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from harness.api.training import Watch
from harness.cli.as_json import FORMAT
from harness.cli.options import store_option, study_option
from harness.errors import HarnessError, StudyError
from harness.execution.runner import Progress
from harness.study.load import load_study

MOST_ROWS = 500  # of results in one answer
MOST_CHARACTERS = 20_000  # of logs in one answer
Rule = Literal["stream", "each", "explore"]


@click.command()
@study_option
@click.option(
    "--cells",
    type=click.IntRange(0),
    required=True,
    help="How many cells tools may train, all calls together; 0: what is in the store is all that they tell.",
)
@click.option("--line", default="main", show_default=True, help="The line of champions that `judge` judges in.")
@click.option("--profile", default="standard", show_default=True, help="How big: a profile of the study.")
@click.option("--jobs", type=click.IntRange(1), help="Cells at a time; as many as fit by default.")
@store_option
def mcp(study: str, cells: int, line: str, profile: str, jobs: int | None, store: Path) -> None:
    """Serve plan, judge, results, logs and prune of one study to a program, over standard input and output (MCP).

    Nothing is trained that was not asked for, and nothing beyond --cells: a call that might take more is refused before
    it begins. Of a study that selects and reports by different metrics `results` shows the selecting one.
    """
    try:
        from mcp.server import MCPServer
    except ImportError:
        raise StudyError('`harness mcp` needs the official SDK: pip install "harness[mcp]".') from None
    load_study(study)  # one that cannot be read is told now, not to the program
    tools = Tools(study, store.absolute(), profile, line, cells, jobs)
    server = MCPServer("harness", instructions=INSTRUCTIONS.format(study=study, cells=cells))
    for tool in (tools.plan, tools.judge, tools.results, tools.logs, tools.prune):
        server.tool(structured_output=False)(_answering(tool))
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")  # of the protocol alone
    os.dup2(2, 1)  # whatever training or a library prints
    server.run("stdio")


INSTRUCTIONS = """The judge of a loop that proposes changes of the training in {study}. Call `plan` for what it is and
what is left of the budget of {cells} cells; `judge` for each proposal: a commit, a branch, a patch, or settings.
A verdict is keep, discard or undecided; the same proposal is answered from the store. Do not propose what edits files
that the study calls fixed. When enough was kept, `prune` finds the fewest commits of a study that are
no worse."""


def _answering(tool: Callable[..., Any]) -> Callable[..., Any]:
    """The tool as the SDK calls it: in the main thread, its answer as JSON; what a user can fix as an answer, too."""
    from functools import wraps

    @wraps(tool)
    async def answer(**arguments: Any) -> str:
        try:
            return json.dumps(tool(**arguments))
        except HarnessError as error:
            return json.dumps({"error": str(error)})

    return answer


@dataclass
class Tools:
    """What a program may ask of one study. `left`: of the budget of cells."""

    study: str
    store: Path
    profile: str
    line: str
    left: int
    jobs: int | None

    def plan(self) -> dict[str, Any]:
        """What the study trains: its baseline, the metric that it selects by, the files that no proposal may edit, how
        many cells there are to train, how long they take, and how many the budget still has. Trains nothing."""
        from harness.api.work import plan_work, unfinished

        work = plan_work(self.study, profile=self.profile, store=self.store, jobs=self.jobs)
        todo, expected = unfinished(work)
        study = work.plan.study
        return {
            "study": study.name,
            "selects_by": study.trainer.metrics.select,
            "goal": study.trainer.metrics.selecting.goal,
            "baseline": study.baseline.tree(),
            "fixed": list(getattr(study.trainer, "fixed", ())),
            "changes": [it.name for it in study.changes],
            "cells_to_train": len(todo),
            "expected_seconds": expected.seconds if expected.measured else None,
            "budget_left": self.left,
        }

    def judge(
        self,
        candidate: str = "",
        settings: dict[str, Any] | None = None,
        level: Rule = "stream",
        smallest_gain: float = 0.0,
        seeds: int | None = None,
        promote: bool = False,
    ) -> dict[str, Any]:
        """Whether a proposal is better than the champion, on paired seeds, looked at after each.

        Args:
            candidate: a commit, a branch, the path of a patch, or `.` for the working tree; empty for settings alone.
            settings: by dotted path.
            level: stream holds the useless share of all that is kept; each decides every proposal by itself; explore
                keeps what looks better on one run, as unproven.
            smallest_gain: that is worth finding, as the metric is shown: it spares most runs.
            seeds: of each side at most. promote: makes it the champion where it is kept.
        """
        from harness.api.judging import FRESH
        from harness.api.judging import judge as find
        from harness.cli.judge import as_plain

        is_begun = False

        def reserve(work: Any, todo: Sequence[Any], expected: Any) -> None:
            nonlocal is_begun
            self._reserve(len(todo) + (FRESH if promote and not is_begun else 0))  # which then measure a champion
            is_begun = True

        found = find(
            self.study,
            candidate,
            change=settings or {},
            rule=level,
            mde=smallest_gain,
            seeds=seeds,
            promote=promote,
            line=self.line,
            profile=self.profile,
            store=self.store,
            jobs=self.jobs,
            watch=self._watch,
            before_training=reserve,
        )
        return {"format": FORMAT, **as_plain(found), "budget_left": self.left}

    def results(self) -> dict[str, Any]:
        """The cells of the study that have ended, newest study run: variant, seed, status, and the selecting metric."""
        from harness.store.cells import Cells
        from harness.store.load import find_manifest, results_table

        cells = Cells(self.store)
        manifest = find_manifest(cells, self.study, self.profile)
        table = results_table(cells, manifest)
        metric = self._metric
        ended = table[table["status"] != "missing"]
        rows = json.loads(ended[["variant", "seed", "status", metric, "key"]].to_json(orient="records"))
        left_out = max(len(rows) - MOST_ROWS, 0)
        return {"run": manifest.id, "metric": metric, "cells": rows[:MOST_ROWS], "left_out": left_out}

    def logs(self, cell: str) -> dict[str, Any]:
        """What a cell said while it trained, and why it failed.

        Args:
            cell: its key, or the beginning of one.
        """
        from harness.cli.logs import find_key
        from harness.store.cells import Cells
        from harness.store.said import said

        cells = Cells(self.store)
        key = find_key(cells, cell)
        return {"cell": key, "said": said(cells, key, most_characters=MOST_CHARACTERS)}

    def prune(self, delta: float, seeds: int | None = None, branch: str = "") -> dict[str, Any]:
        """The smallest set of the study's changes that is no worse than all of them, as a new branch of the repository;
        nothing else of it is touched. The study must be one of commits that was trained.

        Args:
            delta: the smallest loss that matters, as the reported metric is shown.
            seeds: how many fresh ones. branch: a name; pruned/STUDY by default.
        """
        from harness.api.pruning import prune as find
        from harness.cli.prune import as_plain

        found = find(
            self.study,
            delta=delta,
            seeds=seeds,
            branch=branch,
            profile=self.profile,
            store=self.store,
            jobs=self.jobs,
            watch=self._watch,
            before_training=lambda work, todo, expected: self._reserve(len(todo)),
        )
        return {"format": FORMAT, **as_plain(found), "budget_left": self.left}

    @property
    def _metric(self) -> str:
        return load_study(self.study).trainer.metrics.select

    @property
    def _watch(self) -> Watch:
        """Counts each cell that has ended."""

        def see(it: Progress) -> None:
            self.left -= bool(it.result)

        return Watch(on_progress=see, on_problem=lambda text: print(text, file=sys.stderr))

    def _reserve(self, num_cells: int) -> None:
        """Raises StudyError where so many cells are beyond the budget: nothing was trained."""
        if num_cells > self.left:
            raise StudyError(
                f"this may train {num_cells} cells, and the budget has {self.left} left; nothing was trained. Ask for "
                "fewer seeds, or let whoever runs the server declare more (--cells)."
            )
