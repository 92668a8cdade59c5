"""The backward pass of log-softmax.

forward is y_k = z_k - log sum_j e^(z_j) along the last axis. The logarithms of probabilities are what losses want. Write backward: it gets
dy, of the shape of y, and returns dz. forward keeps a copy of y.
"""

import numpy as np

import hcrot


class LogSoftmax(hcrot.Module):
    """y = log(softmax(z)) along the last axis."""

    def forward(self, z: np.ndarray) -> np.ndarray:
        shifted = z - z.max(axis=-1, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        self.save(y.copy())
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        y = self.saved()
        # yours: begin
        return dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "y_k has two terms. The first is z_k itself. What is the slope of the second one, the log-sum-exp, in z_i?",
    "The log-sum-exp is one number that all y_k of a row use, with slope -1: its gradient is minus the sum of dy over the row.",
    "Its slope in z_i is p_i = e^(y_i). So dz = dy - p * (sum of dy over the row, with keepdims).",
]

DERIVATION = """
Name the log-sum-exp: s = log sum_j e^(z_j), y_k = z_k - s.

    first use of z_i, in y_i:      slope 1, sends back dy_i
    s, used by all y_k:            slope -1 each, so ds = -sum_k dy_k
    second use of z_i, in s:       slope p_i = e^(z_i) / sum_j e^(z_j) = e^(y_i), sends back p_i ds

    dz_i = dy_i - p_i sum_k dy_k.

With the cross-entropy behind it, dy is -1 at the label and 0 elsewhere, the sum is -1, and dz = p - y_true: the gradient of exercise 04-2.
"""

WRONG = {
    "the second use is forgotten": ("dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)", "dy"),
    "softmax's formula": ("dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)", "np.exp(y) * (dy - dy.sum(axis=-1, keepdims=True))"),
    "y in the place of p": ("np.exp(y) * dy.sum", "y * dy.sum"),
}


def check(yours, check: Check) -> None:
    for shape in ((4,), (3, 5), (2, 3, 4)):
        check.gradients(yours.LogSoftmax(), check.normal(*shape))
