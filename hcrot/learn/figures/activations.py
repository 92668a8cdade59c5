"""Chapter 03: activation functions and their slopes, two inputs with one output, and the kink of ReLU."""

from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, charts

__all__ = ["curves", "kink_and_twins"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def curves() -> "Figure":
    """ReLU, SiLU and tanh in blue, their slopes in orange."""
    x = np.linspace(-4, 4, 401)
    s = sigmoid(x)
    figure, axes = charts(3, size=(1.85, 2.1))
    for panel, title, y, slope in (
        (axes[0], "ReLU", np.maximum(x, 0), np.where(np.isclose(x, 0), np.nan, x > 0)),
        (axes[1], "SiLU", x * s, s * (1 + x * (1 - s))),
        (axes[2], "tanh", np.tanh(x), 1 - np.tanh(x) ** 2),
    ):
        panel.plot(x, y, color=FORWARD)
        panel.plot(x, slope, color=BACKWARD)
        panel.set_title(title, color=INK, fontsize=11)
        panel.set_ylim(-1.3, 2.3)
        panel.set_xticks([-4, 0, 4])
        panel.set_yticks([-1, 0, 1, 2])
    axes[2].text(-3.8, 1.95, "y", color=FORWARD)
    axes[2].text(-3.8, 1.5, "slope dy/dx", color=BACKWARD)
    return figure


def kink_and_twins(h: float, left: float, right: float, value: float) -> "Figure":
    """A difference across ReLU's kink; and SiLU with two inputs that have the same output."""
    figure, (kink, twins) = charts(2, size=(2.8, 2.4))
    x = np.linspace(-1.5, 1.5, 201)
    kink.plot(x, np.maximum(x, 0), color=FORWARD)
    kink.plot([-h, h], [0, h], "o--", color=BACKWARD, markersize=5)
    kink.set_title("ReLU: across the kink", color=INK, fontsize=10)
    kink.text(-1.45, 1.05, f"slope {h / (2 * h):g},\nbetween 0 and 1", color=BACKWARD, fontsize=9)
    x = np.linspace(-5, 1, 201)
    twins.plot(x, x * sigmoid(x), color=FORWARD)
    twins.plot([left, right], [value, value], "o--", color=KEPT, markersize=5)
    twins.set_title(f"SiLU: two x with y = {value:g}", color=INK, fontsize=10)
    for point, side in ((left, "right"), (right, "left")):
        twins.text(point, value - 0.06, f" x = {point:.2f} ", color=KEPT, fontsize=9, ha=side, va="top")
    twins.set_ylim(-0.45, 0.75)
    return figure
