"""The Korean site without doing anything twice.

mkdocs-static-i18n builds the whole site once for each language. A page that has no translation is the same page there: it is taken from
the English build, its links changed to those of its new place. A page that has one runs the same code (tests/learn/test_pages.py compares
it), so what the English page's blocks gave is shown again, as long as all of the code on both is the same; its drawings with Korean words
(korean_drawings.py). Only where the code asks for exercises it is run again, and the workbook answers in Korean.
"""

import logging
import posixpath
import re
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import korean_drawings
import markdown_exec
from markupsafe import Markup
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

import hcrot.learn.pages
from hcrot.learn import languages
from hcrot.learn.notebooks import cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("mkdocs.hooks.korean")
pages: dict[str, tuple[str, object]] = {}  # the content and the table of contents of each English page, by its file
blocks: dict[str, dict[str, list[str]]] = {}  # what each block of an English page gave, by the page and the block
code: dict[str, list[str]] = {}  # the blocks of each English page, in order

drawings: dict[str, tuple["Figure", str]] = {}  # what each drawing was made of, by its HTML

here = ""  # the page whose code is being run
speaking = "en"
replaying = False
run = markdown_exec.formatters["python"]
draw = hcrot.learn.pages.drawing
ASKS = re.compile(r"\bhcrot\.learn\.(start|contents)\(|\bimport workbook\b")  # what is said of exercises, in the language of the page


def formatted(*, code: str, **options: object) -> str:
    """What a block gives: run, or taken from the English page, where a block that stands there twice gave two things, in order."""
    given = blocks[here].setdefault(code, [])
    if not replaying:
        given.append(run(code=code, **options))
    shown = given.pop(0) if replaying else given[-1]
    if speaking == "ko":
        return Markup(re.sub(r'<figure class="drawing".*?</figure>', lambda match: with_korean_words(match[0]), shown))
    return shown


def drawing(figure: "Figure", alt: str) -> str:
    """As the library draws, and kept to be drawn again with Korean words."""
    html = draw(figure, alt)
    drawings[html] = figure, alt
    return html


@cache
def with_korean_words(html: str) -> str:
    html, wrong = korean_drawings.in_korean(*drawings[html])
    for problem in wrong:
        log.warning("%s: %s (docs/_site/korean_words.json)", here, problem)
    return html


markdown_exec.formatters["python"] = formatted
hcrot.learn.pages.drawing = drawing


def fallback(page: Page) -> bool:
    """Whether this is an English page within the Korean site."""
    return page.file.locale != page.file.locale_alternate_of


@event_priority(-90)  # after the pages that come from outside docs/
def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    global here, replaying, speaking
    here, speaking = page.file.norm_src_uri, page.file.locale
    if fallback(page):
        page.meta["search"] = {"exclude": True}  # it is found as the English page
        return f"# {page.title}"
    languages.spoken_here = speaking
    mine = [cell.text for cell in cells(markdown) if cell.kind == "code"]
    replaying = speaking == "ko" and code.get(here) == mine and not any(map(ASKS.search, mine))
    if not replaying:
        code[here], blocks[here] = mine, {}
    return markdown


@event_priority(-90)  # after the links among docstrings are made
def on_env(env: object, config: MkDocsConfig, files: Files) -> None:
    for file in files.documentation_pages():
        page = file.page
        if page is None:
            continue
        if fallback(page):
            content, page.toc = pages[file.src_uri]
            page.content = moved(content, page, config)
        else:
            pages[file.src_uri] = (page.content, page.toc)


def moved(content: str, page: Page, config: MkDocsConfig) -> str:
    """The content with links from its new place, where they lead to a picture or another file: those exist once, pages twice."""
    english = page.url.removeprefix("ko/")

    def link(match: re.Match) -> str:
        if PurePosixPath(match[2]).suffix in ("", ".py", ".md", ".html") or "#" in match[2]:
            return match[0]
        return match[1] + get_relative_url(posixpath.normpath(posixpath.join(english, match[2])), page.url)

    return re.sub(r'((?:src|href)=")((?![a-z]+:|/|#)[^"]+)', link, content)


@event_priority(-100)  # after mkdocs-static-i18n, which builds the Korean site in this event of the English one
def on_post_build(config: MkDocsConfig) -> None:
    for text in korean_drawings.WORDS.keys() - korean_drawings.used:
        log.warning("no drawing has the words %r of docs/_site/korean_words.json", text)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Without the links from which the theme's script would look for a sitemap beside each page."""
    return re.sub(r'\s*<link rel="alternate"[^>]*>', "", output)
