"""The noise schedule of Stable Diffusion.

"scaled_linear": the square roots of beta_t are evenly spaced, from sqrt(beta_start) to sqrt(beta_end). abar_t is the product of 1 - beta up
to t.
"""

import numpy as np


def scaled_linear(steps: int, beta_start: float = 0.00085, beta_end: float = 0.012) -> np.ndarray:
    """beta_t for t = 0 .. steps - 1."""
    if not 0 < beta_start < beta_end < 1:
        raise ValueError(f"scaled_linear: expected 0 < beta_start < beta_end < 1, got {beta_start} and {beta_end}")
    # bug: begin
    return np.linspace(beta_start**0.5, beta_end**0.5, steps)
    # bug: mended
    return np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2
    # bug: end


def signal_and_noise(betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sqrt(abar_t) and sqrt(1 - abar_t): how much of x_t is image, and how much noise."""
    abar = np.cumprod(1 - betas)
    return np.sqrt(abar), np.sqrt(1 - abar)


# kept back: the learner's file ends here

SYMPTOM = """
With the linear schedule everything works. With scaled_linear the loss is very low right away, but samples are mush. In the strip of
pictures of the forward process all images are pure noise after a tenth of the time.
"""

HINTS = [
    "Plot sqrt(abar_t) over t for this schedule and for the linear one.",
    "Print the first and the last beta. Compare with beta_start and beta_end.",
    "The square roots are evenly spaced. What has to be done to get from them to beta?",
]

EXPLANATION = """
The square at the end was missing: beta ran from 0.029 to 0.11, and abar at the end was 4e-32 in place of 0.005. Nine tenths of all times
show the model nothing but noise, which is easy to predict: hence the low loss. This was the predecessor's schedule (B43). Print the first
and the last value of whatever is a schedule.
"""


def check(yours, check) -> None:
    betas = yours.scaled_linear(1000)
    signal, noise = yours.signal_and_noise(betas)
    check.equal("signal^2 + noise^2", signal**2 + noise**2, np.ones(1000))
    half = int((signal > noise).sum())
    check.that(100 < half < 500, f"the image is stronger than the noise for {half} of 1000 times only")
    check.equal("the square root of beta in the middle", np.sqrt(yours.scaled_linear(3)[1]), (np.sqrt(0.00085) + np.sqrt(0.012)) / 2)
    check.equal("beta at both ends", betas[[0, -1]], [0.00085, 0.012], tolerance=1e-9)
