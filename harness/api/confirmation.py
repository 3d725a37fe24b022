"""Confirmation: the winner against the baseline, once, on seeds that nothing used before.

The winner was picked as the best of many noisy numbers, so its estimate is too high on average. It is picked by the
selecting metric; it is measured on the reported metric with fresh seeds; that number is the headline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.training import Watch, train_work
from harness.api.work import Work, plan_work, unfinished
from harness.errors import ResultsError, StudyError
from harness.execution.provenance import command_line
from harness.plan.manifest import Manifest, RunVariant
from harness.plan.plan import Plan
from harness.store.cells import Cells
from harness.study.designs.comparisons import BASELINE, Changes, Comparison, in_order
from harness.study.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from harness.stats import Effect
    from harness.stats.decision import Outcome

DESIGN = "confirm"


def pick_winner(table: "pd.DataFrame") -> str:
    """The variant that improves most on the baseline in the metric by which the study selects, paired by seed.

    Raises:
        ResultsError: no variant has a seed in common with the baseline.
    """
    from harness.stats import effects
    from harness.store.load import metrics_of

    ranked = effects(table, metric=metrics_of(table).select)
    measured = ranked[ranked["n"] > 0]
    if measured.empty:
        raise ResultsError("no variant has a finished seed in common with the baseline, so there is none to confirm.")
    # Of fewer seeds the luckiest would look best, unless its claim stands.
    verdicts = effects(table).set_index("variant")["verdict"]
    full = measured[(measured["n"] == measured["n"].max()) | (measured["variant"].map(verdicts) == "improves")]
    return str(full["variant"].iloc[0])


def fresh_seeds(cells: Cells, count: int) -> tuple[int, ...]:
    """The next seeds above every one that any study run or cell in this store has used."""
    used = [seed for it in cells.manifests().values() for variant in it.variants for seed in variant.cells]
    used += [it.horizon - 1 for it in cells.manifests().values()]  # those that are planned will be used to choose
    used += cells.seeds()  # also those of a study run whose manifest is lost or damaged
    start = max(used, default=-1) + 1
    return tuple(range(start, start + count))


def confirmation_plan(plan: Plan, changes: Sequence[str]) -> Plan:
    """The plan of a confirmation: of `plan`, which has the fresh seeds, only the baseline and the winner.

    Args:
        changes: the winner's.
    """
    winner: Changes = in_order(plan.study, changes)
    variants = (plan.make_variant(()), plan.make_variant(winner))
    return replace(plan, variants=variants, comparisons=(Comparison(DESIGN, variants[1].name, winner, ()),), notes=())


def confirmation_manifest(plan: Plan, source: Manifest, command: str, alpha: float) -> Manifest:
    """The manifest of a confirmation: a study run of its own, so that fresh seeds never mix with those of the search.

    Args:
        source: manifest of the study run in which the winner was found.
    """
    winner = plan.variants[1]
    name = f"{source.id}-confirm-{winner.cells[0].key[:8]}"
    made = replace(plan.manifest(command), id=name, horizon=len(winner.cells))
    return replace(made, confirms=source.id, winner=winner.name, alpha=alpha)


def known_confirmation(cells: Cells, source: str, winner: str) -> Manifest | None:
    """The latest confirmation of this winner in the store: it is continued, not begun again with other seeds."""
    fitting = [it for it in cells.manifests().values() if it.confirms == source and it.winner == winner]
    return fitting[-1] if fitting else None


def seeds_of(manifest: Manifest) -> tuple[int, ...]:
    baseline = manifest.variant(BASELINE)
    assert baseline is not None, "a study run holds its baseline"
    return tuple(baseline.cells)


@dataclass(frozen=True)
class Confirmation:
    """What fresh seeds say about a winner.

    Attributes:
        outcome: confirmed, refuted, not confirmed or not decided.
        sentence: the headline, with the estimate that led to it beside it.
        registered: MLflow's name of the registered model; empty where nothing was registered.
        unregistered: why nothing was registered, a sentence; empty where a model was.
    """

    work: Work
    winner: str
    effect: "Effect"
    sentence: str
    outcome: "Outcome"
    registered: str = ""
    unregistered: str = ""


def begin_confirmation(
    study: str | Path | Study, *, variant: str | None = None, **request: Any
) -> tuple[Work, Manifest, str]:
    """The plan and manifest of a confirmation that was begun, or else of a new one on fresh seeds; and the winner.

    Raises:
        ResultsError, StudyError: no such study run or variant, or other seeds than it was begun with.
    """
    from harness.stats import confirmation_alpha
    from harness.stats.overview import ignores_seed
    from harness.store.load import find_manifest, results_table

    work = plan_work(study, **request)
    source = find_manifest(work.cells, work.plan.id)
    results = results_table(work.cells, source)
    if problem := ignores_seed(results):
        raise StudyError(f"{problem} There is nothing that fresh seeds could confirm; nothing was trained.")
    winner = variant or pick_winner(results)
    found = source.variant(winner)
    if found is None or not found.changes:
        names = ", ".join(it.name for it in source.variants if it.changes)
        raise StudyError(f"--variant {winner}: study run {source.id} has no such variant; it has: {names}.")
    _refuse_edited(work, found)
    known, wanted = known_confirmation(work.cells, source.id, winner), len(work.plan.seeds)
    is_other = bool(known and request.get("seeds") and wanted != len(seeds_of(known)))
    if known and is_other and known.outcome == "not decided":
        known = None  # on too few seeds: another declared set may decide it, as the next confirmation
    elif known and is_other:
        raise StudyError(
            f"--seeds {request['seeds']}: the confirmation of {winner} was begun on {len(seeds_of(known))} seeds. It "
            "is made once: adding seeds until it succeeds would be no confirmation. Leave --seeds out to continue."
        )
    alpha = confirmation_alpha(1 + sum(it.confirms == source.id for it in work.cells.manifests().values()))
    seeds = seeds_of(known) if known else fresh_seeds(work.cells, enough(wanted, alpha, request.get("seeds")))
    again = plan_work(study, **{**request, "seeds": seeds, "mde": None, "horizon": None})
    plan = confirmation_plan(again.plan, found.changes)
    return replace(again, plan=plan), known or confirmation_manifest(plan, source, command_line(), alpha), winner


def _refuse_edited(work: Work, found: RunVariant) -> None:
    """Raises StudyError where the study file makes something else of the winner than what was found."""
    known = {it.name for it in work.plan.study.changes}
    if gone := [it for it in found.changes if it not in known]:
        raise StudyError(
            f"--variant {found.name}: study {work.plan.study.name} has no change {', '.join(gone)} any more, so what "
            "was found cannot be trained again. Nothing was trained; give the change its name back."
        )
    if work.plan.make_variant(in_order(work.plan.study, found.changes)).settings_hash != found.settings:
        raise StudyError(
            f"--variant {found.name}: it has other settings in the study now than those that were found to help. "
            "Nothing was trained; take the edit back, or run the study with it first."
        )


def enough(wanted: int, alpha: float, asked: Any) -> int:
    """How many fresh seeds: at least as many as can decide at this level.

    Raises:
        StudyError: fewer were asked for.
    """
    from harness.plan.power import seeds_to_reach

    needed = seeds_to_reach(alpha)
    if asked and wanted < needed:
        raise StudyError(
            f"--seeds {asked}: this confirmation is tested at {alpha:.3g} (those of one study run share 0.05), which "
            f"takes at least {needed} seeds, whatever they show. Nothing was trained."
        )
    return max(wanted, needed)


def save_confirmation(work: Work, manifest: Manifest) -> Manifest:
    """Writes the manifest of a confirmation that is new; returns it, or the one that is there.

    Raises:
        StudyError: another confirmation of the same study run has taken this one's share of the error meanwhile.
    """
    from harness.stats import confirmation_alpha

    with work.cells.updating_manifest(manifest.confirms or manifest.id):
        if known := work.cells.manifest(manifest.id):
            return known
        begun = sum(it.confirms == manifest.confirms for it in work.cells.manifests().values())
        if manifest.confirms and manifest.alpha and manifest.alpha > confirmation_alpha(1 + begun):
            raise StudyError(
                f"another confirmation of {manifest.confirms} was begun at this moment, and all of them share one "
                "error. Nothing was trained; run the same command again."
            )
        work.cells.write_manifest(manifest)
    return manifest


def conclude(work: Work, manifest: Manifest, winner: str) -> Confirmation:
    """The headline of a confirmation whose cells have ended; a supported improvement is registered as champion, where
    the study's trainer exports a model."""
    from harness.stats import confirmation_line, decide, fresh_line, paired_effect
    from harness.store.load import find_manifest, results_table

    effect = paired_effect(results_table(work.cells, manifest), winner)
    decision = decide(effect, manifest.alpha or 0.05)
    if manifest.belongs_to:  # a champion of a line, of which the reported metric was never looked at
        line = fresh_line(effect, decision)
    else:
        searched = results_table(work.cells, find_manifest(work.cells, manifest.confirms))
        line = confirmation_line(effect, paired_effect(searched, winner), decision)
    with work.cells.updating_manifest(manifest.id):  # it has the looks that were taken since
        known = work.cells.manifest(manifest.id) or manifest
        work.cells.write_manifest(replace(known, headline=line, outcome=decision.outcome))
    if decision.outcome != "confirmed":
        why = f"Nothing was registered: the winner is {decision.outcome}."
        return Confirmation(work, winner, effect, line, decision.outcome, unregistered=why)
    from harness.tracking.registry import register_champion

    registered = register_champion(work.cells, manifest, winner, line)
    why = f"Nothing was registered: the trainer of this study ({work.plan.study.trainer.kind}) exports no model."
    return Confirmation(work, winner, effect, line, decision.outcome, registered, "" if registered else why)


def confirm(
    study: str | Path | Study,
    *,
    variant: str | None = None,
    watch: Watch = Watch(),  # noqa: B008
    **request: Any,
) -> Confirmation:
    """Train the baseline and the winner on seeds that nothing used before, and say whether it is confirmed.

    Args:
        variant: the winner; by default the one that improves most on the metric by which the study selects.
        request: as `harness.api.work.plan_work`; `seeds` is the number of fresh seeds.

    Raises:
        ResultsError: there is nothing to confirm. StudyError: too few seeds to decide anything; nothing was trained.
    """
    work, manifest, winner = begin_confirmation(study, variant=variant, **request)
    todo, expected = unfinished(work)
    train_work(work, todo, lambda: save_confirmation(work, manifest), expected, watch=watch)
    return conclude(work, manifest, winner)
