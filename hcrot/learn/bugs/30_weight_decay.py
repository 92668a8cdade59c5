"""AdamW: Adam with decoupled weight decay.

w <- w - lr decay w - lr m' / (sqrt(v') + eps). The decay is the same for all weights, however large their gradients are.
"""

import numpy as np


class AdamW:
    """Steps for one array, which is changed in place."""

    def __init__(self, values: np.ndarray, lr: float = 1e-3, weight_decay: float = 0.01, betas: tuple[float, float] = (0.9, 0.999)):
        self.values, self.lr, self.weight_decay, self.betas, self.eps = values, lr, weight_decay, betas, 1e-8
        self.m, self.v, self.n = np.zeros_like(values), np.zeros_like(values), 0

    def step(self, grad: np.ndarray) -> None:
        b1, b2 = self.betas
        self.n += 1
        # bug: begin
        grad = grad + self.weight_decay * self.values
        # bug: mended
        self.values -= self.lr * self.weight_decay * self.values
        # bug: end
        self.m = b1 * self.m + (1 - b1) * grad
        self.v = b2 * self.v + (1 - b2) * grad**2
        m = self.m / (1 - b1**self.n)
        v = self.v / (1 - b2**self.n)
        self.values -= self.lr * m / (np.sqrt(v) + self.eps)


# kept back: the learner's file ends here

SYMPTOM = """
Weight decay has no effect on the weights with large gradients, and too much on those with small ones: weights that the loss does not care
for are driven to zero at full speed. Whatever number I choose for the decay, they move by lr in each step.
"""

HINTS = [
    "Take a weight of 1 whose gradient is always 0, and no other. Where must it be after ten steps?",
    "It moves by lr in each step, whatever the decay is. Which division makes the size of a gradient vanish?",
    "In which line does the decay enter? In the formula above, is it divided by sqrt(v)?",
]

EXPLANATION = """
The decay was added to the gradient (L2 regularisation), so it went through m and v and was divided by sqrt(v), like any gradient. A
weight without a gradient then moves by lr, however small the decay. That is Adam with L2. AdamW shrinks the weights beside the step:
Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2, is about just this difference.
"""


def check(yours, check) -> None:
    values = np.array([1.0, -2.0])
    optimizer = yours.AdamW(values, lr=0.1, weight_decay=0.2)
    for _ in range(10):
        optimizer.step(np.zeros(2))
    check.equal("two weights without a gradient, after ten steps of decay", values, np.array([1.0, -2.0]) * 0.98**10)
    grad, values = check.normal(3), np.ones(3)
    yours.AdamW(values, lr=0.1, weight_decay=0.2).step(grad)
    check.equal("three weights after one step", values, 0.98 - 0.1 * np.sign(grad))
