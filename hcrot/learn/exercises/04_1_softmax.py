"""Softmax along the last axis, without a Jacobian.

forward: p_k = e^(z_k) / sum_j e^(z_j) along the last axis of z, which has any number of axes, without overflow for logits such as 1000. It
keeps what backward needs. backward: it gets dp, of the shape of p, and returns dz. Neither loops over rows.
"""

import numpy as np

import hcrot


class Softmax(hcrot.Module):
    """p = softmax(z) along the last axis."""

    def forward(self, z: np.ndarray) -> np.ndarray:
        # yours: begin
        powers = np.exp(z - z.max(axis=-1, keepdims=True))
        p = powers / powers.sum(axis=-1, keepdims=True)
        self.save(p.copy())
        return p
        # yours: end

    def backward(self, dp: np.ndarray) -> np.ndarray:
        p = self.saved()
        # yours: begin
        return p * (dp - (dp * p).sum(axis=-1, keepdims=True))
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "axis=-1 with keepdims=True gives one number per row, in a shape that goes with z. Use it for the maximum and for the sum.",
    "backward takes p by self.saved(), so forward has to do self.save(p.copy()): a copy, as p itself is the caller's.",
    "dz_k = p_k (dp_k - sum_i dp_i p_i): first the sum of dp * p along the last axis, with keepdims.",
]

DERIVATION = """
Subtracting m = max z from all logits divides above and below by e^m: p stays, and the largest exponent is 0.

    dp_i/dz_k = p_i (delta_ik - p_k)                     the quotient rule (Bishop 2006, equation 4.106)
    dz_k = sum_i dp_i p_i (delta_ik - p_k)               z_k is used by all i: gradients add
         = p_k dp_k - p_k sum_i dp_i p_i = p_k (dp_k - sum_i dp_i p_i)

One sum per row in the place of a Jacobian per row.
"""

WRONG = {
    "without the sum": ("p * (dp - (dp * p).sum(axis=-1, keepdims=True))", "p * dp"),
    "the diagonal only": ("p * (dp - (dp * p).sum(axis=-1, keepdims=True))", "p * (1 - p) * dp"),
    "overflow": ("z - z.max(axis=-1, keepdims=True)", "z"),
    "the largest of all rows": ("z - z.max(axis=-1, keepdims=True)", "z - z.max()"),
    "sums over everything": ("(dp * p).sum(axis=-1, keepdims=True)", "(dp * p).sum()"),
}


def check(yours, check: Check) -> None:
    layer = yours.Softmax()
    check.same_as("forward", layer, hcrot.Softmax(), check.normal(2, 3, 4))
    with np.errstate(all="ignore"):
        large = np.array([[1000.0, 0.0], [1000.0, 999.0], [1.0, 0.0]])
        check.same_as("softmax of (1000, 0), (1000, 999) and (1, 0)", layer, hcrot.Softmax(), large)
    layer.forget()
    z, dp = check.normal(2, 3), check.normal(2, 3)
    p = layer(z)
    expected = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
    p[...] = 0  # what was returned is the caller's, who may write into it
    check.equal("dz after the caller has written into p", layer.backward(dp), expected)
    for shape in ((5,), (3, 4), (2, 3, 4)):
        check.gradients(layer, check.normal(*shape))
