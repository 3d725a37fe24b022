"""Trainings that do nothing, so that what is measured is what carries them: the harness, Optuna, Ray Tune.

Each reads two settings, logs one number at one step, and ends with another. What is prepared beforehand is on nobody's
clock: imports, an empty MLflow database, a study and its plan. Two processes train.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import Facts, Ready

WORKERS = 2
SEEDS = 100  # of each variant
STUDY: dict[str, Any] = {
    "name": "idle",
    "title": "A training that does nothing",
    "trainer": {"function": "idle:train"},
    "metrics": {"val/score": {"goal": "maximize"}, "test/score": {"goal": "maximize"}},
    "select": "val/score",
    "report": "test/score",
    "baseline": {"rate": 0.1, "width": 8},
}
FUNCTION = """
def train(run):
    score = run.settings.rate * run.settings.width + run.seed % 7
    run.log(1, **{"val/score": score})
    run.finish(**{"test/score": score})
"""


# The same, as a program that starts at once: what a command costs is the process and the files it talks by.
SCRIPT = """
printf '{"step": 1, "val/score": %s}\\n{"final": true, "test/score": %s}\\n' "$2" "$2" >> "$HARNESS_METRICS"
"""


def train_by_harness(ready: Ready, folder: Path, num_cells: int, is_command: bool = False) -> Facts:
    """A study of ten variants and more by `harness.api`, MLflow following; seconds from the start of the first cell.

    Args:
        is_command: the training is a shell script of two lines, not a function.
    """
    from harness.api.training import Watch, train_work
    from harness.api.work import plan_work, save_manifest, unfinished
    from harness.execution.runner import Progress
    from harness.tracking import init, resolve_uri

    leave_the_user_alone()
    store = folder / "mlruns"
    store.mkdir()
    init(resolve_uri(None, store), store)
    study = write_study(folder, num_cells, is_command=is_command)
    work = plan_work(study, device="cpu", jobs=WORKERS, store=store)
    todo, expected = unfinished(work)
    assert len(todo) == num_cells
    moments: list[float] = []
    ready()
    began = time.monotonic()

    def note(progress: Progress) -> None:
        assert progress.result is None or progress.result.is_finished, progress.result
        moments.append(time.monotonic())

    train_work(work, todo, lambda: save_manifest(work), expected, watch=Watch(note))
    delivered = time.monotonic()
    first, last = moments[0], moments[-1]
    assert _finished_runs(store / "mlflow.db") == num_cells + 1 + len(work.plan.variants), "cells, study, variants"
    return {
        "cells": num_cells,
        "start_seconds": first - began,
        "trained_seconds": last - first,
        "delivered_seconds": delivered - first,
    }


def write_study(folder: Path, num_cells: int, *, is_command: bool = False) -> Path:
    """So many cells as a baseline and changes of a hundred seeds each, or fewer where there are fewer cells."""
    seeds = min(SEEDS, max(2, num_cells // 10))
    assert num_cells % seeds == 0, (num_cells, seeds)
    changes = [{"name": f"width-{it}", "overrides": {"width": it}} for it in range(9, 8 + num_cells // seeds)]
    study = {**STUDY, "changes": changes, "profiles": {"standard": {"seeds": seeds}}}
    (folder / "idle.py").write_text(FUNCTION)
    if is_command:
        (folder / "idle.sh").write_text(SCRIPT)
        study["trainer"] = {"command": ["sh", "idle.sh", "{rate}", "{width}", "{seed}"]}
    path = folder / "idle.yaml"
    path.write_text(json.dumps(study))  # JSON is YAML
    return path


def prepare_optuna(ready: Ready, folder: Path) -> Facts:
    """An empty study, and an empty experiment in MLflow; not timed."""
    leave_the_user_alone()
    _optuna_study(folder)
    _mlflow(folder).set_experiment("idle")
    ready()
    return {}


def train_by_optuna(ready: Ready, folder: Path, num_trials: int, is_tracked: bool) -> Facts:
    """Trials of one of the processes that share a study; `is_tracked`: each is an MLflow run as well."""
    leave_the_user_alone()
    study = _optuna_study(folder)
    objective: Callable[[Any], float] = _objective
    if is_tracked:
        mlflow = _mlflow(folder)
        mlflow.set_experiment("idle")

        def objective(trial: Any) -> float:
            with mlflow.start_run(run_name=f"trial {trial.number}"):
                score = _objective(trial)
                mlflow.log_params(trial.params)
                mlflow.log_metric("val/score", score, step=1)
                mlflow.log_metric("test/score", score)
            return score

    ready()
    study.optimize(objective, n_trials=num_trials)
    return {"trials": num_trials}


def _objective(trial: Any) -> float:
    score = float(trial.suggest_float("rate", 0.1, 0.2) * trial.suggest_int("width", 8, 16))
    trial.report(score, 1)
    return score


def _optuna_study(folder: Path) -> Any:
    """Of random search, which computes nothing, in the storage that Optuna advises for processes of one machine."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
    sampler = optuna.samplers.RandomSampler()
    return optuna.create_study(
        study_name="idle", storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
    )


def train_by_ray(ready: Ready, folder: Path, num_trials: int, is_tracked: bool) -> Facts:
    """Ray Tune's function API on a grid; `is_tracked`: with its own callback for MLflow. Its start is not timed."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    leave_the_user_alone()
    uri = _mlflow(folder).get_tracking_uri()
    callbacks = [MLflowLoggerCallback(tracking_uri=uri, experiment_name="idle")] if is_tracked else []

    def train(config: dict[str, Any]) -> None:
        score = config["rate"] * config["width"] + config["seed"] % 7
        tune.report({"val/score": score, "test/score": score})

    space = {"rate": 0.1, "width": tune.grid_search([8, 16]), "seed": tune.grid_search(list(range(num_trials // 2)))}
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        tuner = tune.Tuner(
            train,
            param_space=space,
            tune_config=tune.TuneConfig(metric="val/score", mode="max", reuse_actors=True),
            run_config=tune.RunConfig(name="idle", storage_path=str(folder), callbacks=callbacks, verbose=0),
        )
        ready()
        results = tuner.fit()
    finally:
        ray.shutdown()
    assert len(results) == num_trials, results
    assert not results.errors, results.errors
    return {"trials": num_trials}


def leave_the_user_alone() -> None:
    """No server of theirs, no telemetry."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # the user's server is none of our business
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")


def _mlflow(folder: Path) -> Any:
    """MLflow with a database of this folder's own."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    return mlflow


def _finished_runs(database: Path) -> int:
    with sqlite3.connect(database) as connection:
        (count,) = connection.execute("select count(*) from runs where status = 'FINISHED'").fetchone()
    return int(count)
