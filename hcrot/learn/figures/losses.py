"""Drawings of the loss: the posterior as a product of two bells, the bound's terms, the weights of noise levels, and the circle of v."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, NOISE, PALE, arrow, canvas, charts, label

__all__ = ["bells", "circle", "falling", "terms", "weights"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bells(x: np.ndarray, prior: np.ndarray, likelihood: np.ndarray, posterior: np.ndarray) -> "Figure":
    """Two densities over x_s and their product, each as high as it is at most."""
    figure, (axes,) = charts(size=(5.0, 3.0))
    shown = ((prior, FORWARD, "where $x_0$ says that $x_s$ is"), (likelihood, NOISE, "where $x_t$ says that it is"))
    for line, colour, name in (*shown, (posterior, KEPT, "both: the posterior")):
        axes.plot(x, line / line.max(), color=colour, linewidth=2, label=name)
    axes.fill_between(x, posterior / posterior.max(), color=KEPT, alpha=PALE, linewidth=0)
    axes.set_xlabel("$x_s$")
    axes.set_yticks([])
    axes.set_ylim(0, 1.75)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    return figure


def terms(rows: Mapping[str, Sequence[float]]) -> "Figure":
    """The terms of the bound, L_0 to L_T, as bars beside each other, one colour for each model."""
    figure, (axes,) = charts(size=(5.0, 3.0))
    width = 0.8 / len(rows)
    for index, ((name, values), colour) in enumerate(zip(rows.items(), (FORWARD, BACKWARD), strict=False)):
        axes.bar(np.arange(len(values)) + width * (index - (len(rows) - 1) / 2), values, width, color=colour, label=name)
    last = len(next(iter(rows.values()))) - 1
    axes.set_xticks(range(last + 1), [f"$L_{{{t}}}$" for t in range(last)] + ["$L_T$"])
    axes.set_ylabel("nats")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def weights(lines: Mapping[str, np.ndarray]) -> "Figure":
    """How much the bound, and how much L_simple makes of an error in the noise, over t, on a logarithmic scale."""
    figure, (axes,) = charts(size=(5.0, 3.0))
    for (name, line), colour in zip(lines.items(), (BACKWARD, NOISE, FORWARD), strict=False):
        axes.semilogy(np.arange(1, len(line) + 1), line, color=colour, linewidth=1.8, label=name)
    axes.set_xlabel("t")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def circle(angle: float) -> "Figure":
    """x_t on the quarter circle between x_0 and the noise, and v, the direction in which it moves."""
    figure, axes = canvas(9.6, 8.0)
    origin, radius = np.array([2.0, 6.6]), 5.2

    def at(degrees: float, length: float = radius) -> np.ndarray:
        turned = np.deg2rad(degrees)
        return origin + length * np.array([np.cos(turned), -np.sin(turned)])

    arc = np.array([at(d) for d in np.linspace(0, 90, 60)])
    axes.plot(*arc.T, color=INK, linewidth=1, linestyle=":")
    arrow(axes, tuple(origin), tuple(at(0)), colour=FORWARD)
    arrow(axes, tuple(origin), tuple(at(90)), colour=NOISE)
    point = at(angle)
    arrow(axes, tuple(origin), tuple(point), colour=KEPT)
    arrow(axes, tuple(point), tuple(point + at(angle + 90, 2.4) - origin), colour=BACKWARD)
    corner = np.array([point[0], origin[1]])
    axes.plot([point[0], corner[0]], [point[1], corner[1]], color=INK, linewidth=1, linestyle="--")
    axes.plot([origin[0], point[0]], [point[1], point[1]], color=INK, linewidth=1, linestyle="--")
    small = np.array([at(d, 1.3) for d in np.linspace(0, angle, 20)])
    axes.plot(*small.T, color=INK, linewidth=1)
    middle = at(angle / 2, 1.75)
    label(axes, middle[0], middle[1], "$\\varphi$")
    label(axes, at(0)[0] + 0.5, origin[1], "$x_0$", FORWARD, 13)
    label(axes, origin[0], at(90)[1] - 0.45, "$\\epsilon$", NOISE, 13)
    label(axes, point[0] + 0.3, point[1] - 0.15, "$x_t$", KEPT, 13, ha="left")
    tip = point + at(angle + 90, 2.4) - origin
    label(axes, tip[0] + 0.1, tip[1] - 0.4, "$v$", BACKWARD, 13)
    label(axes, corner[0], origin[1] + 0.5, "$\\cos\\varphi$")
    label(axes, origin[0] - 0.15, point[1], "$\\sin\\varphi$", ha="right")
    return figure


def falling(losses: np.ndarray, width: int = 20) -> "Figure":
    """The loss of each training step, and its mean over so many steps."""
    figure, (axes,) = charts(size=(4.6, 2.8))
    smooth = np.convolve(losses, np.full(width, 1 / width), "valid")
    axes.plot(losses, color=FORWARD, alpha=0.35, linewidth=0.8)
    axes.plot(np.arange(len(smooth)) + width / 2, smooth, color=FORWARD, linewidth=2)
    axes.set_ylim(0, 1.2)
    axes.set_xlabel("training step")
    axes.set_ylabel("loss")
    return figure
