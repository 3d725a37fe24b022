"""Writes `docs/gallery/digits.ipynb`: the example `digits` from a notebook, with what came out of it.

python docs/notebook.py
"""

import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "gallery" / "digits.ipynb"
EXAMPLE = Path(__file__).parents[1] / "examples" / "digits"
CELLS = [
    (
        "markdown",
        "# Which changes help on handwritten digits?\n\n"
        "The two files of the example `digits` lie beside this notebook. `harness.ablate` trains every cell that is "
        "not there yet, in processes of its own, and a bar says how far it is. Called again it trains nothing.",
    ),
    ("code", 'import harness\n\nfound = harness.ablate("digits.yaml", only=["wide", "fast", "centered"], jobs=2)'),
    ("markdown", "The answer, and what it rests on:"),
    ("code", "found"),
    ("markdown", "Everything is a pandas table: here the effects, as they are logged."),
    (
        "code",
        'columns = ["variant", "n", "mean", "low", "high", "p_adjusted", "verdict"]\nfound.effects[columns].round(4)',
    ),
    ("markdown", "And every cell:"),
    (
        "code",
        'cells = found.results\ncells.pivot(index="seed", columns="variant", values="test/accuracy").round(4)',
    ),
]


def new_notebook() -> nbformat.NotebookNode:
    """The notebook without outputs. The ids of its cells are their numbers: nothing in it changes by itself."""
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = [make[kind](text, id=str(number)) for number, (kind, text) in enumerate(CELLS)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Runs it in a kernel, beside the files of the example."""
    for path in EXAMPLE.iterdir():
        shutil.copy(path, folder)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}, record_timing=False)
    done: nbformat.NotebookNode = client.execute()
    del done.metadata["language_info"]  # names the version of Python
    for cell in done.cells:
        if cell.cell_type == "code":  # without what libraries warn of
            cell.outputs = [it for it in cell.outputs if it.output_type != "stream"]
    return done


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        nbformat.write(executed(new_notebook(), Path(name)), NOTEBOOK)
