"""A study run with made-up numbers, on disk as the runner leaves one: manifest, results, journals.

Real plan, real keys, real files; only the numbers are drawn here: the sum of the effects of a cell's changes, the
interactions of its pairs, a part that the seed gives to every variant, and noise of its own. Each cell has a
generator of its own, so that a cell has the same numbers whatever else is planned.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fakes import FakeTrainer

from harness.files.bits import EXAMPLES_FILE, packed
from harness.metrics import Goal, Metric, Metrics
from harness.plan.cell import Cell
from harness.plan.plan import Plan, make_plan
from harness.report.tables import Tables
from harness.store.cells import Cells
from harness.store.load import curves_table, examples_of, results_table
from harness.store.result import ENVELOPE, Result, Status
from harness.study.load import load_study, make_study
from harness.study.study import Study

EFFECTS: Mapping[str, float] = {
    "optimizer-adamax": 0.012,
    "filters-64-128-256": 0.015,
    "filters-128-256-512": 0.028,
    "batch-norm": 0.034,
    "batch-norm-fc": 0.008,
    "l2-1e-5": 0.0,
    "l2-1e-3": -0.006,
    "dropout-0.2": 0.004,
    "dropout-0.6": 0.001,
    "kernel-3": -0.003,
    "kernel-7": -0.024,
    "augment-harsh": -0.06,
    "augment-gentle": 0.02,
    "pooling-average": -0.008,
    "pooling-stride": -0.012,
}
INTERACTIONS: Mapping[frozenset[str], float] = {
    frozenset({"batch-norm", "optimizer-adamax"}): -0.008,
    frozenset({"batch-norm", "batch-norm-fc"}): -0.006,
}
COSTS: Mapping[str, float] = {  # factor of the training time
    "filters-64-128-256": 2.6,
    "filters-128-256-512": 8.1,
    "batch-norm": 1.15,
    "batch-norm-fc": 1.02,
    "kernel-3": 0.7,
    "kernel-7": 1.6,
    "augment-harsh": 1.3,
    "augment-gentle": 1.1,
    "pooling-stride": 0.45,
}
SIZES: Mapping[str, float] = {  # factor of the number of parameters
    "filters-64-128-256": 3.4,
    "filters-128-256-512": 12.5,
    "kernel-3": 0.6,
    "kernel-7": 1.7,
}
STEPS_PER_EPOCH = 56  # 3,600 training images of the quick profile in batches of 64


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What the made-up cells measure. Accuracies are fractions.

    Attributes:
        effects, interactions: by change, and by pair of changes; a change that is not named does nothing. Above zero is
            better, whatever is measured.
        seed_sd: of what a seed gives to all variants alike; noise: sd of a cell's own part.
        outcomes: (variant, seed) -> status of a cell that ended badly.
        missing: (variant, seed) of planned cells that have not ended.
        overrides: fields of the result by (variant, seed), such as another device; or facts.
    """

    baseline: float = 0.70
    effects: Mapping[str, float] = field(default_factory=lambda: EFFECTS)
    interactions: Mapping[frozenset[str], float] = field(default_factory=lambda: INTERACTIONS)
    seed_sd: float = 0.006
    noise: float = 0.003
    outcomes: Mapping[tuple[str, int], Status] = field(default_factory=dict)
    missing: Collection[tuple[str, int]] = ()
    overrides: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)


def synthetic_plan(
    *,
    study: str | Study = "task3",
    profile: str = "quick",
    designs: Sequence[str] = (),
    seeds: int | Sequence[int] = 3,
    only: Sequence[str] = (),
) -> Plan:
    """A plan of a study without any images: the data's fingerprint is a fixed word."""
    return make_plan(
        study if isinstance(study, Study) else load_study(study),
        fingerprints=lambda settings: {"data": "synthetic"},
        overrides={"training.precision": "float32"},
        profile=profile,
        designs=designs,
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else seeds,
        only=only,
    )


def synthetic_store(root: Path, plan: Plan | None = None, numbers: Numbers | None = None) -> Cells:
    """Writes the plan's manifest and every cell under `root`, and returns the folder of cells.

    The files are written without the syncs of `Cells`, which would take minutes for thousands of cells.
    """
    plan, numbers, cells = plan or synthetic_plan(), numbers or Numbers(), Cells(root)
    (root / "studies").mkdir(parents=True, exist_ok=True)
    manifest = plan.manifest("harness ablate --study task3 --profile quick")
    (root / "studies" / f"{plan.id}.json").write_text(json.dumps(manifest.to_json(), indent=1))
    for variant in plan.variants:
        for cell in variant.cells:
            if (variant.name, cell.seed) not in numbers.missing:
                _write_cell(cells.folder(cell.key), cell, _result(variant.name, variant.changes, cell, numbers))
    return cells


def _write_cell(folder: Path, cell: Cell, result: Result) -> None:
    folder.mkdir(parents=True)
    events: list[dict[str, Any]] = [{"event": "started", "step": 0}]
    if result.is_finished:
        events += _validations(cell, result)
        if _is_of_images(cell):
            (folder / EXAMPLES_FILE).write_bytes(packed({"test/accuracy": _right(cell, result)}))
    events.append({"event": "ended", **result.to_json()})
    stamped = ({"time": "2026-01-01T00:00:00.000+00:00", **event} for event in events)
    (folder / "spec.json").write_text(json.dumps(cell.to_json(), indent=1))
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in stamped))
    (folder / "result.json").write_text(json.dumps(result.to_json(), indent=1))


def _result(variant: str, changes: Sequence[str], cell: Cell, numbers: Numbers) -> Result:
    overrides = dict(numbers.overrides.get((variant, cell.seed), {}))
    status = numbers.outcomes.get((variant, cell.seed), "finished")
    common: dict[str, Any] = {
        "key": cell.key,
        "seed": cell.seed,
        "status": status,
        "device": "cpu: synthetic",
        "versions": "python 3.11, torch 2.15",
        "commit": "0" * 40,
        "finished_at": "2026-01-01T00:00:00.000+00:00",
    } | {name: overrides.pop(name) for name in ENVELOPE if name in overrides}
    noted = {"precision": "float32", "threads": 1, "data_fingerprint": "synthetic"} if _is_of_images(cell) else {}
    if status != "finished":
        return Result(**common, reason=f"planted: {status}", facts=noted | overrides)
    draws = np.random.default_rng(int(cell.key, 16))
    reached = numbers.baseline + sum(numbers.effects.get(name, 0.0) for name in changes)
    reached += sum(value for pair, value in numbers.interactions.items() if pair <= set(changes))
    reached += numbers.seed_sd * np.random.default_rng([7, cell.seed]).normal()
    test, val = (float(np.clip(reached + numbers.noise * draws.normal(), 0.01, 0.99)) for _ in range(2))
    best = float(draws.integers(6, 10)) / 2
    last = min(best + 1.5, 6.0)
    common |= {"num_steps": int(last * STEPS_PER_EPOCH), "peak_memory_bytes": 600_000_000}
    common["seconds"] = (
        12.0 * math.prod(COSTS.get(name, 1.0) for name in changes) * float(np.exp(0.05 * draws.normal()))
    )
    noted |= {"best_step": int(best * STEPS_PER_EPOCH)}
    if not _is_of_images(cell):
        return Result(**common, metrics=_scores(cell.trainer, numbers.baseline, val, test), facts=noted | overrides)
    held_back = 0.10 if any(name.startswith("dropout") for name in changes) else 0.16  # training minus validation
    noted |= {"best_epoch": best, "num_epochs": last}
    noted["parameters"] = int(97_000 * math.prod(SIZES.get(name, 1.0) for name in changes))
    return Result(**common, metrics=_accuracies(val, test, held_back), facts=noted | overrides)


def _right(cell: Cell, result: Result) -> np.ndarray:
    """As many of 2,000 test images as the accuracy says: those that are easy, and a little luck."""
    hard, luck = np.random.default_rng(0).normal(size=2000), np.random.default_rng(int(cell.key, 16)).normal(size=2000)
    right = np.zeros(2000, dtype=bool)
    right[np.argsort(hard + 0.5 * luck)[: round(result.metrics["test/accuracy"] * 2000)]] = True
    return right


def _is_of_images(cell: Cell) -> bool:
    return not isinstance(cell.trainer, Scored)


def _accuracies(val: float, test: float, held_back: float) -> dict[str, float]:
    return {
        "train/loss": -math.log(min(val + held_back, 0.995)),
        "train/accuracy": round(min(val + held_back, 0.995), 4),
        "val/loss": -math.log(val) + 0.45,
        "val/accuracy": round(val * 400) / 400,
        "test/loss": -math.log(test) + 0.45,
        "test/accuracy": round(test * 2000) / 2000,
    }


def _scores(trainer: Any, baseline: float, val: float, test: float) -> dict[str, float]:
    """Those of a minimized score are the mirror image of a maximized one's, at the baseline."""
    signed = {"val/score": val, "test/score": test}
    return {name: baseline + trainer.metrics[name].sign * (value - baseline) for name, value in signed.items()}


def _validations(cell: Cell, result: Result) -> Iterator[dict[str, Any]]:
    return _validations_of_images(result) if _is_of_images(cell) else _validations_of_scores(cell, result)


def _validations_of_images(result: Result) -> Iterator[dict[str, Any]]:
    """Curves that end in the result: validation loss is smallest at the best step, training loss falls to the end."""
    draws = np.random.default_rng(result.seed)
    metrics, best, end = result.metrics, result.facts["best_epoch"], result.facts["num_epochs"]
    for half_epochs in range(1, round(2 * end) + 1):
        epoch = half_epochs / 2
        ahead = epoch - best
        rise = 0.08 * ahead**2 if ahead > 0 else 1.4 * (math.exp(-epoch) - math.exp(-best))
        wiggle = 0.004 * abs(draws.normal()) if ahead else 0.0
        gained = (1 - math.exp(-1.2 * epoch)) / (1 - math.exp(-1.2 * best))
        accuracy = metrics["val/accuracy"]
        yield {
            "event": "validation",
            "step": int(epoch * STEPS_PER_EPOCH),
            "epoch": epoch,
            "metrics": {
                "train/loss": metrics["train/loss"] + 1.6 * math.exp(-0.9 * epoch) - 0.05 * max(ahead, 0.0),
                "train/accuracy": min(metrics["train/accuracy"] * (0.35 + 0.65 * gained), 1.0),
                "val/loss": metrics["val/loss"] + rise + wiggle,
                "val/accuracy": min(accuracy * (0.4 + 0.6 * gained), 1.0) if ahead else accuracy,
            },
            "seconds": result.seconds * epoch / end,
        }


def _validations_of_scores(cell: Cell, result: Result) -> Iterator[dict[str, Any]]:
    """Every 28 steps, no epochs; best at the best step."""
    sign, best = cell.trainer.metrics.selecting.sign, result.facts["best_step"]
    for step in range(28, result.num_steps + 1, 28):
        score = result.metrics["val/score"] - sign * abs(step - best) / 1000
        seconds = result.seconds * step / result.num_steps
        yield {"event": "validation", "step": step, "metrics": {"val/score": score}, "seconds": seconds}


class Scored(FakeTrainer):
    """One score on two splits, in no unit, and nothing else: no epochs, no training split, no parameters.

    Args:
        goal: whether more of the score is better.
    """

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        every = tuple(Metric.declared(f"{split}/score", goal) for split in ("val", "test"))
        self.metrics = Metrics(every, select="val/score", report="test/score")

    @classmethod
    def from_study(cls, tree: Mapping[str, Any], root: Path) -> "Scored":
        return cls(tree["trainer"]["goal"])

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Scored":
        return cls(data["goal"])

    @property
    def kind(self) -> str:  # type: ignore[override]
        return "synthetic:Scored"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "goal": self.goal}


def scored_study(goal: Goal, **changed: object) -> Study:
    """Somebody's own study, whose changes have the names of EFFECTS; some of its top-level keys replaced."""
    paths = {
        "batch-norm": {"model.batch_norm": True},
        "optimizer-adamax": {"optimizer.name": "adamax"},
        "kernel-7": {"model.kernel_size": 7},
        "dropout-0.2": {"model.dropout": 0.2},
    }
    return make_study(
        {
            "name": f"scored-{goal}",
            "title": "Which changes improve the score?",
            "trainer": {"class": "synthetic:Scored", "goal": goal},
            "baseline": {"data": {"kind": "shapes"}},
            "changes": [{"name": name, "summary": name, "overrides": it} for name, it in paths.items()],
            "combinations": [{"name": "all", "summary": "all but one", "changes": ["batch-norm", "optimizer-adamax"]}],
            "paths": {"mine": ["batch-norm", "optimizer-adamax", "kernel-7"]},
            "profiles": {"standard": {"seeds": 10}},
            "published": [{"variant": "baseline", "metric": "test/score", "value": 0.71, "source": "a paper"}],
        }
        | changed
    )


def synthetic_tables(root: Path, plan: Plan | None = None, numbers: Numbers | None = None, **options: Any) -> Tables:
    """The tables of a synthetic study run, read back from the disk."""
    cells = synthetic_store(root, plan, numbers)
    (manifest,) = cells.manifests().values()
    options = {"load_examples": lambda metric: examples_of(cells, manifest, metric)} | options
    return Tables(results_table(cells, manifest), load_curves=lambda: curves_table(cells, manifest), **options)
