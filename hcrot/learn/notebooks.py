"""The pages of the course as notebooks: the same text and the same code, in cells.

A page is Markdown; its blocks of code that start with ```` ```python exec="on" ```` are run when the site is built. Here they become the
cells of a notebook, and everything between them its text. So there is one source for both.

    python -m hcrot.learn.notebooks docs/course/02-linear.md        run the code of a page, as a program
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from hcrot.files.json_and_arrays import replacing
from hcrot.learn.progress import language_of
from hcrot.learn.workbook import FOLDER, Answer

__all__ = ["COURSE", "Cell", "cells", "notebook", "run", "write"]

COURSE = Path(__file__).parents[2] / "docs" / "course"
"""Where the pages are, in a checkout of the project."""

BLOCK = re.compile(r'^```python exec="on"(?P<options>[^\n]*)\n(?P<code>.*?)^```\n', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Cell:
    """A piece of a page.

    Attributes:
        kind: "markdown" or "code".
        text: as it stands in the page; of code without the fence.
        line: of the page, where the text begins, counted from 1.
        options: what stands behind ``exec="on"``.
    """

    kind: str
    text: str
    line: int
    options: str = ""


def cells(page: str) -> list[Cell]:
    """The pieces of a page, in order, without empty ones.

    Args:
        page: its Markdown.
    """
    found, end = [], 0
    for match in BLOCK.finditer(page):
        found.append(Cell("markdown", page[end : match.start()].strip(), page.count("\n", 0, end) + 1))
        found.append(Cell("code", match["code"].rstrip(), page.count("\n", 0, match.start("code")) + 1, match["options"]))
        end = match.end()
    found.append(Cell("markdown", page[end:].strip(), page.count("\n", 0, end) + 1))
    return [cell for cell in found if cell.text]


def notebook(page: str) -> str:
    """A page as the text of a notebook file (.ipynb).

    Args:
        page: its Markdown.

    Raises:
        ImportError: jupytext, which writes it, is missing (``pip install "hcrot[docs]"``).
    """
    try:
        import jupytext
        from nbformat import v4
    except ImportError as error:
        raise ImportError(f'{error}; a notebook is written with jupytext: pip install "hcrot[docs]"') from error

    document = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    for index, cell in enumerate(cells(page)):
        new = v4.new_markdown_cell(cell.text) if cell.kind == "markdown" else v4.new_code_cell(cell.text)
        new["id"] = f"cell-{index}"  # not by chance, as nbformat's are
        document.cells.append(new)
    return jupytext.writes(document, fmt="ipynb")


def write(chapter: str, folder: str | Path = FOLDER, language: str | None = None, again: bool = False) -> Answer:
    """Write a chapter of the course as a notebook into the learner's folder.

    Args:
        chapter: its number, "5" or "05".
        folder: made if need be.
        language: "en" or "ko". None: what the folder speaks.
        again: whether a notebook that is there already is replaced by a new one.

    Raises:
        ValueError: no such chapter or language. FileExistsError: the notebook is there, and ``again`` is False. FileNotFoundError: hcrot is
            not installed from its repository, where the pages are. ImportError: jupytext is missing.
    """
    language = language_of(folder, language)
    if not COURSE.is_dir():
        raise FileNotFoundError(f"there is no folder {COURSE}: the pages of the course come with hcrot's repository, not with the package")
    pages = {path.name[:2]: path for path in sorted(COURSE.glob("[0-9][0-9]-*.md")) if path.name.endswith(".ko.md") == (language == "ko")}
    page = pages.get(chapter.zfill(2))
    if page is None:
        raise ValueError(f"no chapter {chapter!r:.40}: they are {min(pages)} to {max(pages)}")
    path = Path(folder) / f"{page.name.removesuffix('.md')}.ipynb"
    if path.exists() and not again:
        raise FileExistsError(f"{path} is there already: go on with it, or overwrite it with --again")
    text = notebook(page.read_text(encoding="utf-8"))
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return Answer(f"Wrote {path}. To work on it: jupyter lab {path}", {"chapter": page.name[:2], "file": str(path)})


def run(path: Path) -> None:
    """Run the code of a page as one program; errors name its lines.

    Args:
        path: of the page.
    """
    names: dict[str, object] = {"__name__": path.stem}
    for cell in cells(path.read_text(encoding="utf-8")):
        if cell.kind == "code":
            exec(compile("\n" * (cell.line - 1) + cell.text, str(path), "exec"), names)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
