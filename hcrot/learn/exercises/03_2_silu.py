"""SiLU, for any size of input.

Write sigmoid, 1 / (1 + e^-x), so that it is right and silent for x = 1000 and x = -1000 as well: e^1000 overflows, and NumPy warns. Then
write the layer's backward. It gets dy and returns dx; forward keeps x.
"""

import numpy as np

import hcrot


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x) without overflow."""
    # yours: begin
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))
    # yours: end


class SiLU(hcrot.Module):
    """y = x sigmoid(x)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x)
        return x * sigmoid(x)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x = self.saved()
        # yours: begin
        s = sigmoid(x)
        return dy * s * (1 + x * (1 - s))
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "e^-|x| never overflows: it is between 0 and 1. Write the sigmoid with it, one formula for x >= 0 and another for x < 0.",
    "For x < 0 multiply above and below by e^x: 1 / (1 + e^-x) = e^x / (e^x + 1). np.where chooses between two arrays.",
    "Backward: the product rule for x times s, with s' = s (1 - s): dx = dy * s * (1 + x * (1 - s)).",
]

DERIVATION = """
With e = e^-|x|, which is at most 1:

    x >= 0:  1 / (1 + e^-x) = 1 / (1 + e)
    x <  0:  1 / (1 + e^-x) = e^x / (e^x + 1) = e / (1 + e)

np.where computes both and takes one, so neither may overflow: that is why both use e and not e^-x.

The slope of s = (1 + e^-x)^-1 is e^-x (1 + e^-x)^-2 = s^2 (1/s - 1) = s (1 - s). The product rule for y = x s gives

    f' = s + x s (1 - s) = s (1 + x (1 - s))          (Elfwing, Uchibe & Doya 2018, section 2)
"""

WRONG = {
    "overflow": ("np.where(x >= 0, 1 / (1 + e), e / (1 + e))", "1 / (1 + np.exp(-x))"),
    "only the slope of the sigmoid": ("dy * s * (1 + x * (1 - s))", "dy * s * (1 - s)"),
    "x taken for a constant gate": ("dy * s * (1 + x * (1 - s))", "dy * s"),
}


def check(yours, check: Check) -> None:
    large = np.array([-1000.0, -40.0, -1.0, 0.0, 2.0, 1000.0])
    with np.errstate(over="raise", invalid="raise"):
        check.equal("sigmoid of -1000, -40, -1, 0, 2 and 1000", yours.sigmoid(large), np.exp(-np.logaddexp(0, -large)), 1e-12)
        s, layer = np.exp(-np.logaddexp(0, -large)), yours.SiLU()
        layer(large)
        check.equal("dx at -1000, -40, -1, 0, 2 and 1000", layer.backward(np.ones(6)), s * (1 + large * (1 - s)), 1e-12)
    check.gradients(yours.SiLU(), 2 * check.normal(3, 4))
