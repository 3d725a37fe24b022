"""The handle that a trainer gets: settings, seed, device and folder in; metrics, checkpoints and facts out.

Whatever trains a cell, here or on another machine, does so through this object, and whatever happens leaves it as an
event: a plain mapping that is durable once `emit` returns. What becomes of events is the executor's matter.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files.atomic import remove, write_atomically
from harness.files.bits import EXAMPLES_FILE, packed
from harness.metrics import Metrics

Event = dict[str, Any]
CHECKPOINT = "checkpoint"  # a file or a folder, whatever the trainer saves
LINES = "metrics.jsonl"  # what a script tells; whatever else it writes rests on it
SAVING = ".saving.checkpoint"  # torch.save takes no name that has nothing before its last dot
OUTPUTS = ("stdout.log", "stderr.log")  # what training writes to its standard streams, in the cell's folder
EXAMPLES_AGREE = 1e-5  # a metric may have been summed in single precision
# Facts about settings, joined by ", ": those that training never read, and those that a script may never have seen.
SETTINGS_UNREAD, SETTINGS_UNSEEN = "settings_unread", "settings_unseen"


class RunError(HarnessError):
    """Training used its handle in a way that cannot be recorded; the message says which call, and what to do."""


class Run:
    """One cell's training, seen from inside.

    Attributes:
        settings: of the cell; frozen.
        seed: of the cell. Whatever is drawn at random must come from it, or from `seed_for`.
        device: `cpu`, `cuda` or `cuda:N`.
        folder: the cell's own, kept between attempts.
        key: the cell's identity.
        fingerprints: what the settings name but do not hold, by role.
        sources: folder of the snapshot of the user's sources, or None.
        last_step_before: the last step that earlier attempts logged, or -1.
    """

    def __init__(
        self,
        *,
        key: str,
        settings: Any,
        seed: int,
        metrics: Metrics,
        device: str,
        folder: Path,
        emit: Callable[[Event], None],
        fingerprints: Mapping[str, str] = {},
        seconds_before: float = 0.0,
        last_step_before: int = -1,
        should_stop: Callable[[], bool] = lambda: False,
        sources: Path | None = None,
    ) -> None:
        self.key, self.settings, self.seed, self.device, self.folder = key, settings, seed, device, folder
        self.metrics, self.fingerprints, self.sources = metrics, dict(fingerprints), sources
        self._emit, self._should_stop, self.last_step_before = emit, should_stop, last_step_before
        self.asks_to_stop = False  # whether training has ever looked at `should_stop`
        self._started_at = time.perf_counter() - seconds_before
        self._last_step: int | None = None  # of this attempt
        self.num_steps = max(0, last_step_before)  # a resumed attempt may have nothing left to log
        self.facts: dict[str, Any] = {}
        self.final: dict[str, float] | None = None  # what `finish` got
        self.with_checkpoint: Callable[[], None] = lambda: None  # called before each is kept: writes what goes with it

    @property
    def seconds(self) -> float:
        """Training time so far, that of earlier, interrupted attempts up to their last checkpoint included."""
        return time.perf_counter() - self._started_at

    def leave_out(self, seconds: float) -> None:
        """Say that so much of the time was no training: only a worker's first cell imports its libraries."""
        self._started_at += seconds

    @property
    def should_stop(self) -> bool:
        """Whether training was asked to end (Ctrl-C, pruned, out of time): save if you like, and return."""
        self.asks_to_stop = True
        return self._should_stop()

    def seed_for(self, *purpose: str | int) -> int:
        """A seed for one purpose, such as `seed_for("order", epoch)`: streams that do not disturb each other.

        Returns:
            A number in [0, 2^63), a function of the cell's seed and the purpose alone.
        """
        text = "\x1f".join(map(str, (self.seed, *purpose)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1

    def log(self, step: int, /, epoch: float | None = None, **metrics: float) -> None:
        """Record metrics at a step; journalled when this returns. Names have a slash: `**{"val/loss": 0.3}`.

        Args:
            step: whole and growing within an attempt; a resumed attempt may repeat the step at which the last one died.
            epoch: the same in epochs, for figures.

        Raises:
            RunError: an undeclared metric, a value that is no number, or a step that goes backwards.
        """
        values = self._checked("log", metrics)
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise RunError(f"run.log: step must be a whole number from 0, not {step!r}.")
        if self._last_step is not None and step <= self._last_step:
            raise RunError(f"run.log: step {step} after step {self._last_step}; steps must grow.")
        if not values:
            raise RunError(
                f"run.log({step}): no metric was given; this study declares {', '.join(self.metrics.names)}."
            )
        step = int(step)  # of a kind of the user's own, perhaps, which no other process knows
        self._last_step = step
        self.num_steps = max(self.num_steps, step)
        event: Event = {"event": "validation", "step": step, "metrics": values, "seconds": self.seconds}
        self._emit(event | ({"epoch": float(epoch)} if epoch is not None else {}))

    def recover(self, step: int, epoch: float | None, metrics: Mapping[str, Any]) -> None:
        """Record what an earlier attempt logged at a step, and nobody had read when it died."""
        event: Event = {"event": "validation", "step": step, "metrics": self._checked("log", metrics)}
        self._emit(event | {"seconds": self.seconds} | ({"epoch": float(epoch)} if epoch is not None else {}))

    def goes_on(self) -> None:
        """Say that training is started again from its checkpoint: steps that were logged after it may come again, and
        then count instead."""
        self._last_step = None

    def at(self, step: int) -> None:
        """Say how far training is where nothing is logged."""
        self.num_steps = step

    def note(self, **facts: str | int | float | bool) -> None:
        """Facts about this cell that are no metrics, such as `parameters=97_000`; a column each in the results.

        Raises:
            RunError: a value that is no text, number or truth value of Python's own.
        """
        for name, fact in facts.items():
            if not isinstance(fact, str | int | float):
                raise RunError(f"run.note: {name} must be a text, a number or a truth value, not {fact!r}; convert it.")
        self.facts |= {name: _plain(fact) for name, fact in facts.items()}

    @contextmanager
    def saving(self) -> Iterator[Path]:
        """A path to write a checkpoint to, a file or a folder; it replaces the last one as a whole when the block ends.

        Log first, then save: what the checkpoint contains is then journalled already.
        """
        path = self.folder / SAVING
        remove(path)
        yield path
        if not path.exists():
            raise RunError("run.saving: nothing was written to the path that it gave; save a file or a folder there.")
        self.with_checkpoint()
        self._emit({"event": "saved", "step": self.num_steps, "seconds": self.seconds, "path": str(path)})

    def kept(self) -> None:
        """Say that the checkpoint was put in its place already, by whoever made it."""
        self._emit({"event": "saved", "step": self.num_steps, "path": str(self.folder / CHECKPOINT)})

    def saved(self) -> Path | None:
        """The last checkpoint, or None where there is none."""
        path = self.folder / CHECKPOINT
        return path if path.exists() else None

    def restarted(self, reason: str) -> None:
        """Say that the checkpoint could not be used, and training starts from the beginning."""
        self._started_at = time.perf_counter()
        self._emit({"event": "restarted", "reason": reason})

    def finish(self, *, examples: Mapping[str, Iterable[Any]] = {}, **metrics: float) -> None:
        """Report the result, once, at the end. Metrics that were logged stand at the best step, unless given here.

        Args:
            examples: of metrics that are shares of examples, which were right: `{"test/accuracy": predicted == y}`, in
                an order that is the same for every cell. They are kept with the cell, a bit each; then results speak
                of new examples, too, and show which ones a change gains and loses.

        Raises:
            RunError: called twice, an undeclared metric, a value that is no number, without the metric to report, or
                examples that are not the ones of the metric's value.
        """
        if self.final is not None:
            raise RunError("run.finish was called twice; a cell has one result.")
        values = self._checked("finish", metrics)
        wanted = self.metrics.report
        if wanted not in values:
            raise RunError(
                f"run.finish: without {wanted}, which the study reports; give it: run.finish(**{{{wanted!r}: ...}})."
            )
        if examples:
            right = {name: self._right(name, every, values) for name, every in examples.items()}
            write_atomically(self.folder / EXAMPLES_FILE, packed(right))
        self.final = values

    def _right(self, name: str, every: Iterable[Any], values: Mapping[str, float]) -> Any:
        import numpy as np

        if name not in values:
            raise RunError(
                f"run.finish: examples of {name}, which is not among the metrics given; give its value, too."
            )
        found = np.asarray(every if hasattr(every, "__array__") else list(every))
        if found.ndim != 1 or not found.size or not np.isin(found, (0, 1)).all():
            raise RunError(
                f"run.finish: examples of {name} must be a row of true and false (or 1 and 0), one an example, not an "
                f"array of shape {found.shape}, type {found.dtype}."
            )
        if abs(float(found.mean(dtype=np.float64)) - values[name]) > EXAMPLES_AGREE:
            raise RunError(
                f"run.finish: of the {found.size} examples of {name} {found.mean(dtype=np.float64):.6g} are right, but "
                f"its value is {values[name]:.6g}; examples are kept for metrics that are the share of them."
            )
        return found.astype(bool)

    def _checked(self, call: str, metrics: Mapping[str, Any]) -> dict[str, float]:
        values = {}
        for name, value in metrics.items():
            if name not in self.metrics.names:
                raise RunError(
                    f"run.{call}: unknown metric {name!r}; this study declares {', '.join(self.metrics.names)}."
                )
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise RunError(f"run.{call}: {name} must be a number, not {value!r}.") from None
            values[name] = number
        return values


def is_finite(metrics: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, metrics.values()))


def _plain(fact: str | int | float | bool) -> str | int | float | bool:
    """The same of Python's own kind: what reads a result does not know an enumeration of the user's."""
    if isinstance(fact, bool):
        return fact
    if isinstance(fact, str):
        return "".join(fact)  # `str` may be another method of theirs
    return int(fact) if isinstance(fact, int) else float(fact)
