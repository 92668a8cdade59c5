"""GroupNorm's backward pass.

Forward is done, and keeps xhat and rstd = 1 / sqrt(variance + eps), of shapes (N, C, H, W) and (N, G, 1). Write backward: it takes dy, of
x's shape, ADDS to the gradients of weight and bias, both (C,), and returns dx.
"""

import numpy as np

import hcrot


class GroupNorm(hcrot.Module):
    """y = weight (x - mean) / sqrt(variance + eps) + bias, mean and variance over each group of channels of each image."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        self.num_groups, self.eps = num_groups, eps
        self.weight = hcrot.Parameter(np.ones(num_channels, np.float32))
        self.bias = hcrot.Parameter(np.zeros(num_channels, np.float32))

    def forward(self, x: np.ndarray) -> np.ndarray:
        groups = x.reshape(len(x), self.num_groups, -1)
        rstd = 1 / np.sqrt(groups.var(axis=2, keepdims=True) + self.eps)
        xhat = ((groups - groups.mean(axis=2, keepdims=True)) * rstd).reshape(x.shape)
        self.save(xhat, rstd)
        return self.weight.data[:, None, None] * xhat + self.bias.data[:, None, None]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        xhat, rstd = self.saved()
        # yours: begin
        self.weight.grad += (dy * xhat).sum(axis=(0, 2, 3))
        self.bias.grad += dy.sum(axis=(0, 2, 3))
        g = (self.weight.data[:, None, None] * dy).reshape(len(dy), self.num_groups, -1)
        h = xhat.reshape(g.shape)
        dx = rstd * (g - g.mean(axis=2, keepdims=True) - h * (g * h).mean(axis=2, keepdims=True))
        return dx.reshape(dy.shape)
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "weight and bias are used in every image and every pixel: which axes of dy must be added up to leave (C,)?",
    "Go on with g = weight dy. Each x acts on its group directly, through the mean and through the variance: three terms.",
    "In rows of groups, (N, G, n): dx = rstd (g - mean(g) - xhat mean(g xhat)), both means over the last axis with keepdims.",
]
DERIVATION = """
With r = rstd and n numbers in a group, xhat_j = r (x_j - mu). The slopes are

    dmu/dx_i = 1/n,    dv/dx_i = 2 (x_i - mu) / n,    dr/dx_i = -r^3 (x_i - mu) / n,

so  dxhat_j/dx_i = r (delta_ij - 1/n - xhat_i xhat_j / n).  Multiplied by g_j = w_c dy_j and added over j:

    dx_i = r (g_i - mean(g) - xhat_i mean(g xhat)).

weight and bias serve all images and pixels of their channel, so their gradients are sums over these: (N, C, H, W) -> (C,).
Two sums are always zero (the second but for eps): sum dx, since a number added to all x changes nothing, and sum dx xhat, since a factor on
x - mu changes nothing. Source: Wu & He 2018, section 3, for the formula.
"""
WRONG = {
    "the variance is forgotten": (" - h * (g * h).mean(axis=2, keepdims=True)", ""),
    "the mean is forgotten": (" - g.mean(axis=2, keepdims=True)", ""),
    "set, not added": ("self.weight.grad += ", "self.weight.grad[...] = "),
    "weight left out of dx": ("(self.weight.data[:, None, None] * dy).reshape", "dy.reshape"),
}


def check(yours, check: Check) -> None:
    for groups, channels, size in ((2, 6, (3, 5)), (4, 4, (2, 3)), (1, 3, (4, 1))):
        check.gradients(yours.GroupNorm(groups, channels), check.normal(2, channels, *size))
    check.adds(yours.GroupNorm(2, 4), check.normal(3, 4, 2, 2))
