"""Training with a moving average of the weights.

After each step, average <- decay average + (1 - decay) weights. Samples are drawn with the average.
"""

import numpy as np


def train(weights: np.ndarray, gradient_of, steps: int, lr: float, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Gradient descent.

    Args:
        weights: where to begin; not changed.
        gradient_of: a function of the weights.
        steps: how many.
        lr: the learning rate.
        decay: how much of the average is kept in each step.

    Returns:
        the weights after the last step, and the average of those after each step, which begins at the first weights.
    """
    weights = weights.copy()
    average = weights.copy()
    for _ in range(steps):
        gradient = gradient_of(weights)
        # bug: begin
        average = decay * average + (1 - decay) * weights
        weights = weights - lr * gradient
        # bug: mended
        weights = weights - lr * gradient
        average = decay * average + (1 - decay) * weights
        # bug: end
    return weights, average


# kept back: the learner's file ends here

SYMPTOM = """
I compare with PyTorch's averaged model: the weights agree to all digits, the average does not. It looks like the other one, one step
late. When I fine-tune for a single step, the average does not change at all.
"""

HINTS = [
    "Do one step by hand, with weight 1, gradient 1, a learning rate of 0.1 and decay of 0.5. What is the average?",
    "Which weights have entered the average after the last step?",
    "The order of two lines.",
]

EXPLANATION = """
The average was updated before the step, so it never saw the newest weights, and the very first update mixed the starting weights with
themselves. With long runs nobody notices; with short ones, with a changing decay, or after a resume it matters. In diffusers and in hcrot
the average follows the step.
"""


def check(yours, check) -> None:
    start = check.normal(3)
    weights, average = yours.train(start, lambda w: w, 1, 0.1, 0.5)
    check.equal("the weights after one step", weights, 0.9 * start)
    check.equal("the average after one step with a decay of one half", average, 0.95 * start)
    weights, average = yours.train(start, lambda w: w, 3, 0.5, 0.5)
    check.equal("the average after three steps", average, start * (0.5**3 + 3 * 0.5**4))
