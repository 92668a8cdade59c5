"""Attention's forward pass, for one head.

q has the shape (T, d), k and v have (K, d). The scores are q k^T / sqrt(d), the shares are their softmax row by row, and the result is the
mean of the rows of v, weighted by the shares. It must be right for scores of every size: exp(1000) is infinite.
"""

import numpy as np


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """softmax(q k^T / sqrt(d)) v, of shape (T, d)."""
    # yours: begin
    scores = q @ k.T / np.sqrt(q.shape[1])
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares @ v
    # yours: end


# kept back: the learner's file ends here

import hcrot.functional  # noqa: E402
from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Three lines: scores (T, K), shares (T, K), result (T, d). Only the softmax is no product of matrices.",
    "The softmax does not change if the same number is subtracted from all scores of a row. Which number makes the largest of them 0?",
    "scores - scores.max(axis=1, keepdims=True), then exp, then divide by the sum over axis 1, then @ v.",
]
DERIVATION = """
    S = q k^T / sqrt(d)    (T, K)        S_ij: how much query i likes key j
    P = softmax(S)         (T, K)        each row adds up to 1
    o = P v                (T, d)

d is the width of q and k. The dot product of d independent numbers of variance 1 has the variance d; the square root takes it back to 1.
softmax(S - c) = softmax(S) for a number c per row, as exp(-c) cancels. With c = the row's maximum all exponents are at most 0, and the sum
is at least 1: nothing overflows, nothing is divided by 0. Source: Vaswani et al. 2017, equation 1 and section 3.2.1.
"""
WRONG = {
    "no square root": (" / np.sqrt(q.shape[1])", ""),
    "softmax along the queries": (".sum(axis=1, keepdims=True)\n", ".sum(axis=0, keepdims=True)\n"),
    "overflow": ("scores - scores.max(axis=1, keepdims=True)", "scores"),
}


def check(yours, check: Check) -> None:
    for queries, keys, d, size in ((4, 4, 3, 1.0), (3, 5, 2, 1.0), (2, 6, 4, 60.0)):
        q, k, v = size * check.normal(queries, d), size * check.normal(keys, d), check.normal(keys, d)

        def reference(q, k, v):
            with hcrot.plain():
                return hcrot.functional.attention(q[None, None], k[None, None], v[None, None])[0][0, 0]

        with np.errstate(over="ignore", invalid="ignore"):
            check.same_as(f"o for {queries} queries and {keys} keys of width {d}", yours.attention, reference, q, k, v)
