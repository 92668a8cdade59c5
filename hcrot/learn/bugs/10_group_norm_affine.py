"""GroupNorm's scale and shift.

xhat is x with mean 0 and variance 1 in each group of channels of each image; y = weight xhat + bias, one of each for a channel.
"""

import numpy as np

import hcrot


class GroupNorm(hcrot.Module):
    """y = weight xhat + bias with xhat = (x - mean) / sqrt(var + eps), over groups of the channels of x (N, C, H, W)."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        self.num_groups, self.eps = num_groups, eps
        self.weight = hcrot.Parameter(np.ones(num_channels))
        self.bias = hcrot.Parameter(np.zeros(num_channels))

    def forward(self, x: np.ndarray) -> np.ndarray:
        grouped = x.reshape(len(x), self.num_groups, -1)
        mean = grouped.mean(axis=2, keepdims=True)
        rstd = 1 / np.sqrt(grouped.var(axis=2, keepdims=True) + self.eps)
        xhat = ((grouped - mean) * rstd).reshape(x.shape)
        self.save(xhat, rstd)
        # bug: begin
        y = xhat
        y *= self.weight.data[:, None, None]
        y += self.bias.data[:, None, None]
        return y
        # bug: mended
        return xhat * self.weight.data[:, None, None] + self.bias.data[:, None, None]
        # bug: end

    def backward(self, dy: np.ndarray) -> np.ndarray:
        xhat, rstd = self.saved()
        self.weight.grad += (dy * xhat).sum(axis=(0, 2, 3))
        self.bias.grad += dy.sum(axis=(0, 2, 3))
        g = (dy * self.weight.data[:, None, None]).reshape(len(dy), self.num_groups, -1)
        n = xhat.reshape(g.shape)
        dx = rstd * (g - g.mean(axis=2, keepdims=True) - n * (g * n).mean(axis=2, keepdims=True))
        return dx.reshape(dy.shape)


# kept back: the learner's file ends here

SYMPTOM = """
I tested the gradients of a new layer: all right, to nine digits. But training gets worse and worse after the first steps. When I test the
gradients of the trained layer, they are wrong.
"""

HINTS = [
    "What is different after the first step? Test at weights that are not 1 and biases that are not 0: hcrot.check_gradients does.",
    "hcrot.detect_inplace() raises an error if something that a layer keeps for backward is written to.",
    "Which array does backward believe to be xhat? Is it still, at the end of forward?",
]

EXPLANATION = """
What forward kept for backward was scaled and shifted in place, after it was kept. While the weight is 1 and the bias 0, nothing changes,
and every test of a fresh layer passes. After the first update backward takes y for xhat. The predecessor's GroupNorm was like this (B05,
a relative error of 4.4 in the gradient). That is why hcrot.check_gradients moves all parameters away from where they begin.
"""


def check(yours, check) -> None:
    layer = yours.GroupNorm(2, 4)
    check.agree(layer, check.normal(2, 4, 3, 5), randomize=False)
    layer.weight.data[...], layer.bias.data[...] = check.normal(4), check.normal(4)
    check.agree(layer, check.normal(2, 4, 3, 5), randomize=False)
