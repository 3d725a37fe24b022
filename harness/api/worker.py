"""One of many workers on a shared store: trains cells of a study or of a search until none is left, or its time is up.

Workers know nothing of each other. Which cells are free is in the store: a cell that has no result and that no living
process holds. So any number of them work beside each other and beside `harness ablate`, and one that is killed loses
what came after its cells' last checkpoints. MLflow is not theirs: `ablate` and `sync` deliver from the journals.
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

from harness.api.searching import OnTrial, SearchOptions, only, refuse_placebos, refusing
from harness.api.training import Placebos, Watch, get_ready, judging
from harness.api.work import Work, save_manifest, unfinished
from harness.errors import NoValueError, StoreError
from harness.execution.executor import SECONDS_OF_GRACE
from harness.execution.provenance import command_line, provenance
from harness.execution.runner import run
from harness.files.locks import lock_problem
from harness.files.presence import present, unseen_by_locks
from harness.plan.cell import Cell
from harness.plan.variants import Variant
from harness.store.cells import Cells
from harness.store.journal import writing

PRESENT = "workers"  # a folder of the store, with a file for each that lives

Why = Literal["done", "late"]


class _TimeIsUp(BaseException):
    """Interrupts training as Ctrl-C does: what trains is asked to save."""


def work_along(
    work: Work,
    *,
    until: float | None = None,
    seconds_of_grace: float = SECONDS_OF_GRACE,
    watch: Watch = Watch(),  # noqa: B008
) -> tuple[Why, Placebos]:
    """Trains cells of a plan beside whoever else does, and waits for those that others train: they may be killed.

    Args:
        until: when this is to be over, in seconds since the epoch; training is asked to save `seconds_of_grace` before.

    Returns:
        `done`, where every cell has ended; `late`, where the time was up before. The variants that were given up
        because training never reads what their change sets.

    Raises:
        StoreError: locks do not hold in the store's folder. What `train_work` raises, but nothing of MLflow.
        KeyboardInterrupt: and whatever else a signal's handler raises: passes through, training asked to save first.
    """
    check_locks(work.cells)
    with present(work.cells.root / PRESENT):
        return _train(work, until, seconds_of_grace, watch)


def _train(work: Work, until: float | None, seconds_of_grace: float, watch: Watch) -> tuple[Why, Placebos]:
    todo, expected = unfinished(work)
    placebos = Placebos(work)
    stops_at = float("inf") if until is None else until - seconds_of_grace
    if time.time() >= stops_at and todo:
        return "late", placebos
    get_ready(work, todo, expected)
    save_manifest(work, keeps_command=True)

    def should_stop(cell: Cell) -> bool:
        if time.time() >= stops_at:
            raise _TimeIsUp
        return placebos.is_refused(cell)

    try:
        run(
            placebos.without(todo),
            work.cells,
            devices=work.devices,
            provenance=provenance(command_line()),
            on_progress=judging(placebos, watch),
            should_stop=should_stop,
            executor=work.executor,
            demand=work.demand,
            seconds_of_grace=seconds_of_grace,
        )
    except _TimeIsUp:
        return "late", placebos
    return "done", placebos


def search_along(
    work: Work,
    url: str,
    options: SearchOptions,
    *,
    until: float | None = None,
    seconds_of_grace: float = SECONDS_OF_GRACE,
    check: Callable[[], None] = lambda: None,
    noting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    watch: Watch = Watch(),  # noqa: B008
    on_trial: OnTrial = lambda number, variant: None,
) -> Why:
    """Tries combinations of a search beside whoever else does, until there are as many as asked for.

    Args:
        work: with the designs add-one and combinations.
        url, options, on_trial: as `harness.api.searching.search_work` takes them.
        until, seconds_of_grace: as `work_along` takes them.
        check: called about every second, where nothing is under way in a database; what it raises ends the search,
            training asked to save first and its trials given back.
        noting: entered while combinations are tried: a signal must then wait for `check`.

    Raises:
        StoreError: locks do not hold in the store's folder.
        ResultsError: the search was made with another store.
        StudyError: training never reads what a change sets. What `search_work` raises, but nothing of MLflow.
    """
    check_locks(work.cells)
    with present(work.cells.root / PRESENT):
        return _search(work, url, options, until, seconds_of_grace, check, noting, watch, on_trial)


def _search(
    work: Work,
    url: str,
    options: SearchOptions,
    until: float | None,
    seconds_of_grace: float,
    check: Callable[[], None],
    noting: Callable[[], AbstractContextManager[None]],
    watch: Watch,
    on_trial: OnTrial,
) -> Why:
    from harness.search.run import search

    placebos = Placebos(work)
    refuse_placebos(placebos)
    get_ready(work, *unfinished(work), prepared=work.plan.cells)
    stops_at = float("inf") if until is None else until - seconds_of_grace

    def look() -> None:
        check()
        if time.time() >= stops_at:
            raise _TimeIsUp

    def begin(name: str, number: int, variant: Variant) -> None:
        tags = {variant.name: {"harness.search": name, "harness.trial": str(number)}}
        save_manifest(only(work, [variant]), tags, keeps_command=True)
        on_trial(number, variant)

    try:
        with noting():
            search(
                work.plan,
                work.cells,
                storage=url,
                num_trials=options.num_trials,
                sampler=options.sampler,
                prune=options.prune,
                devices=work.devices,
                provenance=provenance(command_line()),
                on_progress=refusing(placebos, watch),
                on_trial=begin,
                executor=work.executor,
                demand=work.demand,
                seconds_of_grace=seconds_of_grace,
                look=look,
            )
    except _TimeIsUp:
        return "late"
    except NoValueError:
        pass  # an outcome, which is the one's to tell who asks for the answer
    return "done"


def check_locks(cells: Cells) -> None:
    """Raises StoreError where two processes could train one cell: on this machine, or with a worker of another one."""
    with writing(cells.root):
        problem = lock_problem(cells.root)
        if not problem and (other := unseen_by_locks(cells.root / PRESENT)):
            problem = f"the worker {other} lives, but its lock is free here"
    if problem:
        raise StoreError(
            f"{cells.root}: file locks do not hold on this disk ({problem}), so that two workers would train one cell. "
            "Put the store where they do; or train on a cluster without a shared disk (--executor ray); or give each "
            "machine a store and seeds of its own, and bring them together: `harness pack` there, `harness merge` here."
        )
