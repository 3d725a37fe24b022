"""Confirmation: the winner against the baseline, once, on seeds that nothing used before.

The winner was picked as the best of many noisy numbers, so its estimate is too high on average. It is picked on
validation; it is measured on the test set with fresh seeds; that number is the headline. Nothing is trained here.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.errors import ResultsError
from harness.plan.plan import Plan
from harness.store.cells import Cells
from harness.study.designs.comparisons import BASELINE, Changes, Comparison, in_order

if TYPE_CHECKING:
    import pandas as pd

DESIGN = "confirm"


def pick_winner(table: "pd.DataFrame") -> str:
    """The variant with the biggest improvement of validation accuracy over the baseline, paired by seed.

    Raises:
        ResultsError: no variant has a seed in common with the baseline.
    """
    from harness.stats import effects

    ranked = effects(table, metric="val_accuracy")
    measured = ranked[ranked["n"] > 0]
    if measured.empty:
        raise ResultsError("no variant has a finished seed in common with the baseline, so there is none to confirm.")
    return str(measured["variant"].iloc[0])


def fresh_seeds(cells: Cells, count: int) -> tuple[int, ...]:
    """The next seeds above every one that any study run in this store has used."""
    used = [int(seed) for it in cells.manifests().values() for variant in it["variants"] for seed in variant["cells"]]
    start = max(used, default=-1) + 1
    return tuple(range(start, start + count))


def confirmation_plan(plan: Plan, changes: Sequence[str]) -> Plan:
    """The plan of a confirmation: of `plan`, which has the fresh seeds, only the baseline and the winner.

    Args:
        changes: the winner's.
    """
    winner: Changes = in_order(plan.study, changes)
    variants = (plan.make_variant(()), plan.make_variant(winner))
    return replace(plan, variants=variants, comparisons=(Comparison(DESIGN, variants[1].name, winner, ()),), notes=())


def confirmation_manifest(plan: Plan, source: dict[str, Any], command: str) -> dict[str, Any]:
    """The manifest of a confirmation: a study run of its own, so that fresh seeds never mix with those of the search.

    Args:
        source: manifest of the study run in which the winner was found.
    """
    winner = plan.variants[1]
    name = f"{source['id']}-confirm-{winner.cells[0].key[:8]}"
    return plan.manifest(command) | {"id": name, "confirms": source["id"], "winner": winner.name}


def known_confirmation(cells: Cells, source: str, winner: str) -> dict[str, Any] | None:
    """The latest confirmation of this winner in the store: it is continued, not begun again with other seeds."""
    fitting = [it for it in cells.manifests().values() if it.get("confirms") == source and it.get("winner") == winner]
    return fitting[-1] if fitting else None


def seeds_of(manifest: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(seed) for seed in next(it for it in manifest["variants"] if it["name"] == BASELINE)["cells"])
