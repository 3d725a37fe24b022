"""A cell's run without a store around it: for what is measured apart from journal and result."""

from collections.abc import Callable
from pathlib import Path

from harness.files.atomic import replace_synced
from harness.plan.cell import Cell
from harness.trainers.run import CHECKPOINT, Event, Run


def bare_run(cell: Cell, folder: Path, device: str, on_event: Callable[[Event], None] = lambda event: None) -> Run:
    """A run that keeps checkpoints in `folder`, as a store does, and no journal."""
    folder.mkdir(parents=True, exist_ok=True)

    def emit(event: Event) -> None:
        on_event(event)
        if event["event"] == "saved":
            replace_synced(Path(event["path"]), folder / CHECKPOINT)

    return Run(
        key=cell.key,
        settings=cell.settings,
        seed=cell.seed,
        metrics=cell.trainer.metrics,
        device=device,
        folder=folder,
        emit=emit,
        fingerprints=dict(cell.fingerprints),
    )
