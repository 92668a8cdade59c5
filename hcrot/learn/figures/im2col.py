"""Chapter 06: windows become rows, rows become pixels again, and the whole convolution as one product, forward and backward."""

from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, KEPT, PARAMETER, arrow, box, canvas, grid, label

__all__ = ["folding", "road", "selection", "unfolding"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def unfolding(x: np.ndarray, columns: np.ndarray, w: np.ndarray, y: np.ndarray, row: int) -> "Figure":
    """An image, its windows as the rows of a matrix, the kernel as a column, and their product."""
    figure, axes = canvas(11.4, 4.3)
    cell, size = 0.78, len(w)
    width = x.shape[1] - size + 1
    p, q = divmod(row, width)
    middle = 0.8 + len(columns) * cell / 2
    grid(axes, 0.2, middle - 1.5 * cell, x, cell=cell, marked=[(p + i, q + j) for i in range(size) for j in range(size)], form="{:g}")
    arrow(axes, (2.7, middle), (3.9, middle), "im2col")
    grid(axes, 4.0, 0.8, columns, cell=cell, colour=KEPT, marked=[(row, k) for k in range(columns.shape[1])], form="{:g}")
    grid(axes, 7.9, 0.8, w.reshape(-1, 1), cell=cell, colour=PARAMETER, form="{:g}")
    grid(axes, 9.6, 0.8, y.reshape(-1, 1), cell=cell, marked=[(row, 0)], form="{:.1f}")
    label(axes, 7.5, middle, "·", size=18)
    label(axes, 9.15, middle, "=", size=16)
    for at, name, colour in ((0.2 + 1.5 * cell, "x", FORWARD), (4.0 + 2 * cell, "X", KEPT), (7.9 + cell / 2, "w", PARAMETER),
                             (9.6 + cell / 2, "y", FORWARD)):  # fmt: skip
        label(axes, at, 0.4 if name != "x" else middle - 1.5 * cell - 0.35, name, colour)
    return figure


def folding(columns: np.ndarray, image: np.ndarray, places: list[tuple[int, int]], pixel: tuple[int, int]) -> "Figure":
    """The entries of a column matrix that belong to one pixel, and the image in which they are added."""
    figure, axes = canvas(10.0, 4.0)
    cell = 0.8
    middle = 0.7 + len(columns) * cell / 2
    grid(axes, 0.3, 0.7, columns, cell=cell, colour=BACKWARD, marked=places, form="{:.1f}")
    grid(axes, 7.0, middle - 1.5 * cell, image, cell=cell, colour=BACKWARD, marked=[pixel], form="{:.1f}")
    arrow(axes, (4.0, middle), (6.5, middle), "col2im", BACKWARD)
    label(axes, 5.25, middle + 0.4, " + ".join(f"{columns[place]:.1f}" for place in places), BACKWARD, 9)
    label(axes, 0.3 + 2 * cell, 0.35, "dX", BACKWARD)
    label(axes, 7.0 + 1.5 * cell, middle - 1.5 * cell - 0.35, "dx", BACKWARD)
    return figure


def selection(matrix: np.ndarray) -> "Figure":
    """im2col as a matrix of zeros and ones, and col2im as its transpose: ones are filled."""
    figure, axes = canvas(11.0, 6.2)
    cell = 0.32
    for x, y, values, name, colour in (
        (0.6, 0.8, matrix, "A: im2col", FORWARD), (5.2, 1.8, matrix.T, "Aᵀ: col2im", BACKWARD),
    ):  # fmt: skip
        ones = [(int(r), int(c)) for r, c in zip(*np.nonzero(values), strict=True)]
        grid(axes, x, y, np.full(values.shape, "", dtype=object), cell=cell, colour=colour, marked=ones)
        rows, columns = values.shape
        label(axes, x + columns * cell / 2, y - 0.35, f"{name}, {rows} × {columns}", colour)
    return figure


def road() -> "Figure":
    """The arrays of a convolution on their way forward, above, and their gradients on the way back, below."""
    figure, axes = canvas(12.7, 5.6)
    width, left = 2.0, (0.1, 3.4, 6.7, 10.5)
    shapes = ("B, C, H, W", "R × M", "R × O", "B, O, OH, OW")
    for index, (x, shape) in enumerate(zip(left, shapes, strict=True)):
        for y, name, colour in ((1.0, "xXYy"[index], KEPT if index == 1 else FORWARD), (3.6, "d" + "xXYy"[index], BACKWARD)):
            box(axes, x, y, width, 1.1, f"{name}\n{shape}", colour, 9.5)
    for index, (down, back) in enumerate((("im2col", "col2im"), ("· W + b", "· Wᵀ"), ("reshape,\ntranspose", "transpose,\nreshape"))):
        start, end = left[index] + width, left[index + 1]
        arrow(axes, (start, 1.55), (end, 1.55), colour=FORWARD)
        label(axes, (start + end) / 2, 1.3 - 0.25 * down.count("\n"), down, FORWARD, 9)
        arrow(axes, (end, 4.15), (start, 4.15), colour=BACKWARD)
        label(axes, (start + end) / 2, 3.9 - 0.25 * back.count("\n"), back, BACKWARD, 9)
    arrow(axes, (4.7, 2.1), (5.4, 2.65), colour=PARAMETER)
    arrow(axes, (7.3, 3.6), (6.6, 3.1), colour=PARAMETER)
    label(axes, 6.0, 2.88, "dW = Xᵀ dY", PARAMETER, 10)
    arrow(axes, (8.2, 3.6), (8.7, 3.1), colour=PARAMETER)
    label(axes, 10.1, 2.88, "db = rows of dY, summed", PARAMETER, 10)
    label(axes, 6.1, 5.25, "R = B · OH · OW rows,   M = KH · KW · C numbers in a window", size=9)
    return figure
