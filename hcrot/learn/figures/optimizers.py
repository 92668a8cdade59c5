"""Drawings of chapter 12: ways down a valley, Adam's means before their correction, a schedule, and the moving average."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, NOISE, PARAMETER, charts

__all__ = ["average", "corrections", "points", "schedule", "valley"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (INK, NOISE, PARAMETER, BACKWARD)


def valley(walks: dict[str, np.ndarray]) -> "Figure":
    """Ways down the valley p1^2 + 25 p2^2, over its lines of equal height.

    Args:
        walks: places (steps + 1, 2) by name.
    """
    figure, (axes,) = charts(1, size=(6.2, 3.4))
    first, second = np.meshgrid(np.linspace(-4.6, 1.2, 200), np.linspace(-1.5, 1.5, 200))
    height = (first**2 + 25 * second**2) / 2
    axes.contour(first, second, height, levels=[0.5, 2, 5, 10, 18, 28], colors=[FORWARD], linewidths=0.7, alpha=0.5)
    for (name, places), colour in zip(walks.items(), COLOURS, strict=True):
        axes.plot(*places.T, "-o", color=colour, markersize=2.2, linewidth=1.2, label=name)
    axes.plot(0, 0, "x", color=INK, markersize=9, markeredgewidth=2)
    axes.grid(False)
    axes.set_xlabel(r"$p_1$, flat", color=INK)
    axes.set_ylabel(r"$p_2$, steep", color=INK)
    _legend(axes, loc="lower left", ncols=2)
    return figure


def corrections() -> "Figure":
    """m and the root of v over the steps, for a gradient that is always 1."""
    figure, (axes,) = charts(1, size=(5.6, 2.7))
    steps = np.arange(0, 201)
    axes.plot(steps, 1 - 0.9**steps, color=BACKWARD, label=r"$m$, with $\beta_1 = 0.9$")
    axes.plot(steps, np.sqrt(1 - 0.999**steps), color=KEPT, label=r"$\sqrt{v}$, with $\beta_2 = 0.999$")
    axes.axhline(1, color=INK, linewidth=1, linestyle=":")
    axes.set_xlabel("step", color=INK)
    _legend(axes, loc="lower right")
    return figure


def schedule(factor: Callable[[int], float], steps: int) -> "Figure":
    """The factor of the learning rate over the steps."""
    figure, (axes,) = charts(1, size=(5.6, 2.4))
    axes.plot(range(steps + 1), [factor(step) for step in range(steps + 1)], color=FORWARD)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("factor", color=INK)
    return figure


def average(steps: Sequence[int], losses: Sequence[float], averaged: Sequence[float]) -> "Figure":
    """Losses of the weights and of their moving average over the steps."""
    figure, (axes,) = charts(1, size=(6.0, 2.9))
    axes.plot(steps, losses, "-o", color=NOISE, markersize=3, linewidth=1.2, label="the weights")
    axes.plot(steps, averaged, "-o", color=PARAMETER, markersize=3, linewidth=1.2, label="their average")
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    _legend(axes)
    return figure


def points(by_weights: np.ndarray, by_average: np.ndarray) -> "Figure":
    """Points (N, 2) drawn with the weights and with their average, the circle of radius 1, and their middle."""
    figure, rows = charts(2, size=(3.0, 3.0))
    angle = np.linspace(0, 2 * np.pi, 200)
    drawn = (("the weights", by_weights, NOISE), ("their average", by_average, PARAMETER))
    for axes, (name, places, colour) in zip(rows, drawn, strict=True):
        axes.plot(*places.T, ".", color=colour, markersize=2.5)
        axes.plot(np.cos(angle), np.sin(angle), color=INK, linewidth=0.8)
        axes.plot(*places.mean(axis=0), "x", color=INK, markersize=9, markeredgewidth=2)
        axes.set_title(name, color=colour, fontsize=10)
        axes.set_aspect("equal")
        axes.set_xlim(-1.6, 1.6)
        axes.set_ylim(-1.6, 1.6)
    return figure


def _legend(axes: object, **options: object) -> None:
    legend = axes.legend(frameon=False, fontsize=9, **options)  # type: ignore[attr-defined]
    for text in legend.get_texts():
        text.set_color(INK)
