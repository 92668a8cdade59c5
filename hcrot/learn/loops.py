"""A convolution as it is defined, in seven loops, and its backward pass, in the same seven loops: slow, and what others are compared with.

Notation: B images, C channels in, O channels out, H x W pixels, a KH x KW kernel, OH x OW output pixels.
"""

import numpy as np

__all__ = ["conv2d", "conv2d_backward"]


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """The output (B, O, OH, OW) for x (B, C, H, W), w (O, C, KH, KW) and b (O,)."""
    H, W = x.shape[2:]
    KH, KW = w.shape[2:]
    OH, OW = (H + 2 * padding - KH) // stride + 1, (W + 2 * padding - KW) // stride + 1
    y = np.zeros((len(x), len(w), OH, OW))
    for n, o, p, q in np.ndindex(*y.shape):
        y[n, o, p, q] += b[o]
        for c, i, j in np.ndindex(*w.shape[1:]):
            row, column = p * stride - padding + i, q * stride - padding + j
            if 0 <= row < H and 0 <= column < W:
                y[n, o, p, q] += w[o, c, i, j] * x[n, c, row, column]
    return y


def conv2d_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, stride: int = 1, padding: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dw and db for dy (B, O, OH, OW)."""
    H, W = x.shape[2:]
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(len(w))
    for n, o, p, q in np.ndindex(*dy.shape):
        db[o] += dy[n, o, p, q]
        for c, i, j in np.ndindex(*w.shape[1:]):
            row, column = p * stride - padding + i, q * stride - padding + j
            if 0 <= row < H and 0 <= column < W:
                dw[o, c, i, j] += dy[n, o, p, q] * x[n, c, row, column]
                dx[n, c, row, column] += dy[n, o, p, q] * w[o, c, i, j]
    return dx, dw, db
