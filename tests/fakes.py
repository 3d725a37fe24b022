"""Trainers of a few lines for tests of the runner; worker processes import them by name.

Their settings and metrics are those of the image trainer, so that stores look like real ones. `result_of` makes a
`Result` for tests that write one by hand; `recorded_run` is a run without a store.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import DeviceLostError, DivergedError, OutOfMemoryError
from harness.files.atomic import replace_synced
from harness.plan.cell import Cell, make_cells
from harness.store.cells import Cells
from harness.store.result import ENVELOPE, Result, Validation
from harness.trainers.images.settings import Settings, parse_settings, with_overrides
from harness.trainers.images.trainer import METRICS, ImageTrainer
from harness.trainers.run import CHECKPOINT, Event, Run
from harness.trainers.trainer import DeviceMemory, Trainer

FLOAT32 = with_overrides(Settings(), {"training.precision": "float32"})
FINAL = {
    "train/loss": 0.3,
    "train/accuracy": 0.9,
    "val/loss": 0.8,
    "val/accuracy": 0.6,
    "test/loss": 0.9,
    "test/accuracy": 0.5,
}
LOGGED = {"train/loss": 1.0, "train/accuracy": 0.5, "val/loss": 1.0, "val/accuracy": 0.5}


class FakeTrainer(Trainer):
    """Images' settings and metrics, and a training of its own."""

    recipe = 1
    identity = 1  # the cells of the image trainer, so that one fake trains on where another stopped
    metrics = METRICS
    notes_reads = False

    @property
    def kind(self) -> str:  # type: ignore[override]
        return f"{type(self).__module__}:{type(self).__name__}"

    @classmethod
    def from_study(cls, tree: Mapping[str, Any], root: Path) -> "FakeTrainer":
        return cls()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FakeTrainer":
        return cls()

    def parse(self, tree: Mapping[str, Any]) -> Settings:
        return parse_settings(tree)

    def fingerprints(self, settings: Any) -> dict[str, str]:
        return {"data": "abc"}

    def validations_per_epoch(self, settings: Any) -> int:
        return ImageTrainer().validations_per_epoch(settings)

    def max_epochs(self, settings: Any) -> float:
        return ImageTrainer().max_epochs(settings)

    def resolve(self, settings: Any, *, device: str, options: Mapping[str, Any]) -> Any:
        return ImageTrainer().resolve(settings, device=device, options=options)


class Counting(FakeTrainer):
    """Counts its calls in the folder; two validations, then a result that depends on the seed alone."""

    def train(self, run: Run) -> None:
        with (run.folder / "calls").open("a") as calls:
            calls.write(f"{os.getpid()} {run.device} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
        for step in (10, 20):
            run.log(step, epoch=step / 10, **LOGGED)
        finish(run, 0.5 + run.seed / 100)


class Slow(FakeTrainer):
    def train(self, run: Run) -> None:
        (run.folder / "pid").write_text(str(os.getpid()))
        time.sleep(30)
        finish(run)


class FailsOnSeed1(Counting):
    def train(self, run: Run) -> None:
        if run.seed == 1:
            raise ZeroDivisionError("planted")
        super().train(run)


class Diverging(FakeTrainer):
    def train(self, run: Run) -> None:
        raise DivergedError("loss is not finite at epoch 4")


class DiesOnSeed1(Counting):
    """The process is killed, as the kernel does when memory runs out."""

    def train(self, run: Run) -> None:
        if run.seed == 1:
            with (run.folder / "calls").open("a") as calls:
                calls.write("died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        super().train(run)


class LosesItsDeviceOnSeed1(Counting):
    def train(self, run: Run) -> None:
        if run.seed == 1:
            with (run.folder / "calls").open("a") as calls:
                calls.write(f"{os.getpid()}\n")
            raise DeviceLostError("the CUDA context is lost: CUDA error: an illegal memory access was encountered")
        super().train(run)


class AssertsOnItsDeviceOnSeed1(Counting):
    """An index out of bounds in a kernel: after it, this process can use CUDA no more."""

    def train(self, run: Run) -> None:
        import torch

        from harness.trainers.images.arithmetic import is_poisoned

        row = torch.tensor([7 if run.seed == 1 else 0], device=run.device)
        try:
            torch.zeros(3, device=run.device)[row].cpu()
        except RuntimeError as error:
            if is_poisoned(error):
                raise DeviceLostError(f"the CUDA context is lost: {str(error).partition(chr(10))[0]}") from error
            raise
        super().train(run)


class NeedsAllMemory(Counting):
    """Seed 1 runs out of memory while seed 0 trains, which waits for that; seed 2 always does."""

    def train(self, run: Run) -> None:
        busy, out = (run.folder.parent.parent / name for name in ("busy", "out"))
        if run.seed == 0:
            busy.touch()
            self._await(out)
            busy.unlink()
        if run.seed == 1 and not out.exists():
            self._await(busy)
            out.touch()
            raise OutOfMemoryError("too little memory")
        if run.seed == 2:
            raise OutOfMemoryError("too little memory")
        super().train(run)

    @staticmethod
    def _await(path: Path) -> None:
        end = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < end, path
            time.sleep(0.02)


class Sized(FakeTrainer):
    """Says what it takes of a device of 20 GB, and then trains until as many train as fit, by their files.

    Its settings say how: `model.hidden_units` GB a cell, and `model.filters[0]` that are to train at a time.
    """

    def device_memory(self, device: str) -> DeviceMemory:
        gigabytes, (started, ended) = self.gigabytes, self.counts
        others = (started - ended - 1) * (gigabytes + 1)
        return DeviceMemory(*(it * 10**9 for it in (20 - others - gigabytes - 1, 20, gigabytes, gigabytes)))

    def train(self, run: Run) -> None:
        self.folder, self.gigabytes = run.folder.parent.parent, run.settings.model.hidden_units
        (self.folder / f"{run.seed}.started").touch()
        end, together = time.monotonic() + 60, self._train_now()
        run.log(10, epoch=1.0, **LOGGED)
        while together < run.settings.model.filters[0] and time.monotonic() < end:
            time.sleep(0.02)
            together = max(together, self._train_now())
        time.sleep(0.3)
        with (self.folder / "together").open("a") as noted:
            noted.write(f"{run.seed} {max(together, self._train_now())}\n")
        (self.folder / f"{run.seed}.ended").touch()
        finish(run)

    @property
    def counts(self) -> tuple[int, int]:
        return len(list(self.folder.glob("*.started"))), len(list(self.folder.glob("*.ended")))

    def _train_now(self) -> int:
        started, ended = self.counts
        return started - ended


class LeavesWhenAsked(FakeTrainer):
    """Trains until it is asked to stop; notes when it has left."""

    def train(self, run: Run) -> None:
        root = run.folder.parent.parent
        while not run.should_stop:
            (root / "trains").touch()
            time.sleep(0.02)
        time.sleep(0.1)  # a step that is under way
        (root / "left").touch()


class CountsNeighbours(NeedsAllMemory):
    """Notes how many processes of this run live at the end of its training."""

    def train(self, run: Run) -> None:
        seen = run.folder.parent.parent / "seen"
        seen.mkdir(exist_ok=True)
        (seen / str(os.getpid())).touch()
        super().train(run)
        living = [it for it in seen.iterdir() if Path("/proc", it.name).exists()]
        (run.folder / "neighbours").write_text(str(len(living)))


def die_at_birth(pipe: Any, *arguments: Any) -> None:
    """The life of a worker that dies before it has looked at its first cell."""
    pipe.recv()
    os._exit(3)


class DiesOnce(Counting):
    def train(self, run: Run) -> None:
        if not (run.folder / "calls").exists():
            (run.folder / "calls").write_text("died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        super().train(run)


class StepByStep(FakeTrainer):
    """20 validations, one every 50 ms; continues after the last one that it saved."""

    def train(self, run: Run) -> None:
        saved = run.saved()
        done = int(saved.read_text()) if saved else 0
        for step in range(done + 1, 21):
            time.sleep(0.05)
            run.log(step, epoch=step / 10, **LOGGED)
            with run.saving() as path:
                path.write_text(str(step))
        finish(run)


class DiesBeforeItsResult(Counting):
    """Saves; its worker is killed once, when the end is in the journal and before the result is written."""

    def train(self, run: Run) -> None:
        if not (run.folder / "calls").exists():
            Cells._write_result = lambda cells, result: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        with run.saving() as path:
            path.write_text("20")
        super().train(run)


class NotesSupplies(ImageTrainer):
    """Notes in the cache each file that it fetches from another machine's."""

    kind = "fakes:NotesSupplies"

    def receive_supply(self, name: str, files: Mapping[str, Callable[[], memoryview]]) -> None:
        def noting(file: str) -> Callable[[], memoryview]:
            def fetch() -> memoryview:
                with (self.cache / "fetched").open("a") as noted:
                    noted.write(f"{file}\n")
                return files[file]()

            return fetch

        super().receive_supply(name, {file: noting(file) for file in files})


def finish(run: Run, reached: float = 0.5) -> None:
    run.note(best_step=20, best_epoch=2.0, num_epochs=4.0, parameters=1000, precision="float32", threads=1)
    run.note(data_fingerprint="abc", device="cpu: test", versions="torch 2")
    run.at(40)
    run.finish(**{**FINAL, "test/accuracy": reached})


def recorded_run(
    cell: Cell,
    folder: Path,
    device: str = "cpu",
    *,
    events: list[Event] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Run:
    """A run of a cell without a store: a folder that keeps its checkpoint, and the events in a list.

    Afterwards `final` holds the metrics with which training finished, and `facts` what it noted.

    Args:
        events: gets every event, `saved` too; those of an earlier life of the cell may be in it.
        on_event: told of each, before a checkpoint is kept: what raises here is a death.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = [] if events is None else events
    kept = folder / CHECKPOINT

    def emit(event: Event) -> None:
        events.append(event)
        on_event(event)
        if event["event"] == "saved":
            replace_synced(Path(event["path"]), kept)

    before = [it["seconds"] for it in events if it["event"] == "validation"] if kept.exists() else []
    return Run(
        key=cell.key,
        settings=cell.settings,
        seed=cell.seed,
        metrics=cell.trainer.metrics,
        device=device,
        folder=folder,
        emit=emit,
        fingerprints=dict(cell.fingerprints),
        seconds_before=before[-1] if before else 0.0,
        should_stop=should_stop,
    )


def cells_for(num_seeds: int = 3, trainer: Trainer | None = None, **overrides: Any) -> list[Cell]:
    """Cells with float32 settings; keyword `model__dropout=0.5` sets `model.dropout`."""
    dotted = {path.replace("__", "."): value for path, value in overrides.items()}
    return make_cells(trainer or Counting(), with_overrides(FLOAT32, dotted), range(num_seeds), {"data": "abc"})


def epoch(step: int, val_loss: float = 1.0) -> dict[str, Any]:
    """A journal's line of one validation."""
    metrics = {**LOGGED, "val/loss": val_loss}
    return {"event": "validation", "step": step, "epoch": step / 10, "metrics": metrics, "seconds": float(step)}


def validations(steps: list[int]) -> list[Validation]:
    return [Validation.from_event(epoch(step)) for step in steps]


def result_of(cell: Cell, reached: float = 0.5, *, metrics: Mapping[str, float] = {}, **numbers: Any) -> Result:
    """A finished result.

    Args:
        reached: test accuracy.
        numbers: over the usual ones: fields of the envelope, metrics (`val_accuracy` is `val/accuracy`), or facts.
    """
    named = {name.replace("_", "/", 1): name for name in numbers}
    measured = {name: numbers.pop(named[name]) for name in METRICS.names if name in named}
    envelope = {name: numbers.pop(name) for name in ENVELOPE if name in numbers}
    facts = {"best_step": 20, "best_epoch": 2.0, "num_epochs": 4.0, "parameters": 1000, "precision": "float32"}
    facts |= {"threads": 1, "data_fingerprint": "abc"}
    known: dict[str, Any] = {
        "key": cell.key,
        "seed": cell.seed,
        "status": "finished",
        "metrics": {**FINAL, "test/accuracy": reached, **metrics, **measured},
        "facts": facts | numbers,
        "num_steps": 40,
        "seconds": 40.0,
        "device": "cpu: test",
        "versions": "torch 2",
    }
    return Result(**(known | envelope))
