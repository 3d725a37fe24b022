"""The examples of docs/python.md, run as they stand."""

import doctest
from pathlib import Path

from synthetic import synthetic_plan, synthetic_store

import harness
from harness.report.formats import write_frame

DOCUMENT = Path(__file__).parent.parent / "docs" / "python.md"


def test_every_example_for_notebooks_gives_what_it_shows(tmp_path, monkeypatch):
    plan = synthetic_plan(designs=("add-one", "combinations"), seeds=10, profile="standard")
    synthetic_store(tmp_path / "mlruns", plan)
    monkeypatch.chdir(tmp_path)
    Path("cells.csv").write_bytes(write_frame(harness.load_results("task3"), "csv"))

    failed, attempted = doctest.testfile(str(DOCUMENT), module_relative=False)

    assert attempted > 10
    assert failed == 0


def test_every_public_figure_is_in_the_table():
    text = DOCUMENT.read_text()
    functions = [
        name
        for name, value in vars(harness.figures).items()
        if callable(value) and getattr(value, "__module__", "") == "harness.report.figures" and name[0] != "_"
    ]
    public = [name for name in functions if not name.startswith("draw")]

    assert len(public) == 7
    assert all(f"| `{name}(" in text for name in public)
