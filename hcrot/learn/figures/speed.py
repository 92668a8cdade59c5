"""Drawings of what makes a product fast: the memory hierarchy, orders of loops, vector lanes, a block in registers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, NOISE, PARAMETER, arrow, box, canvas, charts, grid, label

__all__ = ["bars", "block", "hierarchy", "lanes", "ratios", "roads", "shares"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def hierarchy(levels: Sequence[tuple[str, str, str]]) -> "Figure":
    """From the registers to memory: each level larger and further away; (name, how much it holds, how long a number takes)."""
    figure, axes = canvas(10.6, 1.5 * len(levels) + 0.6)
    label(axes, 7.6, 0.35, "holds", size=10)
    label(axes, 9.5, 0.35, "cycles away", size=10)
    for index, (name, holds, cycles) in enumerate(levels):
        width, y = 2.6 + 0.85 * index, 0.7 + 1.5 * index
        box(axes, 3.3 - width / 2, y, width, 0.95, name, FORWARD if index == 0 else KEPT if index + 1 < len(levels) else NOISE)
        label(axes, 7.6, y + 0.48, holds, size=10)
        label(axes, 9.5, y + 0.48, cycles, size=10)
        if index:
            arrow(axes, (3.3, y), (3.3, y - 0.55), colour=INK)
    return figure


def bars(counts: Mapping[str, float], title: str) -> "Figure":
    """A horizontal bar for each count, its number behind it."""
    figure, (axes,) = charts(size=(4.8, 0.5 * len(counts) + 0.9))
    axes.barh(list(counts), list(counts.values()), color=(FORWARD, 0.7))
    for index, value in enumerate(counts.values()):
        axes.text(value, index, f" {value:,.0f}", va="center", color=INK, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(counts.values()) * 1.25)
    axes.set_title(title, color=INK, fontsize=11)
    axes.grid(visible=False)
    return figure


def ratios(times: Mapping[str, float]) -> "Figure":
    """How much longer than the fastest each takes, on a logarithmic scale and without a number: that depends on the machine."""
    figure, (axes,) = charts(size=(4.8, 0.5 * len(times) + 0.9))
    fastest = min(times.values())
    axes.barh(list(times), [value / fastest for value in times.values()], color=(FORWARD, 0.7), left=0)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("time, as a multiple of the fastest (logarithmic)")
    return figure


def roads() -> "Figure":
    """The order in which two loops read a matrix whose rows lie one after the other in memory."""
    figure, axes = canvas(10.4, 5.2)
    numbers = np.arange(32).reshape(4, 8)
    for x, title, colour, path in (
        (0.5, "along a row", FORWARD, [(0, 0), (0, 7)]),
        (5.8, "down a column", BACKWARD, [(0, 0), (3, 0)]),
    ):
        label(axes, x + 2.2, 0.4, title, colour)
        (r0, c0), (r1, c1) = path
        marked = [(r, c) for r in range(r0, r1 + 1) for c in range(8)]
        grid(axes, x, 1.2, numbers, cell=0.55, colour=colour, marked=marked, size=8)
        beside = (x, 1.0) if r0 == r1 else (x - 0.2, 1.2)
        arrow(axes, beside, (beside[0] + 0.55 * 8 * (c1 > c0), beside[1] + 0.55 * 4 * (r1 > r0)), colour=colour)
    label(axes, 2.6, 3.8, "8 numbers: one line fetched", FORWARD, 10)
    label(axes, 7.8, 3.8, "4 numbers: four lines fetched", BACKWARD, 10)
    label(axes, 5.2, 4.7, "filled: what is brought from memory, a whole line at a time", size=10)
    return figure


def lanes(a: float, b: Sequence[int], c: Sequence[int]) -> "Figure":
    """One instruction: a number in all lanes, times a vector, plus a vector."""
    figure, axes = canvas(10.6, 5.6)
    total = [round(a * one + other, 2) for one, other in zip(b, c, strict=True)]
    rows = (([a] * len(b), "a in all lanes", PARAMETER), (b, "times b", FORWARD), (c, "plus c", KEPT), (total, "is the new c", KEPT))
    for index, (values, name, colour) in enumerate(rows):
        y = 0.4 + 1.3 * index
        grid(axes, 3.0, y, [list(values)], cell=0.88, colour=colour)
        label(axes, 2.7, y + 0.44, name, colour, ha="right")
    return figure


def block(rows: int, width: int) -> "Figure":
    """The block of C that stays in registers: what is loaded for one k, and what is done with it."""
    figure, axes = canvas(11.0, 0.72 * rows + 3.2)
    grid(axes, 3.6, 0.6, [[f"b{j}" for j in range(width)]], cell=0.72, colour=FORWARD)
    label(axes, 3.6 + 0.36 * width, 0.25, "2 vectors of B", FORWARD, 10)
    grid(axes, 2.3, 1.9, [[f"a{i}"] for i in range(rows)], cell=0.72, colour=PARAMETER)
    label(axes, 2.1, 1.9 + 0.36 * rows, f"{rows} numbers\nof A", PARAMETER, 10, ha="right")
    grid(axes, 3.6, 1.9, [[""] * width] * rows, cell=0.72, colour=KEPT)
    label(axes, 3.6 + 0.36 * width, 2.3 + 0.72 * rows, f"C, {rows} rows: stays in registers", KEPT, 10)
    label(axes, 5.3, 2.9 + 0.72 * rows, f"for each k: {rows} + 2 loads, {2 * rows} multiply-adds of vectors", size=10)
    return figure


def shares(bounds: Sequence[tuple[int, int]], names: Sequence[str]) -> "Figure":
    """Rows of pixels, split into a contiguous share for each thread."""
    figure, axes = canvas(10.6, 2.0)
    last = bounds[-1][1]
    cell = 9.8 / last
    for (first, end), name, colour in zip(bounds, names, (FORWARD, KEPT, PARAMETER, NOISE), strict=False):
        grid(axes, 0.4 + cell * first, 1.0, [list(range(first, end))], cell=cell, colour=colour, size=8)
        label(axes, 0.4 + cell * (first + end) / 2, 0.5, name, colour, 10)
    return figure
