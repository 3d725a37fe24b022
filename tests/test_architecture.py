"""Who may import whom: the table of ARCHITECTURE.md, held by importing each module in a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

import harness

HEAVY = frozenset(
    {"torch", "torchvision", "mlflow", "optuna", "pandas", "plotly", "scipy", "matplotlib", "click", "rich"}
)
FRAMES = frozenset({"pandas", "scipy"})

# Module -> the heavy libraries that importing it may bring in. A package stands for its modules; the longest name wins.
ALLOWED: dict[str, frozenset[str]] = {
    "harness": frozenset(),  # whatever is not named below: study, store.cells, execution, ...
    "harness.plan.power": frozenset({"scipy"}),
    "harness.plan.sensitivity": frozenset({"scipy"}),
    "harness.store.load": frozenset({"pandas"}),
    "harness.trainers.images.models": frozenset({"torch"}),
    "harness.trainers.images.data.batches": frozenset({"torch"}),
    "harness.trainers.images.augment": frozenset({"torch"}),
    "harness.trainers.images.arithmetic": frozenset({"torch"}),
    "harness.trainers.images.kernels.winograd": frozenset({"torch"}),
    "harness.trainers.images.readback": frozenset({"torch"}),
    "harness.trainers.images.streams": frozenset({"torch"}),
    "harness.trainers.images.checkpoint": frozenset({"torch"}),
    "harness.trainers.images.train": frozenset({"torch"}),
    "harness.trainers.images.trained": frozenset({"torch"}),
    "harness.trainers.images.module_layers": frozenset({"torch"}),
    "harness.trainers.images.visualize": frozenset({"torch"}),
    "harness.stats": FRAMES,
    "harness.tracking": frozenset(),  # mlflow is imported on first use, after its environment is set
    "harness.search": FRAMES | {"optuna"},
    "harness.report": FRAMES,
    "harness.report.figures": FRAMES | {"plotly"},
    "harness.report.html": FRAMES | {"plotly"},
    "harness.report.pictures": FRAMES | {"matplotlib"},
    "harness.cli": frozenset({"click", "rich"}),
    "harness.__main__": frozenset({"click", "rich"}),
}


def modules() -> list[str]:
    root = Path(harness.__file__).parent
    paths = sorted(path for path in root.rglob("*.py") if "experiments" not in path.parts)
    names = [".".join(path.relative_to(root.parent).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def allowed(module: str) -> frozenset[str]:
    parts = module.split(".")
    return next(ALLOWED[name] for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in ALLOWED)


def imported_by(module: str) -> frozenset[str]:
    code = f"import {module}, sys; print(*({set(HEAVY)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return frozenset(done.stdout.split())


def test_the_table_names_only_modules_that_exist():
    assert len(modules()) > 20
    assert set(ALLOWED) <= set(modules())


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_the_table_allows(module):
    assert imported_by(module) <= allowed(module)
