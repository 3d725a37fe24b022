"""Tables as files: csv, parquet and json hold numbers for machines; markdown, latex and html hold text for people.

csv: a text that a spreadsheet would take for a formula has an apostrophe before it. `read_csv` here gives the frame
back; plain `pandas.read_csv` keeps the apostrophes, and would read a change named `null` as missing (but for
`keep_default_na=False` on the text columns).
"""

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report.display import GRIDS, Grid
from harness.report.tables import TABLES, Tables, records
from harness.stats.values import PARAMETERS
from harness.store.load import RESULT_DTYPES
from harness.store.result import RESULT_COLUMNS
from harness.texts import printable

SUFFIXES: Mapping[str, str] = {
    "csv": ".csv", "parquet": ".parquet", "json": ".json", "markdown": ".md", "latex": ".tex", "html": ".html",
}  # fmt: skip
FORMATS: tuple[str, ...] = tuple(SUFFIXES)
PAGE_ROWS = 40  # of a LaTeX table; more do not fit on a page

# Types of the columns that are no plain numbers, of all tables; a column has the same type wherever it stands.
_TEXTS = (
    "change",
    "design",
    "reference",
    "metric",
    "note",
    "seeds",
    "missing",
    "verdict",
    "outcomes",
    "summary",
    "source",
    "goal",
    "unit",
    "counted_in",
    "gap_of",
    "change_of",
    "precision",
    "data_fingerprint",
)
CSV_DTYPES: Mapping[str, str] = (
    {name: dtype for name, dtype in RESULT_DTYPES.items() if dtype not in ("float64", "int64")}
    | dict.fromkeys(_TEXTS, "str")
    | {PARAMETERS: "Int64"}
)


def export_table(tables: Tables, name: str, form: str) -> bytes:
    """The bytes of a file with one table.

    Args:
        name: of `harness.report.tables.TABLES`; form: of `FORMATS`.

    Raises:
        ResultsError: the results do not have what the table needs; the message says which design to run.
    """
    assert name in TABLES, name
    if form in ("csv", "parquet", "json"):
        return write_frame(getattr(tables, name), form)
    return write_grids(GRIDS[name](tables), form)


def write_frame(frame: pd.DataFrame, form: str) -> bytes:
    """A table for machines, as the bytes of a csv, parquet or json file; every number to the last bit.

    Parquet keeps the column types; in json a missing number is null.
    """
    match form:
        case "csv":
            return _without_formulas(frame).to_csv(index=False, lineterminator="\n").encode()
        case "json":
            return (json.dumps(records(frame), indent=1, allow_nan=False) + "\n").encode()
        case "parquet":
            bare = frame.copy(deep=False)
            bare.attrs = {}  # the manifest of thousands of cells would be stored with each table
            buffer = io.BytesIO()
            bare.to_parquet(buffer, index=False)
            return buffer.getvalue()
    raise AssertionError(form)


# A spreadsheet takes a cell that begins so for a formula; an apostrophe before it says that it is a text.
_FORMULA = r"^('*[=+\-@\t\r])"


def _without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with an apostrophe before every text that a spreadsheet would compute; numbers stay as they are."""
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name].dtype)]
    return frame.assign(**{name: frame[name].map(_as_text) for name in texts}) if texts else frame


def _as_text(value: Any) -> Any:
    return re.sub(_FORMULA, r"'\1", value) if isinstance(value, str) else value


def _as_written(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and re.match("'" + _FORMULA[1:], value) else value


def read_csv(path: str | Path) -> pd.DataFrame:
    """Reads an exported csv back: text columns as text, whatever they spell; an empty number is NaN.

    What a trainer noted of its cells has the type that its column spells; parquet keeps the one that it had.
    """
    columns = list(pd.read_csv(path, nrows=0).columns)
    facts = _facts(columns)
    dtypes = {name: CSV_DTYPES[name] for name in columns if name in CSV_DTYPES} | dict.fromkeys(facts, "str")
    table = pd.read_csv(
        path,
        keep_default_na=False,
        na_values={name: [""] for name in columns if dtypes.get(name) != "str"},
        dtype=dtypes,
    )
    texts = [name for name in columns if dtypes.get(name) == "str"]
    table = table.assign(**{name: table[name].map(_as_written) for name in texts})
    return table.assign(**{name: _typed(table[name]) for name in facts})


def _facts(columns: Sequence[str]) -> list[str]:
    """The columns of a table of cells whose types are the trainer's own."""
    if not set(RESULT_COLUMNS) <= set(columns):
        return []
    return [name for name in columns if "/" not in name and name not in RESULT_COLUMNS and name not in CSV_DTYPES]


def _typed(texts: "pd.Series[str]") -> "pd.Series[Any]":
    """Whole numbers, numbers, truth values or texts, whichever all of them spell; an empty one is missing."""
    known = texts[texts != ""]
    if len(known) and known.isin(["True", "False"]).all():
        return texts.map({"True": True, "False": False}).astype("boolean")
    numbers = pd.to_numeric(known, errors="coerce")
    if not len(known) or numbers.isna().any():
        return texts
    is_whole = known.str.fullmatch(r"-?\d+").all()
    return numbers.reindex(texts.index).astype("Int64" if is_whole else "float64")


def write_grids(grids: Sequence[Grid], form: str) -> bytes:
    """Tables for people, one below the other, as the bytes of a markdown, latex or html file."""
    draw = {"markdown": markdown, "latex": latex, "html": html_table}[form]
    return "\n".join(draw(grid) for grid in grids).encode()


def markdown(grid: Grid) -> str:
    """A GitHub table below a bold title; numbers to the right."""
    lines = [f"**{_markdown_text(grid.title)}**", "", _markdown_row([column.heading for column in grid.columns])]
    lines.append("|" + "|".join("---:" if column.is_number else "---" for column in grid.columns) + "|")
    for index, row in enumerate(grid.rows):
        cells = (f"**{text}**" if (index, column) in grid.bold else text for column, text in enumerate(row))
        lines.append(_markdown_row(list(cells)))
    return "\n".join([*lines, "", *(f"{_markdown_text(note)}\n" for note in grid.notes)])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_markdown_cell, cells)) + " |"


def _markdown_cell(text: str) -> str:
    """The bar would break the table, `<a` begins raw HTML, `](` a link; stars of bold cells and intervals are ours."""
    return re.sub(r"([\\|]|<(?=[A-Za-z/!?])|\](?=[(\[]))", r"\\\1", printable(text).replace("\n", " "))


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\*_`<\[\]])", r"\\\1", printable(text).replace("\n", " "))


def html_table(grid: Grid) -> str:
    """A `<table>` with a caption; the first column is the row's heading. Styles are the page's."""
    head = "".join(
        f'<th scope="col"{_align(column.is_number)}>{html.escape(column.heading)}</th>' for column in grid.columns
    )
    body = "\n".join(f"<tr>{_html_cells(grid, index)}</tr>" for index in range(len(grid.rows)))
    notes = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in grid.notes)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(grid.title)}">\n<table>\n'
        f"<caption>{html.escape(grid.title)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
        f"</table>\n</div>\n{notes}"
    )


def _align(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _html_cells(grid: Grid, index: int) -> str:
    cells = []
    for place, (column, text) in enumerate(zip(grid.columns, grid.rows[index], strict=True)):
        said = html.escape(re.sub(r"(?<![\w.])-(?=\d)", "−", text) if column.is_number else text)
        if (index, place) in grid.bold:
            said = f"<b>{said}</b>"
        tag = 'th scope="row"' if place == 0 else "td"
        cells.append(f"<{tag}{_align(column.is_number)}>{said}</{tag.split()[0]}>")
    return "".join(cells)


def latex(grid: Grid) -> str:
    """A booktabs float with the columns that paper has room for. It shrinks to the line where it must; beyond 40 rows
    it goes on in further floats.

    Needs the packages booktabs and graphicx, both in a standard installation. Special characters are escaped; a
    character that LaTeX's default fonts lack is written as its code point.
    """
    rows = [_latex_row(grid, index) for index in range(len(grid.rows))]
    parts = [rows[start : start + PAGE_ROWS] for start in range(0, len(rows), PAGE_ROWS)] or [[]]
    title = latex_text(grid.title)
    notes = " ".join(latex_text(note) for note in grid.notes)
    floats = []
    for number, part in enumerate(parts, start=1):
        caption = f"{title}. {notes}" if len(parts) == 1 else f"{title}, part {number} of {len(parts)}. {notes}"
        floats.append(_float(grid, part, caption.strip()))
    # Without a new page, LaTeX gives up at the nineteenth float that waits for its place.
    return "% \\usepackage{booktabs,graphicx}\n" + "\\clearpage\n".join(floats)


def _float(grid: Grid, rows: Sequence[str], caption: str) -> str:
    columns = [column for column in grid.columns if column.on_paper]
    spec = "".join("r" if column.is_number else "l" for column in columns)
    head = " & ".join(latex_text(column.heading) for column in columns) + r" \\"
    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", r"\small",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{spec}@{{}}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}%", "}", r"\end{table}", "",
        ]
    )  # fmt: skip


def _latex_row(grid: Grid, index: int) -> str:
    cells = []
    for place, (column, text) in enumerate(zip(grid.columns, grid.rows[index], strict=True)):
        if not column.on_paper:
            continue
        said = latex_text(text)
        if column.is_number:
            said = re.sub(r"(?<![\w.])([+-])(?=\d)", r"$\1$", said)
        cells.append(rf"\textbf{{{said}}}" if (index, place) in grid.bold else said)
    return " & ".join(cells) + r" \\"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''",
    "±": r"$\pm$", "×": r"$\times$", "−": r"$-$", "–": "--", "—": "---", "…": r"\ldots{}", "\n": " ", "\t": " ",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text with every special character escaped; a control character or one beyond Latin as [U+4E2D]."""
    return "".join(_LATEX.get(char) or (char if _is_latin(char) else f"[U+{ord(char):04X}]") for char in text)


def _is_latin(char: str) -> bool:
    """Printable ASCII, and the letters of Latin-1 and Latin Extended-A, which OT1 can compose."""
    return " " <= char <= "~" or (char.isalpha() and "À" <= char <= "ſ")
