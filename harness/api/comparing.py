"""`compare`: which effects of one study run differ in another one."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.looking import looked_at
from harness.api.work import store_folder
from harness.errors import ResultsError
from harness.plan.manifest import Manifest
from harness.store.cells import Cells

if TYPE_CHECKING:
    from harness.stats.between import Between


@dataclass(frozen=True)
class Compared:
    """Two study runs beside each other.

    Attributes:
        differing: what differs between them, a sentence each.
        alone: effects that only one of them has, by its id.
    """

    first: Manifest
    second: Manifest
    between: "Between"
    differing: tuple[str, ...]
    alone: dict[str, tuple[str, ...]]


def compare(
    first: str,
    second: str,
    *,
    metric: str | None = None,
    margin: float = 0.0,
    store: str | Path = "mlruns",
    second_store: str | Path | None = None,
) -> Compared:
    """Which effects changed from one study run to another: of other code, data or versions, or of another study.

    Their effects are shown, which is a look at each.

    Args:
        first, second: names, files or ids of study runs, as `harness.load_results` takes them.
        margin: differences of effects below it do not matter, in the unit in which the metric is shown.
        second_store: where the second one is; by default in the same store.

    Raises:
        ResultsError: one of them has no results, they are one and the same, or they have no effect in common.
    """
    from harness.stats.between import between
    from harness.store.load import find_manifest

    mine, others = Cells(store_folder(store)), Cells(store_folder(second_store or store))
    one, other = find_manifest(mine, first), find_manifest(others, second)
    if one.id == other.id and mine.root == others.root:
        raise ResultsError(
            f"both are study run {one.id}. `harness results --list` has the ids of all; name two of them."
        )
    tables = looked_at(mine, one), looked_at(others, other)
    pairs, of_other = dict(_pairs(one)), dict(_pairs(other))
    chosen = one.metrics[metric or one.metrics.report]
    found = between(
        *tables,
        {label: pair for label, pair in pairs.items() if pair in of_other.values()},
        metric=metric,
        delta=margin / chosen.factor,
        exploratory=one.exploratory or other.exploratory,
    )
    alone = {
        one.id: tuple(label for label, pair in pairs.items() if pair not in of_other.values()),
        other.id: tuple(label for label, pair in of_other.items() if pair not in pairs.values()),
    }
    return Compared(one, other, found, tuple(_differing(one, other)), alone)


def _pairs(manifest: Manifest) -> list[tuple[str, tuple[str, str]]]:
    """Label to (variant, reference), each pair once, by the first design that has it; a label that another pair has
    already names its design."""
    found: dict[tuple[str, str], str] = {}
    for it in manifest.comparisons:
        if (it.variant, it.reference) not in found:
            label = f"{it.label} ({it.design})" if it.label in found.values() else it.label
            found[it.variant, it.reference] = label
    return [(label, pair) for pair, label in found.items()]


def _differing(first: Manifest, second: Manifest) -> list[str]:
    """In what the two runs differ, beside their results."""
    from harness.trees import flatten

    found = [f"{name}: {one} and {other}" for name, one, other in _names(first, second) if one != other]
    for role in sorted({*first.fingerprints, *second.fingerprints}):
        if first.fingerprints.get(role) != second.fingerprints.get(role):
            found.append(f"other {role}: {first.fingerprints.get(role)} and {second.fingerprints.get(role)}")
    one, other = flatten(first.baseline), flatten(second.baseline)
    found += [
        f"baseline {it}: {one.get(it)} and {other.get(it)}" for it in {**one, **other} if one.get(it) != other.get(it)
    ]
    return found


def _names(first: Manifest, second: Manifest) -> list[tuple[str, str, str]]:
    return [(name, getattr(first, name), getattr(second, name)) for name in ("study", "profile")]
