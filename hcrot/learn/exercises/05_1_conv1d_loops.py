"""A convolution of sequences, backward in loops.

forward is given: for x (B, C, L), w (O, C, K) and b (O,) it computes y (B, O, OL) in five loops, with a stride and with padding. Write
backward: it gets dy (B, O, OL) and returns dx, dw and db. Use the same loops, and turn the lines round.
"""

import numpy as np


def forward(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """y[n, o, p] = b[o] + the sum of w[o, c, i] x[n, c, p stride - padding + i] over c and i."""
    length, kernel = x.shape[2], w.shape[2]
    y = np.zeros((len(x), len(w), (length + 2 * padding - kernel) // stride + 1))
    for n, o, p in np.ndindex(*y.shape):
        y[n, o, p] += b[o]
        for c, i in np.ndindex(*w.shape[1:]):
            at = p * stride - padding + i
            if 0 <= at < length:
                y[n, o, p] += w[o, c, i] * x[n, c, at]
    return y


def backward(dy: np.ndarray, x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dw and db."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(len(w))
    # yours: begin
    for n, o, p in np.ndindex(*dy.shape):
        db[o] += dy[n, o, p]
        for c, i in np.ndindex(*w.shape[1:]):
            at = p * stride - padding + i
            if 0 <= at < x.shape[2]:
                dw[o, c, i] += dy[n, o, p] * x[n, c, at]
                dx[n, c, at] += dy[n, o, p] * w[o, c, i]
    # yours: end
    return dx, dw, db


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Copy the loops of forward with `at` and the `if`. They say which w meets which x for which y: the same as in backward.",
    "y[n, o, p] += b[o] becomes db[o] += dy[n, o, p]. Where in the loops does it stand?",
    "y += w * x becomes two lines: dw[o, c, i] += dy[n, o, p] * x[n, c, at], and one for dx[n, c, at] with the other factor.",
]

DERIVATION = """
The innermost line of forward is one multiplication, y += w x. By the rule of chapter 01 it sends back dy x to w and dy w to x. Both are
used in many rounds of the loops, so their gradients add, which is what += does. b[o] is added to y[n, o, p] with slope 1.

Where forward skips a place outside of the sequence, no multiplication has happened and no gradient flows: the `if` stays.

    dw_oci = sum_{n,p} dy_nop x_{n,c,p s - P + i},   db_o = sum_{n,p} dy_nop,   dx_{n,c,at} = sum of dy_nop w_oci over p s - P + i = at
"""

WRONG = {
    "assigned, not added": ("dx[n, c, at] += ", "dx[n, c, at] = "),
    "the same factor twice": ("dx[n, c, at] += dy[n, o, p] * w[o, c, i]", "dx[n, c, at] += dy[n, o, p] * x[n, c, at]"),
    "the bias in the inner loop": (
        "        db[o] += dy[n, o, p]\n        for c, i in np.ndindex(*w.shape[1:]):\n",
        "        for c, i in np.ndindex(*w.shape[1:]):\n            db[o] += dy[n, o, p]\n",
    ),
    "the edge is forgotten": ("if 0 <= at < x.shape[2]:", "if at < x.shape[2]:"),
}


def lead(yours, check: Check) -> None:
    """With ones for all numbers, each gradient counts uses. So it shows what was overwritten, and what came over the edge."""
    x, w, dy = np.ones((1, 1, 6)), np.ones((2, 1, 3)), np.ones((1, 2, 3))
    uses = np.array([2.0, 4, 2, 4, 2, 2])  # of each pixel by two kernels with stride 2 and padding 1; 2 in the padding before the first
    dx, dw, db = yours.backward(dy, x, w, 2, 1)
    once = "each use overwrote the one before, but they have to add: += instead of ="
    edge = "the last entry has too much: at = -1 is over the edge, but NumPy counts it from the end. Skip what forward skips"
    for name, found, expected, mistakes in (
        ("dx", dx, uses[None, None], {once: np.ones((1, 1, 6)), edge: (uses + 2 * np.eye(6)[5])[None, None]}),
        ("dw", dw, np.array([[[2.0, 3, 3]]] * 2), {once: np.ones((2, 1, 3))}),
        ("db", db, np.full(2, 3.0), {once: np.ones(2)}),
    ):
        check.equal(f"{name} for ones, with stride 2 and padding 1,", found, expected, mistakes=mistakes)


def check(yours, check: Check) -> None:
    import hcrot

    lead(yours, check)
    for stride, padding in ((1, 0), (2, 1), (1, 2)):
        layer = hcrot.Conv1d(2, 3, 3, stride=stride, padding=padding, generator=0).astype(np.float64)
        x, w = check.normal(2, 2, 6), layer.weight.data
        dy = check.normal(*layer(x).shape)
        dx, dw, db = yours.backward(dy, x.copy(), w.copy(), stride, padding)
        case = f"with stride {stride} and padding {padding}"
        check.equal(f"dx {case}", dx, layer.backward(dy))
        check.equal(f"dw {case}", dw, layer.weight.grad)
        check.equal(f"db {case}", db, layer.bias.grad)
