"""Drawings of scores: a density with its score as arrows, and clouds of points."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, NOISE, charts

__all__ = ["clouds", "field", "lines"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def field(log_density: Callable, score: Callable, side: float = 2.4, arrows: int = 13) -> "Figure":
    """Lines of equal density, and the score as arrows, long ones cut down."""
    figure, (axes,) = charts(size=(4.6, 4.4))
    fine, coarse = np.linspace(-side, side, 120), np.linspace(-side, side, arrows)
    grid = np.stack(np.meshgrid(fine, fine), axis=-1).reshape(-1, 2)
    density = np.exp(log_density(grid)).reshape(120, 120)
    axes.contour(fine, fine, density, levels=density.max() * np.array([0.05, 0.2, 0.4, 0.6, 0.8]), colors=KEPT, linewidths=1)
    places = np.stack(np.meshgrid(coarse, coarse), axis=-1).reshape(-1, 2)
    slopes = score(places)
    lengths = np.linalg.norm(slopes, axis=1, keepdims=True)
    slopes = slopes / lengths * np.minimum(lengths, 6)
    axes.quiver(*places.T, *slopes.T, color=FORWARD, angles="xy", scale=100, width=0.005)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    return figure


def clouds(groups: Mapping[str, np.ndarray], side: float = 2.4, contour: Callable | None = None) -> "Figure":
    """Points of several groups, (N, 2) each, and lines of equal density of what they should be distributed as."""
    figure, (axes,) = charts(size=(4.6, 4.8))
    if contour is not None:
        fine = np.linspace(-side, side, 120)
        grid = np.stack(np.meshgrid(fine, fine), axis=-1).reshape(-1, 2)
        density = np.exp(contour(grid)).reshape(120, 120)
        axes.contour(fine, fine, density, levels=density.max() * np.array([0.05, 0.3, 0.7]), colors=INK, linewidths=0.8)
    for (name, points), colour in zip(groups.items(), (FORWARD, KEPT, BACKWARD, NOISE), strict=False):
        axes.plot(*points.T, ".", color=colour, markersize=4, alpha=0.7, markeredgewidth=0, label=name)
    axes.set(xlim=(-side, side), ylim=(-side, side))
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, markerscale=2)
    return figure


def lines(x: np.ndarray, targets: np.ndarray, at: np.ndarray, truth: np.ndarray) -> "Figure":
    """What denoising score matching is shown, one point for each pair of picture and noise, and the curve that is their mean."""
    figure, (axes,) = charts(size=(4.8, 3.0))
    axes.plot(x, targets, ".", color=NOISE, markersize=3, alpha=0.5, markeredgewidth=0, label="$-\\epsilon/\\sigma$ of single pairs")
    axes.plot(at, truth, color=FORWARD, linewidth=2.2, label="the score: their mean at each x")
    axes.set_xlabel("x")
    axes.set_ylim(-7, 9)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right", markerscale=3)
    return figure
