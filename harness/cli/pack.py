"""`harness pack`: a study's results as one file, to be kept, sent, and merged elsewhere."""

from pathlib import Path

import click

from harness.cli.options import store_option
from harness.cli.progress import size
from harness.cli.sentences import tell


@click.command()
@click.argument("study")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; STUDY.tar.gz in the working folder by default.",
)
@click.option("--weights", is_flag=True, help="Also what training kept, such as weights.")
@click.option("--no-code", is_flag=True, help="Without the code as it ran: where a repository has its commits, anyway.")
@store_option
def pack(study: str, output: Path | None, weights: bool, no_code: bool, store: Path) -> None:
    """Write a study's runs into one file: results, curves, settings, provenance, the user's code as it ran.

    STUDY is a study's name, for all of its study runs and their confirmations, or the id of one (`harness results
    --list`). `harness merge FILE` brings them into another store, where every command gives the same tables.
    """
    from harness.api.stores import pack as write

    packed = write(study, output or Path(f"{study}.tar.gz"), store=store, with_weights=weights, with_code=not no_code)
    tell(f"{packed.path}: {', '.join(packed.runs)}; {packed.num_cells} cells, {size(packed.num_bytes)}")
    if packed.num_left_out:
        tell(f"{packed.num_left_out} cells have not ended and were left out.")
