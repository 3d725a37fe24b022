"""The run that is being trained: of this process for a function, from the environment for a script.

A script that a command trainer started gets the same handle as a function: `harness.current_run()`. What it logs goes
as lines of JSON to the file that $HARNESS_METRICS names, in the order in which it happens; that file is the whole
protocol, and a script in another language writes it by itself (`docs/training.md`).
"""

import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files.atomic import replace_synced
from harness.metrics import Metrics
from harness.trainers.run import CHECKPOINT, SAVING, Event, Run
from harness.trainers.settings import ReadableSettings

METRICS = "HARNESS_METRICS"
_running: ContextVar[Run | None] = ContextVar("running", default=None)


def current_run() -> Run:
    """The run that this code trains.

    Raises:
        HarnessError: nothing is being trained here.
    """
    run = _running.get()
    if run is not None:
        return run
    if METRICS not in os.environ:
        raise HarnessError(
            "harness.current_run(): nothing is being trained here: no function trainer has called this code, and the "
            "environment has no HARNESS_METRICS, which a command trainer sets. Start it by `harness ablate` or "
            "`harness try`."
        )
    return _script_run(os.environ[METRICS])


@contextmanager
def running(run: Run) -> Iterator[None]:
    """`current_run()` gives this run while the block lasts."""
    token = _running.set(run)
    try:
        yield
    finally:
        _running.reset(token)


@cache
def _script_run(metrics_file: str) -> "ScriptRun":
    return ScriptRun(Path(metrics_file), os.environ)


class ScriptRun(Run):
    """The run as a script sees it; each event is a line in the file of metrics."""

    def __init__(self, file: Path, environment: Mapping[str, str]) -> None:
        told = json.loads(Path(environment["HARNESS_RUN"]).read_text())
        settings = json.loads(Path(environment["HARNESS_SETTINGS"]).read_text())
        self._file = file
        self._reads: set[str] = set()
        self._stop, self._listens = threading.Event(), False
        super().__init__(
            key=told["key"],
            settings=ReadableSettings(settings, self._note_read),
            seed=int(environment["HARNESS_SEED"]),
            metrics=Metrics.from_json(told["metrics"]),
            device=environment["HARNESS_DEVICE"],
            folder=Path(environment["HARNESS_FOLDER"]),
            emit=self._tell,
            fingerprints=told["fingerprints"],
            should_stop=self._is_asked_to_stop,
        )

    def _is_asked_to_stop(self) -> bool:
        """From the first question on, SIGTERM is an answer; a script that never asks is ended by it at once."""
        if not self._listens and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: self._stop.set())
            self._listens = True
        return self._stop.is_set()

    def note(self, **facts: str | int | float | bool) -> None:
        super().note(**facts)
        self._write({"note": facts})

    def finish(self, *, examples: Mapping[str, Iterable[Any]] = {}, **metrics: float) -> None:
        super().finish(examples=examples, **metrics)
        assert self.final is not None
        self._write({"final": True, **self.final})

    def _tell(self, event: Event) -> None:
        if event["event"] == "validation":
            epoch = {"epoch": event["epoch"]} if "epoch" in event else {}
            self._write({"step": event["step"], **epoch, **event["metrics"]})
        elif event["event"] == "saved":
            replace_synced(self.folder / SAVING, self.folder / CHECKPOINT)
            self._write({"checkpoint": CHECKPOINT})
        elif event["event"] == "restarted":
            self._write({"restarted": event["reason"]})

    def _note_read(self, path: str) -> None:
        if path not in self._reads:
            self._reads.add(path)
            self._write({"read": path})

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")
