"""`harness gc`: frees what no study run needs. `harness delete`: forgets a study."""

import sys
from pathlib import Path

import click

from harness.cli.options import store_option
from harness.cli.progress import size
from harness.cli.sentences import say, tell

SHOWN = 5  # paths of one kind

yes_option = click.option("--yes", is_flag=True, help="Do it, without asking.")


@click.command()
@click.option(
    "--weights-older-than",
    "days",
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Also what training kept, such as weights, of cells that ended longer ago.",
)
@yes_option
@store_option
def gc(days: float | None, yes: bool, store: Path) -> None:
    """Say what the store could free, then free it: cells that no study run names, checkpoints of cells that have ended,
    code that no cell ran, what processes left when they died. No table changes by it.

    Nothing that a living process holds or that was written within the last hour is touched. Weights that are freed are
    freed in MLflow, too; models in its registry are copies, and stay.
    """
    from harness.store.cells import Cells
    from harness.store.unused import free, garbage, manifests_set_aside

    cells = Cells(store.absolute())
    found = list(garbage(cells, weights_older_than_seconds=None if days is None else days * 86_400))
    for path in manifests_set_aside(cells):
        tell(
            f"note: {path} may have named cells, so every cell stays. Once the commands of its study have run again, "
            "remove it."
        )
    if not found:
        tell(f"{cells.root}: nothing to free.")
        return
    for kind in dict.fromkeys(it.kind for it in found):
        several = [it for it in found if it.kind == kind]
        say(f"{size(sum(it.num_bytes for it in several)):>8}  {len(several)} {kind}")
        for it in several[:SHOWN]:
            say(f"          {it.path.relative_to(cells.root)}")
        if several[SHOWN:]:
            click.echo(f"          ... and {len(several) - SHOWN} more")
    if is_wanted(f"Free {size(sum(it.num_bytes for it in found))}?", yes):
        click.echo(f"{size(free(cells, found))} freed.")


@click.command()
@click.argument("study")
@yes_option
@store_option
def delete(study: str, yes: bool, store: Path) -> None:
    """Delete a study's runs from the store, from MLflow and from Optuna, with the cells that no other study run names.

    STUDY is a study's name, for all of its study runs and their confirmations, or the id of one (`harness results
    --list`). Runs go to MLflow's trash, without their files; `mlflow gc` empties it.
    """
    from harness.api.stores import delete as do
    from harness.api.stores import deletion

    what = deletion(study, store=store)
    tell(f"study runs: {', '.join(it.id for it in what.manifests)}")
    tell(f"{len(what.keys)} cells that no other study run names, {size(what.num_bytes)}")
    if what.searches:
        click.echo(f"{len(what.searches)} searches in Optuna")
    if is_wanted("Delete them, for good?", yes):
        do(what)
        click.echo("Deleted.")


def is_wanted(question: str, yes: bool) -> bool:
    """Whether to do what was said: as asked on a terminal; elsewhere, `--yes` has to say it."""
    if yes:
        return True
    if not sys.stdin.isatty():
        click.echo("Nothing was done. --yes does it.")
        return False
    return click.confirm(question)
