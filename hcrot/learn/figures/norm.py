"""Drawings of chapter 7: which numbers a normalisation takes together, and where its gradient comes from."""

from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, PALE, arrow, box, canvas, label

__all__ = ["projection", "three_ways", "which_numbers"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def which_numbers() -> "Figure":
    """Batch, layer, instance and group normalisation: which numbers share a mean, in two images of four channels and four pixels."""
    from matplotlib.patches import Rectangle

    kinds = {
        "batch": lambda image, channel: channel == 0,
        "layer (G = 1)": lambda image, channel: image == 0,
        "channel (G = C)": lambda image, channel: image == 0 and channel == 0,
        "group (G = 2)": lambda image, channel: image == 0 and channel < 2,
    }
    figure, axes = canvas(12.6, 5.4)
    cell = 0.5
    for place, (name, together) in enumerate(kinds.items()):
        left = 1.2 + 2.9 * place
        label(axes, left + 2 * cell, 0.4, name, FORWARD if name.startswith("group") else INK)
        for image in range(2):
            top = 0.9 + 2.3 * image
            for channel in range(4):
                for pixel in range(4):
                    strength = 0.65 if together(image, channel) else 0.08
                    corner = (left + pixel * cell, top + channel * cell)
                    axes.add_patch(Rectangle(corner, cell, cell, linewidth=0.8, edgecolor=INK, facecolor=(FORWARD, strength)))
            if place == 0:
                label(axes, 0.6, top + 2 * cell, f"image\n{image + 1}", size=10)
    return figure


def three_ways() -> "Figure":
    """x_i reaches every result directly, through the mean and through the variance."""
    figure, axes = canvas(15, 5.2)
    box(axes, 0.3, 2.0, 2.0, 1.1, r"$x_i$")
    box(axes, 5.4, 0.3, 3.2, 1.0, r"mean $\mu$", KEPT)
    box(axes, 5.4, 3.8, 3.2, 1.0, r"variance $v$, $r$", KEPT)
    box(axes, 11.2, 2.0, 3.4, 1.1, r"all $\hat{x}_1 \ldots \hat{x}_n$")
    arrow(axes, (2.3, 2.55), (11.2, 2.55), "1  directly, only its own", FORWARD)
    arrow(axes, (2.0, 2.0), (5.4, 0.8), "", FORWARD)
    arrow(axes, (8.6, 0.8), (12.0, 2.0), "", FORWARD)
    arrow(axes, (2.0, 3.1), (5.4, 4.3), "", FORWARD)
    arrow(axes, (8.6, 4.3), (12.0, 3.1), "", FORWARD)
    label(axes, 3.1, 1.0, r"2  slope $1/n$", FORWARD, 10)
    label(axes, 11.0, 1.0, r"slope $-r$", FORWARD, 10)
    label(axes, 2.6, 4.25, r"3  slope $\frac{2}{n}(x_i - \mu)$", FORWARD, 10)
    label(axes, 11.9, 4.25, r"slope $-\frac{1}{2} r^3 (x_j - \mu)$", FORWARD, 10)
    return figure


def projection() -> "Figure":
    """Three numbers seen along (1, 1, 1): xhat on a circle, and g taken apart into what is across the circle and along it."""
    from matplotlib.patches import Circle

    x, g = np.array([6.0, 1.0, 2.0]), np.array([0.5, -1.2, 0.7])
    xhat, g = (x - x.mean()) / x.std(), g - g.mean()
    across = xhat * (g @ xhat) / 3
    along = g - across
    dx = along / x.std()
    plane = np.array([[1, -1, 0] / np.sqrt(2), [1, 1, -2] / np.sqrt(6)])  # two directions across (1, 1, 1)
    figure, axes = canvas(13.4, 7.4)
    center, unit = np.array([3.3, 3.7]), 1.6

    def at(vector: np.ndarray, start: np.ndarray | None = None) -> tuple[float, float]:
        shown = plane @ (vector if start is None else start + vector)
        return float(center[0] + unit * shown[0]), float(center[1] + unit * shown[1])

    axes.add_patch(Circle(tuple(center), unit * np.sqrt(3), fill=False, edgecolor=FORWARD, linewidth=1.4))
    axes.plot(*center, "o", color=INK, markersize=4)
    arrow(axes, at(0 * xhat), at(xhat), colour=FORWARD)
    axes.plot(*at(xhat), "o", color=FORWARD, markersize=6)
    colours = (BACKWARD, 1), (BACKWARD, 2 * PALE), (BACKWARD, 0.6)
    for vector, (colour, strength) in zip((g, across, along), colours, strict=True):
        axes.annotate("", xy=at(vector, xhat), xytext=at(xhat), arrowprops={
            "arrowstyle": "-|>", "color": (colour, strength), "linewidth": 2.2, "shrinkA": 2, "shrinkB": 0})  # fmt: skip
    axes.plot(*zip(at(across, xhat), at(g, xhat), at(along, xhat), strict=True), ":", color=INK, linewidth=1)
    label(axes, center[0] - 0.2, center[1] + 0.35, "0")
    label(axes, at(xhat)[0] - 0.5, at(xhat)[1] + 0.35, r"$\hat{x}$", FORWARD, 13)
    text = [
        (r"$x$", x, INK), (r"$\hat{x}$", xhat, FORWARD), (r"$g$, its mean removed", g, BACKWARD),
        (r"part along $\hat{x}$, removed", across, INK), ("what remains", along, BACKWARD), (r"$\bar{x}$ = that / std", dx, BACKWARD),
    ]  # fmt: skip
    for row, (name, vector, colour) in enumerate(text):
        top = 1.1 + 1.05 * row
        label(axes, 9.2, top, name, colour, 10.5, ha="left")
        label(axes, 9.2, top + 0.42, "(" + ",  ".join(f"{number:.2f}" for number in vector) + ")", colour, 9.5, ha="left")
    label(axes, at(g, xhat)[0] + 0.35, at(g, xhat)[1], r"$g$", BACKWARD, 13)
    label(axes, at(along, xhat)[0] + 0.5, at(along, xhat)[1] - 0.3, "what remains", BACKWARD, 10)
    return figure
