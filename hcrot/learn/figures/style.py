"""What all drawings share: one colour for each meaning, boxes, arrows, and grids of numbers.

A drawing is in units of its own axes, without frame and ticks; text and lines in :data:`INK` take the colour of the page's text, so that a
drawing can be read on a dark page and on a light one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.tools.figures import default_style, new_figure

__all__ = ["BACKWARD", "FORWARD", "INK", "KEPT", "NOISE", "PAGE", "PALE", "PARAMETER", "arrow", "box", "canvas", "charts", "grid", "label"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#7f7f7e"
"""Text and lines: replaced by the colour of the page's text."""
PAGE = "#fefefd"
"""An area that hides what is behind it: replaced by the colour of the page itself."""
FORWARD = "#3d85c6"
"""Values on their way forward: x, y."""
BACKWARD = "#d9632b"
"""Gradients on their way back: dy, dx."""
PARAMETER = "#3f9c5a"
"""What is learned: W, b, and their gradients."""
KEPT = "#8e63b5"
"""What forward keeps for backward, and what goes over a skip connection."""
NOISE = "#c2953a"
"""Noise, and what has to do with it: epsilon, beta_t."""
PALE = 0.18
"""How opaque an area is that is filled with one of these colours."""


def canvas(width: float, height: float, scale: float = 0.5) -> "tuple[Figure, Axes]":
    """A figure of width x height units, each of ``scale`` inches, x to the right, y **down** as in a picture, without a frame."""
    with default_style():
        figure = new_figure(figsize=(width * scale, height * scale))
        axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure, axes


def charts(count: int = 1, *, size: tuple[float, float] = (4.2, 2.8)) -> "tuple[Figure, list[Axes]]":
    """A row of charts with curves, each of ``size`` inches, their frames and numbers in :data:`INK`."""
    with default_style():
        figure = new_figure(figsize=(size[0] * count, size[1]), layout="constrained")
        rows = [figure.add_subplot(1, count, index + 1) for index in range(count)]
    for axes in rows:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK)
        axes.grid(color=INK, linewidth=0.5, alpha=0.25)
        axes.set_axisbelow(True)
        axes.patch.set_alpha(0)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(INK)
    return figure, rows


def label(axes: "Axes", x: float, y: float, text: str, colour: str = INK, size: float = 11, **options: object) -> None:
    """Text around the point (x, y)."""
    axes.text(x, y, text, **{"color": colour, "fontsize": size, "ha": "center", "va": "center", **options})  # type: ignore[arg-type]


def box(
    axes: "Axes", x: float, y: float, width: float, height: float, text: str = "", colour: str = FORWARD, size: float = 11
) -> None:
    """A box with its upper left corner at (x, y), its text in the middle."""
    from matplotlib.patches import FancyBboxPatch

    shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.15", linewidth=1.3, edgecolor=colour,
                           facecolor=(colour, PALE))  # fmt: skip
    axes.add_patch(shape)
    label(axes, x + width / 2, y + height / 2, text, size=size)


def arrow(
    axes: "Axes",
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    colour: str = INK,
    bend: float = 0.0,
    size: float = 10,
) -> None:
    """From one point to another, bent to the left of its way by ``bend`` of its length; its text above its middle."""
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 1, "shrinkB": 1, "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
    if text:
        (x0, y0), (x1, y1) = start, end
        label(axes, (x0 + x1) / 2 + bend * (y1 - y0) / 2, (y0 + y1) / 2 - bend * (x1 - x0) / 2 - 0.25, text, colour, size)


def grid(
    axes: "Axes",
    x: float,
    y: float,
    values: Sequence | np.ndarray,
    *,
    cell: float = 0.7,
    colour: str = FORWARD,
    marked: Sequence[tuple[int, int]] = (),
    form: str = "{}",
    size: float = 9,
) -> None:
    """A matrix as a grid with its numbers (or texts), the upper left corner at (x, y); the ``marked`` cells are filled more strongly."""
    from matplotlib.patches import Rectangle

    for row, numbers in enumerate(np.atleast_2d(np.asarray(values))):
        for column, number in enumerate(numbers):
            strength = 0.55 if (row, column) in marked else PALE
            corner = (x + column * cell, y + row * cell)
            axes.add_patch(Rectangle(corner, cell, cell, linewidth=0.8, edgecolor=colour, facecolor=(colour, strength)))
            label(axes, corner[0] + cell / 2, corner[1] + cell / 2, form.format(number), size=size)
