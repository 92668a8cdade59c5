"""Heads: split, join, and the backward pass of either.

``split`` makes (N, T, h d) into (N, h, T, d): head number n gets the columns n d to (n + 1) d of each token. ``join`` is the way back. Then
say what the backward pass of each of them is.
"""

import numpy as np


def split(x: np.ndarray, heads: int) -> np.ndarray:
    """(N, T, h d) -> (N, h, T, d)."""
    # yours: begin
    images, tokens, width = x.shape
    return x.reshape(images, tokens, heads, width // heads).swapaxes(1, 2)
    # yours: end


def join(x: np.ndarray) -> np.ndarray:
    """(N, h, T, d) -> (N, T, h d)."""
    # yours: begin
    images, heads, tokens, size = x.shape
    return x.swapaxes(1, 2).reshape(images, tokens, heads * size)
    # yours: end


def split_backward(dy: np.ndarray) -> np.ndarray:
    """The gradient of x, given that of split(x, heads)."""
    # yours: begin
    return join(dy)
    # yours: end


def join_backward(dy: np.ndarray, heads: int) -> np.ndarray:
    """The gradient of x, given that of join(x), where x had so many heads."""
    # yours: begin
    return split(dy, heads)
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "The columns of one head lie side by side, so (N, T, h d) can be reshaped to (N, T, h, d). Which axes have to change places then?",
    "A reshape right to (N, h, T, d) has the wanted shape and wrong contents: it never moves a number.",
    "Splitting only moves numbers. Where does the gradient of a number go that was only moved?",
]
DERIVATION = """
split: (N, T, h d) -reshape-> (N, T, h, d) -swap axes 1 and 2-> (N, h, T, d). join does the same backwards.
Both only put numbers into other places: y[n, m, t, c] = x[n, t, m d + c]. So dx[n, t, m d + c] = dy[n, m, t, c], which is what join does.
The matrix of such a rearrangement is a permutation, and its transpose is its inverse: the backward pass of split is join, and that of join
is split.
Source: Vaswani et al. 2017, section 3.2.2, for the heads.
"""
WRONG = {
    "a reshape alone": (
        ".reshape(images, tokens, heads, width // heads).swapaxes(1, 2)",
        ".reshape(images, heads, tokens, width // heads)",
    ),
    "heads and numbers exchanged": (
        ".reshape(images, tokens, heads, width // heads).swapaxes(1, 2)",
        ".reshape(images, tokens, width // heads, heads).transpose(0, 3, 1, 2)",
    ),
    "the axes are not swapped back": ("x.swapaxes(1, 2).reshape(images", "x.reshape(images"),
}


def check(yours, check: Check) -> None:
    for images, heads, tokens, d in ((2, 3, 5, 4), (1, 4, 3, 2), (2, 1, 3, 3)):
        x, y = check.normal(images, tokens, heads * d), check.normal(images, heads, tokens, d)
        parts = np.stack([x[:, :, n * d : (n + 1) * d] for n in range(heads)], axis=1)
        check.equal(f"split(x, {heads}) for x of {x.shape}", yours.split(x, heads), parts)
        check.equal(f"join(x) for x of {parts.shape}", yours.join(parts), x)
        dx, dy = yours.split_backward(y), yours.join_backward(x, heads)
        check.that(np.shape(dx) == x.shape, f"split_backward gives the shape {np.shape(dx)}, expected {x.shape}")
        check.that(np.shape(dy) == y.shape, f"join_backward gives the shape {np.shape(dy)}, expected {y.shape}")
        check.equal("the sum of y split(x), and that of split_backward(y) x", (dx * x).sum(), (y * parts).sum())
        joined = np.concatenate([y[:, n] for n in range(heads)], axis=2)
        check.equal("the sum of x join(y), and that of join_backward(x) y", (dy * y).sum(), (x * joined).sum())
