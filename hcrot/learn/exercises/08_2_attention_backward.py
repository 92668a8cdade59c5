"""Attention's backward pass, for one head.

Forward is done, and hands you q (T, d), k and v (K, d), and the shares P (T, K). Write backward: from do (T, d) it returns dq, dk and dv.
There are four products of matrices, and one line for the softmax.
"""

import numpy as np


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The result softmax(q k^T / sqrt(d)) v, and the shares P."""
    scores = q @ k.T / np.sqrt(q.shape[1])
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares @ v, shares


def attention_backward(
    do: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients (dq, dk, dv), of the shapes of q, k and v."""
    # yours: begin
    dv = shares.T @ do
    dshares = do @ v.T
    dscores = shares * (dshares - (shares * dshares).sum(axis=1, keepdims=True))
    dscores = dscores / np.sqrt(q.shape[1])
    return dscores @ k, dscores.T @ q, dv
    # yours: end


# kept back: the learner's file ends here

import hcrot  # noqa: E402
from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Go from the last line of forward to the first. For Y = A B: dA = dY B^T, dB = A^T dY. Compare shapes.",
    "The softmax of one row: dS = P (dP - sum(P dP)), the sum over the row, kept as a column.",
    "dq = dS k / sqrt(d) and dk = dS^T q / sqrt(d): the factor of forward comes again.",
]
DERIVATION = """
    o = P v:               dv = P^T do        (K, T)(T, d) = (K, d)
                           dP = do v^T        (T, d)(d, K) = (T, K)
    P = softmax(S):        dS_ik = sum_j dP_ij P_ij (delta_jk - P_ik) = P_ik (dP_ik - sum_j P_ij dP_ij)
    S = q k^T / sqrt(d):   dq = dS k / sqrt(d)        (T, K)(K, d) = (T, d)
                           dk = dS^T q / sqrt(d)      (K, T)(T, d) = (K, d)

Each row of dS adds up to 0. Source: Vaswani et al. 2017, equation 1, for the formula; the softmax is chapter 4's.
"""
WRONG = {
    "no square root": ("dscores = dscores / np.sqrt(q.shape[1])", "dscores = dscores"),
    "softmax's sum over the queries": (".sum(axis=1, keepdims=True))\n    dscores", ".sum(axis=0, keepdims=True))\n    dscores"),
    "softmax as if its outputs were independent": ("(dshares - (shares * dshares).sum(axis=1, keepdims=True))", "(1 - shares) * dshares"),
}


class Attention(hcrot.Module):
    """The learner's two functions as a module, for check_gradients."""

    def __init__(self, yours):
        self.functions = (yours.attention, yours.attention_backward)

    def forward(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        o, shares = self.functions[0](q, k, v)
        self.save(q, k, v, shares)
        return o

    def backward(self, do: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.functions[1](do, *self.saved())


def check(yours, check: Check) -> None:
    for queries, keys, d in ((4, 4, 3), (3, 5, 2)):
        q, k, v, do = check.normal(queries, d), check.normal(keys, d), check.normal(keys, d), check.normal(queries, d)
        gradients = yours.attention_backward(do, q, k, v, yours.attention(q, k, v)[1])
        check.that(isinstance(gradients, tuple) and len(gradients) == 3, "expected three gradients: dq, dk, dv")
        for name, gradient, array in zip(("dq", "dk", "dv"), gradients, (q, k, v), strict=True):
            check.that(np.shape(gradient) == array.shape, f"{name} has the shape {np.shape(gradient)}, expected {array.shape}")
        check.gradients(Attention(yours), q, k, v)
