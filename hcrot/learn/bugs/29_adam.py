"""Adam.

m and v are running averages of the gradient and of its square. A step is lr m' / (sqrt(v') + eps), where m' = m / (1 - b1^n) and
v' = v / (1 - b2^n) make up for the zeros that both began with, in step n = 1, 2, ...
"""

import numpy as np


class Adam:
    """Steps for one array.

    Args:
        values: the array that is changed, in place.
        lr: the learning rate.
        betas: b1 and b2, how much of the old averages is kept in each step.
    """

    def __init__(self, values: np.ndarray, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        self.values, self.lr, self.betas, self.eps = values, lr, betas, eps
        self.m, self.v, self.n = np.zeros_like(values), np.zeros_like(values), 0

    def step(self, grad: np.ndarray) -> None:
        b1, b2 = self.betas
        self.n += 1
        self.m = b1 * self.m + (1 - b1) * grad
        self.v = b2 * self.v + (1 - b2) * grad**2
        m = self.m / (1 - b1**self.n)
        # bug: begin
        self.values -= self.lr * m / (np.sqrt(self.v) + self.eps)
        # bug: mended
        v = self.v / (1 - b2**self.n)
        self.values -= self.lr * m / (np.sqrt(v) + self.eps)
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
The loss leaps up in the first steps and needs hundreds of them to come back. After a thousand steps all is well. A long warm-up of the
learning rate hides it.
"""

HINTS = [
    "The first step of Adam is known exactly: every entry moves by lr. By how much does it move here?",
    "31.6 times too much. Which number near here has 31.6 squared in it?",
    "sqrt(1 / (1 - 0.999)) is 31.6. Which of the two averages is not corrected for its beginning?",
]

EXPLANATION = """
v begins at zero, so after one step it is only a thousandth of grad^2. Without the correction the first step is divided by a number that
is 31.6 times too small. The correction matters for about 1 / (1 - b2) = 1000 steps, so the symptom vanishes by itself, and a warm-up
hides it. See Kingma & Ba 2015 (arXiv:1412.6980), section 3.
"""


def check(yours, check) -> None:
    grad = check.normal(5)
    values = np.zeros(5)
    adam = yours.Adam(values, lr=0.1)
    adam.step(grad)
    check.equal("the size of the first step, of a learning rate of 0.1", np.abs(values), np.full(5, 0.1))
    for _ in range(20):
        adam.step(grad)
    check.equal("the way after 21 equal gradients", values, -2.1 * np.sign(grad))
