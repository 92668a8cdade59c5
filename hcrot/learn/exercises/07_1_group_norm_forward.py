"""GroupNorm's forward pass.

x has the shape (N, C, H, W). Split its channels into ``num_groups`` groups of neighbours. Give each group of each image mean 0 and variance
1. (The variance is divided by how many numbers there are, and gets eps added before the square root.) Then multiply each channel by its
weight and add its bias, both of shape (C,).
"""

import numpy as np


def group_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, num_groups: int, eps: float = 1e-5) -> np.ndarray:
    """y = weight xhat + bias, of x's shape."""
    # yours: begin
    groups = x.reshape(len(x), num_groups, -1)
    mean = groups.mean(axis=2, keepdims=True)
    variance = ((groups - mean) ** 2).mean(axis=2, keepdims=True)
    xhat = ((groups - mean) / np.sqrt(variance + eps)).reshape(x.shape)
    return weight[:, None, None] * xhat + bias[:, None, None]
    # yours: end


# kept back: the learner's file ends here

import hcrot  # noqa: E402
from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "The channels of a group are neighbours in memory: x.reshape(N, G, -1) has one row for each group of each image.",
    "mean(axis=2, keepdims=True) leaves the shape (N, G, 1), which can be subtracted from (N, G, n).",
    "weight has the shape (C,); weight[:, None, None] has (C, 1, 1) and goes with (N, C, H, W).",
]
DERIVATION = """
With n = H W C/G numbers in a group:

    mu = sum x / n,    v = sum (x - mu)^2 / n,    xhat = (x - mu) / sqrt(v + eps)

The reshape (N, C, H, W) -> (N, G, n) puts each group into one row, because the C/G channels of a group follow each other. The mean and the
variance are then those of rows. Weight and bias belong to channels, so they are applied after the way back to (N, C, H, W).
The variance is divided by n, not by n - 1: so the mean of xhat^2 is v / (v + eps), which is 1 but for eps.
Source: Wu & He, Group Normalization, ECCV 2018, section 3.
"""
WRONG = {
    "n - 1": (".mean(axis=2, keepdims=True)\n    xhat", ".sum(axis=2, keepdims=True) / (groups.shape[2] - 1)\n    xhat"),
    "eps outside of the root": ("np.sqrt(variance + eps)", "(np.sqrt(variance) + eps)"),
    "whole images": ("x.reshape(len(x), num_groups, -1)", "x.reshape(len(x), 1, -1)"),
}


def check(yours, check: Check) -> None:
    for shape, groups, eps in (((3, 6, 2, 5), 2, 1e-5), ((1, 4, 3, 3), 4, 0.1), ((2, 4, 1, 3), 1, 1e-5)):
        layer = hcrot.GroupNorm(groups, shape[1], eps).astype(np.float64)
        layer.weight.data[...], layer.bias.data[...] = check.normal(shape[1]), check.normal(shape[1])
        x = 3 * check.normal(*shape) + 1
        arguments = (x, layer.weight.data, layer.bias.data, groups, eps)
        with hcrot.plain():
            what = f"y for x of {shape}, {groups} groups, eps {eps}"
            check.same_as(what, yours.group_norm, lambda x, *_, layer=layer: layer(x), *arguments)
    flat = yours.group_norm(np.full((1, 2, 2, 2), 7.0), np.ones(2), np.zeros(2), 1)
    check.equal("y where all numbers are equal", flat, np.zeros((1, 2, 2, 2)))
