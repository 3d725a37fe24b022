"""`harness export`: one table of a study run as a file, or on standard output."""

import sys
from pathlib import Path

import click

from harness.api.looking import looked_at
from harness.cli.options import complete_run, store_option
from harness.cli.sentences import tell
from harness.cli.which_run import say_which_run
from harness.errors import OutputError
from harness.store.cells import Cells

FORMATS = ("csv", "parquet", "markdown", "latex", "html", "json")
ENDINGS = {
    ".csv": "csv", ".parquet": "parquet", ".md": "markdown", ".tex": "latex", ".html": "html", ".json": "json",
}  # fmt: skip
TABLES = ("effects", "variants", "cells", "published", "overfitting", "examples", "interactions", "shapley", "marginal")


@click.command()
@click.option(
    "--study",
    required=True,
    help="A study's name or file, or the id of a study run (`harness results --list`).",
    shell_complete=complete_run,
)
@click.option("--profile", help="Only study runs of this profile.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of the file; by default by its name, else csv.")
@click.option(
    "--table",
    type=click.Choice(TABLES),
    help="Which table; by default the one that the file is named after, else cells.",
)
@click.option("--metric", help="What effects and variants are of; by default what the study reports.")
@click.option("--output", default="-", show_default=True, help="A file, or - for standard output.")
@store_option
def export(
    study: str, profile: str | None, form: str | None, table: str | None, metric: str | None, output: str, store: Path
) -> None:
    """Write one table of a study run: `--output effects.csv` says which one, and in which format.

    csv, parquet and json hold every column with full precision, metrics as they were logged. markdown, latex (booktabs)
    and html are for people, in the units of the metrics.

    \b
    effects       every comparison of every design: estimate, interval, tests, verdict, cost
    variants      n_ok of n, mean, sd and cost of each variant
    cells         every cell, so every seed, with all its numbers and its provenance
    published     ours against the published numbers of the study
    overfitting   gap between training and validation, where the best checkpoint stands
    examples      each effect on new test examples, too; how many of them a change gains and loses
    interactions  what two changes do together beyond their sum (designs pairs, factorial)
    shapley       contribution of each change averaged over all orders (design factorial)
    marginal      effect of each change averaged over all combinations seen, by a linear model
    """
    from harness.report.files import check_file, write_file
    from harness.report.formats import export_table
    from harness.report.tables import Tables
    from harness.store.load import curves_table, examples_of, find_manifest

    path = None if output == "-" else Path(output)
    form, table = _format_of(path, form), table or _table_of(path)
    if form == "parquet" and path is None and sys.stdout.isatty():
        raise OutputError("parquet is no text, and a terminal shows text: name a file with --output, or use a pipe.")
    if metric and table == "cells":
        raise OutputError("--metric: the table cells has every metric; leave it out, or ask for --table effects.")
    if path:
        check_file(path)
    cells = Cells(store.absolute())
    manifest = find_manifest(cells, study, profile)
    say_which_run(cells, manifest, study)
    tables = Tables(
        looked_at(cells, manifest),
        load_curves=lambda: curves_table(cells, manifest),
        metric=metric,
        load_examples=lambda name: examples_of(cells, manifest, name),
    )
    content = export_table(tables, table, form)
    if path:
        write_file(path, content)
        tell(f"{path}: {table} of {manifest.id}", err=True)
    else:
        if sys.stdout.isatty():
            sys.stdout.write(content.decode())
        else:
            sys.stdout.buffer.write(content)  # to the last byte, whatever the encoding of the stream
        sys.stdout.flush()


def _format_of(path: Path | None, asked: str | None) -> str:
    """What was asked for, else what the file's name ends in."""
    named = ENDINGS.get(path.suffix.lower()) if path else None
    if path and path.suffix and not named and not asked:
        raise OutputError(
            f"--output {path}: {path.suffix} is no format that there is; a name ends in {', '.join(ENDINGS)}. Or say "
            "which one with --format."
        )
    if asked and named and asked != named:
        raise OutputError(f"--output {path}: is named like {named}, but --format is {asked}. Leave one of them out.")
    return asked or named or "csv"


def _table_of(path: Path | None) -> str:
    return path.stem if path and path.stem in TABLES else "cells"
