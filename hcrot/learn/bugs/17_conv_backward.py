"""A convolution along a line, with a stride.

y[o, i] = sum over c and k of W[o, c, k] x[c, stride i + k]. backward returns the gradients of x and of W.
"""

import numpy as np


def conv(x: np.ndarray, w: np.ndarray, stride: int = 1) -> np.ndarray:
    """x (C, L), w (O, C, K) -> y (O, M) with M = (L - K) // stride + 1."""
    out, _, size = w.shape
    places = (x.shape[1] - size) // stride + 1
    y = np.zeros((out, places))
    for i in range(places):
        y[:, i] = np.tensordot(w, x[:, stride * i : stride * i + size], axes=2)
    return y


def conv_backward(dy: np.ndarray, x: np.ndarray, w: np.ndarray, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of x and of w, for dy of the shape of y."""
    size = w.shape[2]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(dy.shape[1]):
        # bug: begin
        window = slice(i, i + size)
        # bug: mended
        window = slice(stride * i, stride * i + size)
        # bug: end
        dw += dy[:, i, None, None] * x[:, window]
        dx[:, window] += np.tensordot(dy[:, i], w, axes=1)
    return dx, dw


# kept back: the learner's file ends here

SYMPTOM = """
All convolutions of the network are fine but those that halve the resolution. The network trains a little, since the others make up for
it.
"""

HINTS = [
    "How do the convolutions that halve the resolution differ from all others?",
    "Give dy a single 1, at place i = 2. Which entries of x can have changed y there? Which entries of dx are not zero?",
    "forward and backward must look at the same window.",
]

EXPLANATION = """
backward placed its windows one step apart, whatever the stride. With a stride of 1 the two are the same, so tests with the default
arguments pass. This is why hcrot tests every layer on odd, non-square shapes with every option away from its default. The predecessor
mixed up strides in another way (B22): it used the stride of the columns for the rows.
"""


def check(yours, check) -> None:
    for stride, length in ((1, 5), (2, 7), (3, 8)):
        x, w = check.normal(2, length), check.normal(3, 2, 2)
        y = yours.conv(x, w, stride)
        dy, dx_direction, dw_direction = check.normal(*y.shape), check.normal(*x.shape), check.normal(*w.shape)
        dx, dw = yours.conv_backward(dy, x, w, stride)
        one = abs(np.vdot(dy, yours.conv(dx_direction, w, stride)) - np.vdot(dx, dx_direction))
        other = abs(np.vdot(dy, yours.conv(x, dw_direction, stride)) - np.vdot(dw, dw_direction))
        check.that(max(one, other) < 1e-9, f"on a line of {length} with stride {stride}, the gradients are not the slopes of the output")
    check.equal("a known case", yours.conv(np.arange(5.0)[None], np.ones((1, 1, 2)), 2), [[1.0, 5.0]])
