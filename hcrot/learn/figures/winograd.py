"""Drawings of Winograd's algorithm: overlapping tiles, a polynomial known at points, the way of a tile, and rounding errors."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, PARAMETER, arrow, canvas, charts, grid, label

__all__ = ["errors", "polynomial", "tiles", "way"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tiles(size: int, tile: int, step: int) -> "Figure":
    """An image with a border of zeros, two neighbouring tiles of it, and the outputs that they make."""
    from matplotlib.patches import Rectangle

    figure, axes = canvas(11.2, 0.62 * (size + 2) + 1.9)
    cell, top = 0.62, 1.0
    texts = [["0" if row in (0, size + 1) or column in (0, size + 1) else "" for column in range(size + 2)] for row in range(size + 2)]
    label(axes, 0.4 + cell * (size + 2) / 2, 0.5, "image, a border of zeros", size=10)
    grid(axes, 0.4, top, texts, cell=cell, colour=INK, size=8)
    right = 1.6 + cell * (size + 2)
    label(axes, right + cell * size / 2, 0.5, "output", size=10)
    grid(axes, right, top + cell, [[""] * size] * size, cell=cell, colour=INK)
    for index, colour in enumerate((FORWARD, BACKWARD)):
        corner = 0.4 + cell * step * index
        axes.add_patch(Rectangle((corner, top), cell * tile, cell * tile, linewidth=2.4, edgecolor=colour, facecolor=(colour, 0.25)))
        place = right + cell * step * index
        axes.add_patch(Rectangle((place, top + cell), cell * step, cell * step, linewidth=2.4, edgecolor=colour, facecolor=(colour, 0.25)))
    below = top + cell * (size + 2) + 0.45
    label(axes, 0.4, below, f"tiles of {tile} x {tile}, {step} apart", size=10, ha="left")
    label(axes, right, below, f"each makes {step} x {step}", size=10, ha="left")
    return figure


def polynomial(function: Callable, points: Sequence[float], x: np.ndarray) -> "Figure":
    """A polynomial, and the points at which it was evaluated."""
    figure, (axes,) = charts(size=(4.6, 2.8))
    axes.plot(x, function(x), color=KEPT, linewidth=2)
    axes.plot(points, function(np.asarray(points)), "o", color=FORWARD, markersize=7)
    axes.set_xlabel("x")
    return figure


def way(d: np.ndarray, v: np.ndarray, u: np.ndarray, m: np.ndarray, y: np.ndarray) -> "Figure":
    """One tile with its numbers: the transform, the product point by point, the transform back."""
    figure, axes = canvas(11.4, 10.6)
    form = "{:g}"
    label(axes, 1.9, 0.4, "tile d")
    grid(axes, 0.3, 0.7, d, cell=0.8, form=form)
    arrow(axes, (3.7, 2.3), (6.9, 2.3), "$B^T d\\,B$")
    label(axes, 8.9, 0.4, "V")
    grid(axes, 7.2, 0.7, v, cell=0.8, colour=KEPT, form=form)
    label(axes, 5.3, 5.2, "times, point by point", size=10)
    label(axes, 1.9, 4.5, "$U = G\\,g\\,G^T$", PARAMETER)
    grid(axes, 0.3, 4.8, u, cell=0.8, colour=PARAMETER, form=form)
    arrow(axes, (3.7, 6.4), (6.9, 6.4), "16 multiplications")
    arrow(axes, (8.8, 4.0), (8.8, 4.3))
    label(axes, 8.9, 4.5, "M")
    grid(axes, 7.2, 4.8, m, cell=0.8, colour=KEPT, form=form)
    arrow(axes, (6.9, 8.1), (4.2, 9.2))
    label(axes, 6.3, 9.0, "$A^T M A$", size=10)
    label(axes, 2.9, 8.6, "output Y")
    grid(axes, 2.1, 8.9, y, cell=0.8, colour=BACKWARD, form=form)
    return figure


def errors(found: Mapping[str, float]) -> "Figure":
    """The largest error in float32, relative to the largest output, on a logarithmic scale."""
    figure, (axes,) = charts(size=(4.8, 0.5 * len(found) + 0.9))
    axes.barh(list(found), list(found.values()), color=(FORWARD, 0.7))
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("rounding error in float32 (logarithmic)")
    return figure
