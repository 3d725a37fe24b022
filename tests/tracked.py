"""Stores with hand-written journals, and an MLflow database beside them, for the tests of `harness.tracking`."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.plan.cell import Cell, make_cells
from harness.plan.manifest import Manifest, RunVariant
from harness.store.cells import Cells
from harness.store.result import Result
from harness.tracking import init, resolve_uri
from harness.tracking.server import Server
from harness.trainers.images.settings import Settings, with_overrides
from harness.trainers.images.trainer import METRICS, ImageTrainer

PROVENANCE = {
    "commit": "c0ffee",
    "dirty": True,
    "diff": "--- a\n+++ b\n",
    "versions": {"python": "3.11.9", "torch": "2.15.0"},
    "host": "bench",
    "command": "harness ablate --study task3",
}
BASELINE = with_overrides(Settings(), {"training.precision": "float32", "data.kind": "shapes"})


@functools.cache
def template() -> Path:
    """An empty MLflow database: making one takes seconds, copying it does not."""
    folder = Path(tempfile.mkdtemp(prefix="harness-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    init(f"sqlite:///{folder / 'mlflow.db'}", folder)
    return folder / "mlflow.db"


def a_store(root: Path) -> tuple[str, Cells]:
    """A fresh store with a database that is ready."""
    root.mkdir(exist_ok=True)
    shutil.copy(template(), root / "mlflow.db")
    return resolve_uri(f"sqlite:///{root / 'mlflow.db'}", root), Cells(root)


def cells_of(overrides: Mapping[str, Any] | None = None, seeds: Sequence[int] = (0, 1)) -> list[Cell]:
    return make_cells(ImageTrainer(), with_overrides(BASELINE, overrides or {}), seeds, {"data": "abc" * 20})


def a_manifest(variants: Mapping[str, Sequence[Cell]], *, study: str = "task3", profile: str = "quick") -> Manifest:
    return Manifest(
        id=f"{study}-{profile}-1a2b3c4d",
        study=study,
        title="Which change helps?",
        profile=profile,
        exploratory=True,
        metrics=METRICS,
        trainer=ImageTrainer().to_json(),
        fingerprints={"data": "abc" * 20},
        baseline=BASELINE.tree(),
        variants=tuple(
            RunVariant(
                name=name,
                changes=() if name == "baseline" else tuple(name.split("+")),
                summary=f"About {name}.",
                settings="",
                cells={cell.seed: cell.key for cell in cells},
            )
            for name, cells in variants.items()
        ),
        comparisons=(),
        command="harness ablate --study task3",
    )


def start(cells: Cells, cell: Cell, event: str = "started") -> None:
    cells.open(cell)
    cells.append(cell.key, {"event": event, "provenance": PROVENANCE})


def validate(cells: Cells, cell: Cell, step: int, **numbers: float) -> None:
    """A validation with numbers that differ by seed and step; `val_loss=0.5` is `val/loss`."""
    metrics = {"train/loss": 2.0 - step / 1000, "train/accuracy": step / 1000, "val/loss": 2.1 - step / 1000}
    metrics |= {"val/accuracy": step / 1000 + cell.seed / 100}
    metrics |= {name.replace("_", "/", 1): value for name, value in numbers.items()}
    event = {"event": "validation", "step": step, "metrics": metrics, "epoch": step / 200, "seconds": step / 10}
    cells.append(cell.key, event)


def a_result(cell: Cell, **envelope: Any) -> Result:
    known: dict[str, Any] = {
        "key": cell.key,
        "seed": cell.seed,
        "status": "finished",
        "seconds": 20.0,
        "num_steps": 200,
    }
    if envelope.get("status", "finished") == "finished":
        metrics = {"train/loss": 1.5, "train/accuracy": 0.5, "val/loss": 1.6, "val/accuracy": 0.45, "test/loss": 1.7}
        known |= {"metrics": metrics | {"test/accuracy": 0.4 + cell.seed / 100}}
        known |= {"facts": {"best_step": 100, "best_epoch": 0.5, "parameters": 1000}}
    return Result(**(known | envelope))


def finish(cells: Cells, cell: Cell, **numbers: Any) -> None:
    (cells.folder(cell.key) / "best.safetensors").write_bytes(b"weights of " + cell.key.encode())
    cells.write_result(a_result(cell, **numbers))


def train(cells: Cells, cell: Cell, **numbers: Any) -> None:
    """A whole cell: two validations, a result."""
    start(cells, cell)
    validate(cells, cell, 100)
    validate(cells, cell, 200)
    finish(cells, cell, **numbers)


def mlflow_runs(uri: str, root: Path, study: str = "task3") -> dict[str, list[Any]]:
    """MLflow's own runs of an experiment by kind (study, variant, cell), in the order of their names."""
    from mlflow import MlflowClient

    Server(uri, root)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
    by_kind: dict[str, list[Any]] = {"study": [], "variant": [], "cell": []}
    for run in sorted(runs, key=lambda run: run.info.run_name):
        by_kind[run.data.tags["harness.kind"]].append(run)
    return by_kind


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    """(step, value) in the order in which MLflow gives them."""
    from mlflow import MlflowClient

    return [(point.step, point.value) for point in MlflowClient(tracking_uri=uri).get_metric_history(run_id, key)]
