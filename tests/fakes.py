"""Trainers of a few lines for tests of the runner; worker processes import them by name."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import DeviceLostError, DivergedError
from harness.plan.cell import Cell, make_cells
from harness.store.result import Epoch, Result
from harness.trainers.images.settings import Settings, with_overrides

FLOAT32 = with_overrides(Settings(), {"training.precision": "float32"})


def cells_for(num_seeds: int = 3, **overrides: Any) -> list[Cell]:
    """Cells with float32 settings; keyword `model__dropout=0.5` sets `model.dropout`."""
    dotted = {path.replace("__", "."): value for path, value in overrides.items()}
    return make_cells(with_overrides(FLOAT32, dotted), range(num_seeds), {"data": "abc"})


def epoch(step: int, val_loss: float = 1.0) -> dict[str, Any]:
    return {
        "event": "validation",
        "step": step,
        "epoch": step / 10,
        "train_loss": 1.0,
        "train_accuracy": 0.5,
        "val_loss": val_loss,
        "val_accuracy": 0.5,
        "seconds": float(step),
    }


def result_of(cell: Cell, test_accuracy: float = 0.5, **numbers: Any) -> Result:
    accuracies = {"train_accuracy": 0.9, "val_accuracy": 0.6, "test_accuracy": test_accuracy}
    losses = {"train_loss": 0.3, "val_loss": 0.8, "test_loss": 0.9}
    filled: dict[str, Any] = {
        "key": cell.key,
        "seed": cell.seed,
        "status": "finished",
        "best_step": 20,
        "best_epoch": 2.0,
        "num_steps": 40,
        "num_epochs": 4.0,
        "seconds": 40.0,
        "parameters": 1000,
        "device": "cpu: test",
        "precision": "float32",
        "threads": 1,
        "versions": "torch 2",
        "data_fingerprint": "abc",
    }
    return Result(**(filled | accuracies | losses | numbers))


def train(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    """Counts its calls in the folder; two validations, then a result that depends on the seed alone."""
    with (folder / "calls").open("a") as calls:
        calls.write(f"{os.getpid()} {device} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
    on_event({"event": "started", "step": 0})
    on_event(epoch(10))
    on_event(epoch(20))
    return result_of(cell, 0.5 + cell.seed / 100)


def train_slowly(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    on_event({"event": "started", "step": 0})
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(30)
    return result_of(cell)


def fail_on_seed_1(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    if cell.seed == 1:
        raise ZeroDivisionError("planted")
    return train(cell, folder, device=device, on_event=on_event)


def diverge(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    raise DivergedError("loss is not finite at epoch 4")


def die_on_seed_1(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    """The process is killed, as the kernel does when memory runs out."""
    if cell.seed == 1:
        with (folder / "calls").open("a") as calls:
            calls.write("died\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return train(cell, folder, device=device, on_event=on_event)


def poison_on_seed_1(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    if cell.seed == 1:
        with (folder / "calls").open("a") as calls:
            calls.write(f"{os.getpid()}\n")
        raise DeviceLostError("the CUDA context is lost: CUDA error: an illegal memory access was encountered")
    return train(cell, folder, device=device, on_event=on_event)


def die_at_birth(pipe: Any, *arguments: Any) -> None:
    """The life of a worker that dies before it has looked at its first cell."""
    pipe.recv()
    os._exit(3)


def die_once(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    if not (folder / "calls").exists():
        (folder / "calls").write_text("died\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return train(cell, folder, device=device, on_event=on_event)


def validations(steps: list[int]) -> list[Epoch]:
    return [Epoch(**{name: value for name, value in epoch(step).items() if name != "event"}) for step in steps]


def train_step_by_step(cell: Cell, folder: Path, *, device: str, on_event: Callable[[dict[str, Any]], None]) -> Result:
    """20 validations, one every 50 ms; continues after the last one that was noted in the folder."""
    noted = folder / "steps"
    done = len(noted.read_text().splitlines()) if noted.exists() else 0
    on_event({"event": "resumed" if done else "started", "step": done})
    for step in range(done + 1, 21):
        time.sleep(0.05)
        with noted.open("a") as steps:
            steps.write(f"{step}\n")
        on_event(epoch(step))
    return result_of(cell)
