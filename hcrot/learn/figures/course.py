"""The first page of the course: what the colours of all drawings mean."""

from typing import TYPE_CHECKING

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, NOISE, PARAMETER, arrow, box, canvas, label

__all__ = ["legend"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def legend() -> "Figure":
    """One layer with all that is drawn around it."""
    figure, axes = canvas(11.2, 5.4)
    box(axes, 0.3, 1.9, 2.0, 1.0, "x, dx")
    box(axes, 4.6, 1.9, 2.0, 1.0, "layer", INK)
    box(axes, 8.9, 1.9, 2.0, 1.0, "y, dy")
    box(axes, 4.6, 0.2, 2.0, 0.9, "w, b", PARAMETER)
    box(axes, 4.6, 3.9, 2.0, 0.9, "x", KEPT)
    box(axes, 0.3, 0.2, 2.0, 0.9, "ε", NOISE)
    arrow(axes, (2.3, 2.2), (4.6, 2.2), "forward", FORWARD)
    arrow(axes, (6.6, 2.2), (8.9, 2.2), "forward", FORWARD)
    arrow(axes, (8.9, 2.6), (6.6, 2.6), colour=BACKWARD)
    arrow(axes, (4.6, 2.6), (2.3, 2.6), colour=BACKWARD)
    label(axes, 3.45, 2.95, "backward", BACKWARD, 10)
    label(axes, 7.75, 2.95, "backward", BACKWARD, 10)
    arrow(axes, (5.6, 1.1), (5.6, 1.9), colour=PARAMETER)
    arrow(axes, (5.3, 2.9), (5.3, 3.9), colour=KEPT)
    arrow(axes, (5.9, 3.9), (5.9, 2.9), colour=KEPT)
    arrow(axes, (1.3, 1.1), (1.3, 1.9), colour=NOISE)
    label(axes, 8.75, 0.65, "what is learned", PARAMETER, 10)
    label(axes, 8.75, 4.35, "what forward keeps\nfor backward", KEPT, 10)
    label(axes, 3.45, 0.65, "noise", NOISE, 10)
    return figure
