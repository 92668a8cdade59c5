"""The loss that a diffusion model learns from.

L = mean of (prediction - target)^2 over all entries, and its gradient for the prediction.
"""

import numpy as np


def mse_loss(prediction: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean squared error.

    Args:
        prediction, target: arrays of the same shape.

    Returns:
        the loss, and its gradient for the prediction, of the shape of the prediction.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"mse_loss: prediction has shape {prediction.shape}, target {target.shape}")
    error = prediction - target
    loss = float(np.mean(error**2))
    # bug: begin
    return loss, 2 * error
    # bug: mended
    return loss, 2 * error / error.size
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
With SGD I need another learning rate for every image size: what works at 8 x 8 explodes at 28 x 28. With Adam I never noticed anything,
except that gradient clipping cuts nearly every step.
"""

HINTS = [
    "Print the norm of the gradient for one image of 8 x 8 and for one of 28 x 28, with errors of the same size.",
    "Compare with a difference: change one entry of the prediction by h and see by how much the loss changes.",
    "The loss is a mean. What does one entry contribute to it?",
]

EXPLANATION = """
The loss is a mean over N entries, so each contributes error^2 / N, and its slope is 2 error / N. Without 1/N the gradient is that of the
sum. Adam hides this, since it divides by the gradient's own size. Clipping and SGD do not. Whether a loss is a mean or a sum is the most
frequent difference between two implementations of the same paper.
"""


def check(yours, check) -> None:
    for size in (3, 7):
        prediction, target, direction = check.normal(2, size, size), check.normal(2, size, size), check.normal(2, size, size)
        loss, gradient = yours.mse_loss(prediction, target)
        check.equal("the loss", loss, np.mean((prediction - target) ** 2))
        h = 1e-5
        slope = (yours.mse_loss(prediction + h * direction, target)[0] - yours.mse_loss(prediction - h * direction, target)[0]) / (2 * h)
        agrees = abs(np.vdot(gradient, direction) - slope) < 1e-6
        check.that(agrees, f"for images of {size} x {size} the loss changes by another amount than its gradient says")
