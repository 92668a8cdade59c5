"""Normalising groups of channels.

For x (N, C, H, W) each group of C / G channels of each image gets mean 0 and variance 1. There is nothing to learn here.
"""

import numpy as np

import hcrot


class Normalize(hcrot.Module):
    """xhat = (x - mean) / sqrt(var + eps)."""

    def __init__(self, num_groups: int, eps: float = 1e-5):
        self.num_groups, self.eps = num_groups, eps

    def forward(self, x: np.ndarray) -> np.ndarray:
        batch, channels, height, width = x.shape
        grouped = x.reshape(batch, self.num_groups, channels // self.num_groups, height, width)
        # bug: begin
        axes = (0, 2, 3, 4)
        # bug: mended
        axes = (2, 3, 4)
        # bug: end
        rstd = 1 / np.sqrt(grouped.var(axis=axes, keepdims=True) + self.eps)
        xhat = (grouped - grouped.mean(axis=axes, keepdims=True)) * rstd
        self.save(xhat, rstd, axes)
        return xhat.reshape(x.shape)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        xhat, rstd, axes = self.saved()
        g = dy.reshape(xhat.shape)
        dx = rstd * (g - g.mean(axis=axes, keepdims=True) - xhat * (g * xhat).mean(axis=axes, keepdims=True))
        return dx.reshape(dy.shape)


# kept back: the learner's file ends here

SYMPTOM = """
The gradient check passes and training works. But when I draw one digit it looks different from the same digit, with the same noise and
the same label, drawn in a batch of sixteen.
"""

HINTS = [
    "hcrot.check_gradients is right: backward fits forward. So it is forward that does what it should not.",
    "Put an image through alone, and beside a second one that is ten times brighter. Compare the first result.",
    "Over which axes are mean and variance taken? Name each of the five.",
]

EXPLANATION = """
Mean and variance were taken over the batch, too, as in BatchNorm, but without its running averages for inference. The images of a batch
then influence each other, and a batch of one has other statistics than one of sixteen. backward was derived for the same axes, so no
gradient check can find it. It proves that backward is the derivative of forward, not that forward is what you want. For that, compare
with a formula or another implementation, and check what has to hold: here that images are independent.
"""


def check(yours, check) -> None:
    x = check.normal(3, 4, 5, 3)
    layer = yours.Normalize(2)
    together = layer(x)
    check.agree(layer, x)
    x[1:] *= 10
    changed = np.abs(layer(x)[0] - together[0]).max()
    check.that(changed < 1e-9, f"when the other images of the batch get brighter, the first result changes by up to {changed:.2g}")
    rows = layer(x).reshape(6, -1)
    check.equal("the mean of each group", rows.mean(axis=1), np.zeros(6))
    check.equal("the variance of each group", rows.var(axis=1), np.ones(6), tolerance=1e-3)
