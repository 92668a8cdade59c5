"""Chapter 04: from logits to probabilities to p - y, and the Jacobian of softmax with its numbers."""

from typing import TYPE_CHECKING

import numpy as np

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, PARAMETER, arrow, canvas, charts, grid, label

__all__ = ["bars", "jacobian"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bars(z: np.ndarray, label_index: int) -> "Figure":
    """Logits, probabilities, and the gradient p - y of the cross-entropy, as bars."""
    p = np.exp(z) / np.exp(z).sum()
    y = np.eye(len(z))[label_index]
    figure, panels = charts(3, size=(1.9, 2.1))
    for panel, values, title, colour in (
        (panels[0], z, "logits z", FORWARD),
        (panels[1], p, "p = softmax(z)", FORWARD),
        (panels[2], p - y, "dz = p − y", BACKWARD),
    ):
        panel.bar(range(len(z)), values, color=colour, alpha=0.6, width=0.6)
        panel.set_title(title, color=INK, fontsize=11)
        panel.set_xticks(range(len(z)), ["cat", "dog", "bird"][: len(z)])
        panel.axhline(0, color=INK, linewidth=0.8)
        span = max(values.max(), 0) - min(values.min(), 0)
        for index, value in enumerate(values):
            panel.text(index, value + 0.03 * span * np.sign(value), f"{value:.2f}", color=INK, fontsize=9, ha="center",
                       va="bottom" if value > 0 else "top")  # fmt: skip
        panel.set_ylim(min(values.min(), 0) - 0.18 * span * (values.min() < 0), max(values.max(), 0) + 0.18 * span)
    panels[1].plot(range(len(z)), y, "o", color=PARAMETER, markersize=5, clip_on=False)
    panels[1].set_ylim(0, 1.1)
    panels[1].text(0.3, 1.0, "y", color=PARAMETER, va="center")
    return figure


def jacobian(p: np.ndarray, dp: np.ndarray) -> "Figure":
    """dz = J dp with all its numbers, and the two steps that give the same without J."""
    matrix = np.diag(p) - np.outer(p, p)
    figure, axes = canvas(11.2, 7.6)
    cell, size = 1.05, len(p)
    top = 1.0
    middle = top + size * cell / 2
    for x, values, name, colour, marked in (
        (0.2, matrix, "J = diag(p) − p pᵀ", FORWARD, [(k, k) for k in range(size)]),
        (4.7, dp[:, None], "dp", BACKWARD, ()),
        (7.0, (matrix @ dp)[:, None], "dz", BACKWARD, ()),
    ):
        grid(axes, x, top, values, cell=cell, colour=colour, marked=marked, form="{:+.3f}", size=9)
        label(axes, x + values.shape[1] * cell / 2, top - 0.45, name, colour)
    label(axes, 4.05, middle, "·", size=16)
    label(axes, 6.4, middle, "=", size=14)
    label(axes, 1.8, top + size * cell + 0.4, f"{size} × {size} numbers", size=9)
    low = 6.3
    label(axes, 0.2, low - 1.0, "the same without J:", INK, 10, ha="left")
    mean = float(dp @ p)
    for x, values, name, colour in ((0.2, dp, "dp", BACKWARD), (7.2, p * (dp - mean), "dz = p (dp − mean)", BACKWARD)):
        grid(axes, x, low, values[None], cell=cell, colour=colour, form="{:+.3f}", size=9)
        label(axes, x + size * cell / 2, low - 0.35, name, colour)
    arrow(axes, (3.5, low + cell / 2), (7.1, low + cell / 2))
    label(axes, 5.3, low + cell / 2 - 0.35, f"mean = Σ dp p = {mean:+.3f}", INK, 10)
    return figure
