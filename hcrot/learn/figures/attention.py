"""Drawings of chapter 8: attention's steps with numbers, what a pixel looks at, and its backward pass."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, PALE, arrow, box, canvas, grid, label

__all__ = ["backward", "example", "looks", "steps"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def example() -> dict[str, np.ndarray]:
    """The arrays of :func:`steps`, by name."""
    q, k = np.array([[2.0, 0], [0, 2], [1, 1]]), np.array([[1.0, 0], [0, 1], [1, 1]])
    v = np.array([[10.0, 0], [0, 10], [5, 5]])
    s = q @ k.T / np.sqrt(2)
    p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
    return {"Q": q, "K": k, "V": v, "S": s, "P": p, "O": p @ v}


def steps() -> "Figure":
    """Q and K to scores, scores to shares, shares and V to the result, with numbers; the first token's way is marked."""
    a = example()
    figure, axes = canvas(12.4, 7.6)
    first = [(0, column) for column in range(3)]

    def matrix(name: str, x: float, y: float, title: str, form: str, marked: Sequence = (), colour: str = FORWARD) -> None:
        values = a["K"].T if name == "KT" else a[name]
        grid(axes, x, y, values, cell=0.85, form=form, marked=marked, colour=colour, size=10)
        label(axes, x + values.shape[1] * 0.425, y - 0.35, title, colour, 11)

    matrix("Q", 0.4, 2.0, "Q", "{:.0f}", first[:2])
    matrix("KT", 2.8, 0.9, r"$K^\top$", "{:.0f}")
    matrix("S", 2.8, 4.4, r"$S = QK^\top/\sqrt{2}$", "{:.2f}", first, KEPT)
    matrix("P", 6.6, 4.4, r"$P = $ softmax", "{:.2f}", first, KEPT)
    matrix("V", 10.2, 0.9, "V", "{:.0f}")
    matrix("O", 10.2, 4.4, r"$O = PV$", "{:.1f}", first[:2])
    arrow(axes, (1.25, 4.6), (2.75, 5.6), colour=FORWARD)
    arrow(axes, (4.0, 2.7), (4.0, 3.75), colour=FORWARD)
    arrow(axes, (5.4, 5.7), (6.55, 5.7), colour=KEPT)
    arrow(axes, (9.2, 5.7), (10.15, 5.7), colour=FORWARD)
    arrow(axes, (11.05, 3.5), (11.05, 3.85), colour=FORWARD)
    label(axes, 6.2, 7.35, "first row: token 1 looks at tokens 1 and 3, and takes most of their values", INK, 10)
    return figure


def looks(image: np.ndarray, shares: np.ndarray, places: Sequence[tuple[int, int]]) -> "Figure":
    """An image, and for each place what it looks at.

    Args:
        image: (H, W), from 0 to 1.
        shares: (H W, H W), a row for each pixel.
        places: row and column of the pixels that look.
    """
    from matplotlib.patches import Rectangle

    height, width = image.shape
    cell = 0.34
    figure, axes = canvas(12, 3.7)
    maps = [image, *(shares[row * width + column].reshape(image.shape) for row, column in places)]
    for index, values in enumerate(maps):
        left = 0.2 + index * 2.95
        colour = INK if index == 0 else KEPT
        label(axes, left + width * cell / 2, 0.4, "image" if index == 0 else f"pixel {index}", colour, 10)
        for (row, column), value in np.ndenumerate(values / values.max()):
            corner = (left + column * cell, 0.75 + row * cell)
            axes.add_patch(Rectangle(corner, cell, cell, linewidth=0.4, edgecolor=(INK, 0.4), facecolor=(colour, float(value))))
        for row, column in places if index == 0 else places[index - 1 : index]:
            corner = (left + column * cell, 0.75 + row * cell)
            axes.add_patch(Rectangle(corner, cell, cell, linewidth=2, edgecolor=BACKWARD, facecolor="none"))
    return figure


def backward() -> "Figure":
    """The two products of forward, and the four of backward."""
    figure, axes = canvas(12.4, 6.4)
    for text, x, y, colour in (
        ("Q", 0.3, 1.0, FORWARD), ("K", 0.3, 4.4, FORWARD), ("S", 4.2, 2.7, KEPT), ("P", 7.3, 2.7, KEPT), ("V", 7.3, 5.2, FORWARD),
        ("O", 10.9, 2.7, FORWARD),
    ):  # fmt: skip
        box(axes, x, y, 1.2, 0.9, text, colour, 13)
    for start, end in (((1.5, 1.3), (4.2, 2.9)), ((1.5, 4.7), (4.2, 3.2)), ((5.4, 3.0), (7.3, 3.0)), ((8.5, 3.0), (10.9, 3.0)),
                       ((8.5, 5.5), (10.95, 3.6))):  # fmt: skip
        arrow(axes, start, end, colour=FORWARD)
    for start, end in (((4.2, 2.7), (1.5, 1.0)), ((4.2, 3.5), (1.5, 5.1)), ((7.3, 3.4), (5.4, 3.4)), ((10.9, 3.3), (8.5, 3.3)),
                       ((11.4, 3.6), (8.5, 5.9))):  # fmt: skip
        arrow(axes, start, end, colour=BACKWARD)
    for text, x, y in (
        (r"$\bar{Q} = \bar{S}K/\sqrt{d}$", 3.4, 1.2), (r"$\bar{K} = \bar{S}^\top Q/\sqrt{d}$", 3.5, 5.0),
        (r"$\bar{S} = P(\bar{P} - \sum P\bar{P})$", 6.35, 4.1), (r"$\bar{P} = \bar{O}V^\top$", 9.7, 2.5),
        (r"$\bar{V} = P^\top\bar{O}$", 11.1, 5.4),
    ):  # fmt: skip
        label(axes, x, y, text, BACKWARD, 11)
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((4.0, 2.45), 4.7, 2.1, linewidth=0, facecolor=(KEPT, PALE / 3), zorder=0))
    label(axes, 6.35, 2.1, "softmax", KEPT, 10)
    return figure
