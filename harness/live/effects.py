"""The effects of a study run as the live page shows them: `python -m harness.live.effects STORE RUN [--look]`.

A process of its own, which ends when it has said them: tables and figures need libraries and time that the server has
not. What it shows are the seeds that earlier looks have seen; with `--look` it looks first.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.looking import looked_at, seen_before
from harness.errors import HarnessError
from harness.plan.manifest import Manifest
from harness.store.cells import Cells

if TYPE_CHECKING:
    from harness.report.tables import Tables

COMMAND = "harness ui (asked for on its page)"


def effects(cells: Cells, manifest: Manifest, *, look: bool) -> dict[str, Any]:
    """The report below its title, and the effects by variant, as JSON: `html`, `figures`, `effects`.

    Args:
        look: show every seed that has ended, which is a look, written into the manifest.

    Raises:
        HarnessError: there is nothing to show, or a result cannot be read.
    """
    from harness.report.exhibits import exhibits
    from harness.report.html import content
    from harness.report.tables import Tables
    from harness.store.load import confirmations, confirmed, curves_table, results_table
    from harness.store.tried import read_tried

    results = looked_at(cells, manifest, COMMAND) if look else results_table(cells, manifest)
    manifest = results.attrs["manifest"]
    tried = read_tried(cells.root, manifest.study, manifest.fingerprints)
    shown = seen_before(results)
    seeds = set(shown["seed"])

    def curves() -> Any:
        found = curves_table(cells, manifest)
        kept = found[found["seed"].isin(seeds)].reset_index(drop=True)
        kept.attrs.update(found.attrs)
        return kept

    tables = Tables(
        shown,
        load_curves=curves,
        confirmations=confirmations(cells, manifest),
        confirmed=confirmed(cells, manifest),
        tried=tuple(tried.sentences()) if tried else (),
    )
    drawn = content(tables, exhibits(tables))
    return {**dataclasses.asdict(drawn), "effects": _by_variant(tables)}


def _by_variant(tables: "Tables") -> Mapping[str, Mapping[str, Any]]:
    """What the first design that compares a variant says of it."""
    from harness.report.rows import effect_rows

    found: dict[str, Mapping[str, Any]] = {}
    for family in tables.families.values():
        for row in effect_rows(family, tables.variants):
            variant, reference = family.sides.get(row.change, ("", ""))
            if not row.is_reference and variant not in found:
                said = {"effect": row.effect, "p": row.p_adjusted, "verdict": row.verdict}
                found[variant] = {**said, "is_supported": row.is_supported, "against": reference}
    return found


def main() -> None:
    """Prints JSON; what the user can mend goes to standard error, with exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m harness.live.effects")
    parser.add_argument("store", type=Path)
    parser.add_argument("run")
    parser.add_argument("--look", action="store_true")
    asked = parser.parse_args()
    cells = Cells(asked.store)
    try:
        manifest = cells.manifest(asked.run)
        if manifest is None:
            raise HarnessError(f"{asked.store}: no study run {asked.run!r}.")
        print(json.dumps(effects(cells, manifest, look=asked.look), allow_nan=False))
    except HarnessError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
