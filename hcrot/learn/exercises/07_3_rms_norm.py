"""RMSNorm, forward and backward.

RMSNorm divides the numbers along the last axis by their root mean square and subtracts no mean: y = weight x / sqrt(mean(x^2) + eps).
x has the shape (..., C) with any number of axes, weight (C,). Write both passes. Derive backward yourself, as the chapter does it for
GroupNorm: in how many ways does one x act on the results?
"""

import numpy as np

import hcrot


class RMSNorm(hcrot.Module):
    """y = weight x / sqrt(mean(x^2) + eps), the mean over the last axis."""

    def __init__(self, dim: int, eps: float = 1e-5):
        self.eps = eps
        self.weight = hcrot.Parameter(np.ones(dim, np.float32))

    def forward(self, x: np.ndarray) -> np.ndarray:
        # yours: begin
        r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.eps)
        xhat = x * r
        self.save(xhat, r)
        return self.weight.data * xhat
        # yours: end

    def backward(self, dy: np.ndarray) -> np.ndarray:
        # yours: begin
        xhat, r = self.saved()
        self.weight.grad += (dy * xhat).reshape(-1, xhat.shape[-1]).sum(axis=0)
        g = self.weight.data * dy
        return r * (g - xhat * (g * xhat).mean(axis=-1, keepdims=True))
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "There is no mean that is subtracted, so one of the three ways is gone. Which two are left?",
    "With s = mean(x^2): ds/dx_i = 2 x_i / n. With r = (s + eps)^(-1/2): dr/dx_i = -r^3 x_i / n.",
    "dx = r (g - xhat mean(g xhat)) with g = weight dy and xhat = x r. The gradient of weight sums over all axes but the last.",
]
DERIVATION = """
With r = (mean(x^2) + eps)^(-1/2) and xhat_j = r x_j:   dr/dx_i = -r^3 x_i / n,  so

    dxhat_j/dx_i = r delta_ij - r^3 x_i x_j / n = r (delta_ij - xhat_i xhat_j / n)
    dx_i = r (g_i - xhat_i mean(g xhat)),    g = weight dy

It is GroupNorm's formula without mean(g): nothing is subtracted in forward, so no part of g along (1, ..., 1) is removed in backward. What
is left is the projection that removes the part along xhat. dweight = sum of dy xhat over all axes but the last: (..., C) -> (C,).
Source: Zhang & Sennrich, Root Mean Square Layer Normalization, NeurIPS 2019.
"""
WRONG = {
    "the mean of g is removed as in GroupNorm": ("r * (g - xhat", "r * (g - g.mean(axis=-1, keepdims=True) - xhat"),
    "the mean is subtracted in forward": ("r = 1 / np.sqrt((x**2)",
        "x = x - x.mean(axis=-1, keepdims=True)\n        r = 1 / np.sqrt((x**2)"),
    "r forgotten in backward": ("return r * (g - ", "return (g - "),
}


def check(yours, check: Check) -> None:
    layer, x = yours.RMSNorm(5).astype(np.float64), check.normal(4, 5)
    layer.weight.data[...] = check.normal(5)
    check.equal("y", layer(x), layer.weight.data * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5))
    for shape in ((3, 5), (2, 3, 4), (7,)):
        check.gradients(yours.RMSNorm(shape[-1]), check.normal(*shape))
    check.adds(yours.RMSNorm(4), check.normal(3, 4))
