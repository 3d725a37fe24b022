"""Confirmation of a line's champion: against where the line began, once, on seeds that nothing used before.

A stream of proposals is judged by the selecting metric, and no proposal is shown what the study reports; here that is
measured, at the end. How a confirmation is tested and concluded is `confirmation.py`'s matter.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.api.candidates import Asked, line_called
from harness.api.confirmation import (
    DESIGN,
    Confirmation,
    conclude,
    enough,
    fresh_seeds,
    known_confirmation,
    save_confirmation,
    seeds_of,
)
from harness.api.training import Watch, train_work
from harness.api.work import Work, unfinished
from harness.errors import StudyError
from harness.execution.provenance import command_line
from harness.plan.manifest import Manifest, RunComparison
from harness.store.lines import Line, Lines
from harness.study.designs.comparisons import BASELINE


def begin_line_confirmation(
    study: str | Path,
    *,
    line: str = "main",
    seeds: int | None = None,
    profile: str = "standard",
    store: str | Path = "mlruns",
    **request: Any,
) -> tuple[Work, Manifest, str]:
    """The plan and manifest of the confirmation of a line's present champion, one that was begun or a new one; and the
    champion's name.

    Raises:
        ResultsError: there is no such line. StudyError: it has no champion yet, or other seeds than it was begun with.
    """
    from harness.stats import confirmation_alpha

    asked = Asked(study, profile, Path(store).absolute(), request)
    found = line_called(Lines(asked.store), asked.line_id(line))
    champion = found.champion
    if not champion.number:
        raise StudyError(
            f"line {found.id}: nothing was promoted yet, so there is no champion to confirm; `harness judge --promote`."
        )
    winner = f"champion-{champion.number}"
    work, _ = asked.side(found.base, (), (0,))
    known = known_confirmation(work.cells, found.id, winner)
    if known and seeds and seeds != len(seeds_of(known)):
        raise StudyError(
            f"--seeds {seeds}: the confirmation of {winner} was begun on {len(seeds_of(known))} seeds. It is made "
            "once: adding seeds until it succeeds would be no confirmation. Leave --seeds out to continue."
        )
    alpha = confirmation_alpha(1 + sum(it.confirms == found.id for it in work.cells.manifests().values()))
    wanted = seeds or work.plan.study.profile(profile).seeds
    numbers = seeds_of(known) if known else fresh_seeds(work.cells, enough(wanted, alpha, seeds))
    begun, baseline = asked.side(found.base, (), numbers)
    _, reached = asked.side(found.base, champion.entries, numbers)
    sides = (replace(baseline, name=BASELINE), replace(reached, name=winner))
    made = replace(begun, plan=replace(begun.plan, variants=sides, comparisons=(), notes=()))
    return made, known or _manifest(made, found, winner, alpha), winner


def _manifest(work: Work, line: Line, winner: str, alpha: float) -> Manifest:
    """A study run of its own, which goes with the line's study."""
    last = work.plan.variants[1]
    return replace(
        work.plan.manifest(command_line()),
        id=f"{line.id}-confirm-{last.cells[0].key[:8]}",
        comparisons=(RunComparison(DESIGN, winner, winner, BASELINE),),
        horizon=len(last.cells),
        asked=work.asked,
        belongs_to=line.study_run,
        confirms=line.id,
        winner=winner,
        alpha=alpha,
    )


def confirm_line(study: str | Path, *, watch: Watch = Watch(), **request: Any) -> Confirmation:  # noqa: B008
    """Trains a line's champion and where the line began on fresh seeds, and says whether it is better by the metric
    that the study reports. The confirmations of one line share an error of .05.

    Args:
        request: `line`, `seeds` (how many; the profile's by default), `profile`, `store`, and as `judge`: jobs, device,
            executor.

    Raises:
        ResultsError: there is no such line. StudyError: it has no champion yet; too few seeds to decide anything.
    """
    work, manifest, winner = begin_line_confirmation(study, **request)
    todo, expected = unfinished(work)
    train_work(work, todo, lambda: save_confirmation(work, manifest), expected, watch=watch)
    return conclude(work, manifest, winner)
