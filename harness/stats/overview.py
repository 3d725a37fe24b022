"""What the cells of a study say before anything is compared, and whether they may be compared at all."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.stats.intervals import mean_and_sd
from harness.stats.values import NOT_PLANNED, PARAMETERS, metric_values
from harness.stats.wording import describe_cells
from harness.store.load import metrics_of

# What may change a number though no change names it; in words, for the sentence. Some are facts that not every training
# notes.
PROVENANCE = {
    "device": "devices",
    "precision": "precisions",
    "threads": "thread counts",
    "versions": "library versions",
    "commit": "code versions",
    "dirty": "states of the checkout (clean and with uncommitted edits)",
    "data_fingerprint": "data sets",
}


def summary(table: pd.DataFrame, *, metric: str | None = None) -> pd.DataFrame:
    """One row per variant, by name: n_ok of n planned cells, mean and sd of the metric, cost.

    Returns:
        variant, changes, n_ok, n, outcomes (what became of the other cells, in words), mean, sd, seconds (mean training
        time of a finished cell), parameters. `sd` is NaN with one seed, `parameters` where training does not note it.
    """
    values = metric_values(table, metric)
    rows = []
    for index, variant in enumerate(values.variants):
        numbers, seconds, statuses = values.numbers[index], values.seconds[index], values.statuses[index]
        has = np.isfinite(numbers)
        mean, sd = mean_and_sd(numbers[has])
        others, counts = np.unique(statuses[~has & (statuses != NOT_PLANNED)], return_counts=True)
        rows.append(
            {
                "variant": variant,
                "changes": "+".join(sorted(values.changes[index])),
                "n_ok": int(has.sum()),
                "n": int((statuses != NOT_PLANNED).sum()),
                "outcomes": ", ".join(f"{count} {status}" for status, count in zip(others, counts, strict=True)),
                "mean": float(mean),
                "sd": float(sd),
                "seconds": float(seconds[has].mean()) if has.any() else np.nan,
                PARAMETERS: float(values.parameters[index]),
            }
        )
    return pd.DataFrame(rows)


def comparability_problems(table: pd.DataFrame, variants: Sequence[str] | None = None) -> list[str]:
    """One sentence for each thing beside the changes in which the compared cells differ; empty where none does.

    Looks at the finished cells of `variants` (default: all): what the table has of device, precision, threads, library
    versions, commit, whether the checkout was clean, data fingerprint. A value that was not recorded counts as one of
    its own.
    """
    cells = table[table["status"] == "finished"]
    if variants is not None:
        cells = cells[cells["variant"].isin(variants)]
    problems = []
    for column, plural in PROVENANCE.items():
        if column not in cells.columns:
            continue
        recorded = cells[column].astype(str).replace(["", "nan", "None", "<NA>"], "not recorded")
        if recorded.nunique() > 1:
            problems.append(_problem(cells["variant"], recorded, plural))
    return problems


def ignores_seed(table: pd.DataFrame) -> str:
    """That every seed gave the same numbers, in a sentence; empty where any variant has different ones, or one seed.

    A single metric may well be the same for all seeds, such as a number of parameters; all of them are not, if chance
    has any part in training.
    """
    cells = table[table["status"] == "finished"]
    metrics = [it.name for it in metrics_of(table).all if it.name in cells.columns]
    several = cells.groupby("variant").filter(lambda it: len(it) > 1)
    if several.empty or (several.groupby("variant")[metrics].nunique(dropna=False) > 1).any(axis=None):
        return ""
    return (
        "Every seed gave the same numbers, so training seems to ignore its seed: one training of each variant is "
        "compared, and nothing can be said about chance. Use the seed wherever training draws; `harness try` checks it."
    )


def percent_problems(table: pd.DataFrame) -> list[str]:
    """Of metrics that are declared in percent, and were logged as such already: shown times 100. A sentence each."""
    cells = table[table["status"] == "finished"]
    metrics = [it for it in metrics_of(table).all if it.name in cells.columns and cells[it.name].notna().any()]
    found = (it.percent_problem(float(cells[it.name].median())) for it in metrics)
    return [f"{it}." for it in found if it]


def _problem(variants: "pd.Series[str]", recorded: "pd.Series[str]", plural: str) -> str:
    groups = []
    for value, members in variants.groupby(recorded, sort=True):
        count = f"{len(members)} cell" + ("s" if len(members) > 1 else "")
        groups.append(f"{value} ({count}: {describe_cells(sorted(members.unique()), limit=3)})")
    return (
        f"{recorded.nunique()} {plural} in one comparison: {'; '.join(groups)}. A difference between them may be"
        " taken for an effect; train the smaller group again under the conditions of the other."
    )
