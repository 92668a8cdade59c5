"""The coefficients of a reverse step.

The posterior of x_(t-1), given x_t and x_0, has the variance beta_t (1 - abar_(t-1)) / (1 - abar_t) and the mean
a x_0 + b x_t with a = sqrt(abar_(t-1)) beta_t / (1 - abar_t), b = sqrt(alpha_t) (1 - abar_(t-1)) / (1 - abar_t).
"""

import numpy as np


class Posterior:
    """Ho et al. 2020, eq. 7, for the times t = 0 .. T-1. Before t = 0 comes the image itself.

    Args:
        betas: (T,).
    """

    def __init__(self, betas: np.ndarray):
        self.betas = betas
        self.alphas = 1 - betas
        self.alphas_cumprod = np.cumprod(self.alphas)

    def coefficients(self, t: int) -> tuple[float, float, float]:
        """a, b and the variance."""
        # bug: begin
        previous = self.alphas_cumprod[t - 1]
        # bug: mended
        previous = self.alphas_cumprod[t - 1] if t > 0 else 1.0
        # bug: end
        rest = 1 - self.alphas_cumprod[t]
        a = np.sqrt(previous) * self.betas[t] / rest
        b = np.sqrt(self.alphas[t]) * (1 - previous) / rest
        return float(a), float(b), float(self.betas[t] * (1 - previous) / rest)


# kept back: the learner's file ends here

SYMPTOM = """
I watch x_t while it is sampled: it gets cleaner and cleaner, down to t = 1, where it is a good digit. The last step of all turns it into
speckles of pure black and white.
"""

HINTS = [
    "Only the last step is wrong. Print a, b and the variance for t = 0, 1 and 2.",
    "At t = 0 the posterior has to be the image itself: a = 1, b = 0, variance 0.",
    "In Python, what is alphas_cumprod[-1]?",
]

EXPLANATION = """
For t = 0 the index t - 1 is -1, which in Python is the last entry: abar at T-1, nearly zero, where 1 was meant. No error, no warning; b
became about 1 / beta_0, a number in the thousands for usual schedules, and noise of variance 1 was added. Whoever writes t - 1 has to say
what it means at t = 0. Negative indices are the most polite way to read the wrong number.
"""


def check(yours, check) -> None:
    betas = np.linspace(1e-2, 0.3, 20)
    abar = np.cumprod(1 - betas)
    posterior = yours.Posterior(betas)
    for t in reversed(range(20)):
        a, b, variance = posterior.coefficients(t)
        before = abar[t - 1] if t else 1.0
        kept = a + b * np.sqrt(abar[t])
        step, expected = f"the step from t = {t}", np.sqrt(before)
        check.that(abs(kept - expected) < 1e-9, f"{step}: of the image {kept:.4f} is left, expected {expected:.4f}")
        spread = b**2 * (1 - abar[t]) + variance
        check.that(abs(spread - (1 - before)) < 1e-9, f"{step}: the noise has the variance {spread:.4f}, expected {1 - before:.4f}")
