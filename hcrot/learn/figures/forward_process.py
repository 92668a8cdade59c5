"""Drawings of the forward process: the chain, two draws of noise that make one, schedules, strips of pictures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, NOISE, PARAMETER, arrow, canvas, charts, label

__all__ = ["chain", "curves", "picture", "strip", "two_draws"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (FORWARD, NOISE, KEPT, PARAMETER, BACKWARD)


def picture(axes: "Axes", x: float, y: float, image: np.ndarray, size: float = 1.6, colour: str = INK) -> None:
    """A grey image from -1 (white paper) to 1 (ink), its upper left corner at (x, y), in a frame."""
    from matplotlib.patches import Rectangle

    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(image, extent=(x, x + size, y + size, y), cmap="gray_r", vmin=-1.3, vmax=1.3, interpolation="nearest")
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.add_patch(Rectangle((x, y), size, size, linewidth=1.2, edgecolor=colour, facecolor="none"))


def chain(images: Sequence[np.ndarray], times: Sequence[int]) -> "Figure":
    """The Markov chain: pictures at some times, noise added to the right, a network that goes to the left."""
    figure, axes = canvas(2.4 * len(images), 6.2)
    label(axes, 0.2, 0.4, "forward, $q(x_t\\,|\\,x_{t-1})$:", NOISE, ha="left")
    label(axes, 0.2, 0.95, "shrink a little, add a little noise; nothing is learned", NOISE, ha="left")
    for index, (image, t) in enumerate(zip(images, times, strict=True)):
        left = 2.4 * index + 0.4
        picture(axes, left, 2.1, image)
        label(axes, left + 0.8, 4.05, f"$x_{{{t}}}$")
        if index:
            arrow(axes, (left - 1.4, 2.0), (left + 0.6, 2.0), colour=NOISE, bend=-0.3)
            arrow(axes, (left + 0.4, 4.3), (left - 1.2, 4.3), colour=FORWARD, bend=-0.3)
    label(axes, 0.2, 5.3, "reverse, $p_\\theta(x_{t-1}\\,|\\,x_t)$:", FORWARD, ha="left")
    label(axes, 0.2, 5.85, "what the network learns", FORWARD, ha="left")
    return figure


def two_draws(a: float, b: float, points: np.ndarray) -> "Figure":
    """A round cloud of (z_1, z_2), and the direction (a, b) along which a z_1 + b z_2 is measured."""
    figure, axes = canvas(10.5, 7.4)
    centre, unit, length = np.array([4.2, 3.7]), 1.05, float(np.hypot(a, b))
    direction = np.array([a, -b]) / length  # y goes down
    for end, name in (((3.9, 0), "$z_1$"), ((0, -3.4), "$z_2$")):
        arrow(axes, tuple(centre - end), tuple(centre + end))
        label(axes, centre[0] + end[0] + (0.3 if end[0] else 0.35), centre[1] + end[1] + (0.25 if end[1] else 0), name)
    axes.scatter(centre[0] + unit * points[:, 0], centre[1] - unit * points[:, 1], s=6, color=NOISE, alpha=0.5, linewidths=0)
    arrow(axes, tuple(centre - 3.6 * direction), tuple(centre + 3.6 * direction), colour=FORWARD)
    aside = points[np.argmax(np.abs(points @ np.array([b, -a])))]  # a point far from the line shows best what is dropped
    point = centre + unit * aside * np.array([1, -1])
    foot = centre + direction * np.dot(point - centre, direction)
    axes.plot([point[0], foot[0]], [point[1], foot[1]], color=KEPT, linewidth=1.2, linestyle=":")
    axes.plot(*point, "o", color=KEPT, markersize=5)
    axes.plot(*foot, "o", color=FORWARD, markersize=5)
    tip = centre + 3.6 * direction
    label(axes, tip[0] + 0.2, tip[1] - 0.3, f"direction ({a:g}, {b:g})", FORWARD, ha="left")
    return figure


def curves(lines: Mapping[str, np.ndarray], title: str, level: float | None = None) -> "Figure":
    """Curves over t, one for each schedule; ``level``: where a dashed line is drawn."""
    figure, (axes,) = charts(size=(4.6, 3.0))
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        axes.plot(line, color=colour, linewidth=1.8, label=name)
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel("t")
    if level is not None:
        axes.axhline(level, color=INK, linewidth=1, linestyle="--")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def strip(rows: Mapping[str, Sequence[np.ndarray]], times: Sequence[object]) -> "Figure":
    """Rows of pictures, the name of each row above it, a time above each column."""
    figure, axes = canvas(1.9 * len(times), 0.9 + 2.5 * len(rows), scale=0.42)
    for column, t in enumerate(times):
        label(axes, 0.95 + 1.9 * column, 0.45, f"t = {t}" if column == 0 else f"{t}", size=10)
    for row, (name, images) in enumerate(rows.items()):
        label(axes, 0.15, 1.25 + 2.5 * row, name, size=10, ha="left")
        for column, image in enumerate(images):
            picture(axes, 0.15 + 1.9 * column, 1.6 + 2.5 * row, image, colour=NOISE)
    return figure
