"""The drawings on Korean pages have Korean words.

That each word of each drawing has one, and that no other has, is seen where the site is built: it warns, and so it fails.
"""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from hcrot.learn import notebooks
from hcrot.learn.figures import style

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawings():
    spec = importlib.util.spec_from_file_location("korean_drawings", ROOT / "docs" / "_site" / "korean_drawings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def captions(page):
    for cell in notebooks.cells(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(cell.text)) if cell.kind == "code" else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "show":
                yield node.args[1].value


def test_each_caption_of_the_course_has_a_korean_one_and_no_other_has(drawings):
    shown = {caption for page in notebooks.COURSE.glob("*.ko.md") for caption in captions(page)}
    assert shown == drawings.TABLE["captions"].keys()
    assert all(re.search("[가-힣]", text) for text in drawings.TABLE["captions"].values())


@pytest.fixture
def figure(drawings, monkeypatch):
    words = {"a < caption": "그림 & 설명", "kernel of #,\nstride #": "크기 #인 커널,\n스트라이드 #", "cat": "고양이"}
    words["mean $\\mu$"] = "평균 $μ_{t-1}$의 값"
    monkeypatch.setattr(drawings, "WORDS", words)
    figure, (axes,) = style.charts()
    axes.set_xticks([0, 1], ["cat", "7"])
    style.label(axes, 0.5, 0.5, "kernel of 3,\nstride 2.5")
    style.label(axes, 0.5, 0.8, "mean $\\mu$")
    style.label(axes, 0.5, 0.1, "dx")
    return figure


def test_the_words_of_a_drawing_become_korean(drawings, figure):
    html, wrong = drawings.in_korean(figure, "a < caption")
    texts = [re.sub("<[^>]*>", "", text) for text in re.findall(r"<text.*?</text>", html)]
    assert not wrong
    assert {"크기 3인 커널,", "스트라이드 2.5", "평균 μt-1의 값", "고양이", "7", "dx"} <= set(texts) and "cat" not in texts
    assert 'aria-label="그림 &amp; 설명"' in html and "<figcaption>그림 &amp; 설명</figcaption>" in html
    below = re.search(r'>μ</tspan><tspan [^>]* dy="([\d.]+)em">t-1</tspan><tspan dy="(-[\d.]+)em">의 값</tspan>', html)
    assert below and float(below[1]) * 0.7 == pytest.approx(-float(below[2]), abs=0.01)  # back on the line
    assert "korean-" not in html


def test_what_has_no_korean_and_what_does_not_fit_is_told(drawings, figure):
    style.label(figure.axes[0], 0.5, 0.3, "only English")
    _, wrong = drawings.in_korean(figure, "another caption")
    assert wrong == ["no Korean for 'another caption'", "no Korean for 'only English'"]


def test_korean_that_is_too_long_is_told(drawings, figure):
    figure, axes = style.canvas(6, 3)
    for x, y, text in ((1, 1, "cat"), (5.72, 1, "cat"), (1, 2, "cat"), (1.5, 2, "dx")):  # fits; leaves the figure; lies over dx
        style.label(axes, x, y, text)
    _, wrong = drawings.in_korean(figure, "a < caption")
    assert sorted(text.partition(" (")[0] for text in wrong) == ["no room for 'MMM and dx'", "no room for 'MMM'"]


def test_both_glossaries_have_the_same_terms():
    pages = [(notebooks.COURSE / name).read_text(encoding="utf-8") for name in ("glossary.md", "glossary.ko.md")]
    terms = [re.findall(r"^\| ([^|]*) \| ([^|]*) \|.*\]\(\d\d-", page, re.MULTILINE) for page in pages]
    assert terms[0] == terms[1] and len(terms[0]) > 50
