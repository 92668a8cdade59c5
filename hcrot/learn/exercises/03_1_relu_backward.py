"""ReLU's backward pass.

The forward pass is y = max(x, 0), number by number, and it keeps the booleans x > 0. Write backward: it gets dy and returns dx, a new
array. dy must be unchanged in the end.
"""

import numpy as np

import hcrot


class ReLU(hcrot.Module):
    """y = max(x, 0)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x > 0)
        return np.maximum(x, 0)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        passes = self.saved()
        # yours: begin
        return dy * passes
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "The slope is 1 where x > 0 and 0 elsewhere. dx is dy times the slope.",
    "It is the sign of x that decides, not that of dy: a negative gradient goes through as well as a positive one.",
    "True and False are 1 and 0 in a product: dy * passes.",
]

DERIVATION = """
y_k = max(x_k, 0) depends on x_k alone, so dx_k = dy_k f'(x_k), with f' = 1 for x_k > 0 and f' = 0 for x_k < 0. At 0 itself there is no
slope; 0 is the custom. What is kept is one boolean per number, a quarter of what x itself would take in float32.

A gradient may have any sign: dy_k < 0 says that a larger y_k makes the loss smaller. Cutting negative gradients off, max(dy, 0), is the
"deconvnet" picture of what a network sees (Zeiler & Fergus 2014), but it is no gradient.
"""

WRONG = {
    "the sign of dy decides": ("dy * passes", "np.maximum(dy, 0)"),
    "both signs decide": ("dy * passes", "np.maximum(dy, 0) * passes"),
    "dy is written to": ("return dy * passes", "dy *= passes\n        return dy"),
}


def check(yours, check: Check) -> None:
    layer, x, dy = yours.ReLU(), check.normal(3, 4), check.normal(3, 4)

    def backward(dy: np.ndarray) -> np.ndarray:
        layer(x)
        return layer.backward(dy)

    check.same_as("dx", backward, lambda dy: np.where(x > 0, dy, 0), dy)
    check.gradients(layer, x)
