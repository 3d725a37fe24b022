"""What is wrong in the storage of searches, and what mends it; and how the searches of a study are deleted from it."""

from collections.abc import Collection, Iterator

import optuna

from harness.search.storage import open_storage
from harness.search.trials import WORKER
from harness.store.check import Finding
from harness.texts import counted
from harness.tracking.check import sqlite_problem
from harness.tracking.database import sqlite_path
from harness.urls import masked


def check_storage(url: str) -> Iterator[Finding]:
    """The storage can be read, and no trial waits for a worker that has died. Where there is none, nothing is wrong."""
    path, where = sqlite_path(url), masked(url)
    if path is not None and not path.exists():
        return
    if path is not None and (problem := sqlite_problem(path)):
        yield Finding(
            where, f"is damaged ({problem}).", "Move it away: searches begin anew, and find their cells trained."
        )
        return
    with open_storage(url) as (storage, locks):
        for study in optuna.get_all_study_summaries(storage, include_best_trial=False):
            trials = storage.get_all_trials(study._study_id, deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
            dead = sum(not locks.is_alive(it.user_attrs.get(WORKER, "nobody")) for it in trials)
            if dead:
                was, them = ("was", "it") if dead == 1 else ("were", "them")
                what = f"{counted(dead, 'trial')} of {study.study_name} {was} left by workers that died."
                yield Finding(where, what, f"The search's command takes {them} up again.", is_wrong=False)


def delete_searches(url: str, names: Collection[str]) -> int:
    """Deletes the Optuna studies of these names, for good; gives how many there were."""
    path = sqlite_path(url)
    if path is not None and not path.exists():
        return 0
    with open_storage(url) as (storage, locks), locks.exclusive():
        found = [it for it in optuna.get_all_study_names(storage) if it in names]
        for name in found:
            optuna.delete_study(study_name=name, storage=storage)
    return len(found)
