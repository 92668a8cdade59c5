"""The pages of the course: in both languages the same code and the same formulas, and their cells make notebooks.

That their code runs is seen where the site is built.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from hcrot.learn import loops, notebooks, workbook
from hcrot.learn.figures import style
from hcrot.learn.pages import show, side_by_side

CHAPTERS = sorted(path for path in notebooks.COURSE.glob("[0-9][0-9]-*.md") if not path.name.endswith(".ko.md"))
WORDS = re.compile(r"\\text\{([^}]*)\}")  # within formulas
NAMES = {"ReLU:", "SiLU:", ":", "SiLU", "im2col", "col2im", "simple"}
EXERCISES = Path(notebooks.__file__).parent / "exercises"


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def formulas(page: str) -> set[str]:
    """Without the words in them, which are of the page's language, and without the full stop or comma at their end."""
    prose = "\n".join(re.sub(r"`[^`\n]*`", "", cell.text) for cell in notebooks.cells(page) if cell.kind == "markdown")
    displayed = re.findall(r"\$\$(.*?)\$\$", prose, re.DOTALL)
    inline = re.findall(r"\$([^$\n]+)\$", re.sub(r"\$\$.*?\$\$", "", prose, flags=re.DOTALL))
    return {re.sub(r"\\[;,]|\s", "", WORDS.sub("", formula)).rstrip(".,") for formula in displayed + inline}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_korean_page_has_the_same_code_formulas_and_sections(chapter):
    english, korean = text_of(chapter), text_of(chapter.with_suffix(".ko.md"))
    code = [[(cell.text, cell.options) for cell in notebooks.cells(page) if cell.kind == "code"] for page in (english, korean)]
    assert code[0] == code[1]
    assert formulas(english) == formulas(korean)
    assert all(re.search("[가-힣]", text) or text in NAMES for text in WORDS.findall(korean))
    prose = ["\n".join(cell.text for cell in notebooks.cells(page) if cell.kind == "markdown") for page in (english, korean)]
    sections = [re.findall(r"^#+ ", page, re.MULTILINE) for page in prose]
    assert sections[0] == sections[1] and sections[0].count("# ") == 1
    assert len(re.findall(r"[가-힣]", korean)) > len(english) // 10


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_each_chapter_names_its_exercises(chapter):
    number = chapter.name[:2]
    there = {"-".join(path.name.split("_")[:2]) for path in EXERCISES.glob(f"{number}_*.py")}
    named = set(re.findall(rf"hcrot learn start ({number}-\d)", text_of(chapter)))
    assert named == there and len(named) >= 3


WAY_BACK = r"backward|flows back|derivation|Jacobian|three products|gradients add"  # headings of the sections that derive it
WITHOUT_A_PAIR = {"13"}  # no module of the library has both ways: the class is the page's own


def sections(page: str) -> dict[str, str]:
    """The text below each heading, down to the next one of the same rank or a higher one; headings are not looked for in code."""
    masked = re.sub(r"^```.*?^```$", lambda block: block[0].replace("#", "+"), page, flags=re.MULTILINE | re.DOTALL)
    heads = [(match.start(), match.end(), len(match[1]), match[2]) for match in re.finditer(r"^(##+) (.*)$", masked, re.MULTILINE)]
    ends = [next((other[0] for other in heads[i + 1 :] if other[2] <= head[2]), len(page)) for i, head in enumerate(heads)]
    return {head[3]: page[head[1] : end] for head, end in zip(heads, ends, strict=True)}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_each_chapter_has_all_its_parts(chapter):
    page, number = text_of(chapter), chapter.name[:2]
    code = "\n".join(cell.text for cell in notebooks.cells(page) if cell.kind == "code")
    derivations = [text for name, text in sections(page).items() if re.search(WAY_BACK, name, re.IGNORECASE)]
    picture, exercises = (next((text for name, text in sections(page).items() if word in name), "") for word in ("picture", "Exercises"))
    parts = {
        "picture": len(re.findall(r"^show\(", picture, re.MULTILINE)) >= 1,
        "formulas": page.count("$$") >= 6,
        "derivation of the way back, with formulas": any(len(formulas(text)) >= 3 for text in derivations),
        "forward and backward from the source": "side_by_side(" in code or (number in WITHOUT_A_PAIR and "backward(" in code),
        "gradient check": "hcrot.check_gradients(" in code,
        "three exercises": len(re.findall(r"^\d\. .*hcrot learn start", exercises, re.MULTILINE)) >= 3,
    }
    assert [part for part, there in parts.items() if not there] == []


@pytest.mark.parametrize("ending", [".md", ".ko.md"])
def test_the_exercises_of_the_one_hour_road_have_a_star(ending):
    pages = [text_of(chapter.with_suffix(ending)) for chapter in CHAPTERS]
    starred = [number for page in pages for number in re.findall(r"★ `hcrot learn start (\d\d-\d)`", page)]
    index = text_of(notebooks.COURSE / f"index{ending}")
    road = re.search(r"^## (?:One hour|.*\{ #one-hour \})\n(.*?)^## ", index, re.MULTILINE | re.DOTALL)
    assert road and tuple(starred) == workbook.ONE_HOUR == tuple(re.findall(r"\b\d\d-\d", road[1])[: len(starred)])


@pytest.mark.parametrize(
    ("ending", "place"),
    [
        (".md", r"\b(?:equations?|sections?|appendix|algorithms?|chapters?|figure|relationship) \W?[\dA-Z]"),
        (".ko.md", r"(?:(?:식|부록|알고리즘|그림|관계) ?[\dA-Z]|\d[절장]|\" 절)"),
    ],
)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_each_derivation_says_where_it_comes_from(chapter, ending, place):
    """A section, without those within it, that displays a formula, names a paper's year and the place in it; not so the picture.

    From chapter 12 on much is built on what was derived before: there the year alone, or a place (also of this course), is enough.
    """
    year = r"\b(?:18|19|20)\d\d\b"
    cited = f"{year}[^()]*?{place}" if chapter.name < "12" else f"{year}|{place}"
    prose = "\n".join(cell.text for cell in notebooks.cells(text_of(chapter.with_suffix(ending))) if cell.kind == "markdown")
    for section in re.split(r"^##+ ", prose, flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        if "$$" in text and name not in ("The picture", "A picture", "그림"):
            assert re.search(cited, " ".join(re.sub(r"\]\([^)]*\)", "]", text).split())), f"{chapter.stem}{ending}: {name}"


def test_the_index_counts_minutes():
    spec = importlib.util.spec_from_file_location("minutes", notebooks.COURSE.parent / "_site" / "minutes.py")
    assert spec and spec.loader
    minutes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(minutes)
    text, code = "word " * 149 + "$a + b$\n\n$$a\\\\b\\\\c$$\n\n", '```python exec="on" source="above"\n' + "a\n\n" * 6 + "```\n"
    assert minutes.minutes(text + code) == minutes.minutes(text + code + code.replace(' source="above"', "") * 20) == 2
    assert minutes.minutes(text + code * 9) == 6
    counted = minutes.of_chapters()
    assert len(counted) == len(CHAPTERS) and sum(10 <= count <= 20 for count in counted.values()) > len(CHAPTERS) * 2 / 3
    for name in minutes.INDEX:
        page = text_of(notebooks.COURSE.parent / name)
        assert re.search(r"ten to twenty minutes|10분에서 20분", page)
        rows = re.findall(r"^\| (\d\d) \| .* \| (\d+) \|$", minutes.with_minutes(page, name), re.MULTILINE)
        assert {number: int(count) for number, count in rows} == counted
    assert minutes.with_minutes(page, "other.md") == page


def test_cells_and_notebook():
    page = '# Title\n\ntext\n\n```python exec="on" session="a"\nx = 1\nprint(x)\n```\n\nmore\n\n```python\nshown = "only"\n```\n'
    first, code, last = notebooks.cells(page)
    assert (first.kind, first.text, first.line) == ("markdown", "# Title\n\ntext", 1)
    assert (code.kind, code.text, code.line, code.options) == ("code", "x = 1\nprint(x)", 6, ' session="a"')
    assert last.text.startswith("more") and 'shown = "only"' in last.text
    pytest.importorskip("jupytext")
    document = json.loads(notebooks.notebook(page))
    assert [cell["cell_type"] for cell in document["cells"]] == ["markdown", "code", "markdown"]


def test_running_a_page_names_its_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('# Title\n\n```python exec="on"\nx = 1\n1 / (x - 1)\n```\n', encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as error:
        notebooks.run(page)
    assert error.traceback[-1].lineno + 1 == 5 and str(error.traceback[-1].path) == str(page)


def test_drawings_take_the_colour_of_the_page_and_are_the_same_each_time(capsys):
    for _ in range(2):
        figure, axes = style.canvas(8, 3)
        style.grid(axes, 0, 0, [[1, 2], [3, 4]], marked=[(0, 1)])
        style.box(axes, 3, 0, 2, 1, "a < b")
        style.arrow(axes, (2, 1), (3, 1), "x", bend=0.2)
        show(figure, 'a "drawing"')
    first, second = re.findall(r"<figure.*?</figure>", capsys.readouterr().out, re.DOTALL)
    assert first == second and "\n" not in first
    assert "currentColor" in first and style.INK not in first and "a &lt; b" in first and 'aria-label="a &quot;drawing&quot;"' in first


def test_listings_come_from_the_source(capsys):
    class Layer:
        def forward(self, x):
            """What it says of itself."""
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    side_by_side(Layer)
    html = capsys.readouterr().out
    text = re.sub(r"<[^>]*>", "", html).replace("&#10;", "\n")
    assert "def forward(self, x):\n    return 2 * x" in text and "return 2 * dy" in text and "What it says" not in text
    side_by_side(loops, "conv2d", "conv2d_backward")
    assert capsys.readouterr().out.count("hcrot/learn/loops.py") == 2


def test_chapters_are_written_as_notebooks(tmp_path):
    pytest.importorskip("jupytext")
    for language, name in (("en", "05-convolution.ipynb"), ("ko", "05-convolution.ko.ipynb")):
        answer = notebooks.write("5", tmp_path / "new", language)
        assert answer and answer.facts == {"chapter": "05", "file": str(tmp_path / "new" / name)}
        cells = json.loads((tmp_path / "new" / name).read_text(encoding="utf-8"))["cells"]
        assert {"markdown", "code"} == {cell["cell_type"] for cell in cells} and cells[0]["source"][0].startswith("# 5. ")
    with pytest.raises(FileExistsError, match="is there already"):
        notebooks.write("05", tmp_path / "new")
    assert notebooks.write("05", tmp_path / "new", again=True)
    with pytest.raises(ValueError, match="no chapter '44': they are 01 to 18"):
        notebooks.write("44", tmp_path)
    with pytest.raises(ValueError, match="en and ko, not in 'fr'"):
        notebooks.write("05", tmp_path, "fr")
