"""How long a chapter of the course takes to read, counted from its English page when the site is built.

The table of chapters gets a column with it, in both languages.
"""

import re

from hcrot.learn.notebooks import COURSE, cells

INDEX = {"course/index.md": "Minutes", "course/index.ko.md": "분"}
"""The pages with the table, and the head of the new column."""

WORDS_A_MINUTE, SECONDS_A_FORMULA_LINE, SECONDS_A_CODE_LINE = 150, 10, 5
ROW = re.compile(r"^\| (?P<number>\d\d) \| \[.*\|$", re.MULTILINE)
HEAD = re.compile(r"^(?P<names>\|.*\|)\n(?P<rule>\|(?:---\|)+)\n(?=\| \d\d \| \[)", re.MULTILINE)


def minutes(page: str) -> int:
    """Estimated from the words of the prose, the lines of displayed formulas, and the lines of code that are shown.

    A formula within a line counts as a word. Listings of the library, drawings and exercises do not count.

    Args:
        page: its Markdown.
    """
    prose = "\n".join(cell.text for cell in cells(page) if cell.kind == "markdown")
    formulas = re.findall(r"\$\$(.*?)\$\$", prose, re.DOTALL)
    inline = re.sub(r"\$[^$]+\$", "formula", re.sub(r"\$\$.*?\$\$", "", prose, flags=re.DOTALL))
    words = len(re.findall(r"\w[\w'-]*", re.sub(r"\]\([^)]*\)", "", inline)))
    formula_lines = sum(1 + formula.count(r"\\") for formula in formulas)
    shown = [cell.text for cell in cells(page) if cell.kind == "code" and 'source="above"' in cell.options]
    code_lines = sum(bool(line.strip()) for text in shown for line in text.splitlines())
    return round(words / WORDS_A_MINUTE + (formula_lines * SECONDS_A_FORMULA_LINE + code_lines * SECONDS_A_CODE_LINE) / 60)


def of_chapters() -> dict[str, int]:
    """The minutes of each chapter, by its number, "01" to the last."""
    pages = [path for path in sorted(COURSE.glob("[0-9][0-9]-*.md")) if not path.name.endswith(".ko.md")]
    return {path.name[:2]: minutes(path.read_text(encoding="utf-8")) for path in pages}


def with_minutes(markdown: str, name: str) -> str:
    """The page with the column, if it is one of :data:`INDEX`.

    Args:
        markdown: of the page.
        name: of its file, within docs/.
    """
    if name not in INDEX:
        return markdown
    counted = of_chapters()
    markdown = HEAD.sub(rf"\g<names> {INDEX[name]} |\n\g<rule>---:|\n", markdown)
    return ROW.sub(lambda row: f"{row[0]} {counted[row['number']]} |", markdown)
