"""The backward pass of a linear layer.

The forward pass is y = x W^T + b with x (N, in), W (out, in) and b (out,). Write backward: it gets dy (N, out), ADDS to the gradients of
W and b (self.weight.grad, self.bias.grad), and returns dx (N, in). W is self.weight.data.
"""

import numpy as np

import hcrot


class Linear(hcrot.Module):
    """y = x W^T + b."""

    def __init__(self, in_features: int, out_features: int, generator: np.random.Generator | int | None = None):
        generator = np.random.default_rng(generator)
        self.weight = hcrot.Parameter(generator.standard_normal((out_features, in_features)))
        self.bias = hcrot.Parameter(generator.standard_normal(out_features))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x)
        return x @ self.weight.data.T + self.bias.data

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x = self.saved()
        # yours: begin
        self.weight.grad += dy.T @ x
        self.bias.grad += dy.sum(axis=0)
        return dy @ self.weight.data
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Write down the shape of each of the three results first. A gradient has the shape of its value.",
    "dW is (out, in), and it is made of dy (N, out) and x (N, in). Which one has to be transposed, and which comes first?",
    "self.weight.grad += dy.T @ x. b is added to every row, so its gradient is the sum over the rows. dx needs dy and W, no transpose.",
]

DERIVATION = """
y_nj = sum_i x_ni W_ji + b_j. For each value: where is it used, and what is the other factor?

    W_ji  in column j, in every row n, other factor x_ni:    dW_ji = sum_n dy_nj x_ni    dW = dy^T x      (out, N) (N, in)
    b_j   in column j, in every row n, slope 1:              db_j  = sum_n dy_nj         db = sum of rows
    x_ni  in row n, in every column j, other factor W_ji:    dx_ni = sum_j dy_nj W_ji    dx = dy W        (N, out) (out, in)

They are added to what is there (+=), since a layer may be used several times before a step.
Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.5.
"""

WRONG = {
    "gradient replaced": ("self.weight.grad += ", "self.weight.grad[...] = "),
    "transposed": ("self.weight.grad += dy.T @ x", "self.weight.grad += (x.T @ dy).reshape(self.weight.grad.shape)"),
    "mean for sum": ("dy.sum(axis=0)", "dy.mean(axis=0)"),
    "bias forgotten": ("self.bias.grad += dy.sum(axis=0)", ""),
}


def check(yours, check: Check) -> None:
    for n, inputs, outputs in ((3, 5, 2), (1, 4, 3)):
        check.gradients(yours.Linear(inputs, outputs, generator=0), check.normal(n, inputs))
    check.adds(yours.Linear(5, 2, generator=0), check.normal(3, 5))
