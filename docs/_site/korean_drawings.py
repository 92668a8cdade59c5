"""The drawings of the course with Korean words.

The code that makes a drawing is the same on the pages of both languages. For a Korean page the drawing is made once more, each of its words
replaced by that of korean_words.json. Matplotlib lays it out with a stand-in, as wide as the Korean word, so that no Korean font is needed
when the site is built: the word itself is written into the SVG, as text, and the reader's browser has the font.

In korean_words.json a text stands as the code draws it, but ``#`` is any number; the numbers keep their order. ``$x_t$`` in a Korean text
is an italic x with a t below the line; nothing else of LaTeX is known there.
"""

import itertools
import json
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from hcrot.learn import pages

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

TABLE = json.loads(Path(__file__).with_name("korean_words.json").read_text(encoding="utf-8"))
WORDS = TABLE["captions"] | TABLE["labels"]
NAMES = set(TABLE["names"])  # words that are the same in Korean: of functions, and of variables in the code
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FORMULA = re.compile(r"\$([^$]*)\$")
used: set[str] = set()  # the entries of WORDS that were looked up


def korean(text: str) -> str | None:
    """The Korean for what is written in a drawing or below it; "kernel of 3" is also looked up as "kernel of #". None: it has no entry."""
    numbers = NUMBER.findall(text)
    key = text if text in WORDS else NUMBER.sub("#", text)
    if key not in WORDS:
        return None
    used.add(key)
    return WORDS[key] if key == text else re.sub("#", lambda _: numbers.pop(0), WORDS[key])


def english(text: str) -> bool:
    """Whether there are words in it, not only formulas, numbers, and names that are the same in Korean."""
    words = re.findall(r"[A-Za-z]{2,}", FORMULA.sub("", text))
    return any(word not in NAMES for word in words)


def stand_in(text: str) -> str:
    """Letters that are as wide as a Korean text."""
    return re.sub("[가-힣]", "M", FORMULA.sub(lambda formula: re.sub(r"[_^{}]", "", formula[1]), text))


def written(line: str) -> str:
    """A line of Korean text as the content of an SVG text; in it, ``$x_t$`` is italic with a t below the line."""

    def formula(match: re.Match) -> str:
        shown, height = "", 0.0
        for mark, group, letter, rest in re.findall(r"([_^])(?:\{([^}]*)\}|(.))|([^_^]+)", match[1]):
            wanted, size = {"_": (0.25, 0.7), "^": (-0.4, 0.7), "": (0.0, 1.0)}[mark]
            text, moved, height = group or letter or rest, (wanted - height) / size, wanted
            shown += f'<tspan font-style="italic" font-size="{size}em" dy="{moved:.2f}em">{text}</tspan>'
        return shown + (f'<tspan dy="{-height:.2f}em">' if height else "<tspan>")

    pieces = FORMULA.sub(formula, escape(line, quote=False))
    return pieces + "</tspan>" * (pieces.count("<tspan") - pieces.count("</tspan>"))


def in_korean(figure: "Figure", alt: str) -> tuple[str, list[str]]:
    """A drawing as :func:`hcrot.learn.pages.drawing` makes it, with Korean words.

    Args:
        figure: changed by this.
        alt: in English.

    Returns:
        The HTML, and what is wrong with it: words that have no Korean, and Korean ones that do not fit.
    """
    from matplotlib.text import Text

    figure.draw_without_rendering()  # the texts along the axes are made now
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        names = [label.get_text() for label in axis.get_ticklabels()]
        if any(map(korean, names)):
            axis.set_ticks(axis.get_ticklocs(), labels=[stand_in(korean(name) or name) for name in names])
            for label, name in zip(axis.get_ticklabels(), names, strict=True):
                label.set_gid(name if korean(name) else None)
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    before = crossing(figure, texts)
    shown, missing = [], [] if korean(alt) else [alt]
    for text in texts:
        name = text.get_gid() or text.get_text()
        found = korean(name)
        if found:
            shown.append(found)
            text.set(text=stand_in(found), gid=f"korean-{len(shown) - 1}")
        elif english(name):
            missing.append(name)
    figure.draw_without_rendering()
    changed = {index for index, text in enumerate(texts) if (text.get_gid() or "").startswith("korean-")}
    outside = sorted(places for places in crossing(figure, texts) - before if changed & set(places))
    wrong = [f"no Korean for {text!r}" for text in missing]
    wrong += [f"no room for {' and '.join(texts[index].get_text() for index in places)!r} (M is a Korean letter)" for places in outside]

    def group(match: re.Match) -> str:
        lines = iter(shown[int(match[1])].split("\n"))
        return "<g>" + re.sub("(<text[^>]*>)[^<]*", lambda text: text[1] + written(next(lines)), match[2])

    html = pages.drawing(figure, korean(alt) or alt)
    return re.sub(r'<g id="korean-(\d+)">(.*?</g>)', group, html), wrong


def crossing(figure: "Figure", texts: "list[Text]") -> set[tuple[int, ...]]:
    """Which texts lie over another one, and which leave the figure, by their numbers."""
    boxes = [text.get_window_extent() for text in texts]
    pairs = {pair for pair in itertools.combinations(range(len(boxes)), 2) if boxes[pair[0]].overlaps(boxes[pair[1]])}
    return pairs | {(index,) for index, box in enumerate(boxes) if box.x0 < -1 or box.x1 > figure.bbox.width + 1}
