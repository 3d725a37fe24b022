"""The over-fitting note: how far training runs ahead of validation, at the best checkpoint and at the end, in numbers.

No test is made of it: validation loss at the end cannot be lower than at the checkpoint where it is lowest.
"""

from typing import Any

import pandas as pd

OVERFITTING_COLUMNS: tuple[str, ...] = (
    "variant", "n", "best_epoch", "best_epoch_min", "best_epoch_max", "num_epochs",
    "gap_best", "gap_best_sd", "gap_end", "gap_end_sd", "val_loss_rise", "train_loss_fall", "n_curves",
)  # fmt: skip


def overfitting_table(results: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row per variant with a finished cell, in the order of the results; means over its finished cells.

    Args:
        curves: as `store.load.curves_table` gives them. A cell without validations counts in `n`, not in `n_curves`.

    Returns:
        OVERFITTING_COLUMNS. `best_epoch`: of the checkpoint with the lowest validation loss, out of `num_epochs`.
        `gap_best`: training minus validation accuracy of that checkpoint, both in eval mode. `gap_end`: the same at
        the last validation, training accuracy as it was measured while training. `val_loss_rise` and
        `train_loss_fall`: from the best checkpoint to the end, in nats; both 0 where training ended there.
    """
    finished = results.loc[results["status"] == "finished"].drop_duplicates(["variant", "seed"])
    cells = finished.set_index(["variant", "seed"]).join(_ends(curves))
    cells["gap_best"] = cells["train_accuracy"] - cells["val_accuracy"]
    by_variant = cells.groupby(level="variant", sort=False)
    means = by_variant[["best_epoch", "num_epochs", "gap_best", "gap_end", "val_loss_rise", "train_loss_fall"]].mean()
    sds = by_variant[["gap_best", "gap_end"]].std().add_suffix("_sd")
    counts = by_variant.agg(
        n=("best_epoch", "size"),
        n_curves=("gap_end", "count"),
        best_epoch_min=("best_epoch", "min"),
        best_epoch_max=("best_epoch", "max"),
    )
    return means.join([sds, counts]).reset_index()[list(OVERFITTING_COLUMNS)]


def describe_overfitting(overfitting: pd.DataFrame, variant: str, label: str = "") -> str:
    """One variant's row as a sentence, in percentage points; empty where it has no finished cell with curves.

    Args:
        label: what to call the variant; by default its name.
    """
    rows = overfitting[(overfitting["variant"] == variant) & (overfitting["n_curves"] > 0)]
    if rows.empty:
        return ""
    row: Any = next(rows.itertuples())
    best, lowest, highest = f"{row.best_epoch:.1f}", f"{row.best_epoch_min:.1f}", f"{row.best_epoch_max:.1f}"
    seeds = "one seed" if row.n == 1 else f"mean over {row.n} seeds; {lowest} to {highest}"
    gaps = f"{100 * row.gap_best:.1f} points there and {100 * row.gap_end:.1f} at the end"
    return (
        f"{label or variant}: the best checkpoint came at epoch {best} of {row.num_epochs:.1f} ({seeds}). Training"
        f" accuracy minus validation accuracy was {gaps}. From that checkpoint to the end, training loss changed by"
        f" {-row.train_loss_fall:+.3f} nats, validation loss by {row.val_loss_rise:+.3f}."
    )


def _ends(curves: pd.DataFrame) -> pd.DataFrame:
    """By variant and seed: how the last validation differs from the one with the lowest validation loss."""
    ordered = curves.dropna(subset="val_loss").sort_values("step")
    last = ordered.groupby(["variant", "seed"]).last()
    best = ordered.loc[ordered.groupby(["variant", "seed"])["val_loss"].idxmin()].set_index(["variant", "seed"])
    return pd.DataFrame(
        {
            "gap_end": last["train_accuracy"] - last["val_accuracy"],
            "val_loss_rise": last["val_loss"] - best["val_loss"],
            "train_loss_fall": best["train_loss"] - last["train_loss"],
        }
    )
