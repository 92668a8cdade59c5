"""The chapters as notebooks run from their first cells to their last, as a reader runs them. One kernel serves all, emptied each time."""

from pathlib import Path

import pytest

from hcrot.learn import notebooks

NEW_LAYER = Path(__file__).parents[2] / "docs" / "how-to" / "new-layer.md"
CHAPTERS = [page for page in sorted(notebooks.COURSE.glob("[0-9][0-9]-*.md")) if not page.name.endswith(".ko.md")]


@pytest.fixture(scope="module")
def run():
    """``run(page)`` runs the notebook of a page and returns it with its outputs."""
    for name in ("ipykernel", "jupytext"):
        pytest.importorskip(name)
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    client = nbclient.NotebookClient(nbformat.v4.new_notebook(), timeout=600, kernel_name="python3")

    def run(page):
        client.nb = nbformat.reads(notebooks.notebook(page.read_text(encoding="utf-8")), as_version=4)
        client.execute_cell(nbformat.v4.new_code_cell("%reset -f"), 0)
        for index, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, index)  # an error in it is raised here
        return client.nb

    with client.setup_kernel():
        yield run


def outputs(notebook, kind):
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if output["output_type"] == kind]


def test_a_notebook_prints(run):
    printed = "".join(output["text"] for output in outputs(run(NEW_LAYER), "stream"))
    assert "2 compared with differences" in printed and "1 wrong" in printed


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_runs_and_shows_its_drawings(run, page):
    code = [cell.text for cell in notebooks.cells(page.read_text(encoding="utf-8")) if cell.kind == "code"]
    shown = [output for output in outputs(run(page), "display_data") if "text/html" in output["data"]]
    assert code and len(shown) >= sum(text.count("\nshow(") for text in code)


def test_all_chapters_are_there():
    assert [page.name[:2] for page in CHAPTERS] == [f"{number:02}" for number in range(1, 19)]
