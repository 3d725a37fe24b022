"""`harness export`: one table of a study run as a file, or on standard output."""

import sys
from pathlib import Path

import click

from harness.api.looking import looked_at
from harness.cli.options import store_option
from harness.cli.which_run import say_which_run
from harness.store.cells import Cells

FORMATS = ("csv", "parquet", "markdown", "latex", "html", "json")
TABLES = ("effects", "variants", "cells", "published", "overfitting", "examples", "interactions", "shapley", "marginal")


@click.command()
@click.option(
    "--study", required=True, help="A study's name or file, or the id of a study run (`harness results --list`)."
)
@click.option("--profile", help="Only study runs of this profile.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="csv", show_default=True, help="Of the file.")
@click.option("--table", type=click.Choice(TABLES), default="cells", show_default=True, help="Which table.")
@click.option("--metric", help="What effects and variants are of; by default what the study reports.")
@click.option("--output", default="-", show_default=True, help="A file, or - for standard output.")
@store_option
def export(
    study: str, profile: str | None, form: str, table: str, metric: str | None, output: str, store: Path
) -> None:
    """Write one table of a study run.

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
        click.echo(f"{path}: {table} of {manifest.id}", err=True)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
