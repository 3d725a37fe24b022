"""Results and learning curves as pandas tables: from the folder of cells, of one study run."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import ResultsError
from harness.store.cells import Cells
from harness.store.result import IDENTITY_COLUMNS, RESULT_COLUMNS, Epoch, Result
from harness.study.changes import suggestion
from harness.study.load import load_study

# Column types of the results table; they do not depend on which values happen to be missing.
_COUNTS = ("best_step", "num_steps", "parameters", "peak_memory_bytes", "threads")
_TEXTS = (
    "study", "variant", "changes", "key", "status", "reason", "device", "precision", "versions", "commit",
    "data_fingerprint", "finished_at",
)  # fmt: skip
RESULT_DTYPES: Mapping[str, str] = (
    dict.fromkeys(RESULT_COLUMNS, "float64")
    | dict.fromkeys(_COUNTS, "Int64")
    | dict.fromkeys(_TEXTS, "str")
    | {"seed": "int64", "dirty": "boolean"}
)

# A row per validation. `epoch` and the other numbers are those of `harness.store.result.Epoch`.
CURVE_COLUMNS: tuple[str, ...] = ("variant", "seed", *(field.name for field in fields(Epoch)))


def load_results(study: str, *, store: str | Path = "mlruns", profile: str | None = None) -> pd.DataFrame:
    """Every cell of a study run, a row each, columns `RESULT_COLUMNS`; `.attrs["manifest"]` holds the study run.

    A planned cell that has not ended is a row with status `missing`. Where the study ran more than once (other
    profiles, other data), the latest run that fits is taken: study runs are never mixed.

    Args:
        study: the study's name or file, or the id of one study run (`harness results --list`).
        store: the folder of cells.
        profile: only runs of this profile.

    Raises:
        ResultsError: nothing in this folder fits; the message lists what there is.
        StudyError: the study's file cannot be read, or is wrong.
    """
    cells = Cells(Path(store))
    return results_table(cells, find_manifest(cells, study, profile))


def load_curves(
    study: str,
    *,
    store: str | Path = "mlruns",
    profile: str | None = None,
    variants: Collection[str] | None = None,
) -> pd.DataFrame:
    """Every validation of a study run's cells, a row each, columns `CURVE_COLUMNS`; the same run as `load_results`.

    Args:
        variants: only these; by default all.

    Raises:
        ResultsError: nothing in this folder fits; the message lists what there is.
        StudyError: the study's file cannot be read, or is wrong.
    """
    cells = Cells(Path(store))
    return curves_table(cells, find_manifest(cells, study, profile), variants)


def find_manifest(cells: Cells, study: str, profile: str | None = None) -> dict[str, Any]:
    """The latest study run of that study, or the one with that id.

    A confirmation is found by its own id only: it says nothing about the changes that it did not confirm.

    Args:
        study: a name, an id, or the path of a study's YAML file, which stands for the name in it.

    Raises:
        ResultsError: there is none.
        StudyError: the file cannot be read, or is wrong.
    """
    manifests = cells.manifests()
    if study in manifests:
        return manifests[study]
    asked = study
    if Path(study).suffix in (".yaml", ".yml"):
        study = load_study(study).name
    runs = (it for it in manifests.values() if "confirms" not in it)  # a confirmation is asked for by its id
    fitting = [it for it in runs if it["study"] == study and profile in (None, it["profile"])]
    if fitting:
        return fitting[-1]
    names = sorted({it["study"] for it in manifests.values()})
    known = ", ".join(manifests) if manifests else "no study run at all"
    wanted = f"study {study!r}" + (f" with profile {profile!r}" if profile else "")
    raise ResultsError(
        f"{cells.root}: no results of {wanted}.{suggestion(study, names)} There is: {known}. "
        f"`harness ablate --study {asked}` makes them; --store names another folder."
    )


def confirmations(cells: Cells, manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """What `harness confirm` found about winners of this study run, a sentence each, the latest last."""
    fitting = (it for it in cells.manifests().values() if it.get("confirms") == manifest["id"])
    return tuple(it["headline"] for it in fitting if "headline" in it)


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
    table = pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype(RESULT_DTYPES)
    table = table.fillna(dict.fromkeys(_TEXTS, ""))  # of a cell that has not ended nothing was recorded
    table.attrs["manifest"] = _Manifest(manifest)
    return table


class _Manifest(dict[str, Any]):
    """A manifest that is shared, not copied: pandas copies a table's `attrs`, to the last leaf, at each access to a
    column, which took two thirds of the time of every statistic."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Manifest":
        return self


def curves_table(cells: Cells, manifest: Mapping[str, Any], variants: Collection[str] | None = None) -> pd.DataFrame:
    """The validations of every cell of one study run, also of cells that still train or ended badly."""
    numbers_of = attrgetter(*CURVE_COLUMNS[2:])
    rows = [
        (variant["name"], int(seed), *numbers_of(epoch))
        for variant in manifest["variants"]
        if variants is None or variant["name"] in variants
        for seed, key in variant["cells"].items()
        for epoch in cells.epochs(key)
    ]
    kinds = {"variant": "str", "seed": "int64", "step": "int64"}
    dtypes = {name: kinds.get(name, "float64") for name in CURVE_COLUMNS}
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS)).astype(dtypes)


# Not `Result.to_json`, which copies deeply: a store has thousands of results.
_MEASURED = RESULT_COLUMNS[len(IDENTITY_COLUMNS) :]
_measured = attrgetter(*_MEASURED)


def _numbers(result: Result | None, key: str, seed: int) -> dict[str, Any]:
    if result is None:
        return {"key": key, "seed": seed, "status": "missing"}
    return dict(zip(_MEASURED, _measured(result), strict=True))
