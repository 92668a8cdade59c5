"""What the pages of the course show: drawings, and code as it stands in the library.

Each function works in two places. On the site a page's code is run by markdown-exec, which puts what the page prints as HTML into it; in a
notebook the same call displays it.
"""

import inspect
import io
import re
import sys
import textwrap
from collections.abc import Callable
from html import escape
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hcrot.learn.figures.style import INK, PAGE

__all__ = ["drawing", "listing", "show", "side_by_side"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(figure: "Figure", alt: str) -> None:
    """A drawing as SVG inside the page, in its colours.

    Args:
        figure: its lines and text in ``INK`` get the colour of the page's text.
        alt: what it shows, for who cannot see it.
    """
    _display(drawing(figure, alt))


def drawing(figure: "Figure", alt: str) -> str:
    """The HTML of :func:`show`, whose arguments these are."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt, "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAGE, "var(--md-default-bg-color, white)")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    width = float(re.search(r'width="([\d.]+)pt"', svg).group(1)) * 4 / 3  # type: ignore[union-attr]
    opening = rf'<svg viewBox="\1" role="img" style="width:{width:.0f}px;max-width:100%">'
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', opening, svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)  # a blank line would end the HTML in the page's Markdown
    return f'<figure class="drawing" aria-label="{escape(alt)}">{svg}<figcaption>{escape(alt, quote=False)}</figcaption></figure>'


def listing(thing: Callable[..., Any] | type) -> None:
    """The source of a function, method or class of the library, as it stands there."""
    _display(_code(thing))


def side_by_side(owner: type | ModuleType, first: str = "forward", second: str = "backward") -> None:
    """Two methods of a layer, or two functions of a file, next to each other, as they stand in the library, without their docstrings."""
    columns = "".join(f"<div>{_code(getattr(owner, name), docstring=False)}</div>" for name in (first, second))
    _display(f'<div class="side-by-side">{columns}</div>')


def _code(thing: Callable[..., Any] | type, docstring: bool = True) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    thing = inspect.unwrap(thing)
    source = textwrap.dedent(inspect.getsource(thing))
    if not docstring:
        source = re.sub(r'\n\s*(?:r)?""".*?"""(?=\n)', "", source, count=1, flags=re.DOTALL)
    html = highlight(source, PythonLexer(), HtmlFormatter(nowrap=True, noclasses=_in_notebook()))
    place = f"hcrot/{inspect.getsourcefile(thing).replace(chr(92), '/').rpartition('/hcrot/')[2]}"  # type: ignore[union-attr]
    lines = html.rstrip("\n").replace("\n", "&#10;")  # as in `show`
    return f'<div class="highlight"><span class="filename">{place}</span><pre><code>{lines}</code></pre></div>'


def _display(html: str) -> None:
    if _in_notebook():
        from IPython.display import HTML, display

        display(HTML(html))
    else:  # markdown-exec sees what is printed by the `print` that it puts among the names of the page, and no other
        sys._getframe(2).f_globals.get("print", print)(html)


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules
