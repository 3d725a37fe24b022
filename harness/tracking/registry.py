"""The confirmed model in MLflow's model registry, under the alias `champion`.

What is registered is the exported program of the network with its preprocessing in front (format pt2): it takes images
with values in [0, 1] and gives logits; loading it executes no pickle and needs torch, but not this package.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import ResultsError, TrackingError
from harness.execution.provenance import library_versions
from harness.store.cells import WEIGHTS, Cells
from harness.store.result import Result
from harness.tracking.database import configure_mlflow, init, resolve_uri

ALIAS = "champion"


def register_champion(cells: Cells, manifest: dict[str, Any], variant: str, description: str, *, cache: Path) -> str:
    """Registers a variant's model, of the seed with the best validation accuracy, as `<study>` with alias `champion`.

    Args:
        description: of the registered version: what was confirmed.
        cache: of decoded images.

    Returns:
        Its address, such as `models:/task3@champion`.

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
        return _register(uri, cells, best, manifest, variant, description, cache)
    except MlflowException as error:
        problem = f"the model registry refused the model: {error}"
        raise TrackingError(f"{problem}. The results are saved; run the same command to try again.") from error


def _best_result(cells: Cells, manifest: dict[str, Any], variant: str) -> Result:
    keys = next(it["cells"] for it in manifest["variants"] if it["name"] == variant).values()
    finished = [result for key in keys if (result := cells.result(key)) and result.is_finished]
    if not finished:
        raise ResultsError(f"variant {variant!r} has no finished cell, so there is no model to register.")
    return max(finished, key=lambda result: result.val_accuracy or 0.0)


def _register(
    uri: str, cells: Cells, best: Result, manifest: dict[str, Any], variant: str, description: str, cache: Path
) -> str:
    import mlflow
    import torch
    from mlflow import MlflowClient
    from mlflow.models import infer_signature

    from harness.trainers.images.trained import Classifier, load_network

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    cell, name = cells.spec(best.key), str(manifest["study"])
    if _is_champion(client, name, best.key):
        return f"models:/{name}@{ALIAS}"
    network, _, (height, width) = load_network(cell, cells.folder(best.key) / WEIGHTS, cache=cache)
    model = Classifier(network, cell.settings.preprocessing).eval()
    example = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))  # one image fixes the batch
    with torch.no_grad():
        signature = infer_signature(example.numpy(), model(example).numpy())
    with _fluent(uri):  # log_model exists in the fluent interface only
        mlflow.set_experiment(name)
        logged = mlflow.pytorch.log_model(
            model,
            name=f"{variant}-seed-{best.seed}",
            signature=signature,
            input_example=example.numpy(),
            pip_requirements=[f"torch=={library_versions()['torch'].partition('+')[0]}"],
            serialization_format="pt2",
            tags={"harness.cell_key": best.key, "harness.variant": variant, "harness.study_id": manifest["id"]},
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
