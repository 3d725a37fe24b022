"""Options that several commands share, and the plan that they describe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from harness.errors import StudyError
from harness.hardware import cuda_capabilities, native_precision, precision_problem, resolve_device, usable_cores
from harness.plan.plan import Plan, make_plan, parse_seeds
from harness.store.cells import Cells
from harness.study.load import load_study, studies
from harness.trainers.images.settings import flatten

Command = TypeVar("Command", bound=Callable[..., Any])


def _split_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    names = (part.strip() for value in values for part in value.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def _names_option(*declarations: str, **settings: Any) -> Callable[[Command], Command]:
    """An option of comma-separated names that may be given several times; the command gets each name once, in order."""
    return click.option(*declarations, multiple=True, metavar="NAMES", callback=_split_names, **settings)


def _complete_study(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in studies() if name.startswith(incomplete)]


def _complete_change(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    *before, last = incomplete.split(",")
    study = load_study(ctx.params.get("study") or "task3")
    names = [change.name for change in study.changes] + [combination.name for combination in study.combinations]
    return [",".join([*before, name]) for name in names if name.startswith(last)]


store_option = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("mlruns"),
    show_default=True,
    envvar="HARNESS_STORE",
    help="Folder of cells, tracking database and artifacts.",
)
study_option = click.option(
    "--study", required=True, help="A built-in study, or the path of a YAML file.", shell_complete=_complete_study
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

_design_option = _names_option("--design", "designs", help="Designs, comma-separated; the study's own by default.")
_PLAN_OPTIONS = [
    study_option,
    click.option("--profile", default="standard", show_default=True, help="How big: a profile of the study."),
    click.option("--data", help="cifar10, cifar100, shapes, or image-folder:PATH; the study's own by default."),
    click.option(
        "--seeds", help="A count (10), a list (0,1,2; `4,` is the one seed 4) or auto; the profile's by default."
    ),
    click.option(
        "--mde", type=click.FloatRange(0, 100, min_open=True), help="With --seeds auto: effect to find, in points."
    ),
    _design_option,
    _names_option("--only", help="Only these changes.", shell_complete=_complete_change),
    _names_option("--skip", help="Not these changes.", shell_complete=_complete_change),
    click.option("--epochs", type=click.IntRange(1), help="At most so many epochs, instead of the study's."),
    click.option(
        "--weights",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Pretrained weights: a file with a state dict, instead of the study's own.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option("--jobs", type=click.IntRange(1), help="Cells at a time; as many as fit by default."),
    store_option,
]


def plan_options(command: Command) -> Command:
    """The options that describe a plan; the command gets them as `PlanRequest`'s fields."""
    for option in reversed(_PLAN_OPTIONS):
        command = option(command)
    return command


def search_space_options(command: Command) -> Command:
    """As `plan_options`, without `--design`: a search decides itself which variants to train."""
    for option in reversed(_PLAN_OPTIONS):
        command = command if option is _design_option else option(command)
    return command


class Planned(NamedTuple):
    """A plan with the place and the workers that will run it. `devices` has one entry a worker."""

    plan: Plan
    cells: Cells
    device: str
    devices: tuple[str, ...]
    cache: Path


def planned(
    *,
    study: str,
    profile: str,
    data: str | None,
    seeds: str | None,
    mde: float | None,
    designs: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    epochs: int | None,
    device: str,
    jobs: int | None,
    store: Path,
    weights: Path | None = None,
) -> Planned:
    """The plan that these options describe. Raises HarnessError with everything that is wrong in them."""
    from harness.trainers.images.data.sources import default_cache, parse_data
    from harness.trainers.images.fingerprints import Fingerprints

    device = resolve_device(device)
    cache = default_cache()
    overrides: dict[str, Any] = {}
    if data:
        overrides |= flatten({"data": parse_data(data)})
    if epochs:
        overrides["training.max_epochs"] = epochs
    if weights:
        overrides["model.weights"] = f"file:{weights.expanduser().absolute()}"
    if (seeds == "auto") != (mde is not None):
        raise StudyError("--seeds auto and --mde POINTS go together: the seeds that find an effect of so many points.")
    loaded, fingerprints = load_study(study), Fingerprints(cache)

    def make(numbers: tuple[int, ...]) -> Plan:
        return make_plan(
            loaded,
            fingerprints=fingerprints,
            precision=native_precision(device),
            profile=profile,
            designs=designs,
            seeds=numbers,
            only=only,
            skip=skip,
            overrides=overrides,
        )

    cells = Cells(store.absolute())
    plan = make(parse_seeds(seeds) if seeds and seeds != "auto" else ())
    if mde is not None:
        from harness.plan.sensitivity import seeds_for

        plan = make(tuple(range(seeds_for(plan, cells, mde / 100))))
    _check_precisions(plan, device)
    threads = plan.variants[0].settings.training.threads
    return Planned(plan, cells, device, worker_devices(device, jobs, threads), cache)


def _check_precisions(plan: Plan, device: str) -> None:
    problems = {precision_problem(it.settings.training.precision, device): it.name for it in plan.variants}
    found = [f"{problem} (variant {name})" for problem, name in problems.items() if problem]
    if found:
        raise StudyError(*found)


def worker_devices(device: str, jobs: int | None, threads: int) -> tuple[str, ...]:
    """One device name a worker: on a CPU as many workers as cores allow; on CUDA four a device, taking turns."""
    if device == "cpu":
        return ("cpu",) * (jobs or max(1, usable_cores() // threads))
    count = len(cuda_capabilities())
    names = [device] if ":" in device else [f"cuda:{index}" for index in range(count)]
    return tuple(names[index % len(names)] for index in range(jobs or 4 * len(names)))
