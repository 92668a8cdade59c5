"""The built site in a browser: nothing fails, nothing leaves this machine, and it can be read on a phone.

``mkdocs build --strict`` builds it (.ci/run does); HCROT_SITE says where it is, if not in build/site. Skipped without it, or without
Chromium and Playwright.
"""

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("HCROT_SITE", ROOT / "build" / "site"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
NO_INDEX = {"config": {"lang": ["en"], "separator": " ", "pipeline": [], "fields": {}}, "docs": []}
LEFT = "net::ERR_ABORTED"  # what was still on its way when the next page was opened
PAGES = sorted(page.parent.relative_to(SITE).as_posix() for page in SITE.rglob("index.html"))
SHOWN = [page for page in PAGES if not re.match(r"(ko/)?source/", page)]
ENGLISH = [page for page in SHOWN if page != "ko" and not page.startswith("ko/")]
KOREAN = [page for page in SHOWN if page == "ko" or page.startswith(("ko/course", "ko/view", "ko/applications"))]  # the rest as in English
DARK = {page: (ENGLISH.index(page.removeprefix("ko").strip("/") or ".") + (page in KOREAN)) % 2 == 0 for page in [*ENGLISH, *KOREAN]}
IN_BOTH = [page for page in SHOWN if f"ko/{page}" in PAGES or (page == "." and "ko" in PAGES)]

needs_site = pytest.mark.skipif(not PAGES, reason=f"no site in {SITE}: run mkdocs build")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):  # the page was left
            super().handle()

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=600")  # scripts are read and compiled once, not once for each page
        super().end_headers()


class NoIndex(Quiet):
    """Answers with an empty index of the search, whose making takes a second for each page."""

    def do_GET(self):
        if not self.path.endswith("/search_index.json"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(NO_INDEX).encode())


@contextlib.contextmanager
def served(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def address():
    with served(NoIndex) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


def open_page(browser, width, scheme):
    """A tab, and what goes wrong in it."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(120_000)  # beside other tests a page may take long
    wrong: list[str] = []
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}") if request.failure != LEFT else None)
    page.on("response", lambda response: wrong.append(f"{response.status}: {response.url}") if response.status >= 400 else None)
    page.on("request", lambda request: wrong.append(f"leaves: {request.url}") if not local(request.url) else None)
    page.on("console", lambda message: wrong.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    return page, wrong


def local(url):
    return url.startswith(("http://127.0.0.1", "data:", "blob:"))


@needs_site
@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_every_page_is_drawn_and_fits(browser, address, width, scheme):
    """Each once, by turns on a phone in the dark and on a desk in the light; what is one of them in English is the other in Korean."""
    page, wrong = open_page(browser, width, scheme)
    for name in [name for name, dark in DARK.items() if dark == (scheme == "dark")]:
        page.goto(f"{address}/{name}/", wait_until="load")
        found = page.evaluate("""() => ({
            width: document.documentElement.scrollWidth,
            scheme: document.body.getAttribute("data-md-color-scheme"),
            undrawn: [...document.querySelectorAll(".arithmatex")].filter(one => !one.querySelector(".katex")).length,
            wrong: document.querySelectorAll(".katex-error").length,
            pictures: [...document.images].filter(one => one.loading != "lazy" && !one.naturalWidth).map(one => one.src),
        })""")
        assert not wrong, (name, wrong)
        drawn = {"undrawn": 0, "wrong": 0, "pictures": []}
        assert found == {"width": width, "scheme": "slate" if scheme == "dark" else "default", **drawn}, name
    page.close()


@needs_site
@needs_chromium
def test_the_language_switch_keeps_the_page(browser, address):
    page, wrong = open_page(browser, 1280, "light")
    for name in [".", *[one for one in IN_BOTH if one.startswith(("course", "reference/layers"))][:2]]:
        page.goto(f"{address}/{name}/")
        page.locator("header .md-select__link[hreflang=ko]").dispatch_event("click")
        korean = f"{address}/ko/" if name == "." else f"{address}/ko/{name}/"
        page.wait_for_url(korean)
        assert page.locator("html").get_attribute("lang") == "ko"
        page.locator("header .md-select__link[hreflang=en]").dispatch_event("click")
        page.wait_for_url(f"{address}/" if name == "." else f"{address}/{name}/")
    assert not wrong
    page.close()


@needs_site
@needs_chromium
def test_the_search_finds(browser):
    page, wrong = open_page(browser, 1280, "light")
    with served(Quiet) as address:
        page.goto(address)
        page.locator("input.md-search__input").click()
        page.keyboard.type("GroupNorm")
        page.locator(".md-search-result__item").first.wait_for()
        assert not wrong
        page.close()


@needs_site
def test_no_page_is_large_beside_its_drawings():
    texts = {page: (SITE / page / "index.html").read_text(encoding="utf-8") for page in PAGES}
    sizes = {page: len(re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).encode()) for page, text in texts.items()}
    assert not {page: size for page, size in sizes.items() if size > 300_000}


@needs_site
def test_nothing_is_taken_from_elsewhere():
    """Links may lead out; what is loaded may not."""
    for page in PAGES:
        html = (SITE / page / "index.html").read_text(encoding="utf-8")
        assert not re.findall(r"""(?:src="|<link[^>]*href=")(?:https?:)?//[^"]*""", html), page


@needs_site
def test_code_that_ran_shows_no_error():
    ran = [page for page in PAGES if "reference/" not in page]  # docstrings show errors that are meant
    texts = {page: (SITE / page / "index.html").read_text(encoding="utf-8") for page in ran}
    assert not [page for page, text in texts.items() if "Traceback (most recent call last)" in text]


@needs_site
def test_drawings_on_korean_pages_are_korean():
    drawings = 0
    for page in [page for page in KOREAN if page.startswith("ko/course")]:
        html = (SITE / page / "index.html").read_text(encoding="utf-8")
        for drawing in re.findall(r'<figure class="drawing".*?</figure>', html, re.DOTALL):
            drawings += 1
            caption, words = re.search("<figcaption>(.*?)</figcaption>", drawing)[1], re.sub("<[^>]*>", " ", drawing)
            assert re.search("[가-힣]", caption) and not re.search(r"\b(the|of|and|to|is|step|image|error|loss)\b", words), (page, caption)
    assert drawings > 50


@needs_site
def test_bugs_on_the_korean_page_are_korean():
    shown = re.sub("<[^>]*>", "", (SITE / "ko" / "course" / "bug-hunt" / "index.html").read_text(encoding="utf-8"))
    assert "bug-01  완전 연결 층" in shown and "# 메모리가 모자라서" in shown and "4점 가운데 4점입니다" in shown
