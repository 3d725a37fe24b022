"""The confirmed model in MLflow's model registry, under the alias `champion`.

What a model is and how it is exported is the trainer's (`Trainer.export`); here it gets its name, version and alias.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

from harness.errors import ResultsError, TrackingError
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.store.result import Result
from harness.tracking.database import configure_mlflow, init, resolve_uri

ALIAS = "champion"


def register_champion(cells: Cells, manifest: Manifest, variant: str, description: str) -> str:
    """Registers a variant's model, of the seed that the selecting metric finds best, as `<study>`, alias `champion`.

    Args:
        description: of the registered version: what was confirmed.

    Returns:
        Its address, such as `models:/task3@champion`; empty where the study's trainer exports no model.

    Raises:
        ResultsError: the variant has no finished cell.
        TrackingError: the registry refuses, with its reason.
    """
    best = _best_result(cells, manifest, variant)
    uri = resolve_uri(None, cells.root)
    configure_mlflow()
    init(uri, cells.root)
    from mlflow.exceptions import MlflowException

    try:
        return _register(uri, cells, best, manifest, variant, description)
    except MlflowException as error:
        problem = f"the model registry refused the model: {error}"
        raise TrackingError(f"{problem}. The results are saved; run the same command to try again.") from error


def _best_result(cells: Cells, manifest: Manifest, variant: str) -> Result:
    found = manifest.variant(variant)
    keys = found.cells.values() if found else ()
    finished = [result for key in keys if (result := cells.result(key)) and result.is_finished]
    if not finished:
        raise ResultsError(f"variant {variant!r} has no finished cell, so there is no model to register.")
    metric = manifest.metrics.selecting
    return max(finished, key=lambda result: metric.sign * result.metrics[metric.name])


def _register(uri: str, cells: Cells, best: Result, manifest: Manifest, variant: str, description: str) -> str:
    import mlflow
    from mlflow import MlflowClient
    from mlflow.models import infer_signature

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    cell, name = cells.spec(best.key), manifest.study
    if _is_champion(client, name, best.key):
        return f"models:/{name}@{ALIAS}"
    exported = cell.trainer.export(cell.settings, seed=cell.seed, folder=cells.folder(best.key))
    if exported is None:
        return ""
    with _fluent(uri):  # log_model exists in the fluent interface only
        mlflow.set_experiment(name)
        logged = getattr(mlflow, exported.flavor).log_model(
            exported.model,
            name=f"{variant}-seed-{best.seed}",
            signature=infer_signature(exported.example, exported.output),
            input_example=exported.example,
            pip_requirements=list(exported.requirements),
            tags={"harness.cell_key": best.key, "harness.variant": variant, "harness.study_id": manifest.id},
            **exported.options,
        )
        version = mlflow.register_model(logged.model_uri, name, tags={"harness.cell_key": best.key})
    client.set_registered_model_alias(name, ALIAS, version.version)
    client.update_model_version(name, version.version, description=description)
    return f"models:/{name}@{ALIAS}"


def _is_champion(client: Any, name: str, cell_key: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(name, ALIAS)
    except MlflowException:  # no such model, or no such alias
        return False
    return bool(version.tags.get("harness.cell_key") == cell_key)


@contextlib.contextmanager
def _fluent(uri: str) -> Iterator[None]:
    """MLflow's fluent interface pointed at `uri`, without its warnings about its own type hints and its chatter."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        mlflow.set_tracking_uri(before)
