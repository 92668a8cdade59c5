"""Chapter 05: a kernel over an image, padding and stride, and how backward paints copies of the kernel."""

from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, PARAMETER, arrow, canvas, grid, label

__all__ = ["padding_and_stride", "painted", "window"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def window(x: np.ndarray, w: np.ndarray, y: np.ndarray, place: tuple[int, int]) -> "Figure":
    """An image, a kernel and the output; the window of one output pixel is marked, and its sum is written out."""
    p, q = place
    size = len(w)
    figure, axes = canvas(11.2, 4.2)
    cell = 0.9
    seen = [(p + i, q + j) for i in range(size) for j in range(size)]
    grid(axes, 0.3, 0.7, x, cell=cell, marked=seen, form="{:g}", size=11)
    grid(axes, 4.6, 0.7 + cell / 2, w, cell=cell, colour=PARAMETER, form="{:g}", size=11)
    grid(axes, 8.3, 0.7 + cell / 2, y, cell=cell, marked=[place], form="{:.1f}", size=11)
    middle = 0.7 + 1.5 * cell
    label(axes, 3.85, middle, "∗", size=18)
    label(axes, 7.35, middle, "=", size=16)
    for x_name, name, colour in ((0.3 + 1.5 * cell, "x", FORWARD), (4.6 + cell, "w", PARAMETER), (8.3 + cell, "y", FORWARD)):
        label(axes, x_name, 0.35, name, colour)
    terms = " + ".join(f"{w[i, j]:g}·{x[p + i, q + j]:g}" for i in range(size) for j in range(size))
    label(axes, 5.3, 3.8, f"{terms} = {y[p, q]:.1f}", size=11)
    return figure


def padding_and_stride(length: int = 6, kernel: int = 3) -> "Figure":
    """A row of pixels in three ways: the places of the kernel for each stride and padding, one line for each output."""
    cases = [(1, 0), (1, 1), (2, 1)]
    figure, axes = canvas(11.0, 12.2)
    cell, top = 0.8, 0.9
    for stride, padding in cases:
        outputs = (length + 2 * padding - kernel) // stride + 1
        label(axes, 0.2, top - 0.5, f"stride {stride}, padding {padding}: {outputs} outputs", size=11, ha="left")
        top = row_of_windows(axes, 2.0, top, cell, length, kernel, stride, padding, outputs) + 1.2
    return figure


def row_of_windows(
    axes: "Axes", left: float, top: float, cell: float, length: int, kernel: int, stride: int, padding: int, outputs: int
) -> float:
    """One row of pixels with the windows below it; the y where it ends."""
    grid(axes, left, top, [[f"x{k}" for k in range(length)]], cell=cell, size=9)
    if padding:
        for x in (left - padding * cell, left + length * cell):
            grid(axes, x, top, np.zeros((1, padding), int), cell=cell, colour=INK, size=9)
    for k in range(outputs):
        y = top + cell + 0.3 + 0.4 * k
        start = left + (k * stride - padding) * cell
        axes.plot([start + 0.08, start + kernel * cell - 0.08], [y, y], color=PARAMETER, linewidth=5, alpha=0.55, solid_capstyle="butt")
        arrow(axes, (start + kernel * cell, y), (left + (length + 2) * cell + 0.4, y), colour=FORWARD)
        label(axes, left + (length + 2) * cell + 0.75, y, f"y{k}", FORWARD, 9)
    return top + cell + 0.3 + 0.4 * outputs


def painted(w: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> "Figure":
    """Each entry of dy paints a copy of the kernel, as large as itself, onto the pixels of its window; dx is the sum."""
    figure, axes = canvas(11.2, 6.7)
    cell = 0.78
    rows, columns = dx.shape
    for index, (p, q) in enumerate(np.ndindex(*dy.shape)):
        copy = np.zeros_like(dx)
        copy[p : p + len(w), q : q + len(w)] = dy[p, q] * w
        seen = [(p + i, q + j) for i in range(len(w)) for j in range(len(w))]
        x = 0.2 + 2.85 * index
        texts = [[f"{copy[r, c]:.1f}" if (r, c) in seen else "" for c in range(columns)] for r in range(rows)]
        grid(axes, x, 0.8, texts, cell=cell, colour=BACKWARD, marked=seen, size=9)
        label(axes, x + columns * cell / 2, 0.4, f"dy{p}{q} · w = {dy[p, q]:g} · w", size=9)
        if index:
            label(axes, x - 0.25, 0.8 + rows * cell / 2, "+", size=12)
    label(axes, 3.5, 4.2 + rows * cell / 2, "=", size=16)
    grid(axes, 4.3, 4.2, dx, cell=cell, colour=BACKWARD, form="{:.1f}", size=9)
    label(axes, 4.3 + columns * cell / 2, 3.8, "dx", BACKWARD)
    return figure
