"""The backward pass of a residual block with a time embedding.

Forward is done: two groups of layers, the time added between them, and x around everything. Write backward(dy, dtemb): it ADDS the gradient
of temb to the array dtemb, which the caller has made, and returns dx. The layers' own backward passes are the library's.
"""

import numpy as np

import hcrot


class ResidualBlock(hcrot.Module):
    """h = conv1(norm1(x)) + time(temb), the same for all pixels; y = conv2(norm2(h)) + shortcut(x)."""

    def __init__(self, channels: int, out_channels: int, width: int, *, generator: np.random.Generator | int | None = None):
        generator = np.random.default_rng(generator)
        self.norm1 = hcrot.GroupNormSiLU(1, channels)
        self.conv1 = hcrot.Conv2d(channels, out_channels, 3, padding=1, generator=generator)
        self.time = hcrot.Linear(width, out_channels, generator=generator)
        self.norm2 = hcrot.GroupNormSiLU(1, out_channels)
        self.conv2 = hcrot.Conv2d(out_channels, out_channels, 3, padding=1, generator=generator)
        self.shortcut = hcrot.Conv2d(channels, out_channels, 1, generator=generator)

    def forward(self, x: np.ndarray, temb: np.ndarray) -> np.ndarray:
        h = self.conv1(self.norm1(x)) + self.time(temb)[:, :, None, None]
        return self.conv2(self.norm2(h)) + self.shortcut(x)

    def backward(self, dy: np.ndarray, dtemb: np.ndarray) -> np.ndarray:
        # yours: begin
        dh = self.norm2.backward(self.conv2.backward(dy))
        dtemb += self.time.backward(dh.sum(axis=(2, 3)))
        return self.norm1.backward(self.conv1.backward(dh)) + self.shortcut.backward(dy)
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Read forward from its last line to its first. dy goes to two places: into conv2, and into shortcut.",
    "The result of time has the shape (N, C) and was repeated for all pixels: its gradient is dh, summed over the pixels.",
    "x was used twice, so dx is a sum of two. dtemb += ... writes into the caller's array; dtemb = dtemb + ... would not.",
]
DERIVATION = """
    y = conv2(norm2(h)) + shortcut(x)         dh = norm2.backward(conv2.backward(dy)),   one part of dx = shortcut.backward(dy)
    h = conv1(norm1(x)) + time(temb)          the other part = norm1.backward(conv1.backward(dh))
        repeated for H W pixels               d time(temb) [n, c] = sum over i, j of dh[n, c, i, j]

x is used twice: the parts add. temb is used by all blocks of a network, so no block knows its whole gradient: the network makes dtemb of
zeros, and every block adds to it in place. Source: He et al. 2016, equation 2; Ho et al. 2020, appendix B.
"""
WRONG = {
    "the shortcut is forgotten": (" + self.shortcut.backward(dy)", ""),
    "dtemb replaced": ("dtemb += self.time", "dtemb[...] = self.time"),
    "the caller's array is left": ("dtemb += self.time", "dtemb = dtemb + self.time"),
    "mean over the pixels": ("dh.sum(axis=(2, 3))", "dh.mean(axis=(2, 3))"),
}


def check(yours, check: Check) -> None:
    with hcrot.plain():
        check.gradients(yours.ResidualBlock(2, 3, 4, generator=0), check.normal(2, 2, 3, 4), check.normal(2, 4))
