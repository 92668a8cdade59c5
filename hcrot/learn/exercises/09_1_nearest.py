"""Resizing by the nearest neighbour, and its backward pass.

x has the shape (N, C, H, W); the result has (N, C, height, width), of any size, larger or smaller. Output row o shows the input row
o H // height, and columns likewise. In backward each input pixel collects the gradients of all output pixels that show it.
"""

import numpy as np


def nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(N, C, H, W) -> (N, C, height, width)."""
    # yours: begin
    rows = np.arange(height) * x.shape[2] // height
    columns = np.arange(width) * x.shape[3] // width
    return x[:, :, rows[:, None], columns]
    # yours: end


def nearest_backward(dy: np.ndarray, height: int, width: int) -> np.ndarray:
    """dx of shape (N, C, height, width), the size of x, given dy of any size."""
    # yours: begin
    rows = np.arange(dy.shape[2]) * height // dy.shape[2]
    columns = np.arange(dy.shape[3]) * width // dy.shape[3]
    dx = np.zeros((*dy.shape[:2], height, width))
    np.add.at(dx, (slice(None), slice(None), rows[:, None], columns), dy)
    return dx
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "np.arange(height) * H // height are the rows that are shown; x[:, :, rows[:, None], columns] takes rows and columns at once.",
    "Backward uses the same rows and columns. A pixel that is shown several times must get the sum.",
    "dx[..., rows[:, None], columns] += dy keeps only one of several additions to a place; np.add.at(dx, index, dy) does them all.",
]
DERIVATION = """
y[o, q] = x[i(o), j(q)] with i(o) = o H // OH and j(q) = q W // OW. An input pixel was used once for each output that shows it, so

    dx[i, j] = sum of dy[o, q] over all o with i(o) = i and q with j(q) = j.

The matrix of the layer has one 1 in each row; its transpose, the backward pass, adds up. For 3 -> 5 the shown pixels are 0 0 1 1 2, so
y = (.1, .1, .2, .2, .3) for x = (.1, .2, .3), and dx = (1 + 2, 3 + 4, 5) = (3, 7, 5) for dy = (1, 2, 3, 4, 5).
The division is that of integers: o (H / OH) in floating point may be just below an integer, and show the wrong pixel (2 -> 98).
"""
WRONG = {
    "floating-point step": ("np.arange(height) * x.shape[2] // height", "np.floor(np.arange(height) * (x.shape[2] / height)).astype(int)"),
    "only one of several additions": (
        "np.add.at(dx, (slice(None), slice(None), rows[:, None], columns), dy)",
        "dx[:, :, rows[:, None], columns] += dy",
    ),
    "rounded to the nearest": ("np.arange(width) * x.shape[3] // width", "(2 * np.arange(width) + 1) * x.shape[3] // (2 * width)"),
}


def check(yours, check: Check) -> None:
    row = np.array([[[[0.1, 0.2, 0.3]]]])
    check.equal("three pixels as five", yours.nearest(row, 1, 5), [[[[0.1, 0.1, 0.2, 0.2, 0.3]]]])
    check.equal("its gradient for dy = 1 2 3 4 5", yours.nearest_backward(np.array([[[[1.0, 2, 3, 4, 5]]]]), 1, 3), [[[[3.0, 7, 5]]]])
    for size, height, width in (((3, 4), 6, 8), ((4, 3), 7, 2), ((2, 2), 98, 98)):
        x, dy = check.normal(2, 3, *size), check.normal(2, 3, height, width)
        y = x[:, :, [o * size[0] // height for o in range(height)]][..., [o * size[1] // width for o in range(width)]]
        check.equal(f"{size} as {(height, width)}", yours.nearest(x, height, width), y)
        dx = yours.nearest_backward(dy, *size)
        check.that(np.shape(dx) == x.shape, f"dx has the shape {np.shape(dx)}, expected {x.shape}")
        check.equal("the sum of dy nearest(x), and that of dx x", (dx * x).sum(), (dy * y).sum())
