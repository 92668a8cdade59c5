"""A reverse step that keeps images in range.

The estimate of x_0 is (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), clipped to [-1, 1]; then x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s) eps,
where eps belongs to the clipped estimate: eps = (x_t - sqrt(abar_t) x_0) / sqrt(1 - abar_t).
"""

import numpy as np


def step(eps: np.ndarray, abar_t: float, abar_s: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From x_t to x_s with DDIM.

    Args:
        eps: the noise that the model finds in x_t.
        abar_t, abar_s: the shares of signal before and after, abar_t < abar_s.
        x: x_t.

    Returns:
        x_s, and the clipped estimate of x_0.
    """
    if not 0 < abar_t < abar_s <= 1:
        raise ValueError(f"step: expected 0 < abar_t < abar_s <= 1, got {abar_t} and {abar_s}")
    # bug: begin
    eps = np.clip(eps, -1, 1)
    image = (x - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)
    # bug: mended
    image = np.clip((x - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t), -1, 1)
    eps = (x - np.sqrt(abar_t) * image) / np.sqrt(1 - abar_t)
    # bug: end
    return np.sqrt(abar_s) * image + np.sqrt(1 - abar_s) * eps, image


# kept back: the learner's file ends here

SYMPTOM = """
I switched on clipping so that samples stay in range. They got worse: full of speckles, and they leave the range more than before.
"""

HINTS = [
    "Take a perfect model: make x_t from a known image and known noise, and hand in that noise. What does the estimate of x_0 look like?",
    "What share of normally distributed numbers is outside [-1, 1]? Should those be changed?",
    "Which of the two has a range that is known: the image or the noise?",
]

EXPLANATION = """
The noise was clipped and not the image. A third of all normally distributed numbers is beyond 1, so even a perfect prediction was
damaged, and the error was divided by sqrt(abar_t), which is small. Images have a known range, noise has none. After the estimate of x_0
was clipped, eps has to be computed again so that both belong to the same x_t.
"""


def check(yours, check) -> None:
    image, eps = np.clip(check.normal(400), -1, 1), check.normal(400)
    x = np.sqrt(0.04) * image + np.sqrt(0.96) * eps
    stepped, found = yours.step(eps, 0.04, 0.5, x)
    worst = np.abs(found - image).max()
    check.that(worst < 1e-6, f"the model is perfect, but the image that the step believes in is off by up to {worst:.2g}")
    check.equal("x_s of a perfect model", stepped, np.sqrt(0.5) * image + np.sqrt(0.5) * eps)
    stepped, found = yours.step(1.5 * eps, 0.04, 0.5, x)
    check.that(np.abs(found).max() <= 1, f"with a model that is wrong, the estimate of the image reaches {np.abs(found).max():.2g}")
    expected = np.sqrt(0.5) * found + np.sqrt(0.5) * (x - 0.2 * found) / np.sqrt(0.96)
    check.equal("x_s of a model that is wrong", stepped, expected)
