"""A page as a notebook runs from its first cell to its last, in a kernel of its own."""

from pathlib import Path

import pytest

from hcrot.learn import notebooks

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "new-layer.md"


def test_a_generated_notebook_runs():
    for name in ("ipykernel", "jupytext"):
        pytest.importorskip(name)
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.reads(notebooks.notebook(PAGE.read_text(encoding="utf-8")), as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    printed = "".join(output["text"] for cell in notebook.cells for output in cell.get("outputs", []) if output["output_type"] == "stream")
    assert "2 compared with differences" in printed and "1 wrong" in printed
