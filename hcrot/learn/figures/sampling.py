"""Drawings of sampling: which timesteps are visited, where each step leads, paths from noise to data, and how errors shrink."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, NOISE, arrow, canvas, charts, label

__all__ = ["errors", "jumps", "paths", "spacings", "spread", "tangent"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def jumps(levels: Sequence[int], small: float = 0.09) -> "Figure":
    """Where a step leads, and what the network is told next: the same level, or, with the defect, another one.

    Args:
        levels: the timesteps visited, and -1 at the end.
        small: how far a step of one timestep leads, as a part of the distance to the next.
    """
    figure, axes = canvas(11.4, 8.0)
    gap = 9.4 / (len(levels) - 1)
    for row, title, colour in ((2.4, "right: each step leads to the next level that is visited", FORWARD),
                               (6.2, "wrong: each step leads one timestep lower", BACKWARD)):  # fmt: skip
        label(axes, 0.3, row - 2.0, title, colour, ha="left")
        axes.plot([0.9, 10.4], [row, row], color=INK, linewidth=1)
        for index, level in enumerate(levels):
            x = 0.9 + gap * index
            axes.plot([x, x], [row - 0.12, row + 0.12], color=INK, linewidth=1.2)
            label(axes, x, row + 0.5, "picture" if level < 0 else f"{level}", size=10)
            if index + 1 < len(levels):
                end = x + (gap if row < 4 else small * gap * 2)
                arrow(axes, (x, row - 0.15), (end, row - 0.15), colour=colour, bend=-0.35 if row < 4 else -1.1)
                if row > 4:
                    axes.plot([end + 0.1, x + gap - 0.1], [row - 0.35] * 2, color=NOISE, linewidth=1.2, linestyle=":")
    label(axes, 0.3, 7.5, "dotted: noise that stays, and that the network is not told of", NOISE, ha="left")
    return figure


def spread(counts: Sequence[int], right: Sequence[float], wrong: Sequence[float], truth: float) -> "Figure":
    """The standard deviation of what is drawn, over the number of steps."""
    figure, (axes,) = charts(size=(4.8, 3.0))
    axes.semilogx(counts, wrong, "o-", color=BACKWARD, markersize=4, label="to t - 1")
    axes.semilogx(counts, right, "o-", color=FORWARD, markersize=4, label="to the next level visited")
    axes.axhline(truth, color=INK, linestyle="--", linewidth=1)
    axes.set_xlabel("steps")
    axes.set_ylabel("standard deviation")
    axes.set_ylim(0, 1.1)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    return figure


def spacings(rows: Mapping[str, Sequence[int]], last: int) -> "Figure":
    """Which of the timesteps 0 .. last are visited, a row for each way of choosing them."""
    figure, axes = canvas(10.6, 0.5 + 1.7 * len(rows))
    for index, (name, visited) in enumerate(rows.items()):
        y = 1.3 + 1.7 * index
        label(axes, 0.3, y - 0.75, name, ha="left", size=10)
        axes.plot([0.5, 10.1], [y, y], color=INK, linewidth=1)
        for t in visited:
            x = 0.5 + 9.6 * t / last
            axes.plot(x, y, "o", color=FORWARD, markersize=6)
            label(axes, x, y + 0.45, str(t), size=9)
    return figure


def paths(times: Sequence[int], lines: np.ndarray, means: Sequence[float], drawn: bool = False) -> "Figure":
    """How some numbers move from noise (left) to data (right); (steps + 1, numbers). ``drawn``: noise is added at each step."""
    figure, (axes,) = charts(size=(4.8, 3.0))
    axes.plot(range(len(lines)), lines, color=NOISE if drawn else FORWARD, linewidth=0.9, alpha=0.8)
    for mean in means:
        axes.axhline(mean, color=KEPT, linestyle="--", linewidth=1)
    places = np.linspace(0, len(lines) - 1, 5).astype(int)
    axes.set_xticks(places, ["picture" if place == len(lines) - 1 else f"t={times[place]}" for place in places])
    axes.set_ylim(-3.3, 3.3)
    return figure


def tangent(solution: Callable, slope: Callable, start: float, end: float) -> "Figure":
    """A solution y(lambda), Euler's step along the slope at its start, and Heun's along the mean of two slopes."""
    figure, (axes,) = charts(size=(4.8, 3.2))
    x = np.linspace(start + 0.1, end - 0.1, 100)
    axes.plot(x, solution(x), color=KEPT, linewidth=2, label="solution")
    y, width = solution(start), end - start
    first = slope(y, start)
    second = slope(y + width * first, end)
    steps = ((first, BACKWARD, "Euler: slope at the start"), ((first + second) / 2, FORWARD, "Heun: mean of two slopes"))
    for mean, colour, name in steps:
        axes.plot([start, end], [y, y + width * mean], "o-", color=colour, markersize=4, linewidth=1.3, label=name)
    axes.set_xlabel("$\\lambda$")
    axes.invert_xaxis()
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def errors(calls: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[float]]) -> "Figure":
    """The error over the number of times that the network is called, both on logarithmic scales."""
    figure, (axes,) = charts(size=(4.8, 3.0))
    for (name, line), colour in zip(found.items(), (BACKWARD, FORWARD), strict=False):
        axes.loglog(calls[name], line, "o-", color=colour, markersize=4, label=name)
    axes.set_xlabel("calls of the network")
    axes.set_ylabel("error")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure
