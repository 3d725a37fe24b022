"""`harness report`: one page with tables and figures, and the files for papers beside it."""

from pathlib import Path

import click

from harness.api.looking import looked_at
from harness.api.pictures import pictures
from harness.cli.attach import attach
from harness.cli.options import complete_run, store_option
from harness.cli.screen import Screen
from harness.cli.sentences import tell
from harness.cli.which_run import say_which_run
from harness.store.cells import Cells


@click.command()
@click.option(
    "--study",
    required=True,
    help="A study's name or file, or the id of a study run (`harness results --list`).",
    shell_complete=complete_run,
)
@click.option("--profile", help="Only study runs of this profile.")
@click.option("--metric", help="What the effects are of; by default what the study reports.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A folder, made if need be.")
@store_option
def report(study: str, profile: str | None, metric: str | None, output: Path, store: Path) -> None:
    """Write the report of a study run: one HTML page that works offline, tables and figures beside it.

    All of it becomes artifacts of the study's MLflow run, too. Nothing is trained: the page says what the results do
    not have, and which design to run for it.
    """
    from harness.api.lineages import champion_lines
    from harness.report.files import check_folder
    from harness.report.tables import Tables
    from harness.report.write import write_report
    from harness.store.load import confirmations, confirmed, curves_table, examples_of, find_manifest, tuning_of
    from harness.store.tried import read_tried

    check_folder(output)
    cells = Cells(store.absolute())
    manifest = find_manifest(cells, study, profile)
    say_which_run(cells, manifest, study)
    tried = read_tried(cells.root, manifest.study, manifest.fingerprints)
    tables = Tables(
        looked_at(cells, manifest),
        load_curves=lambda: curves_table(cells, manifest),
        metric=metric,
        confirmations=confirmations(cells, manifest),
        confirmed=confirmed(cells, manifest),
        tried=tuple(tried.sentences()) if tried else (),
        load_examples=lambda name: examples_of(cells, manifest, name),
        load_pictures=lambda places: pictures(manifest, places),
        load_tuning=lambda: tuning_of(cells, manifest),
        load_lines=lambda: champion_lines(cells, manifest),
    )
    written = write_report(tables, output)
    names = {f"report/{file.relative_to(output).as_posix()}": file for file in written}
    attach(cells, manifest, names, what="The report")
    screen = Screen()
    for sentence in (*tables.confirmations, tables.headline.sentence):
        screen.print(sentence)
    tell(f"{written[0]}: {manifest.id}; {len(written) - 1} tables and figures beside it.")
