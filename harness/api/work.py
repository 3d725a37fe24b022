"""What a request means: the plan, the store that it fills, the workers that will train it."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.api.probing import sampled
from harness.cuda import is_exclusive, most_workers, mps_state, num_cuda_devices
from harness.errors import DamagedError, HarnessError, StoreError, StudyError
from harness.execution.executor import EXECUTORS, Demand, check_executor
from harness.execution.provenance import command_line
from harness.hardware import free_memory_bytes, resolve_device, usable_cores
from harness.plan.cell import Cell
from harness.plan.estimate import Estimate, Sample, estimate
from harness.plan.extension import extended
from harness.plan.manifest import Manifest
from harness.plan.plan import Plan, make_plan, parse_seeds
from harness.plan.registration import registration
from harness.store.cells import Cells
from harness.store.journal import now
from harness.study.load import load_study
from harness.study.study import Study
from harness.trainers.trainer import Settings, Trainer

RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in what `ray job submit` runs
MOST_JOBS = 1_000  # processes on one machine
SPARE_BYTES = 500_000_000  # for the tracking database, logs and caches


@dataclass(frozen=True)
class Work:
    """A plan with the place and the workers that will run it.

    Attributes:
        devices: one entry a worker. executor: where cells are trained, as `execution.runner.make_executor` takes it.
        demand: what each cell asks of a cluster, where that trains it.
        asked: how a command names the study: a built-in one's name, or the path that was given.
    """

    plan: Plan
    cells: Cells
    device: str
    devices: tuple[str, ...]
    asked: str = ""
    executor: str = EXECUTORS[0]
    demand: Demand = field(default_factory=Demand)

    @property
    def workers(self) -> str:
        """How many train on what, in words; how many nodes a cluster has room for shows when they train."""
        is_sized = self.demand.most is None and self.device.startswith("cuda") and len(self.devices) > 1
        counted = f"{'up to ' * is_sized}{len(self.devices)} x {self.device}"
        is_limited = self.demand.most is not None or not self.executor.startswith("ray")
        return counted if is_limited else f"ray ({self.device}; times are those of one worker)"

    @property
    def names(self) -> dict[str, str]:
        """Cell key to `batch-norm seed 3`."""
        return {cell.key: f"{it.name} seed {cell.seed}" for it in self.plan.variants for cell in it.cells}


def plan_work(
    study: str | Path | Study,
    *,
    profile: str = "standard",
    data: str | None = None,
    seeds: int | Sequence[int] | str | None = None,
    mde: float | None = None,
    horizon: int | None = None,
    designs: Sequence[str] = (),
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    epochs: int | None = None,
    vary: str | None = None,
    weights: str | Path | None = None,
    settings: Mapping[str, Any] = {},
    device: str = "auto",
    jobs: int | None = None,
    executor: str = EXECUTORS[0],
    gpus_per_cell: float = 1.0,
    store: str | Path = "mlruns",
    tags: Mapping[str, str] = {},
    note: str = "",
) -> Work:
    """The plan that a request describes; nothing is trained or written.

    Args:
        study: the name of a built-in study, the path of a YAML file, or a study.
        data, epochs, weights, vary: options of the study's trainer, where it has them. vary: `"split"` draws the split
            off for validation from each seed, on both sides of every comparison.
        seeds: a count, a list, `"auto"` (with `mde`), or a text as the command line takes; the profile's by default.
        mde: the effect to find with `seeds="auto"`, in the unit in which the reported metric is shown.
        horizon: how many seeds the study will have in the end; the profile's, or `seeds` if more, by default. It is
            declared once: by the first call that trains.
        designs: names; the study's own by default. only, skip: names of changes and combinations.
        settings: of the baseline, by dotted path, over the study's.
        jobs: cells at a time; as many as fit by default.
        executor: `processes`; `here`, one after another; `ray`, or `ray:ADDRESS`, on a cluster, whose device must be
            said: `auto` means cpu there. gpus_per_cell: on a cluster; 0.5 puts two cells on a GPU.
        tags, note: kept with the study run, beside the study's own.

    Raises:
        HarnessError: everything that is wrong with the request.
    """
    check_executor(executor)
    is_far = executor.startswith("ray")  # this machine's devices say nothing
    device = device.replace("auto", "cpu") if is_far else resolve_device(device)
    loaded = (study if isinstance(study, Study) else load_study(study)).with_notes(tags, note)
    trainer = loaded.trainer
    overrides: dict[str, Any] = {}
    for name, value in {"data": data, "epochs": epochs, "weights": weights, "vary": vary}.items():
        overrides |= trainer.overrides(name, value) if value is not None else {}
    overrides |= settings
    if (seeds == "auto") != (mde is not None):
        unit = trainer.metrics.reporting.difference_unit or "the unit of the reported metric"
        raise StudyError(f"--seeds auto and --mde EFFECT go together: as many seeds as find so much, in {unit}.")

    def make(numbers: tuple[int, ...], horizon: int | None = horizon) -> Plan:
        return make_plan(
            loaded,
            device=device.partition(":")[0],
            profile=profile,
            designs=designs,
            seeds=numbers,
            only=only,
            skip=skip,
            overrides=overrides,
            horizon=horizon,
        )

    cells = Cells(store_folder(store))
    plan = make(_numbers(seeds))
    known = _known(cells, plan)
    is_declared = known is not None and bool(known.comparisons)
    if known and is_declared and horizon not in (None, known.horizon):
        raise _moved(known, horizon)
    if mde is not None:
        from harness.plan.sensitivity import seeds_for

        piloted = {seed for it in known.variants for seed in it.cells} if known else set()
        pilots = make(tuple(sorted(piloted | set(plan.seeds))), None)  # not the profile's seeds alone
        end = known.horizon if known and is_declared else horizon or 0
        count = seeds_for(pilots, reported(pilots, cells), mde / trainer.metrics.reporting.factor, end)
        plan = make(tuple(range(count)), end or count)
    if known and is_declared:
        plan = replace(plan, horizon=known.horizon)
    threads = trainer.threads(plan.variants[0].settings)
    asked = "" if isinstance(study, Study) else str(study)
    if is_far:
        devices: tuple[str, ...] = (device,) * (jobs or 1)
    else:
        devices = worker_devices(device, 1 if executor == "here" else jobs, threads)
    return Work(plan, cells, device, devices, asked, executor, Demand(threads, gpus_per_cell, jobs))


def _known(cells: Cells, plan: Plan) -> Manifest | None:
    """The study run that the plan extends; None where there is none, or it cannot be read, which training says."""
    with suppress(StoreError):
        return cells.manifest(plan.id)
    return None


def _moved(known: Manifest, horizon: int | None) -> StudyError:
    """The study run has another horizon: who may move it can look until something shows."""
    declared = f"{known.horizon} seeds" if known.horizon else "none"
    return StudyError(
        f"--horizon {horizon}: study run {known.id} declared {declared} before its first cell, and that holds. "
        "Leave --horizon out: more seeds than declared are judged by a test that stays valid however long one goes "
        "on; or begin a new study run (another name or profile)."
    )


def store_folder(store: str | Path) -> Path:
    """The absolute path of a store. Raises StoreError where it cannot be a folder, or is one that nobody would keep."""
    folder = Path(store).absolute()
    if RAY_JOB in os.environ and not Path(store).is_absolute():
        raise StoreError(
            f"--store {store}: `ray job submit` runs this command in a folder that is thrown away with the job. Give "
            "an absolute path, on the disk of the machine that runs it or on one that outlives it."
        )
    try:
        if not folder.exists() or folder.is_dir():
            return folder
        problem = "is no folder"
    except (OSError, ValueError) as error:  # too long; a NUL
        problem = getattr(error, "strerror", None) or str(error)
    raise StoreError(f"--store {folder}: {problem}. Name another folder.")


def _numbers(seeds: int | Sequence[int] | str | None) -> tuple[int, ...]:
    if seeds is None or seeds == "auto":
        return ()
    if isinstance(seeds, str):
        return parse_seeds(seeds)
    return parse_seeds(str(seeds)) if isinstance(seeds, int) else tuple(seeds)


def worker_devices(device: str, jobs: int | None, threads: int) -> tuple[str, ...]:
    """One device name a worker: on a CPU as many workers as cores allow; on CUDA those of each device at most, of which
    so many train at a time as its memory has room for (`execution.room`)."""
    if jobs is not None and not 0 < jobs <= MOST_JOBS:
        raise StudyError(f"--jobs: expected 1 to {MOST_JOBS:,} cells at a time.")
    if device == "cpu":
        return ("cpu",) * (jobs or max(1, usable_cores() // threads))
    names = [device] if ":" in device else [f"cuda:{index}" for index in range(num_cuda_devices())]
    count = jobs or len(names) * workers_a_device(threads, len(names))
    return tuple(names[index % len(names)] for index in range(count))


def workers_a_device(threads: int = 1, num_devices: int = 1) -> int:
    """Workers of a CUDA device at most, without `--jobs`."""
    return most_workers(
        cores=usable_cores() // threads,
        memory_bytes=free_memory_bytes(),
        num_devices=num_devices,
        mps=mps_state(),
        exclusive=is_exclusive(),
    )


def reported(plan: Plan, cells: Cells) -> Callable[[Cell], float | None]:
    """The reported metric of a cell; None where it has not finished."""
    name = plan.study.trainer.metrics.report

    def number(cell: Cell) -> float | None:
        result = cells.result(cell.key)
        return result.metrics.get(name) if result else None

    return number


def unfinished(work: Work) -> tuple[list[Cell], Estimate]:
    """The cells of a plan that have not ended, and what they will take."""
    todo: list[Cell] = []
    ended: list[Cell] = []
    for cell in work.plan.cells:
        (todo if work.cells.result(cell.key, seed=cell.seed) is None else ended).append(cell)

    def sample() -> Sample | None:
        return sampled(work.plan, work.cells.root, work.device)

    workers = len(work.devices)
    return todo, estimate(todo, ended, work.cells.result, device=work.device, workers=workers, sample=sample)


def edited_since(work: Work) -> str:
    """A sentence where the latest run of this study trained other code than there is now; empty where it did not."""
    plan = work.plan
    others = [it for it in work.cells.manifests().values() if (it.study, it.profile) == (plan.study.name, plan.profile)]
    if not others or plan.id in {it.id for it in others}:
        return ""
    latest = others[-1]
    edited = plan.study.trainer.edited_since(latest.fingerprints, work.cells.root)
    if not edited:
        return ""
    num_ended = sum(work.cells.result(key) is not None for it in latest.variants for key in it.cells.values())
    return (
        f"{latest.id} has {num_ended} ended cells, but {edited}, so every cell is trained anew; those of before stay. "
        "If the edit cannot move a number, undo it or pin the version (trainer.sources: {pinned: ...})."
    )


def other_file(work: Work) -> str:
    """A sentence where study runs of this name were made from another file; empty where none was."""
    of_others = sorted(
        {
            os.path.relpath(it.asked)
            for it in work.cells.manifests().values()
            if it.study == work.plan.study.name and _is_another_file(it.asked, work.asked)
        }
    )
    if not of_others:
        return ""
    return (
        f"{', '.join(of_others)} is another file whose study is called {work.plan.study.name}: runs of both stand "
        "under one name, and with the same baseline they are one study run, in which a change is what the file that "
        "ran last says. Give one of them another name."
    )


def _is_another_file(one: str, other: str) -> bool:
    try:
        return not os.path.samefile(one, other)
    except (OSError, ValueError):  # a built-in study's name, or a file that has gone: perhaps the same, moved
        return False


def failed_cells(work: Work) -> list[Cell]:
    """The cells of a plan that ended without a number: failed, diverged, out of memory."""
    ended = {cell: work.cells.result(cell.key) for cell in work.plan.cells}
    return [cell for cell, result in ended.items() if result and not result.is_finished]


def forget_failed(work: Work) -> None:
    """Makes the cells that failed or diverged trainable again, from the start."""
    for cell in failed_cells(work):
        work.cells.forget_failure(cell.key)


def save_manifest(work: Work, tags: Mapping[str, Mapping[str, str]] = {}, *, keeps_command: bool = False) -> Manifest:
    """Writes the study run's manifest, extended by what this plan adds; returns it.

    Args:
        tags: what the MLflow runs of a variant carry besides, by the variant's name.
        keeps_command: the command that made a known study run stays recorded, for this one makes no other.
    """
    manifest = work.plan.manifest(command_line())
    variants = tuple(replace(it, tags=dict(tags.get(it.name, {}))) for it in manifest.variants)
    manifest = replace(manifest, variants=variants, asked=work.asked)
    with work.cells.updating_manifest(work.plan.id):
        try:
            known = work.cells.manifest(work.plan.id)
        except DamagedError:
            known = None
            work.cells.set_manifest_aside(work.plan.id)
        if known:
            declared = {it.name for it in work.plan.study.changes}
            command = known.command if keeps_command else manifest.command
            manifest = replace(extended(known, manifest, declared=declared), command=command)
        work.cells.write_manifest(manifest)
    return manifest


def freeze(work: Work, *, hypothesis: str = "", mde: float | None = None) -> Manifest:
    """Writes down what this plan will test, before its first cell; returns the manifest that holds it.

    Args:
        mde: the smallest effect that matters, in the unit in which the reported metric is shown.

    Raises:
        StudyError: a cell of the study run has ended, or something was written down already.
    """
    known = work.cells.manifests().get(work.plan.id)
    _refuse_frozen(known)
    trained = sum(work.cells.result(cell.key) is not None for cell in work.plan.cells)
    if trained or (known and known.looks):
        raise StudyError(
            f"{trained} cells of {work.plan.id} have ended, so nothing can be written down before the first. Freeze a "
            "study before it is trained; what is looked at first and planned later is exploratory."
        )
    manifest = save_manifest(work)
    effect = None if mde is None else mde / work.plan.study.trainer.metrics.reporting.factor
    with work.cells.updating_manifest(manifest.id):
        manifest = work.cells.manifest(manifest.id) or manifest
        _refuse_frozen(manifest)  # by another process, since we looked
        frozen = replace(manifest, frozen=registration(manifest, now(), hypothesis=hypothesis, mde=effect))
        work.cells.write_manifest(frozen)
    return frozen


def _refuse_frozen(known: Manifest | None) -> None:
    if known and known.frozen:
        raise StudyError(
            f"study run {known.id} was frozen at {known.frozen['time']} (hash {known.frozen['hash']}); that holds. "
            "A new study run takes another name or profile."
        )


def check_disk(work: Work, expected: Estimate) -> None:
    """Raises StoreError where the disk has too little room for what is to be trained."""
    free, needed = work.cells.free_bytes(), expected.disk_bytes + SPARE_BYTES
    if free < needed:
        raise StoreError(
            f"{work.cells.root}: {free / 1e6:,.0f} MB free, but these cells need about {needed / 1e6:,.0f} MB. Make "
            "room there, or choose another folder with --store; nothing was started."
        )


def check_device(work: Work, todo: Sequence[Cell]) -> None:
    """Raises HarnessError where cells are to be trained on a device that their trainer cannot use."""
    is_here = not work.executor.startswith("ray")
    problem = work.plan.study.trainer.device_problem(work.device) if todo and is_here else ""
    if problem:
        raise HarnessError(f"--device {work.device}: {problem} Or use --device cpu; nothing was started.")


def prepare(work: Work, todo: Sequence[Cell]) -> None:
    """What these cells need from outside, fetched and checked once, before any of them starts."""
    by_trainer: dict[int, tuple[Trainer, dict[int, Settings]]] = {}  # variants whose code was edited have their own
    for cell in todo:
        _, settings = by_trainer.setdefault(id(cell.trainer), (cell.trainer, {}))
        settings[id(cell.settings)] = cell.settings  # the seeds of a variant share one object
    for trainer, settings in by_trainer.values():
        trainer.prepare(settings.values(), store=work.cells.root)
