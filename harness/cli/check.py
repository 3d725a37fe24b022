"""`harness check`: looks at the whole store."""

from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.as_json import print_json
from harness.cli.options import json_option, store_option
from harness.cli.sentences import tell
from harness.texts import counted


@click.command()
@store_option
@json_option
@click.pass_context
def check(ctx: click.Context, store: Path, as_json: bool) -> None:
    """Look at the whole store, cells, study runs, MLflow and Optuna: what is wrong, and what mends it.

    Checksums, keys and seeds; numbers against journals; runs and files that should be in MLflow. Nothing is altered.
    Exit code 1 where something is wrong; a note alone is not.
    """
    from harness.api.stores import check_store

    found = list(check_store(store, on_part=lambda part: click.echo(f"looking at {part}", err=True)))
    if as_json:
        print_json({"findings": [asdict(it) for it in found]})
    else:
        for it in found:
            tell(f"{'wrong' if it.is_wrong else 'note'}: {it}")
    num_wrong = sum(it.is_wrong for it in found)
    if not as_json:
        notes = f", {counted(len(found) - num_wrong, 'note')}" if len(found) > num_wrong else ""
        wrong = f"{counted(num_wrong, 'thing')} {'is' if num_wrong == 1 else 'are'}" if num_wrong else "nothing is"
        tell(f"{store}: {wrong} wrong{notes}.")
    if num_wrong:
        ctx.exit(1)
