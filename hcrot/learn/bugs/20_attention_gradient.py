"""Attention of one head.

a = softmax(q k^T / sqrt(D)), y = a v, with q, k and v (N, D). backward returns the gradients of all three.
"""

import numpy as np


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y (N, D), and the weights a (N, N), which backward needs."""
    scores = q @ k.T / np.sqrt(q.shape[1])
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    a = powers / powers.sum(axis=1, keepdims=True)
    return a @ v, a


def attention_backward(
    dy: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, a: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of q, k and v."""
    dv = a.T @ dy
    da = dy @ v.T
    dscores = a * (da - (a * da).sum(axis=1, keepdims=True))
    # bug: begin
    dq = dscores @ k / np.sqrt(q.shape[1])
    dk = dscores.T @ q
    # bug: mended
    dq = dscores @ k / np.sqrt(q.shape[1])
    dk = dscores.T @ q / np.sqrt(q.shape[1])
    # bug: end
    return dq, dk, dv


# kept back: the learner's file ends here

SYMPTOM = """
Attention is trained, but its key weights have much larger gradients than its query weights: eight times as large with 64 channels, four
times with 16. I expected about the same by symmetry.
"""

HINTS = [
    "4 for 16 channels, 8 for 64: which function of the number of channels is this?",
    "Write scores = q k^T / s in full and derive it for k. The division by s is a factor of every term.",
    "Move k by a small step along a random direction, and compare what y does with what dk says. By which factor do they differ?",
]

EXPLANATION = """
scores = q k^T / sqrt(D) is linear in q and in k, and the factor 1 / sqrt(D) belongs into both gradients. For k it was forgotten. Adam
hides such a factor, so training seems to work. To have it once and not twice, scale dscores itself, from which both are made.
"""


def check(yours, check) -> None:
    for size, width in ((4, 3), (3, 16)):
        q, k, v = (check.normal(size, width) for _ in range(3))
        y, a = yours.attention(q, k, v)
        dy = check.normal(*y.shape)
        gradients = yours.attention_backward(dy, q, k, v, a)
        for gradient, array in zip(gradients, (q, k, v), strict=True):
            values, direction, h = array.copy(), check.normal(*array.shape), 1e-5
            array[...] = values + h * direction
            above = np.vdot(dy, yours.attention(q, k, v)[0])
            array[...] = values - h * direction
            slope = (above - np.vdot(dy, yours.attention(q, k, v)[0])) / (2 * h)
            array[...] = values
            agrees = abs(np.vdot(gradient, direction) - slope) < 1e-6
            check.that(agrees, f"with {width} channels some gradient is not the slope of the output")
