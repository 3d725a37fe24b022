"""The results table, looked up: one metric as a matrix of variants by seeds, and what stands where a number is missing.

Every statistic of this package reads the table through `metric_values`, so that order of rows, order of labels, missing
cells and unknown metrics are dealt with once. Nothing here computes a statistic.

Axes: v variant (sorted by name), s seed (sorted).
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import ResultsError
from harness.metrics import COSTS, LARGEST, Metric, Metrics
from harness.plan.manifest import Manifest
from harness.store.load import metrics_of
from harness.store.result import RESULT_COLUMNS

FloatArray = NDArray[np.float64]

NOT_PLANNED = ""
NOT_RUN = "missing"
PARAMETERS = "parameters"  # a fact: the number that a cell trains, which not every training notes


@dataclass(frozen=True, slots=True)
class Schedule:
    """What was declared of the looks at a study's effects, and which there were.

    Attributes:
        horizon: number of seeds that the study declared; 0 where none was, and this is the only look.
        looks: the seeds that had ended at each recorded look, in their order in time.
    """

    horizon: int = 0
    looks: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Values:
    """One metric of every cell.

    Attributes:
        numbers: (v, s); NaN where there is no finished cell with this metric.
        statuses: (v, s); the cell's status, `NOT_PLANNED` where the table has no such cell.
        seconds: (v, s); training time, that of cells that did not finish included; NaN where there is no cell.
        parameters: (v,); number of trained parameters, NaN where no cell finished and where training does not note it.
        changes: (v,); the set of changes of each variant.
        variant_of: the variant that holds exactly this set of changes; of several, the one with most numbers.
        schedule: the looks that the study run declared and had.
    """

    metric: Metric
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    numbers: FloatArray
    statuses: NDArray[np.str_]
    seconds: FloatArray
    parameters: FloatArray
    changes: tuple[frozenset[str], ...]
    variant_of: Mapping[frozenset[str], str]
    schedule: Schedule = Schedule()

    def row(self, variant: str) -> int | None:
        """Index of a variant, None where the table has no cell of it."""
        index = bisect_left(self.variants, variant)
        return index if index < len(self.variants) and self.variants[index] == variant else None

    def require(self, variant: str) -> int:
        """Index of a variant. Raises ResultsError, with the closest name, where the table has no cell of it."""
        index = self.row(variant)
        if index is None:
            close = get_close_matches(variant, self.variants, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ResultsError(
                f"variant {variant!r} is not in these results.{hint} They hold: {', '.join(self.variants)}."
            )
        return index

    def holding(self, changes: frozenset[str]) -> str:
        """Name of the variant with exactly these changes; where there is none, the name that it would have."""
        return self.variant_of.get(changes) or "+".join(sorted(changes)) or "baseline"


def metric_values(table: pd.DataFrame, metric: str | None = None) -> Values:
    """One metric of the results table as a matrix of variants by seeds.

    A cell that two studies share appears twice with one key and counts once.

    Args:
        metric: a name that the study declares, or a cost; by default the one that the study reports.

    Raises:
        ResultsError: a column is missing or there is no row; the table does not say which metrics it holds; the metric
            is unknown or no finished cell has it; a variant has two different cells for one seed.
    """
    absent = [column for column in RESULT_COLUMNS if column not in table.columns]
    if absent:
        raise ResultsError(f"not a results table: the columns {', '.join(absent)} are missing.")
    if table.empty:
        raise ResultsError("the results table has no rows: no cell was planned or trained yet.")
    metrics = metrics_of(table)
    chosen = metrics[metrics.report if metric is None else metric]
    finished = (table["status"] == "finished").to_numpy(dtype=bool)
    _check_metric(table, chosen, metrics, finished)
    labels = table["variant"].astype(str).to_numpy(dtype=str)
    seed_of_row = table["seed"].to_numpy(dtype=np.int64)
    values = np.where(finished, _floats(table[chosen.name]), np.nan)
    values[~(np.abs(values) <= LARGEST)] = np.nan
    _check_one_cell_each(table, labels, seed_of_row, values)

    variants, v = np.unique(labels, return_inverse=True)
    seeds, s = np.unique(seed_of_row, return_inverse=True)
    shape = (len(variants), len(seeds))
    numbers, seconds = np.full(shape, np.nan), np.full(shape, np.nan)
    statuses = np.full(shape, NOT_PLANNED, dtype="<U32")
    numbers[v, s] = values
    statuses[v, s] = table["status"].astype(str).to_numpy(dtype=str)
    seconds[v, s] = _floats(table["seconds"])
    parameters = np.full(len(variants), -np.inf)
    if PARAMETERS in table.columns:
        np.fmax.at(parameters, v, np.where(finished, _floats(table[PARAMETERS]), np.nan))
    parameters[np.isneginf(parameters)] = np.nan
    first_row = np.unique(labels, return_index=True)[1]
    changes = tuple(changes_of(table["changes"].iloc[row]) for row in first_row)
    return Values(
        metric=chosen,
        variants=tuple(map(str, variants)),
        seeds=tuple(map(int, seeds)),
        numbers=numbers,
        statuses=statuses,
        seconds=seconds,
        parameters=parameters,
        changes=changes,
        variant_of=_variant_of(variants, changes, numbers),
        schedule=_schedule(table),
    )


def changes_of(text: object) -> frozenset[str]:
    """The changes that the column `changes` names; the baseline's are none (empty, or NaN after some file formats)."""
    return frozenset(text.split("+")) if isinstance(text, str) and text else frozenset()


def _schedule(table: pd.DataFrame) -> Schedule:
    manifest: Manifest = table.attrs["manifest"]
    return Schedule(manifest.horizon, tuple(look.seeds for look in manifest.looks))


def _floats(column: "pd.Series[float]") -> FloatArray:
    return pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)


def _check_metric(table: pd.DataFrame, metric: Metric, metrics: Metrics, finished: NDArray[np.bool_]) -> None:
    # Before anything finished no metric has a number, and that is no mistake of the request.
    held = [it.name for it in (*metrics, *COSTS) if it.name in table.columns]
    available = [name for name in held if not finished.any() or table.loc[finished, name].notna().any()]
    if metric.name not in available:
        raise ResultsError(f"no finished cell has the metric {metric.name!r}. Available: {', '.join(available)}.")


def _check_one_cell_each(
    table: pd.DataFrame, labels: NDArray[np.str_], seeds: NDArray[np.int64], values: FloatArray
) -> None:
    """Two rows may stand for one variant and seed only where they are the same cell with the same number."""
    rows = pd.DataFrame({"variant": labels, "seed": seeds, "key": table["key"].to_numpy(), "value": values})
    rows["status"], rows["study"] = table["status"].to_numpy(), table["study"].to_numpy()
    clash = rows.drop_duplicates(["variant", "seed", "key", "status", "value"])
    clash = clash[clash.duplicated(["variant", "seed"], keep=False)].sort_values(["variant", "seed", "key"])
    if len(clash):
        variant, seed = clash["variant"].iloc[0], clash["seed"].iloc[0]
        mine = clash[(clash["variant"] == variant) & (clash["seed"] == seed)]
        which = "; ".join(f"study {row.study}, cell {row.key}" for row in mine.itertuples())
        raise ResultsError(
            f"variant {variant!r}, seed {seed} stands for different cells ({which}), so there is no single number to"
            " compare. Keep one study, and one row per cell."
        )


def _variant_of(
    variants: NDArray[np.str_], changes: tuple[frozenset[str], ...], numbers: FloatArray
) -> dict[frozenset[str], str]:
    # Ascending by numbers, then descending by name: the last one written is the fullest, the first by name on a tie.
    filled = np.isfinite(numbers).sum(axis=1)
    order = sorted(range(len(variants)), key=lambda i: (filled[i], -i))
    return {changes[i]: str(variants[i]) for i in order}
