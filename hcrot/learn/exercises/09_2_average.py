"""The mean of each 2x2 square, and its backward pass.

x has the shape (N, C, H, W), the result (N, C, H // 2, W // 2). Where H or W is odd, the last row or column is left out. What gradient do
its pixels get?
"""

import numpy as np

import hcrot


class Average(hcrot.Module):
    """y[o, q] = (x[2o, 2q] + x[2o, 2q + 1] + x[2o + 1, 2q] + x[2o + 1, 2q + 1]) / 4."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        # yours: begin
        self.save(x.shape)
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        return sum(x[:, :, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)) / 4
        # yours: end

    def backward(self, dy: np.ndarray) -> np.ndarray:
        # yours: begin
        shape = self.saved()
        dx = np.zeros(shape)
        height, width = shape[2] // 2 * 2, shape[3] // 2 * 2
        for i in (0, 1):
            for j in (0, 1):
                dx[:, :, i:height:2, j:width:2] = dy / 4
        return dx
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "x[:, :, 0:height:2, 0:width:2] are the upper left pixels of all squares, if height and width are even.",
    "Keep the shape of x for backward: dy alone does not tell whether H was odd.",
    "Each pixel of a square had the factor 1/4. A pixel that was left out had none: its gradient is 0.",
]
DERIVATION = """
Each x of a square has the slope 1/4 in its y, and no pixel belongs to two squares, so

    dx[2o + i, 2q + j] = dy[o, q] / 4      for i, j in {0, 1}

and dx = 0 for a last row or column that no square contains. The shape of dx is x's, which dy does not tell: (6, 6) and (7, 7) both
become (3, 3). So forward keeps the shape. As a matrix the average is the transpose of the nearest neighbour, divided by 4:
backward repeats pixels.
"""
WRONG = {
    "sum in backward": ("= dy / 4", "= dy"),
    "the odd row is forgotten": ("dx = np.zeros(shape)", "dx = np.zeros((*shape[:2], shape[2] // 2 * 2, shape[3] // 2 * 2))"),
    "only the first pixel": ("= dy / 4", "= dy * (i == j == 0)"),
}


def check(yours, check: Check) -> None:
    for size in ((4, 6), (5, 7), (3, 2)):
        x = check.normal(2, 3, *size)
        height, width = size[0] // 2, size[1] // 2
        means = x[:, :, : 2 * height, : 2 * width].reshape(2, 3, height, 2, width, 2).mean(axis=(3, 5))
        check.equal(f"y for images of {size}", yours.Average()(x), means)
        check.gradients(yours.Average(), x)
