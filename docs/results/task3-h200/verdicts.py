"""The verdicts of the ten seeds under one correction for all designs, from the accuracies that the program printed.

    python docs/results/task3-h200/verdicts.py > docs/results/task3-h200/verdicts.txt

The commands of that day corrected each design by itself. Their stores are not kept; what they printed is, to a
hundredth of a point, and this reads it from the files beside it. Rounding moves no rank that a verdict rests on.
"""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from harness.api.work import plan_work
from harness.cli.screen import Screen
from harness.cli.table import print_effects
from harness.plan.manifest import Look, Manifest
from harness.store.load import RESULT_COLUMNS

CELL = re.compile(r"^\[ *\d+/\d+\] (\S+) seed (\d+): test accuracy ([\d.]+)%, ([\d.]+) s", re.MULTILINE)
PRINTED = ("add-one-8.txt", "add-one-10.txt", "path.txt", "leave.txt")
METRIC = "test/accuracy"


def main() -> None:
    printed = [CELL.findall((Path(__file__).parent / name).read_text()) for name in PRINTED]
    cells = {(name, int(seed)): tuple(map(float, numbers)) for found in printed for name, seed, *numbers in found}
    print(f"{len(cells)} cells")
    print_effects(Screen(width=120), table(cells))


def table(cells: dict[tuple[str, int], tuple[float, ...]]) -> pd.DataFrame:
    """A results table of these cells, as of one study run with a horizon of ten seeds, looked at with eight and ten.

    Args:
        cells: by variant and seed: test accuracy in percent, seconds.
    """
    manifest = run_of({name for name, _ in cells})
    changes = {it.name: "+".join(it.changes) for it in manifest.variants}
    rows = []
    for place, ((name, seed), (accuracy, seconds)) in enumerate(cells.items()):
        row = dict.fromkeys((*RESULT_COLUMNS, *manifest.metrics.names)) | {"study": manifest.study, "variant": name}
        row |= {"changes": changes[name], "key": f"{place:016x}", "seed": seed, "status": "finished"}
        rows.append(row | {"seconds": seconds, METRIC: accuracy / 100})
    results = pd.DataFrame(rows)
    results.attrs["manifest"] = manifest
    return results


def run_of(trained: set[str]) -> Manifest:
    work = plan_work(
        "task3", device="cpu", seeds=10, horizon=10, designs=("add-one", "path", "combinations", "leave-one-out")
    )
    whole = work.plan.manifest()
    assert trained <= {it.name for it in whole.variants}, trained - {it.name for it in whole.variants}
    kept = tuple(it for it in whole.comparisons if {it.variant, it.reference} <= trained)
    looks = (Look(tuple(range(8)), "", ""), Look(tuple(range(10)), "", ""))
    return replace(whole, comparisons=kept, looks=looks, horizon=10)


if __name__ == "__main__":
    main()
