"""The command line: click and rich, a file a command; the only place that prints.

Importing this package imports no command: each is loaded when it is called, so that `harness --help` answers at once.
"""

import contextlib
import importlib
import io
import os
import shutil
import sys
from typing import TextIO

import click

from harness.cli.loading import loading
from harness.cli.sentences import wrapped
from harness.errors import HarnessError
from harness.texts import message_lines
from harness.urls import masked

# Command -> (module:attribute, one line for --help). The lines stand here so that --help loads no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "ablate": ("harness.cli.ablate:ablate", "Train what a study needs and print the table of effects."),
    "search": ("harness.cli.search:search", "Try combinations of changes: which one is the biggest improvement?"),
    "tune": (
        "harness.cli.tune:tune",
        "Compare the variants at their best: the same trials of nuisance settings for each.",
    ),
    "worker": ("harness.cli.worker:worker", "Train cells of a study beside other workers, until nothing is left."),
    "confirm": ("harness.cli.confirm:confirm", "Train the winner again on fresh seeds, and say whether it holds."),
    "aa": ("harness.cli.aa:aa", "Compare the baseline with itself: the noise floor of your pipeline."),
    "plan": ("harness.cli.plan:plan", "Say what a study would train: variants, cells, time, disk."),
    "study": ("harness.cli.study:study", "Write a study of a range of commits: which of them helped?"),
    "prune": (
        "harness.cli.prune:prune",
        "Drop the commits that do nothing: the fewest that are no worse, as a branch.",
    ),
    "judge": (
        "harness.cli.judge:judge",
        "Is this candidate better than the champion? Seeds in pairs until it is decided.",
    ),
    "lineage": (
        "harness.cli.lineage:lineage",
        "Print a line of champions, or a loop's log: proven, unproven, refuted.",
    ),
    "mcp": ("harness.cli.mcp:mcp", "Serve plan, judge, results, logs and prune to a program (MCP)."),
    "new": ("harness.cli.new:new", "Write a study and its training to begin from: two files that run as they are."),
    "studies": ("harness.cli.studies:studies", "List the built-in studies."),
    "changes": ("harness.cli.studies:changes", "List the changes of the built-in studies."),
    "show": ("harness.cli.studies:show", "Print a study as one YAML file: extended, written out, with all settings."),
    "validate": ("harness.cli.studies:validate", "Check a study file; everything wrong at once."),
    "results": ("harness.cli.results:results", "Print every cell of a study, a row each."),
    "logs": ("harness.cli.logs:logs", "Print what a cell said while it trained, and why it failed."),
    "try": ("harness.cli.trying:try_", "Try a study's training on one short cell: resume, seeds, what it never reads."),
    "compare": ("harness.cli.compare:compare", "Say which effects differ between two study runs."),
    "gate": ("harness.cli.gate:gate", "For CI: did this code get worse than that of another commit?"),
    "export": ("harness.cli.export:export", "Write the tables as csv, parquet, markdown, latex, html or json."),
    "report": ("harness.cli.report:report", "Write one HTML page with tables and figures, and the files beside it."),
    "claims": (
        "harness.cli.claims:claims",
        "Recompute claims of a study or of the report: confirmed, not reproduced.",
    ),
    "summary": ("harness.cli.summary:summary", "Print a model's layers: shapes, parameters, multiply-accumulates."),
    "visualize": ("harness.cli.visualize:visualize", "Draw first-layer filters or a layer's activations as a PNG."),
    "conv": ("harness.cli.conv:conv", "Arithmetic of convolutions: results, sizes, padding, receptive fields."),
    "ui": ("harness.cli.ui:ui", "Watch studies in the browser, beside MLflow and the Optuna dashboard."),
    "init": ("harness.cli.init:init", "Make the databases of MLflow and Optuna ready, before services use them."),
    "sync": ("harness.cli.sync:sync", "Deliver to MLflow what could not be delivered before."),
    "pack": ("harness.cli.pack:pack", "Write a study's results into one file, to be kept or sent."),
    "merge": ("harness.cli.merge:merge", "Bring a pack's or another store's results into this store."),
    "gc": ("harness.cli.gc:gc", "Say what the store could free, then free it."),
    "delete": ("harness.cli.gc:delete", "Delete a study from the store, from MLflow and from Optuna."),
    "check": ("harness.cli.check:check", "Look at the whole store: what is wrong, and what mends it."),
    "doctor": ("harness.cli.doctor:doctor", "Say what this machine has: device, precision, versions, data, disk."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called; turns what a user can fix into a message and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from harness.names import suggestion

            ctx.fail(f"no such command {args[0]!r}.{suggestion(args[0], COMMANDS)} `harness --help` lists all.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            with loading():
                return super().invoke(ctx)
        except HarnessError as error:
            raise Problem("\n".join(map(masked, str(error).splitlines()))) from None
        except click.ClickException as error:
            raise _bounded(error) from None
        except BrokenPipeError as error:
            if not _is_of_output():  # a process that we talk to has died, which must not pass for a success
                raise RuntimeError("a process of ours has ended unexpectedly") from error
            # The reader has gone: `harness results | head`; click would exit with 1.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


def _bounded(error: click.ClickException) -> click.ClickException:
    """click's own errors quote what was typed, however long."""
    lines = "\n".join(message_lines(error.message))
    if lines == error.message or isinstance(error, Problem):
        return error
    return click.UsageError(lines, getattr(error, "ctx", None))


class Problem(click.ClickException):
    """What the user can fix: printed without a traceback; exit code 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        width = max(shutil.get_terminal_size().columns - len("error: "), 20) if sys.stderr.isatty() else 10**6
        for line in message_lines(self.message):
            for place, part in enumerate(wrapped(line, width)):
                click.secho("       " if place else "error: ", fg="red", bold=True, nl=False, err=True)
                click.echo(part, err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="harness")
def cli() -> None:
    """Which of my changes helped? Ablation studies with paired seeds, intervals and a corrected test.

    \b
    harness ablate --study task3 --profile quick    a first table, on embedded images
    harness plan --study task3                      what the full study would take
    """


def main() -> None:
    """The console script. Exit codes: 0 done; 1 some cells failed; 2 the request was wrong; 130 interrupted."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    _make_printable()
    try:
        _refuse_windows()
        code = cli.main(prog_name="harness", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        with contextlib.suppress(OSError):  # nowhere to say it; the exit code does
            error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except OSError as error:
        if not _is_of_output():
            raise
        code = 130 if was_interrupted(error) else _say_lost_output(error)
    for stream in (sys.stdout, sys.stderr):
        _drop_what_is_unwritten(stream)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse_windows() -> None:
    if sys.platform == "win32":
        raise Problem(
            "harness does not run on Windows itself: what keeps two processes from one cell is flock, which is freed "
            "when its process dies, and which Windows lacks. Use WSL 2 (`wsl --install`), with the store on its disk."
        )


def _make_printable() -> None:
    """A terminal that lacks a character shows another one: no table is lost after hours of training. What was closed
    (`>&-`) is written nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", errors="replace"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _is_of_output() -> bool:
    """Whether standard output cannot be written: an empty line more cannot, either."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
    except OSError:
        return True
    return False


def was_interrupted(error: BaseException | None) -> bool:
    """Whether a stop is behind an error: the terminal was closed while it was being said, or a library in whose code it
    came passed it on as an error of its own (a compiled one sets the cause and leaves the context empty)."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _say_lost_output(error: OSError) -> int:
    """Of standard output that is full, or of a terminal that has gone. Gives the exit code."""
    problem = Problem(
        f"standard output cannot be written ({error.strerror}). What was trained is saved; run the same command with "
        "its output elsewhere, or `harness results --list` for what there is."
    )
    with contextlib.suppress(OSError):
        problem.show()
    return problem.exit_code


def _drop_what_is_unwritten(stream: TextIO) -> None:
    """Else the interpreter tries once more as it ends, and makes another exit code of it."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
