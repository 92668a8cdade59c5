"""Pages whose text is outside of docs/: CONTRIBUTING.md, CHANGELOG.md, and each file of code that a page links to.

The pages of docs/ link to those files by where they are in the project, as whoever reads them there expects. On the site such a link
leads to a page with the file's text, made when the site is built: nothing is a copy.

The index of the course gets the minutes of its chapters at the same time (minutes.py).
"""

import os
import re
from pathlib import Path

from minutes import with_minutes
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|/|#)([^)#\s]+)(?=[)#])")
made: dict[str, str] = {}  # each page that comes from outside, and its file
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def outside(target: str, folder: Path) -> str | None:
    """The page of the file that a link leads to, seen from a folder of the project; None if that is within docs/ or nothing."""
    path = (folder / target).resolve()
    if not path.is_file() or not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "docs"):
        return None
    name = path.relative_to(ROOT).as_posix()
    known = {file: page for page, file in PAGES.items()}
    return known.get(name, f"source/{name.replace('.', '-')}.md")  # conv.py.md would be a page in the language py


def linked() -> dict[str, str]:
    """Each page that comes from outside, and its file: those that are linked from a page or from another of these."""
    found = dict(PAGES)
    texts = [path for path in (ROOT / "docs").rglob("*.md")] + [ROOT / file for file in PAGES.values()]
    for path in texts:
        for target in LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8"))):
            page = outside(target, path.parent)
            if page and page not in found:
                found[page] = (path.parent / target).resolve().relative_to(ROOT).as_posix()
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made.update(linked())
    for page in made:
        files.append(File(page, config.docs_dir, config.site_dir, config.use_directory_urls))
    return files


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    name = made.get(page.file.src_uri)
    if name is None:
        return None
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".md"):
        return text
    language = {".py": "python", ".toml": "toml", ".yml": "yaml"}.get(Path(name).suffix, "text")
    return f"# {name}\n\n~~~~ {{ .{language} }}\n{text}\n~~~~\n"


@event_priority(-80)
def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    folder = (ROOT / made.get(uri, f"docs/{uri}")).parent
    if uri.startswith("source/"):
        return markdown
    markdown = with_minutes(markdown, uri)

    def link(match: re.Match) -> str:
        target = outside(match[0], folder)
        if target is None and uri in made and (folder / match[0]).resolve().is_relative_to(ROOT / "docs"):
            target = (folder / match[0]).resolve().relative_to(ROOT / "docs").as_posix()
        return os.path.relpath(target, Path(uri).parent).replace(os.sep, "/") if target else match[0]

    pieces, end = [], 0
    for fence in FENCED.finditer(markdown):
        pieces += [LINK.sub(link, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, LINK.sub(link, markdown[end:])])
