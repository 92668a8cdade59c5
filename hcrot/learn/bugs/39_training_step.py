"""What a diffusion model is given, and what it has to answer.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, with a time t and noise eps of its own for each image. The model sees x_t and t, and its
target is eps.
"""

import numpy as np


def training_pair(
    images: np.ndarray, alphas_cumprod: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x_t, t and the target.

    Args:
        images: x_0, (N, C, H, W).
        alphas_cumprod: abar_t for t = 0 .. T-1.
        generator: source of t and eps.

    Returns:
        x_t (N, C, H, W); t (N,), integers; eps (N, C, H, W).
    """

    def noise() -> np.ndarray:
        return generator.standard_normal(images.shape)

    t = generator.integers(len(alphas_cumprod), size=len(images))
    abar = alphas_cumprod[t].reshape(-1, 1, 1, 1)
    # bug: begin
    noisy = np.sqrt(abar) * images + np.sqrt(1 - abar) * noise()
    return noisy, t, noise()
    # bug: mended
    eps = noise()
    noisy = np.sqrt(abar) * images + np.sqrt(1 - abar) * eps
    return noisy, t, eps
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
The loss begins at 1 and stays at 1, whatever network, learning rate or optimizer I use. The network's output goes to zero everywhere. All
gradient checks pass.
"""

HINTS = [
    "A loss of 1 with an output of zero: what is the mean square of the target? So how much of the target does the network know?",
    "Leave the network out. Compute (x_t - sqrt(abar_t) x_0) / sqrt(1 - abar_t) and compare with the target.",
    "Count how many times the generator is asked for noise.",
]

EXPLANATION = """
The noise that was added and the noise that the model had to predict were drawn separately. They have nothing to do with each other, so
the best answer is their mean, zero, and the loss is the variance of the target, 1. The network was all right. A loss that stays at the
variance of its target says: there is nothing to learn here. Look at the data.
"""


def check(yours, check) -> None:
    images, abar = check.normal(6, 1, 3, 3), np.linspace(0.99, 0.01, 50)
    noisy, t, target = yours.training_pair(images, abar, np.random.default_rng(0))
    check.equal("the shape of t", np.shape(t), (6,))
    check.that(len(set(t.tolist())) > 1, "all images have the same time")
    a = abar[t].reshape(-1, 1, 1, 1)
    best = float(np.mean((target - (noisy - np.sqrt(a) * images) / np.sqrt(1 - a)) ** 2))
    check.that(best < 1e-9, f"even a model that knew the images x_0 would have a loss of {best:.2f}")
    check.that(np.abs(target[0] - target[1]).max() > 0.1, "all images have the same noise")
