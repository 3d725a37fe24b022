"""Options that several commands share, and the plan that they describe."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from harness.execution.executor import EXECUTORS
from harness.execution.provenance import DIFF_VARIABLE
from harness.study.load import load_study, studies
from harness.study.yaml_file import parse_value

Command = TypeVar("Command", bound=Callable[..., Any])


def _split_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    names = (part.strip() for value in values for part in value.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def _names_option(*declarations: str, **settings: Any) -> Callable[[Command], Command]:
    """An option of comma-separated names that may be given several times; the command gets each name once, in order."""
    return click.option(*declarations, multiple=True, metavar="NAMES", callback=_split_names, **settings)


def _parse_settings(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """`optimizer.learning_rate=0.01` as a dotted path and a value, read as YAML reads it."""
    settings: dict[str, Any] = {}
    for text in values:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise click.BadParameter(f"{text!r}: expected PATH=VALUE, such as optimizer.learning_rate=0.01.")
        settings[path.strip()] = parse_value(value)
    return settings


def _parse_tags(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{text!r}: expected NAME=VALUE, such as ticket=1234.")
        tags[name.strip()] = value
    return tags


def _leave_out_diff(ctx: click.Context, param: click.Parameter, is_set: bool) -> None:
    if is_set:
        os.environ[DIFF_VARIABLE] = "0"


no_diff_option = click.option(
    "--no-diff",
    is_flag=True,
    expose_value=False,
    callback=_leave_out_diff,
    help=f"Do not keep `git diff HEAD` with the cells; ${DIFF_VARIABLE}=0 does the same.",
)


def _complete_study(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in studies() if name.startswith(incomplete)]


def _complete_change(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    *before, last = incomplete.split(",")
    study = load_study(ctx.params.get("study") or "task3")
    names = [change.name for change in study.changes] + [combination.name for combination in study.combinations]
    return [",".join([*before, name]) for name in names if name.startswith(last)]


def _complete_profile(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in load_study(ctx.params.get("study") or "task3").profiles if name.startswith(incomplete)]


def _complete_design(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from harness.study.designs.registry import DESIGNS

    *before, last = incomplete.split(",")
    return [",".join([*before, name]) for name in DESIGNS if name.startswith(last)]


def complete_variant(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Changes and combinations of the study on the command line."""
    return (
        ["baseline", *_complete_change(ctx, param, "")] if not incomplete else _complete_change(ctx, param, incomplete)
    )


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of studies, and ids of the study runs in the store."""
    folder = Path(ctx.params.get("store") or "mlruns") / "studies"
    names = {path.stem for path in folder.glob("*.json")} | set(studies())
    return sorted(name for name in names if name.startswith(incomplete))


def complete_cell(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Keys of the cells in the store."""
    folder = Path(ctx.params.get("store") or "mlruns") / "cells"
    return sorted(path.name for path in folder.glob(f"{incomplete}*"))


class _FilePath(click.Path):
    """A path that a system could know."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "\0" in str(value):
            self.fail("a path holds no NUL.", param, ctx)
        return super().convert(value, param, ctx)


class _FolderPath(click.Path):
    """A folder that is there or could be made; click lets devices, and paths that no system knows, pass or crash."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            mode = os.stat(value).st_mode
        except FileNotFoundError:
            return super().convert(value, param, ctx)
        except (OSError, ValueError) as error:  # below a file; too long; a NUL
            self.fail(f"{value}: {getattr(error, 'strerror', None) or error}.", param, ctx)
        if not stat.S_ISDIR(mode):
            self.fail(f"{value}: is no folder.", param, ctx)
        return super().convert(value, param, ctx)


store_option = click.option(
    "--store",
    type=_FolderPath(file_okay=False, path_type=Path),
    default=Path("mlruns"),
    show_default=True,
    envvar="HARNESS_STORE",
    help="Folder of cells, tracking database and artifacts.",
)
study_option = click.option(
    "--study", required=True, help="A built-in study, or the path of a YAML file.", shell_complete=_complete_study
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    callback=_parse_settings,
    help="A setting of the baseline, by dotted path; may be given several times.",
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")

_executor_options = [
    click.option(
        "--executor",
        default=EXECUTORS[0],
        show_default=True,
        help="Where cells are trained: processes; here (one after another, for debugging); ray or ray:ADDRESS.",
    ),
    click.option(
        "--gpus-per-cell",
        type=click.FloatRange(0, min_open=True),
        default=1.0,
        show_default=True,
        help="On a Ray cluster with --device cuda: 0.5 trains two cells on each GPU.",
    ),
]
_mde_option = click.option(
    "--mde",
    type=click.FloatRange(0, min_open=True),
    help="With --seeds auto, --race: effect to find, as it is shown.",
)
_design_option = _names_option(
    "--design",
    "designs",
    help="Designs, comma-separated; the study's own by default.",
    shell_complete=_complete_design,
)
_PLAN_OPTIONS = [
    study_option,
    click.option(
        "--profile",
        default="standard",
        show_default=True,
        help="How big: a profile of the study.",
        shell_complete=_complete_profile,
    ),
    click.option("--data", help="Data of a built-in study (cifar10, shapes, ...); the study's own by default."),
    settings_option,
    click.option(
        "--seeds", help="A count (10), a list (0,1,2; `4,` is the one seed 4) or auto; the profile's by default."
    ),
    _mde_option,
    click.option(
        "--horizon",
        type=click.IntRange(2),
        help="Seeds that the study will have in the end, declared once; by default the profile's, or --seeds if more.",
    ),
    _design_option,
    _names_option("--only", help="Only these changes.", shell_complete=_complete_change),
    _names_option("--skip", help="Not these changes.", shell_complete=_complete_change),
    click.option(
        "--vary",
        type=click.Choice(["split"]),
        help="What else to draw from the seed, on both sides: the split off for validation. Other cells, other keys.",
    ),
    click.option("--epochs", type=click.IntRange(1), help="At most so many epochs, instead of the study's."),
    click.option(
        "--weights",
        type=_FilePath(dir_okay=False, path_type=Path),
        help="Pretrained weights: a file with a state dict, instead of the study's own.",
    ),
    device_option,
    click.option("--jobs", type=click.IntRange(1), help="Cells at a time; as many as fit by default."),
    *_executor_options,
    store_option,
    click.option(
        "--tag",
        "tags",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_parse_tags,
        help="A tag of the study run, in MLflow and the report; may be given several times.",
    ),
    click.option("--note", default="", help="A note of the study run, in MLflow and the report."),
    no_diff_option,
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


def worker_options(command: Command) -> Command:
    """As `plan_options`, without where to train, which a worker is itself, and without what depends on results, which
    others make meanwhile."""
    for option in reversed(_PLAN_OPTIONS):
        command = command if option in (*_executor_options, _mde_option) else option(command)
    return command
