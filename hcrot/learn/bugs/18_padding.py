"""Zero padding around an image.

x (..., H, W) becomes y (..., top + H + bottom, left + W + right), with zeros around it.
"""

import numpy as np

import hcrot


class Pad(hcrot.Module):
    """Zeros around the last two axes.

    Args:
        left, right, top, bottom: how many columns and rows of zeros.
    """

    def __init__(self, left: int, right: int, top: int, bottom: int):
        self.left, self.right, self.top, self.bottom = left, right, top, bottom

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x.shape)
        around = [(0, 0)] * (x.ndim - 2) + [(self.top, self.bottom), (self.left, self.right)]
        return np.pad(x, around)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        height, width = self.saved()[-2:]
        # bug: begin
        return dy[..., self.bottom : self.bottom + height, self.right : self.right + width]
        # bug: mended
        return dy[..., self.top : self.top + height, self.left : self.left + width]
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
With padding of 1 on all sides everything is right. diffusers pads only on the right and at the bottom before it halves an image. With
that, the gradient of the image seems to be moved by one pixel.
"""

HINTS = [
    "Show dx as a picture, for a dy that is 1 at one pixel and 0 elsewhere.",
    "Check with four different numbers for the four sides: symmetric cases cannot tell them apart.",
    "Where in y does x begin?",
]

EXPLANATION = """
In y the image begins after `top` rows and `left` columns. backward cut it out after `bottom` rows and `right` columns. With equal padding
on opposite sides nobody can see it. The shapes are right in any case, which is why nothing complained. Test with arguments that are all
different.
"""


def check(yours, check) -> None:
    for sides in ((1, 1, 1, 1), (0, 1, 0, 1), (1, 2, 3, 4)):
        layer, x = yours.Pad(*sides), check.normal(2, 3, 5)
        y = layer(x)
        dy = check.normal(*y.shape)
        right = np.allclose(np.vdot(dy, y), np.vdot(layer.backward(dy), x))
        check.that(right, f"padding (left, right, top, bottom) = {sides}: the gradient is not at the pixels that it belongs to")
