"""Sampling with fewer steps than in training.

Of T times only some are visited, from high to low. A step of DDIM leads from t to the next time that is visited, s; after the last one
comes the image itself, for which abar is 1.
"""

from collections.abc import Callable

import numpy as np


class Sampler:
    """DDIM (Song et al. 2021, eq. 12, with sigma 0).

    Args:
        alphas_cumprod: abar_t for t = 0 .. T-1.
        steps: how many times are visited, a divisor of T.
    """

    def __init__(self, alphas_cumprod: np.ndarray, steps: int):
        self.alphas_cumprod = alphas_cumprod
        self.stride = len(alphas_cumprod) // steps
        self.timesteps = np.arange(len(alphas_cumprod) - 1, -1, -self.stride)

    def abar(self, t: int) -> float:
        return float(self.alphas_cumprod[t]) if t >= 0 else 1.0

    def step(self, eps: np.ndarray, t: int, x: np.ndarray) -> np.ndarray:
        """x_t -> x_s, where eps is the noise that the model finds in x_t."""
        # bug: begin
        s = t - 1
        # bug: mended
        s = t - self.stride
        # bug: end
        image = (x - np.sqrt(1 - self.abar(t)) * eps) / np.sqrt(self.abar(t))
        return np.sqrt(self.abar(s)) * image + np.sqrt(1 - self.abar(s)) * eps

    def sample(self, model: Callable[[np.ndarray, int], np.ndarray], x: np.ndarray) -> np.ndarray:
        """From noise to images; ``model(x, t)`` predicts the noise."""
        for t in self.timesteps:
            x = self.step(model(x, int(t)), int(t), x)
        return x


# kept back: the learner's file ends here

SYMPTOM = """
With all 1000 steps the samples are good. With 50 they look as if they were seen through snow: a grey, noisy background. The fewer the
steps, the more noise is left.
"""

HINTS = [
    "Take a model that is perfect for a known case. If pixels are N(0, 1/4), it is x_t sqrt(1 - abar_t) / (abar_t / 4 + 1 - abar_t).",
    "Print the standard deviation of x after each step, next to sqrt(abar_s / 4 + 1 - abar_s) of the next time s that is visited.",
    "The model is told the next t of the list. Which time does x belong to after the step?",
]

EXPLANATION = """
A step removed the noise between t and t - 1, but the model was then told that it was at t - stride. Most of the noise was never removed.
With as many steps as times, the stride is 1 and all is well. The predecessor had it in the published samples (B45): for images with a
standard deviation of 0.5, ten steps gave 0.98. The right previous time is a matter of the list of times, not of t - 1.
"""


def check(yours, check) -> None:
    abar = np.cumprod(1 - np.linspace(1e-3, 0.2, 100))
    start = check.normal(200)
    total = abar / 4 + 1 - abar
    for steps, allowed in ((100, 0.05), (20, 0.1), (5, 0.25)):
        end = yours.Sampler(abar, steps).sample(lambda x, t: x * np.sqrt(1 - abar[t]) / total[t], start)
        spread = float(end.std() / start.std())
        text = f"images have a standard deviation of 0.5 and the model is perfect, but {steps} steps give samples with {spread:.3f}"
        check.that(abs(spread - 0.5) < allowed, text)
