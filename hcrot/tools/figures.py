"""What all pictures share: matplotlib, imported when the first is drawn, with its own style, and figures that show in a notebook."""

import functools
import io
import os
import sys
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from hcrot.files.json_and_arrays import replacing

__all__ = ["default_style", "new_figure", "save", "tidy"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def default_style() -> AbstractContextManager[None]:
    """matplotlib's own style for a while, whatever the user's is; without the backend, which is not part of a style."""
    _import_matplotlib()
    from matplotlib.style import context

    return context("default")


def _import_matplotlib() -> None:
    """Import it without MPLBACKEND, which names what shall show figures in windows, and which may be inherited from a notebook whose
    package is not installed here: then matplotlib refuses to be imported. Afterwards the user's choice stands, if it is possible."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def new_figure(**options: Any) -> "Figure":
    """A figure that shows itself where it is the last line of a notebook's cell, whether pyplot was imported or not."""
    _import_matplotlib()
    return _shown_figure()(**options)


@functools.cache
def _shown_figure() -> type:
    """A class with matplotlib's at its base can be made once that is imported, no earlier."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            with default_style():
                self.savefig(file, format="png")
            return file.getvalue()

    return ShownFigure


def tidy(axes: "Axes") -> None:
    """Two sides of the frame instead of four, and a grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: "Figure", path: str | os.PathLike | None) -> None:
    """Write the figure as PNG, beside its target first; None: nowhere."""
    if path is not None:
        with replacing(path) as unfinished:
            figure.savefig(unfinished, format="png")
