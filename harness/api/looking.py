"""Looking at the effects of a study run: each look is written into its manifest, since each spends from the error
budget. What is shown afterwards is computed from what is written there, so that it is the same wherever it is shown.
"""

import os
from typing import TYPE_CHECKING

from harness.errors import StoreError
from harness.execution.provenance import command_line
from harness.plan.manifest import Manifest
from harness.store.cells import Cells
from harness.store.journal import now

if TYPE_CHECKING:
    import pandas as pd


def looked_at(cells: Cells, manifest: Manifest) -> "pd.DataFrame":
    """The results of a study run, as `harness.store.load.results_table`, to be shown now: this is a look.

    A look with no seed that an earlier one had not is none. In a store that cannot be written, the look counts where it
    happens, and nobody learns of it later.
    """
    from harness.store.load import results_table

    table = results_table(cells, manifest)
    seeds = ended_seeds(table)
    if manifest.looked_at(seeds, "", "") is not manifest:
        table.attrs["manifest"] = _written(cells, manifest, seeds)
    return table


def ended_seeds(table: "pd.DataFrame") -> tuple[int, ...]:
    """The seeds for which both sides of some comparison have ended."""
    manifest: Manifest = table.attrs["manifest"]
    ended = table[table["status"] != "missing"].groupby("variant")["seed"].agg(set).to_dict()
    found: set[int] = set()
    for it in manifest.comparisons:
        found |= ended.get(it.variant, set()) & ended.get(it.reference, set())
    return tuple(sorted(int(seed) for seed in found))


def _written(cells: Cells, manifest: Manifest, seeds: tuple[int, ...]) -> Manifest:
    """The manifest with this look, written; the time of its file stays, by which the latest study run is found."""
    path = cells.root / "studies" / f"{manifest.id}.json"
    time, command = now(), command_line()
    try:
        with cells.updating_manifest(manifest.id):
            known = cells.manifest(manifest.id)
            if known is None:  # made of a plan, and never saved
                return manifest.looked_at(seeds, time, command)
            looked = known.looked_at(seeds, time, command)
            before = path.stat()
            cells.write_manifest(looked)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    except StoreError:
        return manifest.looked_at(seeds, time, command)
    return looked
