"""Scale and shift every channel, and the sums over the pixels.

x has the shape (N, C, H, W), scale and shift have (N, C): one number for each image and channel, the same for all pixels. Forward is
y = (1 + scale) x + shift. Backward returns three gradients: of x, scale and shift.
"""

import numpy as np

import hcrot


class ScaleShift(hcrot.Module):
    """y = (1 + scale) x + shift, broadcast over the pixels."""

    def forward(self, x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        # yours: begin
        self.save(x, scale)
        return (1 + scale)[:, :, None, None] * x + shift[:, :, None, None]
        # yours: end

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # yours: begin
        x, scale = self.saved()
        return (1 + scale)[:, :, None, None] * dy, (dy * x).sum(axis=(2, 3)), dy.sum(axis=(2, 3))
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "scale[:, :, None, None] has the shape (N, C, 1, 1), which goes with (N, C, H, W).",
    "Where forward repeats, backward adds up. Over which axes did forward repeat scale and shift?",
    "dx = (1 + scale) dy, dscale = sum of dy x over the pixels, dshift = sum of dy over the pixels.",
]
DERIVATION = """
y[n, c, i, j] = (1 + a[n, c]) x[n, c, i, j] + s[n, c]. The slopes are 1 + a with respect to x, x with respect to a, and 1 with respect to s.
a and s are used in all H W pixels, so their gradients are sums over these:

    dx[n, c, i, j] = (1 + a[n, c]) dy[n, c, i, j]        (N, C, H, W)
    da[n, c] = sum over i, j of dy[n, c, i, j] x[n, c, i, j]        (N, C)
    ds[n, c] = sum over i, j of dy[n, c, i, j]                      (N, C)

Images stay apart: each has a scale and shift of its own. Source: Dhariwal & Nichol 2021, section 3.
"""
WRONG = {
    "mean instead of sum": ("dy.sum(axis=(2, 3))", "dy.mean(axis=(2, 3))"),
    "the 1 is forgotten": ("return (1 + scale)[:, :, None, None] * dy", "return scale[:, :, None, None] * dy"),
    "x is forgotten": ("(dy * x).sum", "dy.sum"),
}


def check(yours, check: Check) -> None:
    x, scale, shift = check.normal(2, 3, 4, 5), check.normal(2, 3), check.normal(2, 3)
    expected = np.stack([[x[n, c] * (1 + scale[n, c]) + shift[n, c] for c in range(3)] for n in range(2)])
    check.equal("y", yours.ScaleShift()(x, scale, shift), expected)
    for images, channels, size in ((2, 3, (4, 5)), (3, 3, (3, 3)), (1, 4, (1, 2))):
        pair = check.normal(2, images, channels)
        check.gradients(yours.ScaleShift(), check.normal(images, channels, *size), *pair)
