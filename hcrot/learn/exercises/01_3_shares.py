"""Shares of a total, for any cotangent.

The forward pass turns numbers into shares of their total: y_i = x_i / s with s = x_1 + x_2 + ... It is a layer: forward keeps with save()
what backward needs. Write backward: it gets dy, one number for each y_i, and returns dx.
"""

import numpy as np

import hcrot


class Shares(hcrot.Module):
    """y = x / sum(x), for x with one axis."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        s = x.sum()
        y = x / s
        self.save(y.copy(), s)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        y, s = self.saved()
        # yours: begin
        return (dy - (dy * y).sum()) / s
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "x_k is used in two ways: on top of y_k, and within s, which every y_i is divided by. Find the gradient of each use and add them.",
    "First use: dy_k / s. Second use: all y_i use s, so ds is a sum over i. The slope of x_i / s in s is -x_i / s^2 = -y_i / s.",
    "ds = -sum(dy * y) / s, and every x_k passes into s with slope 1. So dx = dy / s + ds.",
]

DERIVATION = """
Give the total its own name: y_i = x_i / s and s = sum_j x_j.

1. x_k on top of y_k:                      slope 1 / s, so it sends back dy_k / s.
2. s below every y_i:                      slope -x_i / s^2 = -y_i / s. s is used by all i, so ds = -sum_i dy_i y_i / s.
3. x_k as a term of s:                     slope 1, so it sends back ds.

x_k has the uses 1 and 3. Their gradients add:

    dx_k = dy_k / s - sum_i dy_i y_i / s = (dy_k - sum_i dy_i y_i) / s.

With dy = (1, 1, ...) the bracket is 1 - sum_i y_i = 0: that is why a check on the sum of the outputs sees nothing here.
"""

WRONG = {
    "zeros, which pass a check on the sum": ("(dy - (dy * y).sum()) / s", "0 * dy"),
    "the total is taken for a constant": ("(dy - (dy * y).sum()) / s", "dy / s"),
    "not divided": ("(dy - (dy * y).sum()) / s", "dy - (dy * y).sum()"),
}


def check(yours, check: Check) -> None:
    for size in (2, 5):
        check.gradients(yours.Shares(), 1 + np.abs(check.normal(size)))
    check.equal("dx for a cotangent of ones", dx_of_ones(yours.Shares()), np.zeros(3))


def dx_of_ones(layer: hcrot.Module) -> np.ndarray:
    layer(np.array([1.0, 2.0, 5.0]))
    return layer.backward(np.ones(3))
