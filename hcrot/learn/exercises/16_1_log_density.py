"""The score as a backward pass.

The forward pass is the logarithm of the density of a mixture of round bells in D dimensions: x (N, D) -> y (N,). Bell k has the weight w_k,
the mean m_k (D,) and the variance v_k. Forward keeps what is needed. Write backward: dy (N,) -> dx (N, D). For dy = 1 it is the score.
"""

import numpy as np

import hcrot


class LogDensity(hcrot.Module):
    def __init__(self, weights: np.ndarray, means: np.ndarray, variances: np.ndarray):
        self.mixture = (weights, means, variances)  # (K,), (K, D), (K,)

    def forward(self, x: np.ndarray) -> np.ndarray:
        weights, means, variances = self.mixture
        difference = means - x[:, None]  # (N, K, D)
        logs = np.log(weights) - 0.5 * x.shape[1] * np.log(2 * np.pi * variances) - (difference**2).sum(axis=2) / (2 * variances)
        top = logs.max(axis=1, keepdims=True)  # so that no exponential overflows
        y = top[:, 0] + np.log(np.exp(logs - top).sum(axis=1))
        self.save(difference, logs, y)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        difference, logs, y = self.saved()  # (N, K, D), (N, K), (N,)
        variances = self.mixture[2]
        # yours: begin
        shares = np.exp(logs - y[:, None])
        score = (shares[:, :, None] * difference / variances[:, None]).sum(axis=1)
        return dy[:, None] * score
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "For one bell the gradient of the logarithm is (m - x) / v, which is difference / v.",
    "For several, each bell's score counts by its share of the density at x: exp(logs_k) / p(x), and log p(x) is y.",
    "shares = exp(logs - y[:, None]) is (N, K). Sum shares * difference / variances over the bells, axis 1, and multiply by dy[:, None].",
]
DERIVATION = """
p = sum_k exp(l_k), l_k = log w_k - D/2 log(2 pi v_k) - |x - m_k|^2 / (2 v_k), and y = log p. By the chain rule

    grad y = (1/p) sum_k exp(l_k) grad l_k = sum_k r_k (m_k - x) / v_k        with the shares r_k = exp(l_k - y), which add to 1.

It is the softmax of chapter 4 once more: y is a log-sum-exp of the l_k, and its gradient by l_k is a softmax. backward multiplies by dy,
one number for each row.
"""
WRONG = {
    "equal shares": ("np.exp(logs - y[:, None])", "np.full_like(logs, 1 / logs.shape[1])"),
    "away from the bells": ("return dy[:, None] * score", "return -dy[:, None] * score"),
    "dy is forgotten": ("return dy[:, None] * score", "return score"),
    "standard deviation in place of variance": ("difference / variances[:, None]", "difference / np.sqrt(variances)[:, None]"),
}


def check(yours, check: Check) -> None:
    for bells, size in ((3, 2), (1, 4)):
        weights = check.generator.random(bells) + 0.2
        mixture = weights / weights.sum(), check.normal(bells, size), check.generator.random(bells) + 0.3
        for array in mixture:
            array.setflags(write=False)  # constants
        check.gradients(yours.LogDensity(*mixture), check.normal(5, size))
