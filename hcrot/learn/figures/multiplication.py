"""Chapter 01: one multiplication forward and backward, a value that is used twice, and the error of finite differences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, PARAMETER, arrow, box, canvas, charts, label

__all__ = ["difference_errors", "graph", "used_twice"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def graph(x: float, w: float, t: float) -> "Figure":
    """L = (w x - t)^2: the numbers forward above, the gradients backward below."""
    y = w * x
    dy = 2 * (y - t)
    figure, axes = canvas(11.4, 5.0)
    box(axes, 0.2, 0.5, 1.7, 0.9, f"w = {w:g}", PARAMETER)
    box(axes, 0.2, 3.3, 1.7, 0.9, f"x = {x:g}")
    box(axes, 4.0, 1.9, 0.9, 0.9, "×", INK, size=15)
    box(axes, 6.9, 1.9, 1.7, 0.9, "(y − t)²", INK)
    box(axes, 9.9, 1.9, 1.4, 0.9, f"{(y - t) ** 2:g}")
    label(axes, 7.75, 0.75, f"t = {t:g}", FORWARD)
    arrow(axes, (7.75, 1.0), (7.75, 1.9), colour=FORWARD)
    arrow(axes, (1.9, 0.8), (4.1, 1.95), colour=FORWARD)
    arrow(axes, (1.9, 3.6), (4.0, 2.5), colour=FORWARD)
    arrow(axes, (4.9, 2.1), (6.9, 2.1), f"y = {y:g}", FORWARD)
    arrow(axes, (8.6, 2.1), (9.9, 2.1), "L", FORWARD)
    arrow(axes, (9.9, 2.6), (8.6, 2.6), colour=BACKWARD)
    arrow(axes, (6.9, 2.6), (4.9, 2.6), colour=BACKWARD)
    arrow(axes, (4.0, 2.2), (1.5, 1.4), colour=BACKWARD)
    arrow(axes, (4.1, 2.85), (1.9, 4.0), colour=BACKWARD)
    label(axes, 9.25, 3.0, "dL = 1", BACKWARD)
    label(axes, 5.9, 3.0, f"dy = {dy:g}", BACKWARD)
    label(axes, 1.75, 2.2, f"dw = dy · x = {dy * x:g}", BACKWARD)
    label(axes, 4.6, 4.0, f"dx = dy · w = {dy * w:g}", BACKWARD)
    return figure


def used_twice(w: float, x: float) -> "Figure":
    """y = w (w x): each use of w is a multiplication of its own, and their two gradients meet at w."""
    figure, axes = canvas(11.2, 4.4)
    box(axes, 4.5, 0.2, 1.7, 0.9, f"w = {w:g}", PARAMETER)
    box(axes, 0.2, 2.8, 1.5, 0.9, f"x = {x:g}")
    for left in (2.9, 6.9):
        box(axes, left, 2.8, 0.9, 0.9, "×", INK, size=15)
    box(axes, 9.3, 2.8, 1.6, 0.9, f"y = {w * w * x:g}")
    for start, end in (((1.7, 3.1), (2.9, 3.1)), ((3.8, 3.1), (6.9, 3.1)), ((7.8, 3.1), (9.3, 3.1)),
                       ((4.8, 1.1), (3.5, 2.8)), ((5.9, 1.1), (7.2, 2.8))):  # fmt: skip
        arrow(axes, start, end, colour=FORWARD)
    label(axes, 5.35, 2.8, f"u = {w * x:g}", FORWARD)
    for start, end in (((9.3, 3.45), (7.8, 3.45)), ((6.9, 3.45), (3.8, 3.45)), ((3.15, 2.8), (4.5, 0.95)), ((7.55, 2.8), (6.2, 0.95))):
        arrow(axes, start, end, colour=BACKWARD)
    label(axes, 8.55, 3.8, "dy = 1", BACKWARD)
    label(axes, 5.35, 3.8, f"du = dy · w = {w:g}", BACKWARD)
    label(axes, 2.1, 1.7, f"du · x = {w * x:g}", BACKWARD)
    label(axes, 8.5, 1.7, f"dy · u = {w * x:g}", BACKWARD)
    label(axes, 8.6, 0.6, f"dw = {w * x:g} + {w * x:g} = {2 * w * x:g}", BACKWARD)
    return figure


def difference_errors(steps: Sequence[float], one_sided: Sequence[float], two_sided: Sequence[float]) -> "Figure":
    """How far the two quotients are from the slope, over the step h."""
    figure, (axes,) = charts(size=(5.0, 3.0))
    axes.loglog(steps, one_sided, "o-", color=FORWARD, markersize=4)
    axes.loglog(steps, two_sided, "o-", color=BACKWARD, markersize=4)
    axes.set_xlabel("step h")
    axes.set_ylabel("error")
    axes.text(2e-9, 3e-6, "one-sided", color=FORWARD, ha="left", va="bottom")
    axes.text(2e-3, 4e-8, "two-sided", color=BACKWARD, ha="left", va="center")
    axes.text(1e-12, 2e-2, "rounding", color=INK, ha="left", va="top")
    return figure
