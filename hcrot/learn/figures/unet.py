"""Drawings of chapter 11: a whole U-Net from the shapes that a real one returned, and a residual block."""

from typing import TYPE_CHECKING

from hcrot.learn.figures.style import BACKWARD, FORWARD, INK, KEPT, PARAMETER, arrow, box, canvas, label

__all__ = ["residual", "whole"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hcrot import UNet2dModel


def whole(model: "UNet2dModel", shapes: dict[str, str]) -> "Figure":
    """A U-Net with one residual block per down block: what is laid on the stack of skips, and what is joined where.

    Args:
        model: with ``layers_per_block=1``.
        shapes: of the output of each module, by name, as :func:`hcrot.summary` tells them.
    """
    levels = len(model.down_blocks)
    wide, high, step, gap = 1.85, 1.25, 0.75, 2.9
    figure, axes = canvas(12.6, levels * gap + 1.8)
    right = 12.6

    def size(name: str) -> tuple[str, str]:
        _, channels, height, width = shapes[name].strip("()").split(", ")
        return channels, f"{height}x{width}"

    def middle(corner: tuple[float, float]) -> tuple[float, float]:
        return corner[0] + wide / 2, corner[1] + high / 2

    def draw(corner: tuple[float, float], name: str, text: str, colour: str) -> None:
        channels, pixels = size(name)
        box(axes, *corner, wide, high, f"{text}{channels}\n{pixels}", colour, 9.5)

    before = "conv_in"
    for level in range(levels):
        y = 1.3 + level * gap
        first, second = (0.15 + step * level, y), (2.4 + step * level, y)
        third, fourth = (right - 4.25 - step * level, y), (right - 2.0 - step * level, y)
        outer, inner = 2 * level + 1, 2 * level + 2
        up = f"up_blocks.{levels - 1 - level}"
        draw(first, before, "", FORWARD)
        draw(second, f"down_blocks.{level}.resnets.0", "", FORWARD)
        arrow(axes, (first[0] + wide, y + high / 2), (second[0], y + high / 2), colour=FORWARD)
        below = size("mid_block")[0] if level == levels - 1 else size(f"up_blocks.{levels - 2 - level}")[0]
        own = size(f"{up}.resnets.0")[0]
        draw(third, f"{up}.resnets.0", f"{below} + {size(f'down_blocks.{level}.resnets.0')[0]} →\n", FORWARD)
        draw(fourth, f"{up}.resnets.1", f"{own} + {size(before)[0]} →\n", FORWARD)
        arrow(axes, (third[0] + wide, y + high / 2), (fourth[0], y + high / 2), colour=FORWARD)
        arrow(axes, (second[0] + wide, y + high / 2), (third[0], y + high / 2), colour=KEPT)
        label(axes, (second[0] + wide + third[0]) / 2, y + high / 2 - 0.25, f"skip {inner}", KEPT, 9.5)
        start, end = middle(first)[0], middle(fourth)[0]
        axes.plot([start, start, end, end], [y, y - 0.55, y - 0.55, y - 0.15], color=KEPT, linewidth=1.4)
        arrow(axes, (end, y - 0.3), (end, y), colour=KEPT)
        label(axes, (start + end) / 2, y - 0.77, f"skip {outer}", KEPT, 9.5)
        before = f"down_blocks.{level}.downsamplers.0"
        if level < levels - 1:
            arrow(axes, (middle(second)[0] - 1.0, y + high), (middle(first)[0] + step, y + gap), colour=FORWARD)
            arrow(axes, (middle(fourth)[0] - step, y + gap), (middle(third)[0] + 1.0, y + high), colour=FORWARD)
            label(axes, 0.15 + step * level, y + high + 0.7, "halve", INK, 9.5, ha="left")
            label(axes, right - 0.15 - step * level, y + high + 0.75, "double", INK, 9.5, ha="right")
        else:
            draw((right / 2 - wide / 2, y + 1.45), "mid_block", "mid: ", FORWARD)
            arrow(axes, (middle(second)[0], y + high), (right / 2 - wide / 2, y + 1.9), colour=FORWARD)
            arrow(axes, (right / 2 + wide / 2, y + 1.9), (middle(third)[0], y + high), colour=FORWARD)
    return figure


def residual() -> "Figure":
    """A residual block: x goes around the layers and through them, temb joins in the middle; gradients on their way back."""
    figure, axes = canvas(12.4, 6.2)
    box(axes, 0.2, 2.2, 1.1, 0.9, "x")
    box(axes, 2.4, 2.2, 2.2, 0.9, "norm, SiLU,\nconv", PARAMETER, 10)
    box(axes, 5.6, 2.2, 0.9, 0.9, "+", KEPT, 14)
    box(axes, 7.4, 2.2, 2.2, 0.9, "norm, SiLU,\nconv", PARAMETER, 10)
    box(axes, 10.4, 2.2, 0.9, 0.9, "+", KEPT, 14)
    box(axes, 5.1, 4.9, 1.9, 1.0, "$\\tau$, goes to\nall blocks", INK, 9.5)
    for start, end in (((1.3, 2.5), (2.4, 2.5)), ((4.6, 2.5), (5.6, 2.5)), ((6.5, 2.5), (7.4, 2.5)), ((9.6, 2.5), (10.4, 2.5)),
                       ((11.3, 2.5), (12.3, 2.5)), ((5.9, 4.9), (5.9, 3.1))):  # fmt: skip
        arrow(axes, start, end, colour=FORWARD)
    for start, end in (((2.4, 2.85), (1.3, 2.85)), ((5.6, 2.85), (4.6, 2.85)), ((7.4, 2.85), (6.5, 2.85)), ((10.4, 2.85), (9.6, 2.85)),
                       ((12.3, 2.85), (11.3, 2.85)), ((6.2, 3.1), (6.2, 4.9))):  # fmt: skip
        arrow(axes, start, end, colour=BACKWARD)
    for height, colour, x0, x1, forward in ((0.9, FORWARD, 0.6, 10.7, True), (1.3, BACKWARD, 0.9, 11.0, False)):
        axes.plot([x0, x0, x1, x1], [2.2, height, height, 2.2], color=colour, linewidth=1.4)
        arrives = x1 if forward else x0
        arrow(axes, (arrives, 1.9), (arrives, 2.2), colour=colour)
    label(axes, 5.7, 0.55, "around: unchanged (or a 1x1 convolution)", FORWARD, 10)
    label(axes, 5.7, 1.6, r"$\bar{y}$ arrives undiminished", BACKWARD, 10)
    label(axes, 3.6, 3.6, "linear, one number\nper channel", FORWARD, 9.5)
    label(axes, 8.7, 4.3, "summed over the pixels,\nthen dtemb += ...", BACKWARD, 9.5)
    label(axes, 11.8, 2.15, "y", FORWARD, 11)
    label(axes, 11.8, 3.25, r"$\bar{y}$", BACKWARD, 11)
    label(axes, 1.0, 3.6, r"$\bar{x}$: both added", BACKWARD, 9.5)
    return figure
