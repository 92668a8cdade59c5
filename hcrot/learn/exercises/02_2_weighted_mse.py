"""The mean squared error, with a weight for each example.

With d = prediction - target, n the number of all entries and w_b the weight of example b (the first axis):

    L = (1/n) sum of w_b d^2 over all entries

Write mse_loss: it returns the value of L, a number, and its gradient with respect to the prediction, an array of the prediction's shape.
The prediction has two axes or more: (B, features) or (B, C, H, W).
"""

import numpy as np


def mse_loss(prediction: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """L and dL/dprediction; weights (B,)."""
    # yours: begin
    difference = prediction - target
    w = weights.reshape(-1, *[1] * (difference.ndim - 1))
    value = float((w * difference**2).mean())
    return value, 2 * w * difference / difference.size
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "weights has the shape (B,), but NumPy matches shapes from the last axis. Give it as many axes as the prediction: (B, 1, 1, 1).",
    "weights.reshape(-1, *[1] * (prediction.ndim - 1)) has the shape (B, 1, ...). Each entry is in one term of the sum only.",
    "The slope of w d^2 in the prediction is 2 w d. Do not forget the 1/n of the mean: n is difference.size, not B.",
]

DERIVATION = """
Each prediction is in one term only, w_b d_k^2 / n, and the slope of d_k in the prediction is 1. So

    dL/dprediction_k = 2 w_b d_k / n.

With all weights 1 it is the loss of Ho, Jain & Abbeel 2020, equation 14, whose mean is over all entries. With weights that depend on the
timestep of each example it is the loss of several later papers (hcrot.min_snr_weights).
"""

WRONG = {
    "divided by the batch only": ("/ difference.size", "/ len(difference)"),
    "the two is forgotten": ("2 * w * difference", "w * difference"),
    "weights along the last axis": ("weights.reshape(-1, *[1] * (difference.ndim - 1))", "np.resize(weights, difference.shape[-1])"),
}


def check(yours, check: Check) -> None:
    import hcrot

    for shape in ((3, 3), (2, 3, 4, 5)):
        prediction, target, weights = check.normal(*shape), check.normal(*shape), np.abs(check.normal(shape[0]))
        reference = hcrot.mse_loss(prediction, target, weights=weights)
        check.same_as(f"mse_loss for {shape} (value, gradient)", yours.mse_loss, lambda *_, r=reference: r, prediction, target, weights)
