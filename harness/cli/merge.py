"""`harness merge`: another store's cells and study runs, brought into this one."""

from pathlib import Path

import click

from harness.cli.options import store_option
from harness.cli.sentences import tell

SHOWN = 10  # keys, or sentences, of one kind


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@store_option
@click.pass_context
def merge(ctx: click.Context, source: Path, store: Path) -> None:
    """Bring the cells and study runs of SOURCE, a pack or another store, into this store. SOURCE stays as it is.

    Each cell is kept once. Of two results of one cell that differ by more than rounding both are kept, side by side:
    tables go on showing the one that was here, and `harness check` names the cell. `harness sync` delivers to MLflow.
    Exit code 1 where something of SOURCE was refused.
    """
    from harness.api.stores import merge_into

    found = merge_into(source, store=store)
    for name, lines in {"new study runs": found.runs, "extended study runs": found.extended}.items():
        if lines:
            tell(f"{name}: {', '.join(lines)}")
    for name, ours in found.renamed.items():
        tell(f"line {name} went another way there than here: it is {ours} now, beside the one of here.")
    tell(f"{len(found.added)} cells added, {len(found.same)} were here.")
    for keys, what in (
        (found.replaced, "had failed here; tables show what they finished with there"),
        (
            found.differing,
            "have another result there, by more than rounding: both are kept, tables show that of here",
        ),
        (found.busy, "are being trained here now, and were left alone"),
        (found.unfinished, "have not ended there"),
    ):
        if keys:
            tell(f"{len(keys)} cells {what}: {', '.join(keys[:SHOWN])}{', ...' if keys[SHOWN:] else ''}")
    for sentence in found.refused[:SHOWN]:
        tell(f"refused: {sentence}")
    if found.refused:
        tell(f"{len(found.refused)} refused; everything else was merged.")
        ctx.exit(1)
