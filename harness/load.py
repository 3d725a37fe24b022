"""Results as a pandas table: from the folder of cells, a row per cell of one study run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.cells import Cells
from harness.changes import suggestion
from harness.errors import ResultsError
from harness.results import RESULT_COLUMNS, Result


def load_results(study: str, *, store: str | Path = "mlruns", profile: str | None = None) -> pd.DataFrame:
    """Every cell of a study run, a row each, columns `RESULT_COLUMNS`; `.attrs["manifest"]` holds the study run.

    A planned cell that has not ended is a row with status `missing`. Where the study ran more than once (other
    profiles, other data), the latest run that fits is taken: study runs are never mixed.

    Args:
        study: the study's name, or the id of one study run (`harness results --list`).
        store: the folder of cells.
        profile: only runs of this profile.

    Raises:
        ResultsError: nothing in this folder fits; the message lists what there is.
    """
    cells = Cells(Path(store))
    return results_table(cells, find_manifest(cells, study, profile))


def find_manifest(cells: Cells, study: str, profile: str | None = None) -> dict[str, Any]:
    """The latest study run of that study (or with that id). Raises ResultsError where there is none."""
    manifests = cells.manifests()
    if study in manifests:
        return manifests[study]
    fitting = [it for it in manifests.values() if it["study"] == study and profile in (None, it["profile"])]
    if fitting:
        return fitting[-1]
    names = sorted({it["study"] for it in manifests.values()})
    known = ", ".join(manifests) if manifests else "no study run at all"
    wanted = f"study {study!r}" + (f" with profile {profile!r}" if profile else "")
    raise ResultsError(
        f"{cells.root}: no results of {wanted}.{suggestion(study, names)} There is: {known}. "
        f"`harness ablate --study {study}` makes them; --store names another folder."
    )


def results_table(cells: Cells, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of one study run, by variant and seed in the manifest's order."""
    rows = []
    for variant in manifest["variants"]:
        identity = {
            "study": manifest["study"],
            "variant": variant["name"],
            "changes": "+".join(variant["changes"]),
        }
        for seed, key in variant["cells"].items():
            rows.append(identity | _numbers(cells.result(key), key, int(seed)))
    table = pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype(_dtypes())
    table.attrs["manifest"] = dict(manifest)
    return table


def _numbers(result: Result | None, key: str, seed: int) -> dict[str, Any]:
    return result.to_json() if result else {"key": key, "seed": seed, "status": "missing"}


def _dtypes() -> dict[str, str]:
    """Column types that do not depend on which values happen to be missing."""
    counts = {"seed": "int64", "best_step": "Int64", "num_steps": "Int64", "parameters": "Int64"}
    counts |= {"peak_memory_bytes": "Int64", "threads": "Int64", "dirty": "boolean"}
    texts = {"study", "variant", "changes", "key", "status", "reason", "device", "precision", "versions", "commit"}
    texts |= {"data_fingerprint", "finished_at"}
    return {name: counts.get(name, "str" if name in texts else "float64") for name in RESULT_COLUMNS}
