"""`try`: one short cell, looked at closely, before a study is trusted with many.

Does the same seed give the same bits, does another seed give others, does a killed training go on where it was, which
settings does it never read, what does it cost? What was found is kept in the store and stands in the report.
"""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.api.work import Work, check_device, plan_work, prepare
from harness.errors import StudyError
from harness.execution.here import run_one
from harness.execution.provenance import command_line, provenance
from harness.files.scratch import scratch
from harness.plan.cell import Cell
from harness.store.cells import Cells
from harness.store.result import Result
from harness.store.tried import Resume, Tried, write_tried
from harness.study.load import load_study
from harness.study.study import Study
from harness.trainers.run import CHECKPOINT, SETTINGS_UNREAD, SETTINGS_UNSEEN

SHORT = ("try", "quick", "smoke", "standard")  # profiles, the first that a study has
POLL_SECONDS = 0.005


def try_study(
    study: str | Path | Study,
    *,
    profile: str | None = None,
    on_step: Callable[[str], None] = lambda sentence: None,
    store: str | Path = "mlruns",
    **request: Any,
) -> Tried:
    """Trains the baseline's first seed twice, its second seed, and the first once more, killed on the way.

    Args:
        profile: which baseline; the shortest that the study has by default: try, quick, smoke, standard.
        on_step: gets a sentence as each training begins.
        store: where what was found is kept; nothing is trained in it.
        request: as `plan_work`.

    Raises:
        StudyError: the training does not end well; the message says how.
    """
    loaded = study if isinstance(study, Study) else load_study(study)
    chosen = profile or next((it for it in SHORT if it in loaded.profiles), next(iter(loaded.profiles)))
    with scratch() as folder:
        request |= {"seeds": (0, 1), "profile": chosen, "designs": ("add-one",), "jobs": 1}
        work = plan_work(loaded, store=folder, **request)
        first, second = work.plan.variants[0].cells
        check_device(work, [first])
        prepare(work, [first])
        on_step("one cell, straight")
        (straight,) = _trained(work, straight=first)
        on_step("the same seed once more, and another seed")
        again, other = _trained(work, again=first, other=second)
        on_step("the same seed, killed after its first checkpoint and continued")
        resume, detail = _killed_and_resumed(work, first, straight)
        result = _result(straight, first)
        found = Tried(
            study=loaded.name,
            profile=chosen,
            fingerprints=dict(work.plan.fingerprints),
            metrics=dict(result.metrics),
            num_steps=result.num_steps,
            seconds=result.seconds,
            peak_memory_bytes=result.peak_memory_bytes or 0,
            resume=resume,
            resume_detail=detail,
            repeat_difference=_difference(straight, again, first),
            ignores_seed=_numbers(straight, first) == _numbers(other, second),
            unread=_named(result, SETTINGS_UNREAD),
            unseen=_named(result, SETTINGS_UNSEEN),
            notes=(*loaded.trainer.notes, *_not_of_one(loaded, result)),
            device=work.device,
        )
    write_tried(Path(store).absolute(), found)
    return found


def _not_of_one(study: Study, result: Result) -> list[str]:
    """Of metrics that are declared in percent, and are logged as such already: they would be shown times 100."""
    metrics = study.trainer.metrics
    found = (metrics[name].percent_problem(value) for name, value in result.metrics.items() if name in metrics)
    return [it for it in found if it]


def _trained(work: Work, **named: Cell) -> list[Cells]:
    """Each cell trained in a process of its own, beside each other, in a store of its own with this name.

    Raises:
        StudyError: one did not finish; with its traceback.
    """
    stores = [_empty_store(work, name) for name in named]
    processes = [_start(work, cell, cells) for cell, cells in zip(named.values(), stores, strict=True)]
    for process in processes:
        process.join()
    for cell, cells, process in zip(named.values(), stores, processes, strict=True):
        result = cells.result(cell.key)
        if result is None:
            raise StudyError(
                f"seed {cell.seed}: its process ended with exit code {process.exitcode}, without a result."
            )
        if not result.is_finished:
            traces = [event["traceback"] for event in cells.events(cell.key) if event.get("traceback")]
            shown = f"\n{traces[-1].rstrip()}" if traces else ""
            raise StudyError(f"seed {cell.seed}: {result.status}: {result.reason}{shown}")
    return stores


def _killed_and_resumed(work: Work, cell: Cell, straight: Cells) -> tuple[Resume, str]:
    """Kills a training as soon as it has a checkpoint, continues it, and compares with the one that ran straight."""
    cells = _empty_store(work, "killed")
    folder, last_step = cells.folder(cell.key), _result(straight, cell).num_steps
    process = _start(work, cell, cells)
    while process.is_alive() and not ((folder / CHECKPOINT).exists() and cells.validations(cell.key)):
        time.sleep(POLL_SECONDS)
    if process.is_alive():
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    if cells.result(cell.key) is not None:
        return "starts again", "training saved no checkpoint"
    reached = max((it.step for it in cells.validations(cell.key)), default=0)
    time.sleep(0.1)  # a script of the killed worker's has a moment to be gone
    process = _start(work, cell, cells)
    process.join()
    result = cells.result(cell.key)
    if result is None or not result.is_finished:
        return "differs", f"killed after step {reached}, it did not end: {result.reason if result else 'no result'}"
    starts = [event["event"] for event in cells.events(cell.key)]
    if "resumed" not in starts or "restarted" in starts:
        return "starts again", "what it saved was not used"
    difference = _difference(straight, cells, cell)
    where = f"killed after step {reached} of {last_step}"
    if reached >= last_step:
        where += ", too late to test much: try more steps, by --set"
    if difference == 0:
        return "identical", where
    return "differs", f"{where}: by up to {difference:.3g}, in logged units"


def _empty_store(work: Work, name: str) -> Cells:
    cells = Cells(work.cells.root / name)
    sources = work.cells.root / "sources"
    if sources.is_dir():
        cells.root.mkdir()
        (cells.root / "sources").symlink_to(sources)
    return cells


def _start(work: Work, cell: Cell, cells: Cells) -> BaseProcess:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_train, args=(json.dumps(cell.to_json()), cells, work.devices[0]), daemon=False)
    process.start()
    return process


def _train(specification: str, cells: Cells, device: str) -> None:
    cell = Cell.from_json(json.loads(specification))
    run_one(cell, cells, device=device, provenance=provenance(command_line()))


def _result(cells: Cells, cell: Cell) -> Result:
    result = cells.result(cell.key)
    assert result is not None
    return result


def _numbers(cells: Cells, cell: Cell) -> list[dict[str, float]]:
    """Every number that training told: of each validation, and of the result."""
    return [*(dict(it.metrics) for it in cells.validations(cell.key)), dict(_result(cells, cell).metrics)]


def _difference(one: Cells, other: Cells, cell: Cell) -> float:
    """The largest difference between two trainings of a cell; infinite where one told what the other did not."""
    steps = [[it.step for it in cells.validations(cell.key)] for cells in (one, other)]
    pairs = list(zip(_numbers(one, cell), _numbers(other, cell), strict=False))
    if steps[0] != steps[1] or any(a.keys() != b.keys() for a, b in pairs):
        return float("inf")
    differences = (abs(a[name] - b[name]) for a, b in pairs for name in a if repr(a[name]) != repr(b[name]))
    return max(differences, default=0.0)


def _named(result: Result, fact: str) -> tuple[str, ...]:
    said = str(result.facts.get(fact, ""))
    return tuple(said.split(", ")) if said else ()
