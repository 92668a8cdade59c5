"""A small regression: a line through points, by gradient descent.

prediction = w x + b for x (N, 1), and targets (N,) as they come from a file.
"""

import numpy as np


def predict(x: np.ndarray, w: float, b: float) -> np.ndarray:
    """w x + b for x (N, 1)."""
    return x * w + b


def fit(x: np.ndarray, target: np.ndarray, steps: int = 300, lr: float = 0.1) -> tuple[float, float]:
    """The w and b that make the mean squared error small.

    Args:
        x: (N, 1).
        target: (N,), one number for each row of x.
    """
    w = b = 0.0
    for _ in range(steps):
        # bug: begin
        error = predict(x, w, b) - target
        # bug: mended
        error = predict(x, w, b) - target[:, None]
        # bug: end
        w -= lr * float(np.mean(2 * error * x))
        b -= lr * float(np.mean(2 * error))
    return w, b


# kept back: the learner's file ends here

SYMPTOM = """
The loss falls and then stays at the variance of the targets. The line that comes out is always flat, at the mean of the targets, although
the points lie on a steep line.
"""

HINTS = [
    "Take three points on the line y = 2 x. Print the error of the very first step, and its shape.",
    "How many errors do three points have?",
    "(3, 1) minus (3,) is (3, 3): every prediction is compared with every target.",
]

EXPLANATION = """
(N, 1) minus (N,) broadcasts to (N, N). Each prediction is compared with all targets, so the best that it can do is their mean. Nothing
complains, and the loss even falls. This is one of the most expensive bugs of the field, since a curve of a loss looks like learning.
hcrot's losses refuse two arrays of different shapes for this reason.
"""


def check(yours, check) -> None:
    x = check.normal(20, 1)
    w, b = yours.fit(x, 2 * x[:, 0] + 1)
    check.that(abs(w - 2) < 0.01 and abs(b - 1) < 0.01, f"the points lie on y = 2 x + 1, the line found is y = {w:.3f} x + {b:.3f}")
