"""A training loop.

It fits y = x W to targets by gradient descent, with mini-batches.
"""

import numpy as np

import hcrot


class Matrix(hcrot.Module):
    """y = x W, with W zero at first."""

    def __init__(self, inputs: int, outputs: int):
        self.weight = hcrot.Parameter(np.zeros((inputs, outputs)))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x)
        return x @ self.weight.data

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.weight.grad += self.saved().T @ dy
        return dy @ self.weight.data.T


def train(model: Matrix, x: np.ndarray, targets: np.ndarray, batch_size: int, epochs: int, lr: float) -> list[float]:
    """The loss before each step."""
    losses = []
    # bug: begin
    model.zero_grad()
    for _ in range(epochs):
        for start in range(0, len(x), batch_size):
            error = model(x[start : start + batch_size]) - targets[start : start + batch_size]
            losses.append(float(np.mean(error**2)))
            model.backward(2 * error / error.size)
            model.weight.data -= lr * model.weight.grad
    # bug: mended
    for _ in range(epochs):
        for start in range(0, len(x), batch_size):
            error = model(x[start : start + batch_size]) - targets[start : start + batch_size]
            losses.append(float(np.mean(error**2)))
            model.zero_grad()
            model.backward(2 * error / error.size)
            model.weight.data -= lr * model.weight.grad
    # bug: end
    return losses


# kept back: the learner's file ends here

SYMPTOM = """
The loss falls, passes its lowest point, rises, and goes on swinging up and down for ever. A smaller learning rate makes the swings
longer, but they don't end.
"""

HINTS = [
    "Plot the norm of the gradient over the steps. What should happen to it near the minimum?",
    "Compute the gradient of a single batch by hand, in the third step, and compare.",
    "Gradients are added by backward. Who sets them back to zero, and how often?",
]

EXPLANATION = """
Gradients were set to zero once, before the loop, so each step used the sum of all gradients so far. The steps gather speed, like a ball
without friction in a bowl, and swing through the minimum. Adding is what backward has to do. So whoever begins a new step has to clear.
Everybody who writes a training loop forgets it once.
"""


def check(yours, check) -> None:
    x, weight = check.normal(32, 3), check.normal(3, 2)
    model = yours.Matrix(3, 2)
    losses = yours.train(model, x, x @ weight, 8, 60, 0.2)
    check.that(len(losses) == 240, f"240 steps have to give 240 losses, got {len(losses)}")
    check.that(losses[-1] < 1e-6, f"a problem with an exact solution has the loss {losses[-1]:.3g} after 240 steps")
