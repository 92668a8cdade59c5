"""The table of classes, and its backward pass.

Forward takes a row of the weight for each index; the indices may have any shape. Write both passes. Backward ADDS to the gradient of the
weight. The same index may come several times. Indices are integers: nothing is returned.
"""

import numpy as np

import hcrot


class Embedding(hcrot.Module):
    """y = weight[index], one row for each index."""

    def __init__(self, classes: int, width: int, *, generator: np.random.Generator | int | None = None):
        self.weight = hcrot.Parameter(np.random.default_rng(generator).standard_normal((classes, width), np.float32))

    def forward(self, indices: np.ndarray) -> np.ndarray:
        # yours: begin
        self.save(indices)
        return self.weight.data[indices]
        # yours: end

    def backward(self, dy: np.ndarray) -> None:
        # yours: begin
        indices = self.saved()
        np.add.at(self.weight.grad, indices, dy)
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Forward is one line of NumPy: an array of integers in square brackets takes rows. Keep the indices.",
    "If an index comes twice, its row was used twice: the gradients of both uses add.",
    "grad[indices] += dy adds only once for each index. np.add.at(grad, indices, dy) adds all of them.",
]
DERIVATION = """
y_n = W[k_n]. With the one-hot row h_n, which has a 1 at place k_n, this is y = H W with H (N, classes). So dW = H^T dy:

    dW[k] = sum of dy_n over all n with k_n = k            (classes, E)

grad[indices] += dy reads grad[indices] into a new array, adds dy, and writes back row after row; where an index comes again, the later row
replaces the earlier one. With 512 images of 10 classes some 98% of the gradient would be lost.
"""
WRONG = {
    "the last one wins": ("np.add.at(self.weight.grad, indices, dy)", "self.weight.grad[indices] += dy"),
    "set, not added": (
        "np.add.at(self.weight.grad, indices, dy)",
        "self.weight.grad[...] = 0\n        np.add.at(self.weight.grad, indices, dy)",
    ),
    "the sum of all": ("np.add.at(self.weight.grad, indices, dy)", "self.weight.grad[indices] += dy.sum(axis=0)"),
}


def check(yours, check: Check) -> None:
    layer, indices = yours.Embedding(5, 3, generator=0), np.array([1, 1, 4])
    check.equal("y for the indices 1 1 4", layer(indices), layer.weight.data[[1, 1, 4]])
    layer.backward(np.ones((3, 3), np.float32))
    expected = np.array([0, 2, 0, 0, 1])[:, None] * np.ones((5, 3))
    once = {"index 1 came twice, and only one of its two rows has arrived": np.minimum(expected, 1)}
    check.equal("the gradient for the indices 1 1 4 and dy = 1", layer.weight.grad, expected, mistakes=once)
    check.gradients(yours.Embedding(4, 2, generator=1), np.array([3, 0, 3, 3]))
    check.gradients(yours.Embedding(4, 2, generator=1), np.array([[2, 0, 2], [1, 2, 0]]))
    check.adds(yours.Embedding(4, 2, generator=2), np.array([0, 1, 0]))
