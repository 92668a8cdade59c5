"""Drawings of chapter 9: resampling layers as matrices, painting by a transposed convolution, and odd sizes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, PARAMETER, arrow, canvas, grid, label

__all__ = ["matrices", "odd", "painting"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUBSCRIPTS = ("w₀", "w₁", "w₂")


def matrices() -> "Figure":
    """Nearest neighbour 3 -> 6, average 6 -> 3, strided convolution 6 -> 3 and its transpose 3 -> 6."""
    copies = np.array([["1" if output * 3 // 6 == column else "" for column in range(3)] for output in range(6)])
    strided = np.full((3, 6), "", dtype="<U2")
    for output in range(3):
        for k in range(3):
            if 0 <= 2 * output + k - 1 < 6:
                strided[output, 2 * output + k - 1] = SUBSCRIPTS[k]
    averages = np.where(copies.T == "1", "½", "")
    figure, axes = canvas(11.6, 9.6)
    places = (
        ("average, 6 to 3", averages, 0.6, 0.9, FORWARD), ("nearest neighbour, 3 to 6", copies, 7.2, 0.9, FORWARD),
        ("convolution, stride 2, 6 to 3", strided, 0.6, 5.7, PARAMETER), ("transposed convolution, 3 to 6", strided.T, 7.2, 5.7, PARAMETER),
    )  # fmt: skip
    for name, values, x, y, colour in places:
        used = [(int(row), int(column)) for row, column in zip(*np.nonzero(values != ""), strict=True)]
        grid(axes, x, y, values, cell=0.6, colour=colour, marked=used, size=10)
        label(axes, x + values.shape[1] * 0.3, y - 0.4, name, colour, 10.5)
    for y, text in ((2.0, "transpose,\ntimes 2"), (6.8, "transpose")):
        arrow(axes, (4.5, y), (6.8, y), colour=BACKWARD)
        arrow(axes, (6.8, y + 0.25), (4.5, y + 0.25), colour=BACKWARD)
        label(axes, 5.65, y + 1.0, text, BACKWARD, 10)
    return figure


def painting() -> "Figure":
    """Three input pixels paint kernels of three and of four weights, two places apart, and how many strokes each output gets."""
    from matplotlib.patches import Rectangle

    figure, axes = canvas(12, 7.4)
    cell = 0.6
    for block, size in enumerate((3, 4)):
        left, outputs = 0.5 + block * 6.0, 4 + size
        label(axes, left + outputs * cell / 2, 0.35, f"kernel of {size}, stride 2", INK, 11)
        for pixel in range(3):
            start = left + 2 * pixel * cell
            middle = start + size * cell / 2
            axes.add_patch(Rectangle((middle - cell / 2, 0.8), cell, cell, linewidth=1, edgecolor=FORWARD, facecolor=(FORWARD, 0.3)))
            label(axes, middle, 0.8 + cell / 2, f"x{'₀₁₂'[pixel]}", size=10)
            top = 2.4 + 0.75 * pixel
            arrow(axes, (middle, 1.42), (middle, top), colour=FORWARD)
            for k in range(size):
                corner = (start + k * cell, top)
                axes.add_patch(Rectangle(corner, cell, cell, linewidth=1, edgecolor=PARAMETER, facecolor=(PARAMETER, 0.3)))
                label(axes, corner[0] + cell / 2, top + cell / 2, f"w{'₀₁₂₃'[k]}", size=9.5)
        strokes = [sum(0 <= place - 2 * pixel < size for pixel in range(3)) for place in range(outputs)]
        for place, count in enumerate(strokes):
            corner = (left + place * cell, 5.2)
            shade = 0.15 + 0.3 * (count - 1)
            axes.add_patch(Rectangle(corner, cell, cell, linewidth=1, edgecolor=KEPT, facecolor=(KEPT, shade)))
            label(axes, corner[0] + cell / 2, 5.2 + cell / 2, f"y{'₀₁₂₃₄₅₆₇'[place]}", size=10)
            label(axes, corner[0] + cell / 2, 6.2, str(count), KEPT, 11)
        label(axes, left + outputs * cell / 2, 6.9, "strokes", KEPT, 10)
    return figure


def odd(sizes: Sequence[int]) -> "Figure":
    """The way down and up through images of these sizes, the sizes of doubling beside those that are needed."""
    from matplotlib.patches import Rectangle

    figure, axes = canvas(12, 5.6)
    scale = 2.6 / sizes[0]
    last = len(sizes) - 1
    for index, size in enumerate(sizes):
        side, down = max(size * scale, 0.5), 0.9 + index * 1.55
        bottom = 2.9 + 0.5 * index
        for x, colour in ((down, FORWARD), (11.1 - index * 1.55, KEPT)) if index < last else ((6.0, FORWARD),):
            axes.add_patch(Rectangle((x - side / 4, bottom - side), side / 2, side, linewidth=1.2, edgecolor=colour,
                                     facecolor=(colour, 0.25)))  # fmt: skip
            label(axes, x, bottom + 0.3, str(size), colour, 11)
        if index < last:
            start, end = (down + side / 4, bottom - side / 2), (11.1 - index * 1.55 - side / 4, bottom - side / 2)
            arrow(axes, start, end, "waits for the way up" if index == 0 else "", KEPT)
        if index > 0:
            doubled = 2 * size
            wanted = sizes[index - 1]
            right = 11.1 - (index - 1) * 1.55
            wrong = doubled != wanted
            note = f"2 x {size} = {doubled}" + (f", not {wanted}" if wrong else "")
            label(axes, right, bottom + 0.25, note, BACKWARD if wrong else INK, 9)
    return figure
