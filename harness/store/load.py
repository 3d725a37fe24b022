"""Results and learning curves as pandas tables: from the folder of cells, of one study run."""

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.errors import ResultsError, StoreError
from harness.metrics import Metrics
from harness.names import suggestion
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.store.result import ENVELOPE, REFUSED, RESULT_COLUMNS, Result
from harness.study.load import load_study
from harness.trees import flatten

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Column types of the results table; they do not depend on which values happen to be missing. Metrics are float64; the
# facts of a trainer are what they are: whole numbers, numbers, truth values or texts.
_TEXTS = ("study", "variant", "changes", "key", "status", "reason", "device", "versions", "commit", "finished_at")
RESULT_DTYPES: Mapping[str, str] = (
    dict.fromkeys(RESULT_COLUMNS, "float64")
    | dict.fromkeys(("num_steps", "peak_memory_bytes"), "Int64")
    | dict.fromkeys(_TEXTS, "str")
    | {"seed": "int64", "dirty": "boolean"}
)
_FACT_DTYPES: Mapping[type, str] = {bool: "boolean", int: "Int64", float: "float64", str: "str"}

# A row per validation; behind these stand the metrics of the study. `epoch` is NaN where the trainer counts none.
CURVE_COLUMNS: tuple[str, ...] = ("variant", "seed", "step", "epoch", "seconds")


def load_results(study: str, *, store: str | Path = "mlruns", profile: str | None = None) -> pd.DataFrame:
    """Every cell of a study run, a row each; `.attrs["manifest"]` holds the study run.

    The columns are `RESULT_COLUMNS`, then a column a metric (`test/loss`), then the facts that the trainer noted. A
    planned cell that has not ended is a row with status `missing`, one whose result cannot be believed (edited,
    damaged, another cell's, of a newer version) a row with status `refused` and the reason. Where the study ran more
    than once (other profiles, other data), the latest run that fits and has results is taken: study runs are never
    mixed.

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
    """Every validation of a study run's cells, a row each; the same run as `load_results`.

    The columns are `CURVE_COLUMNS`, then a column a metric.

    Args:
        variants: only these; by default all.

    Raises:
        ResultsError: nothing in this folder fits; the message lists what there is.
        StudyError: the study's file cannot be read, or is wrong.
    """
    cells = Cells(Path(store))
    return curves_table(cells, find_manifest(cells, study, profile), variants)


def find_manifest(cells: Cells, study: str, profile: str | None = None) -> Manifest:
    """The latest study run of that study that has results (or else the latest), or the one with that id.

    A confirmation is found by its own id only: it says nothing about the changes that it did not confirm.

    Args:
        study: a name, an id, or the path of a study's YAML file, which stands for the name in it.

    Raises:
        ResultsError: there is none.
        StoreError: the only study run that may be meant cannot be read.
        StudyError: the file cannot be read, or is wrong.
    """
    manifests = cells.manifests()
    if study in manifests:
        return manifests[study]
    if "/" not in study and (unreadable := cells.manifest(study)):  # says why it cannot be read
        return unreadable
    asked = study
    baseline = None
    if is_study_file(study):
        loaded = load_study(study)
        study, baseline = loaded.name, loaded.baseline.tree()
    fitting = [it for it in _runs_of(study, manifests) if profile in (None, it.profile)]
    fitting = [it for it in fitting if is_file_of(it, asked)] or fitting  # two files may have one name
    fitting = [it for it in fitting if baseline and not edited(it.declared, baseline)] or fitting
    if fitting:
        return next((it for it in reversed(fitting) if has_results(cells, it)), fitting[-1])
    for path in (cells.root / "studies").glob("*.json"):
        if path.stem.startswith(study) and path.stem not in manifests:
            cells.manifest(path.stem)  # says why it cannot be read: it may be the one
    names = sorted({it.study for it in manifests.values() if not it.belongs_to})
    known = ", ".join(manifests) if manifests else "no study run at all"
    wanted = f"study {study!r}" + (f" with profile {profile!r}" if profile else "")
    raise ResultsError(
        f"{cells.root}: no results of {wanted}.{suggestion(study, names)} There is: {known}. "
        f"`harness ablate --study {asked}` makes them; --store names another folder."
    )


def is_study_file(study: str) -> bool:
    """Whether this names a study by its file."""
    return Path(study).suffix in (".yaml", ".yml")


def edited(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that two trees have with different values, and these: `lr 0.1, now 0.2`."""
    was, known = flatten(json.loads(json.dumps(before))), flatten(json.loads(json.dumps(now)))
    return [f"{name} {was[name]}, now {known[name]}" for name in was if name in known and was[name] != known[name]]


def is_file_of(manifest: Manifest, study: str) -> bool:
    """Whether a study run is of this very file, as far as the path that its command named says."""
    try:
        return os.path.samefile(manifest.asked, study)
    except (OSError, ValueError):  # a built-in study's name, or a file that has gone
        return False


def has_results(cells: Cells, manifest: Manifest) -> bool:
    """Whether any cell of a study run has ended."""
    keys = (key for variant in manifest.variants for key in variant.cells.values())
    return any((cells.folder(key) / "result.json").exists() for key in keys)


def other_runs(cells: Cells, manifest: Manifest) -> tuple[str, ...]:
    """Ids of the other study runs of the same study, the oldest first."""
    return tuple(it.id for it in _runs_of(manifest.study, cells.manifests()) if it.id != manifest.id)


def _runs_of(study: str, manifests: Mapping[str, Manifest]) -> list[Manifest]:
    """Without confirmations and what belongs to another study run: those are asked for by their id."""
    return [it for it in manifests.values() if it.study == study and not it.confirms and not it.belongs_to]


def confirmations(cells: Cells, manifest: Manifest) -> tuple[str, ...]:
    """What `harness confirm` found about winners of this study run, a sentence each, the latest last."""
    fitting = (it for it in cells.manifests().values() if it.confirms == manifest.id)
    return tuple(it.headline for it in fitting if it.headline)


def confirmed(cells: Cells, manifest: Manifest) -> frozenset[str]:
    """The variants of this study run that fresh seeds have decided on, whatever they said."""
    fitting = (it for it in cells.manifests().values() if it.confirms == manifest.id)
    return frozenset(it.winner for it in fitting if it.outcome and it.outcome != "not decided")


def results_table(cells: Cells, manifest: Manifest) -> pd.DataFrame:
    """The rows of one study run, by variant and seed in the manifest's order."""
    metrics, facts = manifest.metrics.names, dict[str, type]()
    rows = []
    for variant in manifest.variants:
        identity = (manifest.study, variant.name, "+".join(variant.changes))
        for seed, key in variant.cells.items():
            result, problem = _believed(cells, key, seed)
            rows.append(dict(zip(RESULT_COLUMNS, identity + _envelope(result, key, seed, problem), strict=True)))
            if result is not None:
                rows[-1] |= {name: result.metrics.get(name) for name in metrics} | dict(result.facts)
                facts |= {name: _wider(facts.get(name), type(fact)) for name, fact in result.facts.items()}
    facts = {name: kind for name, kind in facts.items() if name not in RESULT_COLUMNS and name not in metrics}
    dtypes = {**RESULT_DTYPES, **dict.fromkeys(metrics, "float64")}
    dtypes |= {name: _FACT_DTYPES.get(kind, "str") for name, kind in facts.items()}
    table = pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)
    texts = [name for name, dtype in dtypes.items() if dtype == "str"]
    table = table.fillna(dict.fromkeys(texts, ""))  # of a cell that has not ended nothing was recorded
    table.attrs["manifest"] = manifest
    return table


def metrics_of(table: pd.DataFrame) -> Metrics:
    """The metrics that a table of results or of learning curves holds.

    Raises:
        ResultsError: the table has lost its `attrs`, as it does when tables are concatenated.
    """
    manifest = table.attrs.get("manifest")
    if not isinstance(manifest, Manifest):
        raise ResultsError(
            'this table does not say what its metrics are (`.attrs["manifest"]` is missing): take it from '
            "`load_results`, or copy `attrs` from the table that it was made of."
        )
    return manifest.metrics


def curves_table(cells: Cells, manifest: Manifest, variants: Collection[str] | None = None) -> pd.DataFrame:
    """The validations of every cell of one study run, also of cells that still train or ended badly."""
    names = manifest.metrics.names
    rows = [
        (variant.name, seed, it.step, it.epoch, it.seconds, *map(it.metrics.get, names))
        for variant in manifest.variants
        if variants is None or variant.name in variants
        for seed, key in variant.cells.items()
        for it in cells.validations(key)
    ]
    kinds = {"variant": "str", "seed": "int64", "step": "int64"}
    dtypes = {name: kinds.get(name, "float64") for name in (*CURVE_COLUMNS, *names)}
    table = pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)
    table.attrs["manifest"] = manifest
    return table


def tuning_of(cells: Cells, manifest: Manifest) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Of a study run of tuned variants: the results with their own settings, and those of all trials, as results_table
    gives them. None of any other study run, or where one of the two is not in the store."""
    named = re.fullmatch(r"(?P<untuned>.+)-tuned-(?P<name>\d+-[0-9a-f]{6})", manifest.id)
    if not named:
        return None
    untuned = cells.manifest(named["untuned"])
    chosen = {key for it in manifest.variants for key in it.cells.values()}
    for trials in cells.manifests().values():  # their baseline is a trial's, so that the rest of the id is another one
        tried = {key for it in trials.variants for key in it.cells.values()}
        if untuned and trials.id.endswith(f"-trials-{named['name']}") and chosen <= tried:
            return results_table(cells, untuned), results_table(cells, trials)
    return None


def examples_of(cells: Cells, manifest: Manifest, metric: str) -> dict[tuple[str, int], "NDArray[np.bool_]"]:
    """Which examples each ended cell got right: (variant, seed) -> bool (N,), of the cells that kept it.

    Raises:
        DamagedError: a file holds something else.
    """
    found = {}
    for variant in manifest.variants:
        for seed, key in variant.cells.items():
            right = cells.examples(key).get(metric)
            if right is not None:
                found[variant.name, seed] = right
    return found


def _believed(cells: Cells, key: str, seed: int) -> tuple[Result | None, str]:
    """The result of a cell, where it has ended; and why it is refused, where it is."""
    try:
        return cells.result(key, seed=seed), ""
    except StoreError as error:
        return None, str(error).replace(f"{cells.root}/", "")


def _envelope(result: Result | None, key: str, seed: int, problem: str) -> tuple[Any, ...]:
    if result is None:
        known = {"key": key, "seed": seed, "status": REFUSED if problem else "missing", "reason": problem or None}
        return tuple(map(known.get, ENVELOPE))
    return tuple(getattr(result, name) for name in ENVELOPE)


def _wider(known: type | None, found: type) -> type:
    """The type of a column that holds values of both."""
    if known in (None, found):
        return found
    return float if {known, found} == {int, float} else str
