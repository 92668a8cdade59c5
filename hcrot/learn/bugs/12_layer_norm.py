"""LayerNorm without parameters.

Each row of x (N, C) gets mean 0 and variance 1, where the variance is the mean of the squared differences.
"""

import numpy as np

import hcrot


class LayerNorm(hcrot.Module):
    """xhat = (x - mean) / sqrt(var + eps) for each row."""

    def __init__(self, eps: float = 1e-5):
        self.eps = eps

    def forward(self, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        # bug: begin
        variance = x.var(axis=1, ddof=1, keepdims=True)
        # bug: mended
        variance = x.var(axis=1, keepdims=True)
        # bug: end
        rstd = 1 / np.sqrt(variance + self.eps)
        xhat = centred * rstd
        self.save(xhat, rstd)
        return xhat

    def backward(self, dy: np.ndarray) -> np.ndarray:
        xhat, rstd = self.saved()
        return rstd * (dy - dy.mean(axis=1, keepdims=True) - xhat * (dy * xhat).mean(axis=1, keepdims=True))


# kept back: the learner's file ends here

SYMPTOM = """
Weights that I trained elsewhere give slightly different results here: about 6 percent in a layer of 8 channels, a tenth of a percent in
one of 512. The gradient check is off by 3 percent for 8 channels and by 0.002 percent for 512.
"""

HINTS = [
    "An error that falls like 1/C as C grows: which formula has C in it in two ways?",
    "Normalise the row [1, -1]. What must come out, for eps near 0? What does?",
    "A variance can be divided by C, or by C - 1. Which does the formula of the first line say? Which fits backward?",
]

EXPLANATION = """
The variance was divided by C - 1, the estimate for a population from a sample. All normalisation layers divide by C, and backward was
derived for that. With 512 channels the difference is lost in the noise. PyTorch's `torch.var` divides by C - 1 unless told otherwise, and
NumPy's `var` by C, so the mistake is made whenever code is translated from one to the other.
"""


def check(yours, check) -> None:
    y = yours.LayerNorm(1e-12)(np.array([[1.0, -1.0], [5.0, 3.0]]))
    check.that(np.allclose(y, [[1, -1], [1, -1]], atol=1e-6), f"the row [1, -1] has mean 0 and variance 1 already, but becomes {y[0]}")
    check.agree(yours.LayerNorm(), check.normal(3, 5))
