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


def looked_at(cells: Cells, manifest: Manifest, command: str = "") -> "pd.DataFrame":
    """The results of a study run, as `harness.store.load.results_table`, to be shown now: this is a look.

    A look with no seed that an earlier one had not is none. In a store that cannot be written, the look counts where it
    happens, and nobody learns of it later.

    Args:
        command: what shows them; by default the command line of this process.
    """
    from harness.store.load import results_table

    table = results_table(cells, manifest)
    seeds = ended_seeds(table)
    if manifest.looked_at(seeds, "", "") is not manifest:
        table.attrs["manifest"] = _written(cells, manifest, seeds, command or command_line())
    return table


def ended_seeds(table: "pd.DataFrame") -> tuple[int, ...]:
    """The seeds for which both sides of some comparison have ended."""
    manifest: Manifest = table.attrs["manifest"]
    rows = table[table["status"] != "missing"]
    ended: dict[str, set[int]] = {}
    for variant, seed in zip(rows["variant"], rows["seed"], strict=True):
        ended.setdefault(str(variant), set()).add(int(seed))
    return manifest.comparable_seeds(ended)


def seen_before(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of the seeds that earlier looks have seen: what may be shown again without a look."""
    manifest: Manifest = table.attrs["manifest"]
    seen = {seed for look in manifest.looks for seed in look.seeds}
    shown = table[table["seed"].isin(seen)].reset_index(drop=True)
    shown.attrs["manifest"] = manifest
    return shown


def _written(cells: Cells, manifest: Manifest, seeds: tuple[int, ...], command: str) -> Manifest:
    """The manifest with this look, written; the time of its file stays, by which the latest study run is found."""
    path = cells.root / "studies" / f"{manifest.id}.json"
    time = now()
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
