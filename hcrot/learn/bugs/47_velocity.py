"""A model that predicts the velocity.

v = sqrt(abar) eps - sqrt(1 - abar) x_0, from which x_0 and eps can both be had, since x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps
(Salimans & Ho 2022).
"""

import numpy as np


def velocity(image: np.ndarray, eps: np.ndarray, abar: float) -> np.ndarray:
    """What the model has to learn."""
    return np.sqrt(abar) * eps - np.sqrt(1 - abar) * image


def image_and_noise(v: np.ndarray, x: np.ndarray, abar: float) -> tuple[np.ndarray, np.ndarray]:
    """x_0 and eps from a prediction.

    Args:
        v: the predicted velocity at x_t.
        x: x_t.
        abar: abar_t.
    """
    # bug: begin
    image = np.sqrt(abar) * x + np.sqrt(1 - abar) * v
    # bug: mended
    image = np.sqrt(abar) * x - np.sqrt(1 - abar) * v
    # bug: end
    eps = np.sqrt(1 - abar) * x + np.sqrt(abar) * v
    return image, eps


# kept back: the learner's file ends here

SYMPTOM = """
The loss of the model with v-prediction falls as it should. But the estimates of x_0 that sampling uses look right at its very end only:
in the middle they are full of noise, and at the beginning they look like negatives.
"""

HINTS = [
    "No network is needed: make x_t and v from a known image and known noise, and ask for them back.",
    "x_t and v are the image and the noise, turned by an angle in their plane: cos = sqrt(abar), sin = sqrt(1 - abar). Turn back.",
    "The inverse of a rotation is the rotation by the negative angle: just one sign in each of the two lines.",
]

EXPLANATION = """
(x_t, v) is (x_0, eps) turned by the angle phi with cos phi = sqrt(abar). To turn back: x_0 = cos x_t - sin v, eps = sin x_t + cos v. One
sign was wrong. Near abar = 1 the wrong term is multiplied by almost zero, so one end of the way looks fine. Inserting x_t and v shows it:
cos^2 + sin^2 must be left, and everything else must cancel.
"""


def check(yours, check) -> None:
    image, eps = check.normal(50), check.normal(50)
    for abar in (0.99, 0.5, 0.01):
        x = np.sqrt(abar) * image + np.sqrt(1 - abar) * eps
        found = yours.image_and_noise(yours.velocity(image, eps, abar), x, abar)
        worst = max(float(np.abs(one - other).max()) for one, other in zip(found, (image, eps), strict=True))
        check.that(worst < 1e-9, f"a perfect prediction at abar = {abar} does not give back what x_t was made of: off by up to {worst:.2g}")
    check.equal("the velocity", yours.velocity(image, eps, 0.36), 0.6 * eps - 0.8 * image)
