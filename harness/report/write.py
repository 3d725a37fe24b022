"""A report as a folder: the page, the tables for papers and programs, the figures as PNG."""

from pathlib import Path

from harness.errors import ResultsError
from harness.report.exhibits import exhibits
from harness.report.files import check_folder, write_file
from harness.report.formats import SUFFIXES, export_table
from harness.report.tables import TABLES, Tables

PAGE = "report.html"
TABLE_FORMATS = ("csv", "parquet", "markdown", "latex")


def write_report(tables: Tables, output: Path) -> list[Path]:
    """Writes the report and returns every file, the page first.

        output/report.html          works by itself, without network
               tables/NAME.csv      also .parquet, .md, .tex; of every table that the results support
               figures/NAME.png

    Raises:
        OutputError: the folder cannot be written; found out before anything is computed.
        ResultsError: the metric is unknown, or no finished cell has it.
    """
    from harness.report.html import page
    from harness.report.pictures import png

    check_folder(output)
    contents: dict[str, bytes] = {}
    for name in TABLES:
        try:
            contents |= {f"tables/{name}{SUFFIXES[form]}": export_table(tables, name, form) for form in TABLE_FORMATS}
        except ResultsError:  # a design that did not run; the page says which
            continue
    shown = exhibits(tables)
    contents |= {f"figures/{name}.png": png(data) for exhibit in shown.shown for name, data in exhibit.ids()}
    contents = {PAGE: page(tables, shown, sorted(contents)).encode(), **contents}
    return [write_file(output / name, content) for name, content in contents.items()]
