import csv
import json
import os
import re
import shutil
import subprocess

import pandas as pd
import pytest
from synthetic import Numbers, synthetic_plan, synthetic_tables

from harness.errors import OutputError, ResultsError
from harness.report.display import GRIDS, Column, Grid
from harness.report.files import check_file, check_folder, write_file
from harness.report.formats import (
    CSV_DTYPES,
    FORMATS,
    PAGE_ROWS,
    export_table,
    html_table,
    latex,
    latex_text,
    markdown,
    read_csv,
    write_frame,
)
from harness.report.tables import TABLES
from harness.report.wording import format_count, format_factor, format_p, format_seconds

TROUBLE = r"""100% of A & B_1 {x} $5 #3 ~ ^ \ <b> | "quoted" – — ± × − é ł 中 \end{table} *star* `tick`"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A factorial of three changes with add-one: every table exists; two cells have no result."""
    plan = synthetic_plan(
        designs=("add-one", "pairs", "factorial"),
        seeds=8,
        profile="standard",
        only=("batch-norm", "kernel-7", "l2-1e-3"),
    )
    numbers = Numbers(outcomes={("kernel-7", 1): "diverged"}, missing=[("l2-1e-3", 2)])
    return synthetic_tables(tmp_path_factory.mktemp("store"), plan, numbers)


def rename(frame, names):
    """The frame with other labels: what a user may call a change, or what a file format may take for something else."""
    return frame.assign(variant=[names[index % len(names)] for index in range(len(frame))])


@pytest.mark.parametrize("name", TABLES)
def test_parquet_and_csv_read_back_equal(tables, name, tmp_path):
    frame = getattr(tables, name)
    assert len(frame)

    write_file(tmp_path / "t.parquet", export_table(tables, name, "parquet"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame, check_exact=True)
    write_file(tmp_path / "t.csv", export_table(tables, name, "csv"))
    pd.testing.assert_frame_equal(read_csv(tmp_path / "t.csv"), frame, check_exact=True)


def test_names_that_look_like_numbers_or_missing_values_survive_csv(tables, tmp_path):
    names = ["null", "nan", "none", "na", "true", "1e5", "007", "NA", "a,b", 'say "x"', "", "é"]
    frame = rename(tables.variants, names)

    write_file(tmp_path / "t.csv", write_frame(frame, "csv"))

    pd.testing.assert_frame_equal(read_csv(tmp_path / "t.csv"), frame, check_exact=True)
    assert pd.read_csv(tmp_path / "t.csv")["variant"].isna().any()  # what plain pandas makes of it


def test_a_column_has_the_same_type_in_every_table(tables):
    for name in TABLES:
        for column, dtype in getattr(tables, name).dtypes.items():
            assert str(dtype) == CSV_DTYPES.get(column, str(dtype)), (name, column)
            assert str(dtype) in ("str", "float64", "int64", "Int64", "bool", "boolean"), (name, column)


@pytest.mark.parametrize("name", TABLES)
def test_json_holds_every_row_with_null_for_a_missing_number(tables, name):
    found = json.loads(export_table(tables, name, "json"), parse_constant=pytest.fail)
    frame = getattr(tables, name)

    assert len(found) == len(frame)
    assert list(found[0]) == list(frame.columns)
    column = frame.select_dtypes("float").columns[0]
    assert [row[column] for row in found] == [None if value != value else value for value in frame[column]]


@pytest.mark.parametrize("form", ["markdown", "latex", "html"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_for_people_hold_every_row(tables, name, form):
    text = export_table(tables, name, form).decode()
    grids = GRIDS[name](tables)
    ends = {"markdown": "\n|", "latex": r" \\", "html": "<tr>"}
    # Besides the rows: in Markdown the ruler, in each format the heading.
    extra = {"markdown": 2, "latex": sum(1 + (len(grid.rows) - 1) // PAGE_ROWS for grid in grids), "html": 1}
    rows = sum(len(grid.rows) for grid in grids)
    assert text.count(ends[form]) == rows + extra[form] * (1 if form == "latex" else len(grids))


def test_only_what_the_corrected_test_supports_is_bold(tables):
    grid = GRIDS["effects"](tables)[0]
    verdicts = [row[-1] for row in grid.rows]
    assert {"improves", "hurts"} <= set(verdicts)

    expected = sum(verdict == "improves" for verdict in verdicts)
    assert markdown(grid).count("| **+") == expected
    assert latex(grid).count(r"\textbf{") == expected
    assert html_table(grid).count("<b>") == expected


def test_exploratory_results_have_no_bold_number(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(seeds=3))
    assert r"\textbf" not in export_table(tables, "effects", "latex").decode()
    assert "<b>" not in export_table(tables, "effects", "html").decode()


def test_a_cell_of_markdown_cannot_end_its_column_or_row():
    grid = Grid("t", (Column("name", is_number=False), Column("n")), (("a|b\nc", "1"),))
    (row,) = [line for line in markdown(grid).splitlines() if line.startswith("| a")]
    assert row == r"| a\|b c | 1 |"


def test_html_escapes_every_text_and_sets_minus_signs_in_numbers_only():
    columns = (Column("<name>", is_number=False), Column("n"))
    text = html_table(
        Grid('a "title" <x>', columns, (("<script>x-1</script>", "-1.5 [-2.0, -1.0]"),), notes=("a < b",))
    )

    assert "<script>" not in text
    assert "<x>" not in text
    assert "&lt;script&gt;x-1&lt;/script&gt;" in text
    assert "−1.5 [−2.0, −1.0]" in text


def test_latex_leaves_no_special_character_unescaped():
    escaped = latex_text(TROUBLE)
    without_commands = re.sub(r"\\[a-z]+\{\}|\\[&%$#_{}]|\$\\?[a-z<>|+-]+\$", "", escaped)
    assert not set("&%$#_{}~^\\<>|") & set(without_commands)
    assert "[U+4E2D]" in escaped


def test_a_long_latex_table_goes_on_in_further_floats_and_loses_no_row():
    rows = tuple((f"v{index}", "1") for index in range(2 * PAGE_ROWS + 1))
    text = latex(Grid("long", (Column("name", is_number=False), Column("n")), rows))

    assert text.count(r"\begin{table}") == 3
    assert "part 3 of 3" in text
    assert all(f"v{index} &" in text for index in range(len(rows)))


def test_the_latex_exports_compile_and_stay_within_the_line(tables, tmp_path):
    compiler = shutil.which("pdflatex")
    if compiler is None:
        reason = "no pdflatex (Debian: texlive-latex-base and texlive-latex-recommended)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    long = Grid("long", (Column("name", is_number=False), Column("n")), tuple((TROUBLE, "-1") for _ in range(1000)))
    body = b"\n".join([*(export_table(tables, name, "latex") for name in TABLES), latex(long).encode()])
    document = rb"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}" + body + rb"\end{document}"
    (tmp_path / "t.tex").write_bytes(document)

    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)

    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "t.pdf").stat().st_size > 10_000


def test_every_format_has_a_suffix_and_a_writer(tables):
    assert set(FORMATS) == {"csv", "parquet", "json", "markdown", "latex", "html"}
    assert all(export_table(tables, "variants", form) for form in FORMATS)


def test_a_table_whose_design_did_not_run_is_refused_in_every_format(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(seeds=2, only=("batch-norm",)))
    for form in FORMATS:
        with pytest.raises(ResultsError, match="--design factorial"):
            export_table(tables, "shapley", form)


def test_an_output_that_cannot_be_written_is_refused_with_its_name(tmp_path):
    (tmp_path / "file").write_text("kept")

    for path in (tmp_path / "file" / "below", tmp_path / "file" / "folder" / "below", tmp_path):
        with pytest.raises(OutputError, match=re.escape(f"--output {path}: cannot be written")):
            check_file(path)
    with pytest.raises(OutputError, match=r"--output .*file: cannot be written"):
        check_folder(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_asking_whether_a_file_can_be_written_leaves_it_as_it_is(tmp_path):
    (tmp_path / "old").write_text("kept")

    check_file(tmp_path / "old")
    check_file(tmp_path / "new" / "file")
    check_folder(tmp_path / "folder")

    assert (tmp_path / "old").read_text() == "kept"
    assert not (tmp_path / "new" / "file").exists()
    assert list((tmp_path / "folder").iterdir()) == []


def test_p_values_factors_times_and_counts_keep_the_digits_that_matter():
    assert [format_p(p) for p in (1.0, 0.25, 0.03125, 0.00390625, 0.00001)] == [
        "1.00",
        "0.25",
        "0.031",
        "0.0039",
        "<0.0001",
    ]
    assert [format_factor(x) for x in (0.45, 1.149, 12.4)] == ["×0.45", "×1.15", "×12"]
    assert [format_seconds(s) for s in (3.21, 12.4, 599, 3600, 7200, 36_000)] == [
        "3.2 s", "12 s", "599 s", "60 min", "2.0 h", "10.0 h"
    ]  # fmt: skip
    assert format_count(1_212_500.0) == "1,212,500"
    assert [f(float("nan")) for f in (format_p, format_factor, format_seconds, format_count)] == ["–"] * 4


FREE_TEXTS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "'=1", "''=1", "'tis", "plain", "-", "", 'a,"b"']


def test_a_text_that_a_spreadsheet_would_compute_is_a_text_in_the_csv_and_is_read_back_as_it_was(tmp_path):
    numbers = [-1.5, 2.0] * 6
    frame = pd.DataFrame({"summary": FREE_TEXTS, "estimate": numbers}).astype({"summary": "str"})
    content = write_frame(frame, "csv")
    rows = list(csv.reader(content.decode().splitlines()))[1:]
    assert not [text for text, _ in rows if text[:1] in ("=", "+", "-", "@", "\t")]
    assert [number for _, number in rows] == ["-1.5", "2.0"] * 6
    (tmp_path / "table.csv").write_bytes(content)
    back = read_csv(tmp_path / "table.csv")
    assert list(back["summary"]) == FREE_TEXTS
    assert list(back["estimate"]) == numbers


def test_markdown_holds_no_html_no_link_and_no_escape_of_the_studys_texts():
    columns = (Column("change", is_number=False), Column("p"))
    texts = ["<img src=x onerror=alert(1)>", r"\<b>", "[x](javascript:alert(1))", r"[x\](javascript:1)", "a\x1b[31m|b"]
    grid = Grid(texts[0], columns, tuple((text, "<0.001") for text in texts), notes=(texts[1], texts[2]))
    said = markdown(grid)
    assert r"| \<img src=x onerror=alert(1)> | <0.001 |" in said
    assert r"| \\\<b> |" in said
    assert r"| [x\](javascript:alert(1)) |" in said
    assert r"| [x\\\](javascript:1) |" in said
    assert r"| a\\x1b[31m\|b |" in said
    assert r"**\<img" in said
    assert r"\[x\](javascript" in said
