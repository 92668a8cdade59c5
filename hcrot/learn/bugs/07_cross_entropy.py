"""The loss of a classifier.

L = mean over the batch of -log p[label], where p is the softmax of a row of scores.
"""

import numpy as np


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of -log softmax(scores)[label].

    Args:
        scores: (N, C).
        labels: (N,), integers below C.

    Returns:
        the loss, and its gradient for the scores, (N, C).
    """
    rows = np.arange(len(labels))
    shifted = scores - scores.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    p = powers / powers.sum(axis=1, keepdims=True)
    # bug: begin
    with np.errstate(divide="ignore"):
        loss = -np.log(p[rows, labels]).mean()
    # bug: mended
    loss = (np.log(powers.sum(axis=1)) - shifted[rows, labels]).mean()
    # bug: end
    gradient = p.copy()
    gradient[rows, labels] -= 1
    return float(loss), gradient / len(labels)


# kept back: the learner's file ends here

SYMPTOM = """
For hours the loss is fine. Then a single batch gives "inf", although the gradient is finite and training goes on well. My plots and the
rule that saves the best model are ruined.
"""

HINTS = [
    "Find the smallest case: one row of two scores. How sure, and how wrong, must it be?",
    "Try the scores [1000, 0] and the label 1. By hand, the loss is 1000. Print every intermediate value.",
    "log(exp(a) / s) is a - log(s). Then nothing that was rounded to zero is given to the logarithm.",
]

EXPLANATION = """
exp(-1000) is zero in floating point, and its logarithm is minus infinity. Subtracting the maximum, which was done, prevents overflow, but
not this. The logarithm of softmax has to be taken by hand: log p = x - max - log(sum exp(x - max)). The predecessor's CrossEntropy had it
(B40: scores [1000, 0], class 1).
"""


def check(yours, check) -> None:
    scores, labels = check.normal(5, 3), check.integers(3, 5)
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    check.equal("the loss of ordinary scores", yours.cross_entropy(scores, labels)[0], -np.log(p[np.arange(5), labels]).mean())
    loss, gradient = yours.cross_entropy(np.array([[1000.0, 0.0], [0.0, 0.0]]), np.array([1, 0]))
    check.that(bool(np.isfinite(loss)), f"a network that is very sure and very wrong has the loss {loss}")
    check.equal("its loss", loss, (1000 + np.log(2)) / 2)
    check.equal("its gradient", gradient, np.array([[0.5, -0.5], [-0.25, 0.25]]))
