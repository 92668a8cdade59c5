"""Sampling between DDIM and DDPM.

With sigma = eta sqrt((1 - abar_s) / (1 - abar_t)) sqrt(1 - abar_t / abar_s), a step goes to
x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s - sigma^2) eps + sigma z (Song et al. 2021, eq. 12 and 16): eta 0 is DDIM, eta 1 is DDPM.
"""

import numpy as np


def step(
    image: np.ndarray, eps: np.ndarray, abar_t: float, abar_s: float, eta: float, generator: np.random.Generator
) -> np.ndarray:
    """x_s.

    Args:
        image, eps: what the model finds in x_t.
        abar_t, abar_s: the shares of signal before and after, abar_t < abar_s.
        eta: from 0, no new noise, to 1.
        generator: source of the new noise z.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"step: eta must be from 0 to 1, got {eta}")
    sigma = eta * np.sqrt((1 - abar_s) / (1 - abar_t)) * np.sqrt(1 - abar_t / abar_s)
    # bug: begin
    direction = np.sqrt(1 - abar_s) * eps
    # bug: mended
    direction = np.sqrt(1 - abar_s - sigma**2) * eps
    # bug: end
    return np.sqrt(abar_s) * image + direction + sigma * generator.standard_normal(image.shape)


# kept back: the learner's file ends here

SYMPTOM = """
eta = 0 gives clean samples. The larger eta, the grainier they are, and with eta = 1 they are worse than those of DDPM, although the paper
says that the two are the same then.
"""

HINTS = [
    "Take x_t made of a known image and known noise. What standard deviation must the noise in x_s have? Measure it for eta 0 and eta 1.",
    "Two independent noises are added here. How do their variances add up?",
    "The total has to be 1 - abar_s. New noise of variance sigma^2 comes in, so how much of the old may stay?",
]

EXPLANATION = """
New noise came in, but none of the old was taken out, so x_s had the variance 1 - abar_s + sigma^2. The model is told s, where it expects
less, and what is too much stays in the picture. The variances of independent noises add up, and the sum has to be what the schedule says.
Measuring the standard deviation of x_s for a known image finds this kind of bug in every sampler.
"""


def check(yours, check) -> None:
    image, eps, rng = np.full(30_000, 0.3), check.normal(30_000), np.random.default_rng(1)
    for eta in (0.0, 0.5, 1.0):
        noise = yours.step(image, eps, 0.2, 0.6, eta, rng) - np.sqrt(0.6) * image
        found = float(noise.std())
        text = f"eta = {eta}: the noise in x_s has the standard deviation {found:.3f}, expected {np.sqrt(0.4):.3f}"
        check.that(abs(found - np.sqrt(0.4)) < 0.01, text)
        shared = float(np.mean(noise * eps))
        sigma = eta * np.sqrt(0.4 / 0.8) * np.sqrt(1 - 0.2 / 0.6)
        expected = np.sqrt(0.4 - sigma**2)
        check.that(abs(shared - expected) < 0.01, f"eta = {eta}: x_s has {shared:.3f} of the old noise, expected {expected:.3f}")
