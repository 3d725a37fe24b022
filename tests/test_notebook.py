"""A notebook, in a real kernel."""

import sys
from pathlib import Path

import nbformat
import pytest

from harness.api.notebook import notebook_bar

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import notebook  # noqa: E402


def test_the_notebook_of_the_gallery_is_the_one_that_is_written():
    kept, written = nbformat.read(notebook.NOTEBOOK, 4), notebook.new_notebook()
    assert [(it.cell_type, it.source) for it in kept.cells] == [(it.cell_type, it.source) for it in written.cells]


@pytest.mark.ordeal
@pytest.mark.slow
def test_a_bar_says_how_far_training_is_and_the_answer_is_a_table(tmp_path):
    cells = notebook.executed(notebook.new_notebook(), tmp_path).cells
    kept = nbformat.read(notebook.NOTEBOOK, 4).cells

    ((bar,), (answer,), (effects,), (table,)) = (it.outputs for it in cells if it.cell_type == "code")
    assert bar.output_type == "display_data"
    assert bar.data["text/plain"].startswith("digits: 40 of 40 cells, ")
    assert '<progress value="40" max="40"></progress>' in bar.data["text/html"]
    assert "The biggest single improvement, picked by validation accuracy, is fast" in answer.data["text/html"]
    assert answer.data["text/plain"].startswith("<Ablation: study run digits-standard-")
    assert _words(effects) == _words(kept[5].outputs[0])
    assert len(table.data["text/plain"].splitlines()) == 12


def _words(output):
    """The texts of a table, without its numbers, which another processor rounds otherwise."""
    return [word for word in output.data["text/plain"].split() if word.isalpha()]


def test_there_is_no_bar_where_there_is_no_notebook_or_nothing_to_do():
    assert notebook_bar("digits", 4) is None
