"""`lineage`: which gains of a line of champions are proven, and what a loop's log claimed beside what was measured."""

from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.api.candidates import line_called
from harness.api.judging import champion_estimate
from harness.api.stores import lines_of
from harness.errors import ResultsError, StudyError
from harness.metrics import Metric
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.store.lines import Line, Lines
from harness.study.load import load_study
from harness.study.loop_log import claimed_gains, read_log
from harness.trainers.registry import trainer_from_json

if TYPE_CHECKING:
    from harness.report.line_data import ChampionLine

Verdict = Literal["proven", "refuted", "unproven", "open", "not measured"]
ALPHA = 0.05


@dataclass(frozen=True)
class Step:
    """One change in a line of champions, or in a loop's log.

    Attributes:
        verdict: `proven` to help or `refuted` (it is worse, or it fails); `unproven` otherwise: also where it was kept
            on one run. `open` where its judgement was not ended.
        claimed: how much better it looked to the loop, positive where better; None where no log says so.
        gain, low, high: measured improvement with its 95% interval, positive where better, as the metric is logged.
        champion: the number of the champion that it became, or, of a log, 1 where it was kept; 0 otherwise.
        against: number of the champion that it was judged against.
        estimate: of the champion that it became, on fresh seeds: mean, how many, standard error.
    """

    change: str
    summary: str
    verdict: Verdict
    reason: str = ""
    champion: int = 0
    against: int = 0
    claimed: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    num_seeds: int = 0
    estimate: tuple[float, int, float] | None = None


@dataclass(frozen=True)
class Lineage:
    """A line with its steps in order.

    Attributes:
        metric: that it was judged by. start: the mean of where it began, as for `Step.estimate`.
        is_shown: whether that is the metric that the study reports.
    """

    line: Line
    metric: Metric
    start: tuple[float, int, float] | None
    steps: tuple[Step, ...]
    is_shown: bool = False


def lineage(
    study: str | Path, *, line: str = "main", profile: str = "standard", store: str | Path = "mlruns"
) -> Lineage:
    """What a line of champions is made of; nothing is trained.

    Raises:
        ResultsError: there is no such line.
    """
    declared, cells = load_study(study), Cells(Path(store).absolute())
    lines, name = Lines(cells.root), f"{declared.name}-{profile}-{line}"
    found = line_called(lines, name)
    metrics = declared.trainer.metrics
    return replace(_lineage(cells, found, metrics.selecting), is_shown=metrics.select == metrics.report)


def _lineage(cells: Cells, found: Line, metric: Metric) -> Lineage:
    estimates = {it.number: champion_estimate(cells, found, it, metric) for it in found.champions}
    steps = tuple(
        Step(
            change=it.name,
            summary=str(it.entry.get("summary", "")),
            verdict=_verdict(it.verdict, it.reason, it.rule),
            reason=it.reason,
            champion=it.promoted,
            against=it.champion,
            gain=it.gain,
            low=it.low,
            high=it.high,
            num_seeds=it.num_seeds,
            estimate=estimates.get(it.promoted) if it.promoted else None,
        )
        for it in sorted(found.proposals, key=lambda it: it.number)
    )
    return Lineage(found, metric, estimates[0], steps)


def champion_lines(cells: Cells, manifest: Manifest) -> "list[ChampionLine]":
    """The figures of the lines that were judged by a study run's baseline; of a line's own run, that one."""
    lines = Lines(cells.root)
    found = [it for name in lines_of(cells, [manifest]) if (it := lines.read(name))]
    metric = trainer_from_json(manifest.trainer).metrics.selecting
    measured = [_lineage(cells, it, metric) for it in found if it.proposals]
    return [line_figure(it) for it in measured if it.start]  # where it began, something has a number


def line_figure(found: Lineage) -> "ChampionLine":
    """A line's steps as a figure shows them: a champion is worth its mean on fresh seeds, or, before these have ended,
    what was measured when it was kept."""
    from harness.report.estimate import Estimate
    from harness.report.line_data import VERDICTS, Branch, champion_line

    metric, levels = found.metric, [found.start[0] if found.start else nan]
    branches = []
    for step in found.steps:
        verdict = VERDICTS.get(step.verdict)
        if verdict is None:  # open, or not measured
            continue
        level = levels[step.against]
        bounds = sorted(level + metric.sign * it for it in (step.low, step.high) if it is not None)
        low, high = bounds or (nan, nan)
        mean = nan if step.gain is None else level + metric.sign * step.gain
        reached = Estimate(*(metric.scale(it) for it in (mean, low, high)))
        branches.append(Branch(step.change, verdict, step.reason, metric.scale(level), reached, step.champion))
        if step.champion:
            levels.append(step.estimate[0] if step.estimate else mean)
    shown = [metric.scale(it) for it in levels]
    return champion_line(found.line.id, metric.axis, metric.digits, shown[0], branches, shown)


def _verdict(verdict: str, reason: str, rule: str) -> Verdict:
    from harness.stats.online import WORSE

    if not verdict:
        return "open"
    if verdict == "keep" and rule != "explore":
        return "proven"
    is_refuted = verdict == "discard" and (reason == WORSE or reason.startswith("it fails"))
    return "refuted" if is_refuted else "unproven"


def lineage_of_log(
    study: str | Path, log: str | Path, *, profile: str = "standard", store: str | Path = "mlruns"
) -> tuple[Step, ...]:
    """What a loop's log claimed of each change of a study, beside what the study's cells say; in the study's order.

    Measured is the effect over all cells of the study run (`stats.marginal`), corrected by Holm over all changes,
    and over the looks at the study run.
    Reading it is a look, as every table of effects is.

    Args:
        study: what `harness study --from` wrote.

    Raises:
        StudyError: the log names none of the study's commits.
    """
    from harness.api.looking import looked_at
    from harness.stats import marginal_effects
    from harness.store.load import find_manifest

    declared, rows = load_study(study), read_log(Path(log))
    metrics = declared.trainer.metrics
    gains = claimed_gains(rows, metrics.selecting.sign)
    kept = {row.commit for row in rows if row.is_kept}
    cells = Cells(Path(store).absolute())
    try:
        table = marginal_effects(looked_at(cells, find_manifest(cells, str(study), profile)))
        measured = {row["change"]: row for row in table.to_dict("records")}
    except ResultsError:
        measured = {}
    sign, found = metrics.reporting.sign, []
    for change in declared.changes:
        texts = [
            text for text in (row.commit for row in rows) if any(it.startswith(text) for it in change.commit if text)
        ]
        row = measured.get(change.name)
        is_known = row is not None and row["mean"] == row["mean"]
        bounds = sorted(sign * row[side] for side in ("low", "high")) if row is not None and is_known else [None, None]
        claimed = [gains[text] for text in texts if text in gains]
        found.append(
            Step(
                change=change.name,
                summary=change.summary,
                verdict=_of_row(row["p_holm"], sign * row["mean"]) if row is not None and is_known else "not measured",
                champion=int(bool(kept & {*texts})),
                claimed=sum(claimed) if claimed else None,
                gain=sign * row["mean"] if row is not None and is_known else None,
                low=bounds[0],
                high=bounds[1],
            )
        )
    if not any(it.claimed is not None for it in found):
        raise StudyError(f"{log}: names no commit of the changes of {study}; `harness study --from {log}` writes it.")
    return tuple(found)


def _of_row(p: float, gain: float) -> Verdict:
    if not p < ALPHA:
        return "unproven"
    return "proven" if gain > 0 else "refuted"
