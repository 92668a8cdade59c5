"""Drawings of chapter 10: the way of time and class into the pixels, the sinusoids, and a table's rows."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, PARAMETER, arrow, box, canvas, charts, grid, label

__all__ = ["table", "waves", "way"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def way() -> "Figure":
    """Time and class become temb, temb one number per channel, and that is added to all pixels; the gradients come back."""
    figure, axes = canvas(12.4, 7.4)
    box(axes, 0.3, 0.7, 1.5, 0.9, "time t")
    box(axes, 2.7, 0.7, 2.2, 0.9, "sinusoids")
    box(axes, 5.8, 0.7, 3.1, 0.9, "linear, SiLU, linear", PARAMETER)
    box(axes, 0.3, 2.6, 1.5, 0.9, "class k")
    box(axes, 5.8, 2.6, 3.1, 0.9, "row k of a table", PARAMETER)
    box(axes, 10.3, 1.65, 0.9, 0.9, "+", KEPT, 14)
    box(axes, 9.6, 4.0, 2.3, 0.9, "SiLU", KEPT)
    box(axes, 5.8, 4.0, 2.6, 0.9, "linear", PARAMETER)
    box(axes, 2.0, 5.8, 2.6, 1.1, "image +")
    for start, end in (((1.8, 1.15), (2.7, 1.15)), ((4.9, 1.15), (5.8, 1.15)), ((8.9, 1.1), (10.3, 1.75)), ((1.8, 3.05), (5.8, 3.05)),
                       ((8.9, 2.9), (10.3, 2.25)), ((10.65, 2.55), (10.65, 4.0)), ((9.6, 4.35), (8.4, 4.35)),
                       ((5.8, 4.35), (3.2, 5.8)), ((0.4, 6.2), (2.0, 6.2)), ((4.6, 6.2), (6.2, 6.2))):  # fmt: skip
        arrow(axes, start, end, colour=FORWARD)
    for start, end in (((10.4, 1.65), (8.9, 0.95)), ((10.5, 2.55), (8.9, 3.25)), ((10.9, 4.0), (10.9, 2.55)), ((8.4, 4.65), (9.6, 4.65)),
                       ((3.5, 5.8), (5.8, 4.65)), ((6.2, 6.6), (4.6, 6.6)), ((2.0, 6.6), (0.4, 6.6))):  # fmt: skip
        arrow(axes, start, end, colour=BACKWARD)
    for text, x, y, colour in (
        ("(N, D)", 5.35, 0.75, FORWARD), ("(N, E)", 9.5, 0.85, FORWARD), ("(N, E)", 9.4, 3.45, FORWARD), 
        (r"$\tau$: (N, E)", 9.0, 3.85, FORWARD),
        ("(N, C)", 3.9, 4.75, FORWARD), ("same for all pixels", 2.1, 5.2, FORWARD), ("sum over pixels", 6.1, 5.35, BACKWARD),
        ("rows added", 7.35, 3.72, BACKWARD), ("(N, C, H, W)", 5.6, 7.0, FORWARD),
    ):  # fmt: skip
        label(axes, x, y, text, colour, 9.5)
    label(axes, 9.4, 6.2, "in every\nresidual block", INK, 10)
    return figure


def waves(layer: Callable[..., np.ndarray]) -> "Figure":
    """The embedding of times 0 to 999 as an image, and dot products of embeddings over the difference of times.

    Args:
        layer: makes (B,) times into (B, D).
    """
    from matplotlib.colors import LinearSegmentedColormap

    figure, (left, right) = charts(2, size=(3.2, 2.9))
    rows = layer(np.arange(1000), np.float64)
    colours = LinearSegmentedColormap.from_list("", [BACKWARD, "#ffffff", FORWARD])
    left.imshow(rows[:200], aspect="auto", cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
    left.grid(False)
    left.set_xlabel("number in the row: 16 cos, 16 sin", color=INK)
    left.set_ylabel("time t", color=INK)
    products = rows @ rows[500] / (rows.shape[1] / 2)
    right.plot(np.arange(1000) - 500, products, color=FORWARD, linewidth=1.3)
    right.set_xlabel("t - 500", color=INK)
    right.set_ylabel("e(t) · e(500) / 16", color=INK)
    return figure


def table() -> "Figure":
    """A table of four rows, three images of the classes 1, 1, 2, and the gradient of the table."""
    figure, axes = canvas(12, 4.8)
    cell = 0.75
    weight = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
    classes = [1, 1, 2]
    dy = np.array([[1, 2], [3, 4], [5, 6]])
    gradient = np.zeros((4, 2), int)
    np.add.at(gradient, classes, dy)
    grid(axes, 0.7, 1.1, weight, cell=cell, colour=PARAMETER, size=10)
    grid(axes, 4.0, 1.45, weight[classes], cell=cell, size=10)
    grid(axes, 6.9, 1.45, dy, cell=cell, colour=BACKWARD, size=10)
    grid(axes, 10.1, 1.1, gradient, cell=cell, colour=PARAMETER, marked=[(1, 0), (1, 1)], size=10)
    for x, text, colour in ((1.45, "W", PARAMETER), (4.75, "y", FORWARD), (7.65, r"$\bar{y}$", BACKWARD), (10.85, r"$\bar{W}$", PARAMETER)):
        label(axes, x, 0.6, text, colour, 12)
    for row in range(4):
        label(axes, 0.4, 1.1 + (row + 0.5) * cell, str(row), INK, 9)
        label(axes, 11.9, 1.1 + (row + 0.5) * cell, str(row), INK, 9)
    for image, row in enumerate(classes):
        y, there = 1.45 + (image + 0.5) * cell, 1.1 + (row + 0.5) * cell
        arrow(axes, (2.25, there), (3.95, y), colour=FORWARD)
        arrow(axes, (8.45, y), (10.05, there), colour=BACKWARD)
    label(axes, 3.1, 4.4, "forward: rows copied", FORWARD, 10)
    label(axes, 9.2, 4.4, "backward: rows added", BACKWARD, 10)
    return figure
