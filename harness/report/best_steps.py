"""Where in training the best checkpoints stand, and what training is counted in: epochs, or steps where none are known.

Everything here is looked up: in the facts that a trainer noted of its cells, and in the learning curves where it noted
none. How far training ran ahead of validation is in `overfitting.py`.
"""

from dataclasses import dataclass

import pandas as pd

from harness.metrics import Metric
from harness.store.load import metrics_of

CELL = ["variant", "seed"]


@dataclass(frozen=True, slots=True)
class Clock:
    """What training is counted in.

    Attributes:
        unit: a column of the learning curves.
        best, end: columns of the results, where training notes them: of the best checkpoint, and of the end.
        digits: after the decimal point, as shown.
    """

    unit: str
    best: str
    end: str
    digits: int

    def format(self, value: float) -> str:
        """`4.5` epochs, `1,200` steps."""
        return f"{value:,.{self.digits}f}"


EPOCHS = Clock("epoch", "best_epoch", "num_epochs", 1)
STEPS = Clock("step", "best_step", "num_steps", 0)


def clock_of(curves: pd.DataFrame) -> Clock:
    """Epochs where every validation says its own, else steps."""
    return EPOCHS if curves["epoch"].notna().all() else STEPS


def best_validations(results: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The validation at the best step of each finished cell that has one, by variant and seed, columns as in `curves`.

    The best step is the one that training noted; else the first at which the selecting metric is best.
    """
    finished = results[results["status"] == "finished"].drop_duplicates(CELL).set_index(CELL)
    logged = curves.drop_duplicates([*CELL, "step"], keep="last").sort_values("step")
    steps = first_best(logged, metrics_of(results).selecting).set_index(CELL)["step"].astype("float64")
    steps = steps[steps.index.isin(finished.index)]
    if STEPS.best in finished.columns:
        steps = finished[STEPS.best].astype("float64").dropna().combine_first(steps)
    return logged.merge(steps.rename("step").reset_index(), on=[*CELL, "step"]).set_index(CELL)


def best_places(results: pd.DataFrame, curves: pd.DataFrame, clock: Clock) -> dict[str, float]:
    """Mean place of the best checkpoint, by variant."""
    places = best_validations(results, curves)[clock.unit].groupby(level="variant").mean()
    return {str(variant): float(place) for variant, place in places.items()}


def first_best(curves: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The first validation at which a metric is best, of each cell that has one."""
    known = curves.dropna(subset=metric.name).sort_values("step")
    return known.loc[(metric.sign * known[metric.name]).groupby([known[name] for name in CELL]).idxmax()]
