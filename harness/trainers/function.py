"""Training by a function of the user's: `trainer: {function: "module:train"}`, called with a `Run`, in a worker."""

import contextlib
import inspect
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import StudyError
from harness.trainers.current import running
from harness.trainers.importing import import_target, importing
from harness.trainers.run import OUTPUTS, SETTINGS_UNREAD, Run
from harness.trainers.settings import ModelSchema, ReadableSettings
from harness.trainers.sources import library_versions
from harness.trainers.trainer import Settings
from harness.trainers.user import (
    Reads,
    UserTrainer,
    leaves,
    settings_model,
    thread_environment,
)

SECONDS_TO_IMPORT = 300.0


class FunctionTrainer(UserTrainer):
    """Calls the user's function with a `harness.Run`. The function is imported from the snapshot of its sources; the
    current folder is the study's own while it runs, so that paths to data mean what they mean by hand."""

    kind = "function"

    @classmethod
    def _problems_of_call(cls, call: object) -> list[str]:
        parts = call.split(":") if isinstance(call, str) else []
        if len(parts) == 2 and all(it.isidentifier() for it in parts[0].split(".")) and parts[1].isidentifier():
            return []
        return [f"trainer.function: expected 'module:function', such as 'digits:train', not {call!r}."]

    def _modules(self) -> list[str]:
        assert isinstance(self.call, str)
        return [self.call.partition(":")[0]]

    def prepare(self, settings: Iterable[Settings], *, store: Path) -> None:
        """Keeps the snapshot that cells run from, and imports the function once, in a process of its own.

        Edited code is not imported here: where it cannot be, its cells say so."""
        super().prepare(settings, store=store)
        if self.is_edited:
            return
        assert isinstance(self.call, str)
        folder = store / "sources" / self._fingerprint if self.sources else self.root
        problem = _import_problem(self.call, str(folder.absolute()), str(self.root), tuple(self.code_names(folder)))
        if problem:
            raise StudyError(f"trainer.function: {problem}")

    def train(self, run: Run) -> None:
        """Calls the function; what it never read of the settings is noted as a fact. Importing it is not counted."""
        assert isinstance(self.call, str)
        folder, planned = self.code_folder(run), run.settings
        for name, number in thread_environment(self.num_threads).items():
            os.environ.setdefault(name, number)  # read by libraries when they are imported, which is below
        reads = Reads(run.folder, leaves(planned))
        run.with_checkpoint = reads.write  # an attempt that begins anew reads everything anew
        home = contextlib.chdir(self.root) if self.root.is_dir() else contextlib.nullcontext()
        with importing(folder, self.code_names(folder)), home, running(run), _kept_output(run.folder):
            started_at = time.perf_counter()
            function = import_target(self.call)
            run.leave_out(time.perf_counter() - started_at)
            if self.model:
                run.settings = ModelSchema(settings_model(self.model)).readable(planned.values, reads.note)
            else:
                run.settings = ReadableSettings(planned.tree(), reads.note)
            function(run)
        run.note(versions=library_versions(folder) if run.sources else f"python {platform.python_version()}")
        if run.final is not None:
            run.note(**{SETTINGS_UNREAD: ", ".join(reads.unread)})


@contextlib.contextmanager
def _kept_output(folder: Path) -> Iterator[None]:
    """In a worker, what training writes goes to files of its cell, as a script's does: its own lines, and those of
    libraries and subprocesses. In the process of the command (`here`) it stays on the terminal."""
    if multiprocessing.parent_process() is None:
        yield
        return
    ours = sys.stdout, sys.stderr
    both = ((1, sys.stdout, OUTPUTS[0]), (2, sys.stderr, OUTPUTS[1]))
    streams = [it for it in both if it[1] is not None]  # closed: its number may be another file's by now
    kept = [os.dup(number) for number, _, _ in streams]
    try:
        for number, stream, name in streams:
            stream.flush()
            with (folder / name).open("ab") as file:
                os.dup2(file.fileno(), number)
        yield
    finally:
        sys.stdout, sys.stderr = ours  # training may have put others in their place, and closed those
        for (number, stream, name), before in zip(streams, kept, strict=True):
            with contextlib.suppress(ValueError):  # closed by training
                stream.flush()
            os.dup2(before, number)
            os.close(before)
            if (folder / name).stat().st_size == 0:
                (folder / name).unlink()


def signature_problem(target: str, function: Callable[..., Any]) -> str:
    """Why this cannot be called with a run as its only argument; empty where it can, or cannot be told."""
    if not callable(function):
        return f"{target} is no function, but {function!r}."
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        name = target.partition(":")[2]
        signature = inspect.signature(function)
        return f"{target}: must take one argument, the run: def {name}(run), not {name}{signature} ({error})."
    except ValueError:
        return ""
    return ""


_imported: set[tuple[str, str]] = set()  # functions that were found good in this process


def _import_problem(target: str, folder: str, home: str, names: tuple[str, ...]) -> str:
    """Imports the function in a process of its own; why it cannot be, or cannot be called. Each is asked once."""
    if (target, folder) in _imported:
        return ""
    arguments = [sys.executable, "-P", "-m", "harness.trainers.function", target, folder, json.dumps(names)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))}
    try:
        done = subprocess.run(
            arguments,
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_IMPORT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"{target}: importing its module takes longer than {SECONDS_TO_IMPORT:g} s; move work into the function."
    answer = done.stdout.splitlines()[-1] if done.stdout.strip() else ""
    if done.returncode or not answer.startswith("harness:"):
        tail = "\n".join(done.stderr.splitlines()[-3:])
        return f"{target}: importing its module ends Python with exit code {done.returncode}: {tail}"
    problem = answer.removeprefix("harness:")
    if not problem and not target.startswith("__"):
        _imported.add((target, folder))
    return str(json.loads(problem)) if problem else ""


def _main(target: str, folder: str, names: str) -> None:
    with importing(Path(folder), json.loads(names)):
        try:
            problem = signature_problem(target, import_target(target))
        except StudyError as error:
            problem = str(error)
    sys.stdout.write(f"\nharness:{json.dumps(problem) if problem else ''}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
