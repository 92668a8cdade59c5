"""The gradient of a convolution's weights, block by block.

The convolution is 3 x 3 with padding 1 and stride 1. `unfold(x, first, last)` returns the columns of the output pixels first .. last - 1,
counted through all images, row by row: (last - first, C * 9). Write `weight_gradient(x, dy, at_once)`, which returns dW (O, C, 3, 3)
without ever unfolding more than `at_once` pixels.
"""

import numpy as np

import hcrot


def unfold(x: np.ndarray, first: int, last: int) -> np.ndarray:
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    pixels = [(p // (height * width), p // width % height, p % width) for p in range(first, last)]
    return np.array([padded[n, :, row : row + 3, column : column + 3].ravel() for n, row, column in pixels])


def weight_gradient(x: np.ndarray, dy: np.ndarray, at_once: int) -> np.ndarray:
    N, O, H, W = dy.shape  # noqa: E741
    # yours: begin
    gradients = dy.transpose(0, 2, 3, 1).reshape(N * H * W, O)
    dweight = np.zeros((O, x.shape[1] * 9), x.dtype)
    for first in range(0, N * H * W, at_once):
        last = min(first + at_once, N * H * W)
        dweight += gradients[first:last].T @ unfold(x, first, last)
    return dweight.reshape(O, x.shape[1], 3, 3)
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Bring dy into the order of the columns: one row for each pixel, (N H W, O). Channels come last: transpose(0, 2, 3, 1), then reshape.",
    "For one block: dW (O, 9 C) = dY^T X, with dY (pixels, O) and X (pixels, 9 C). Add it up over the blocks.",
    "The last block may be shorter: last = min(first + at_once, N H W). In the end reshape (O, 9 C) to (O, C, 3, 3).",
]
DERIVATION = """
Y = X W^T with X (P, 9 C), W (O, 9 C), Y (P, O), P = N H W pixels. It is a Linear over pixels, so dW = dY^T X = sum_p dY_p^T X_p. A sum
over pixels may be cut anywhere: each block of pixels adds its part to dW. So the buffer for X can be small enough for the cache.
hcrot/kernels/conv.py does this with a share of the pixels for each thread; the shares' sums are added at the end.
"""
WRONG = {
    "the last block replaces the others": ("dweight += gradients", "dweight = gradients"),
    "the rest is left out": ("range(0, N * H * W, at_once)", "range(0, N * H * W - at_once + 1, at_once)"),
    "channels are not last": ("dy.transpose(0, 2, 3, 1).reshape", "dy.reshape"),
    "everything at once": ("range(0, N * H * W, at_once)", "range(0, N * H * W, at_once := N * H * W)"),
}


def check(yours, check: Check) -> None:
    given, largest, total = yours.unfold, 0, 0

    def watched(x, first, last):
        nonlocal largest, total
        largest, total = max(largest, last - first), total + last - first
        return given(x, first, last)

    yours.unfold = watched
    for (N, C, O, H, W), at_once in (((2, 3, 4, 4, 5), 7), ((1, 2, 3, 3, 3), 9), ((3, 1, 2, 2, 4), 5)):  # noqa: E741
        largest = total = 0
        layer = hcrot.Conv2d(C, O, 3, padding=1, generator=0).astype(np.float64)
        x, dy = check.normal(N, C, H, W), check.normal(N, O, H, W)
        with hcrot.plain():
            layer(x)
            layer.backward(dy)
        check.equal(f"dW for x {x.shape}, at_once={at_once},", yours.weight_gradient(x, dy, at_once), layer.weight.grad)
        check.that(largest <= at_once, f"{largest} pixels were unfolded together, at_once is {at_once}")
        check.that(total == N * H * W, f"unfold was asked for {total} pixels in all, expected each of {N * H * W} once")
    yours.unfold = given
