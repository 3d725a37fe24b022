"""Training by a script of the user's, in any language: `trainer: {command: [python, train.py, --lr, "{lr}"]}`.

The script gets its settings as typed placeholders and as a JSON file, and tells of its training by appending lines of
JSON to a file; `harness.current_run()` does both for Python. That file is the stream of events: what stands before a
line happened before it, whichever process reads it, and after a crash it is read to its end. Standard output and error
are logs (`harness logs CELL`).

A script does not outlive its worker, however that one dies, and neither does what it has started: a guard ends the
whole group of processes (`guard.py`). Only what begins a session of its own is out of reach.
"""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from harness.errors import OutOfMemoryError, StudyError
from harness.guard import Guard
from harness.names import suggestion
from harness.trainers.run import CHECKPOINT, LINES, OUTPUTS, SETTINGS_UNREAD, SETTINGS_UNSEEN, Run, RunError
from harness.trainers.settings import UserSettings
from harness.trainers.sources import library_versions
from harness.trainers.trainer import SettingsError
from harness.trainers.user import Reads, UserTrainer, leaves, thread_environment

PUT_BACK = 75  # exit code: not done, start me again (EX_TEMPFAIL of sysexits.h)
MOST_PUT_BACKS = 3  # without a step further or a checkpoint in between; then the script makes no progress
SECONDS_OF_GRACE = 30.0  # between SIGTERM and SIGKILL
SECONDS_BETWEEN_SIGNALS = 2.0  # to a script, and to the worker that follows it
POLL_SECONDS = 0.02
OWN_PLACEHOLDERS = ("seed", "device", "folder")
SETTINGS_FILE, RUN_FILE = ".settings.json", ".run.json"
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z0-9_.\-]+)(?:\?([^{}]+))?\}")


class CommandTrainer(UserTrainer):
    """Starts the user's command for each cell, in the study's folder; files of its sources are taken from the snapshot.

    A cell that runs longer than `timeout_seconds` in all, or tells nothing for `silence_seconds`, is ended and failed.
    """

    kind = "command"
    keys = (*UserTrainer.keys, "timeout_seconds", "silence_seconds")

    @classmethod
    def _problems_of_call(cls, call: object) -> list[str]:
        if not isinstance(call, list | tuple) or not call or not all(isinstance(it, str) for it in call):
            return [
                "trainer.command: expected a list of texts, such as [python, train.py, --lr, '{lr}'], not "
                f"{call!r}. A number needs quotes."
            ]
        return []

    def check_sources(self) -> None:
        super().check_sources()
        program = str(self.call[0])
        if _program(program, self.root) is None:
            raise StudyError(
                f"trainer.command: {program} is no program that can be executed: not on $PATH, and no executable file "
                f"of {self.root} (`chmod +x` makes it one)."
            )

    def doubts(self) -> list[str]:
        if any("seed" in placeholders(word) for word in self.call):
            return []
        return [
            "the command names no {seed}, so the seed reaches the script by $HARNESS_SEED alone; where every seed gives"
            " the same numbers, nothing can be claimed (`harness try` tells)."
        ]

    def parse(self, tree: Mapping[str, Any]) -> UserSettings:
        settings = super().parse(tree)
        known = (*OWN_PLACEHOLDERS, *settings.values)
        unknown = [
            f"the command's placeholder {{{name}}} is no setting.{suggestion(name, known)}"
            for word in self.call
            for name in placeholders(word)
            if name not in known
        ]
        unknown += [
            f"the command's placeholder {{{name}?...}} stands for a flag; {name} must be true or false, not "
            f"{settings.values[name]!r}."
            for word in self.call
            for name in _flags(word)
            if name in settings.values and not isinstance(settings.values[name], bool)
        ]
        if unknown:
            raise SettingsError(*unknown)
        return settings

    def _modules(self) -> list[str]:
        words = list(self.call)
        module = words[words.index("-m") + 1] if "-m" in words[:-1] and _is_python(words[0]) else ""
        place = module.replace(".", "/") if module else "-"
        is_own = self.code.is_file(f"{place}.py") or self.code.glob(f"{place}/*.py")
        return [module] if is_own else []  # else it is installed

    def _files(self) -> list[str]:
        return [word for word in self.call if not placeholders(word) and _is_inside(word) and self.code.is_file(word)]

    def _named(self) -> list[str]:
        return [word for word in self.call if not placeholders(word) and _is_file_of(self.root, word)]

    def before_attempt(self, folder: Path) -> None:
        """Finds the checkpoint that the script had told of when it or its reader died."""
        lines = folder / LINES
        named = [it["checkpoint"] for it in _whole_lines(lines) if isinstance(it.get("checkpoint"), str)]
        if named and (folder / named[-1]).exists():
            _point_to(folder, named[-1])
        elif not (folder / CHECKPOINT).exists():
            for path in (lines, folder / ".reads"):
                path.unlink(missing_ok=True)

    def train(self, run: Run) -> None:
        """Starts the command, again where it asks for it, and passes on what it tells.

        Raises:
            RunError: it ended without a result, told something that cannot be recorded, or ran out of time.
            OutOfMemoryError: it was killed by SIGKILL, twice.
        """
        script = _Script(self, run)
        idle = num_kills = 0
        while True:
            before = script.progress
            code = script.attempt()
            if run.final is not None or self._is_left(run, code):
                break
            if code == -signal.SIGKILL and not num_kills:
                num_kills += 1  # by whom cannot be known: once more before it is an outcome, as with a worker
                continue
            if code != PUT_BACK:
                raise _failure(code, run.folder)
            idle = 0 if script.progress > before else idle + 1
            if idle == MOST_PUT_BACKS:
                raise RunError(
                    f"the command asked {idle} times to be started again (exit code {PUT_BACK}), and got no further: "
                    "no new step, no checkpoint."
                )
        if run.sources is not None and _program(str(self.call[0]), self.root) == sys.executable:
            run.note(versions=library_versions(run.sources))
        if run.final is not None:
            script.note_unread()

    def _is_left(self, run: Run, code: int) -> bool:
        """Whether training is to stop. A scheduler tells every process of a job, and the script may have heard it
        first."""
        deadline = time.monotonic() + (SECONDS_BETWEEN_SIGNALS if code == -signal.SIGTERM else 0.0)
        while not run.should_stop and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return run.should_stop

    def words(self, run: Run, values: Mapping[str, Any]) -> list[str]:
        """The command as it is started: placeholders filled in, files of the sources taken from the snapshot."""
        code = self.code_folder(run)
        known = {**values, "seed": run.seed, "device": run.device, "folder": str(run.folder)}
        words = []
        for index, word in enumerate(self.call):
            if index == 0:
                words.append(str(_program(word, code if _is_file_of(code, word) else self.root) or word))
            elif not placeholders(word) and _is_file_of(code, word):
                words.append(str(code / word))
            elif (filled := _filled(word, known)) or not _flags(word):
                words.append(filled)  # a word that is a flag alone, and off, is none
        return words


class _Script:
    """One cell's script: how it is started, what it has told."""

    def __init__(self, trainer: CommandTrainer, run: Run) -> None:
        self._trainer, self._run = trainer, run
        self._values: Mapping[str, Any] = run.settings.values
        self._reads = Reads(run.folder, leaves(run.settings))
        self._lines = run.folder / LINES
        self._offset = 0  # in bytes, of what was read
        self._noted_reads = False
        self._num_checkpoints = 0
        self._sees_access = _write_settings(run, self._values)

    @property
    def progress(self) -> tuple[int, int]:
        """Grows with each step further, and each checkpoint; not with steps that are told once more."""
        return self._run.num_steps, self._num_checkpoints

    def attempt(self) -> int:
        """Starts the command and follows it to its end. Returns its exit code; negative for a signal."""
        self._read_what_is_left()
        self._run.goes_on()
        run, folder, guard = self._run, self._run.folder, _guard()
        with (folder / OUTPUTS[0]).open("ab") as out, (folder / OUTPUTS[1]).open("ab") as err:
            process = subprocess.Popen(
                self._trainer.words(run, self._values),
                cwd=self._trainer.root if self._trainer.root.is_dir() else folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=partial(_die_with_parent, _prctl(), os.getpid()) if sys.platform == "linux" else None,
            )
            with _ended(process, guard):
                self._follow(process)
        self._read_new(is_last=process.returncode == 0)
        return process.returncode

    def note_unread(self) -> None:
        """Notes which settings the script has not read; or, where it did not say, cannot have seen."""
        for word in self._trainer.call:
            for name in placeholders(word):
                self._reads.note(name)
        if self._noted_reads:
            self._run.note(**{SETTINGS_UNREAD: ", ".join(self._reads.unread)})
        elif self._sees_access and not _was_opened(self._run.folder / SETTINGS_FILE):
            self._run.note(**{SETTINGS_UNSEEN: ", ".join(self._reads.unread)})

    def _follow(self, process: "subprocess.Popen[bytes]") -> None:
        limits, heard_at, pause = self._trainer.limits, time.monotonic(), POLL_SECONDS
        while process.poll() is None:
            if self._read_new():
                heard_at, pause = time.monotonic(), POLL_SECONDS
            if self._run.should_stop:
                return
            self._see_memory(process.pid)
            silent = time.monotonic() - heard_at
            if silent > limits.get("silence_seconds", silent):
                raise RunError(f"the command told nothing for {limits['silence_seconds']:g} s (silence_seconds).")
            if self._run.seconds > limits.get("timeout_seconds", self._run.seconds):
                raise RunError(f"the command did not end within {limits['timeout_seconds']:g} s (timeout_seconds).")
            time.sleep(pause)
            pause = min(0.2, pause * 1.1)

    def _see_memory(self, pid: int) -> None:
        """Notes the peak of the script's own memory so far, where Linux tells."""
        with suppress(OSError, StopIteration, ValueError):
            status = Path(f"/proc/{pid}/status").read_text()
            peak = 1024 * int(next(it.split()[1] for it in status.splitlines() if it.startswith("VmHWM:")))
            self._run.note(peak_memory_bytes=max(peak, int(self._run.facts.get("peak_memory_bytes", 0))))

    def _environment(self) -> dict[str, str]:
        run, code = self._run, self._trainer.code_folder(self._run)
        script = next((Path(it).parent for it in self._trainer.call[1:] if _is_file_of(code, it)), Path())
        paths = [str(code), str(code / script), os.environ.get("PYTHONPATH", "")]
        own = {
            "HARNESS_SETTINGS": str(run.folder / SETTINGS_FILE),
            "HARNESS_RUN": str(run.folder / RUN_FILE),
            "HARNESS_SEED": str(run.seed),
            "HARNESS_FOLDER": str(run.folder),
            "HARNESS_DEVICE": run.device,
            "HARNESS_METRICS": str(self._lines),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths))),
            "PYTHONUNBUFFERED": "1",
        }
        # With -m Python looks in the current folder first, where the sources may have been edited meanwhile.
        threads = thread_environment(self._trainer.num_threads)
        return threads | os.environ | own | ({"PYTHONSAFEPATH": "1"} if "-m" in self._trainer.call else {})

    def _read_what_is_left(self) -> None:
        """Passes on what an earlier attempt told and its reader did not live to see; ends half a line."""
        content = self._lines.read_bytes() if self._lines.is_file() else b""
        if content and not content.endswith(b"\n"):
            with self._lines.open("ab") as file:
                file.write(b"\n")
        if not self._offset:
            for line in _whole_lines(self._lines):
                if isinstance(line.get("step"), int) and line["step"] > self._run.last_step_before:
                    self._run.recover(line["step"], line.get("epoch"), _metrics_of(line))
                elif "read" in line:
                    self._noted_reads = True
        self._offset = self._lines.stat().st_size if self._lines.is_file() else 0

    def _read_new(self, *, is_last: bool = False) -> int:
        """Passes on every whole new line; how many there were. Of a command that has ended well, the last line is."""
        try:
            with self._lines.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return 0
        whole = new if is_last else new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = [line for line in whole.splitlines() if line.strip()]
        for line in lines:
            self._pass_on(line)
        return len(lines)

    def _pass_on(self, text: bytes) -> None:
        run, shown = self._run, text.decode(errors="replace")[:200]
        try:
            line = json.loads(text)
        except ValueError:
            raise RunError(f"{LINES}: a line is no JSON: {shown}") from None
        if not isinstance(line, dict):
            raise RunError(f'{LINES}: expected an object a line, such as {{"step": 3, ...}}, not {shown}')
        if "checkpoint" in line:
            self._num_checkpoints += 1
            self._keep(line["checkpoint"])
        elif line.get("final") is True:
            run.finish(**_metrics_of(line))
        elif "step" in line:
            run.log(line["step"], epoch=line.get("epoch"), **_metrics_of(line))
        elif isinstance(line.get("note"), dict):
            run.note(**line["note"])
        elif "read" in line:
            self._noted_reads = True
            self._reads.note(str(line["read"]))
            self._reads.write()
        elif "restarted" in line:
            run.restarted(str(line["restarted"]))
        else:
            raise RunError(f"{LINES}: expected a key step, checkpoint, final or note in each line, not {shown}")

    def _keep(self, name: object) -> None:
        folder = self._run.folder
        if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunError(f"{LINES}: checkpoint {name!r}: expected the name of a file in $HARNESS_FOLDER.")
        if not (folder / name).exists():
            raise RunError(f"{LINES}: checkpoint {name!r} is not in $HARNESS_FOLDER; tell of it after its rename.")
        _point_to(folder, name)
        self._run.kept()


def placeholders(word: str) -> list[str]:
    """The settings that a word of the command names; `{{` and `}}` are braces.

    >>> placeholders("--size={model.hidden}x{depth}"), placeholders("{{}}")
    (['model.hidden', 'depth'], [])
    """
    return [found.group(1) for found in _PLACEHOLDER.finditer(word) if found.group(1)]


def _flags(word: str) -> list[str]:
    """The settings that a word names as flags: `{nesterov?--nesterov}` is `--nesterov` where the setting is true."""
    return [found.group(1) for found in _PLACEHOLDER.finditer(word) if found.group(2)]


def _filled(word: str, values: Mapping[str, Any]) -> str:
    def fill(found: "re.Match[str]") -> str:
        name, flag = found.groups()
        if flag:
            return flag if values[name] is True else ""
        return found.group(0)[0] if name is None else _as_word(values[name])

    return _PLACEHOLDER.sub(fill, word)


def _as_word(value: Any) -> str:
    """A text as it is, everything else as JSON: `true`, `0.1`, `[1, 2]`, `null`."""
    return value if isinstance(value, str) else json.dumps(value)


def _metrics_of(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("step", "epoch", "final", "time")}


def _whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    """What stands in the file already; what cannot be read was refused when it was told."""
    for text in file.read_bytes().splitlines() if file.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def _point_to(folder: Path, name: str) -> None:
    """Makes a file of the script's, which keeps its name, the cell's checkpoint."""
    link = folder / CHECKPOINT
    if name == CHECKPOINT or (link.is_symlink() and os.readlink(link) == name):
        return
    temporary = folder / f".{CHECKPOINT}.link"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name)
    temporary.replace(link)


def _write_settings(run: Run, values: Mapping[str, Any]) -> bool:
    """Writes what the script may read; whether the file's time of access will tell that it was read."""
    told = {"key": run.key, "metrics": run.metrics.to_json(), "fingerprints": run.fingerprints}
    (run.folder / RUN_FILE).write_text(json.dumps(told))
    file = run.folder / SETTINGS_FILE
    text = json.dumps(run.settings.tree(), indent=1)
    was_opened = file.is_file() and _was_opened(file)  # before it is read here
    if was_opened and file.read_text() == text:
        return True
    file.write_text(text)
    os.utime(file, (0, file.stat().st_mtime))
    file.read_bytes()
    sees_access = _was_opened(file)  # not on a disk that is mounted without times of access
    os.utime(file, (0, file.stat().st_mtime))
    return sees_access


def _was_opened(file: Path) -> bool:
    return file.stat().st_atime > 0


def _is_file_of(folder: Path, word: str) -> bool:
    return _is_inside(word) and (folder / word).is_file()


def _is_inside(word: str) -> bool:
    path = Path(word)
    return bool(word) and not path.is_absolute() and ".." not in path.parts


def _is_python(word: str) -> bool:
    return Path(word).name.startswith("python")


def _program(word: str, folder: Path) -> str | None:
    """What to execute: `python` is the one that runs the harness; a file of the folder, or a program on $PATH."""
    if word in ("python", "python3"):
        return sys.executable
    if _is_file_of(folder, word):
        return str(folder / word) if os.access(folder / word, os.X_OK) else None
    return shutil.which(word)


@contextmanager
def _ended(process: "subprocess.Popen[bytes]", guard: Guard) -> Iterator[None]:
    """However the block is left, the process and its children have ended afterwards: asked first, then killed; by the
    guard, where this process does not live to do it."""
    try:
        guard.watch(process.pid)
        yield
    finally:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_OF_GRACE)
        _signal(process, signal.SIGKILL)  # children that it left
        process.wait()
        guard.forget(process.pid)


_guards: dict[int, Guard] = {}  # by the process that started it: a fork of that one has the object, and no guard


def _guard() -> Guard:
    """The guard of this process, started with its first script. It kills at once, for the next attempt may begin."""
    guard = _guards.get(os.getpid())
    if guard is None or not guard.is_alive:
        guard = _guards[os.getpid()] = Guard(seconds=0)
        atexit.register(_leave_guard)
    return guard


def _leave_guard() -> None:
    if guard := _guards.pop(os.getpid(), None):
        guard.leave()


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@cache
def _prctl() -> Callable[[int, int], int]:
    """Of Linux. Looked up before the fork: after it, a lock that another thread held stays held."""
    import ctypes

    found: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    return found


def _die_with_parent(prctl: Callable[[int, int], int], worker: int) -> None:
    """In the new process: it is killed when the worker that started it dies, whatever that one dies of."""
    pr_set_pdeathsig = 1
    prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != worker:  # it has died already, and nothing will be sent
        os._exit(1)


def _failure(code: int, folder: Path) -> Exception:
    if code == 0:
        return RunError(
            'the command ended well, but told no result: its last line must be {"final": true, ...} with the metric '
            "that the study reports, in the file that $HARNESS_METRICS names (or harness.current_run().finish(...))."
        )
    if code == -signal.SIGKILL:
        return OutOfMemoryError("the command was killed by SIGKILL; the machine may be out of memory")
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    said = (folder / OUTPUTS[1]).read_text(errors="replace").strip().splitlines()[-5:]
    return RunError(f"the command {how}" + (": " + "\n".join(said) if said else "; it wrote nothing to standard error"))
