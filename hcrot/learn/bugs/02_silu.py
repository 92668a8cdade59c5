"""SiLU, the activation of every block of a U-Net.

y = x s(x) with the logistic function s(x) = 1 / (1 + exp(-x)).
"""

import numpy as np

import hcrot


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), which never overflows in this form."""
    return 0.5 * (1 + np.tanh(0.5 * x))


class SiLU(hcrot.Module):
    """y = x s(x)."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x)
        return x * logistic(x)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x = self.saved()
        s = logistic(x)
        # bug: begin
        return dy * (s + s * (1 - s))
        # bug: mended
        return dy * (s + x * s * (1 - s))
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
The network learns, but slowly, and deep ones hardly at all. With ReLU in place of SiLU all is well.
"""

HINTS = [
    "Differences tell: compare (f(x + h) - f(x - h)) / 2h with backward at x = -2, 0, 1 and 2. Where do they agree?",
    "They agree at x = 1 alone, and by chance. What has the value 1 there?",
    "Write down the product rule for x s(x), with s' = s (1 - s).",
]

EXPLANATION = """
The product rule gives (x s)' = s + x s', and s' = s (1 - s). The factor x was missing in the second term. At x = 1 nobody can see it, and
for all other x the sign of the gradient is still right most of the time, so that training works badly instead of failing. A test at one
hand-picked point finds nothing. Random inputs do.
"""


def check(yours, check) -> None:
    x = check.normal(50)
    layer, h = yours.SiLU(), 1e-5
    check.equal("the output", layer(x), x / (1 + np.exp(-x)))
    slopes = (layer(x + h) - layer(x - h)) / (2 * h)
    layer.forget()
    layer(x)
    worst = np.abs(layer.backward(np.ones(50)) - slopes).max()
    check.that(worst < 1e-6, f"backward differs from the slope of forward by up to {worst:.2g}")
