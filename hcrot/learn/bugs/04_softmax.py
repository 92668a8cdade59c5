"""Softmax over the last axis.

p_i = exp(x_i) / sum_j exp(x_j). Each row of p is positive and sums to 1.
"""

import numpy as np

import hcrot


class Softmax(hcrot.Module):
    """p = exp(x) / sum exp(x) over the last axis."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        p = powers / powers.sum(axis=-1, keepdims=True)
        self.save(p)
        return p.copy()

    def backward(self, dp: np.ndarray) -> np.ndarray:
        p = self.saved()
        # bug: begin
        return p * (1 - p) * dp
        # bug: mended
        return p * (dp - (p * dp).sum(axis=-1, keepdims=True))
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
Attention maps stay flat: the weights of the query and the key hardly change in a direction that helps. I derived the backward of softmax
from the sigmoid, whose derivative is p (1 - p).
"""

HINTS = [
    "Add the same number to all x of a row: p does not change. So what must the gradients of a row sum to?",
    "Try a row of two entries and write down all four derivatives dp_i / dx_j, also those with i different from j.",
    "dp_i/dx_j = p_i (1 if i = j else 0) - p_i p_j. Sum over i of dp_i/dx_j times the incoming gradient of p_i.",
]

EXPLANATION = """
Each output of softmax depends on every input of its row. p (1 - p) is only the diagonal of the table of derivatives. With the rest, dx_j
= p_j (dp_j - sum_i p_i dp_i). A quick proof that something is missing: adding a constant to a row changes nothing, so the gradients of a
row sum to zero. Softmax is also why hcrot.check_gradients weighs the outputs with random numbers: the plain sum of the outputs is always
1, so its gradient is zero, and a wrong backward might pass.
"""


def check(yours, check) -> None:
    layer = yours.Softmax()
    layer(check.normal(3, 5))
    total = np.abs(layer.backward(check.normal(3, 5)).sum(axis=-1)).max()
    check.that(total < 1e-9, f"adding a constant to a row changes nothing, but the gradient of a row sums to {total:.2g}")
    check.agree(yours.Softmax(), check.normal(3, 4, 5))
