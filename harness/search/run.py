"""`search`: the parts of this package put together, for the command line and for notebooks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.execution.executor import EXECUTORS, SECONDS_OF_GRACE, Demand, Progress
from harness.plan.plan import Plan
from harness.plan.variants import Variant
from harness.search.answer import Answer, make_answer
from harness.search.choices import Prune, Sampler
from harness.search.dashboard import publish
from harness.search.loop import Loop, RunIds
from harness.search.pruning import make_pruner, pruning_note
from harness.search.space import Space
from harness.search.storage import open_storage, open_study
from harness.search.trials import Trials
from harness.store.cells import Cells


def search(
    plan: Plan,
    cells: Cells,
    *,
    storage: str,
    num_trials: int,
    sampler: Sampler = "tpe",
    prune: Prune = "none",
    seconds: float | None = None,
    retry_failed: bool = False,
    devices: Sequence[str] = ("cpu",),
    provenance: Mapping[str, Any] = {},
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_trial: Callable[[str, int, Variant], None] = lambda search, number, variant: None,
    run_ids: RunIds = lambda variant: {},
    executor: str = EXECUTORS[0],
    demand: Demand = Demand(),  # noqa: B008
    seconds_of_grace: float = SECONDS_OF_GRACE,
    look: Callable[[], None] = lambda: None,
) -> Answer:
    """Tries combinations of a plan's changes until there are `num_trials`, and says what they show.

    Several processes may do this at once on one storage and one store. A search that was stopped, in whatever way, is
    continued by the same call; one that is complete trains nothing.

    Args:
        plan: its single changes are the space; its combinations are tried first.
        storage: as `resolve_storage` gives it.
        num_trials: combinations in all, those of earlier calls and other processes included; what leaves one change out
            of the best comes on top.
        seconds: how long to train; None for no limit.
        retry_failed: try combinations again that failed, from the start.
        on_trial: gets the name of the Optuna study, the trial's number and its variant, when this process begins it.
        look: called about every second, outside of all transactions; what it raises passes through, training asked to
            save first and trials given back.
        run_ids: MLflow's runs (ids or addresses) of a variant's cells by seed, as far as known; asked at a trial's end.

    Raises:
        StudyError: the plan has no changes.
        TrackingError: the storage cannot be used.
        ResultsError: stopped before any combination had a value.
    """
    space = Space.of(plan)
    with open_storage(storage) as (optuna_storage, locks):
        with locks.exclusive():
            study = open_study(optuna_storage, space, prune)
        study.pruner = make_pruner(prune, plan)
        trials = Trials(study, space, locks, num_trials=num_trials, sampler=sampler)
        if retry_failed:
            trials.retry_failed(lambda changes: _forget(cells, plan.make_variant(changes)))
        loop = Loop(
            trials,
            cells,
            plan.make_variant,
            metric=space.metric,
            prune=prune,
            seconds=seconds,
            on_trial=lambda number, variant: on_trial(study.study_name, number, variant),
            run_ids=run_ids,
            look=look,
        )
        loop.work(
            devices=devices,
            provenance=provenance,
            on_progress=on_progress,
            executor=executor,
            demand=demand,
            seconds_of_grace=seconds_of_grace,
        )
        notes = [it for it in (pruning_note(prune, plan),) if it]
        if loop.is_out_of_time:
            notes.append("The time was up before everything was tried.")
        answer = make_answer(study, space, cells, notes=notes)
        with locks.exclusive():
            publish(study, answer)
    return answer


def _forget(cells: Cells, variant: Variant) -> None:
    for cell in variant.cells:
        result = cells.result(cell.key)
        if result and not result.is_finished:
            cells.forget_failure(cell.key)
