"""One network, three answers.

A network has seen x = sqrt(abar) x0 + sqrt(1 - abar) noise and says eps, its guess of the noise. Write

    score(eps, abar)        the score of the noisy pictures at x
    picture(x, eps, abar)   the mean of all pictures that may be behind x (by Tweedie's formula, or directly)
    exploding(x, eps, abar) the same point and score in the other way of writing noise, y = x0 + lam * noise: returns (y, score at y)
"""

import numpy as np


def score(eps: np.ndarray, abar: float) -> np.ndarray:
    # yours: begin
    return -eps / np.sqrt(1 - abar)
    # yours: end


def picture(x: np.ndarray, eps: np.ndarray, abar: float) -> np.ndarray:
    # yours: begin
    return (x + (1 - abar) * score(eps, abar)) / np.sqrt(abar)
    # yours: end


def exploding(x: np.ndarray, eps: np.ndarray, abar: float) -> tuple[np.ndarray, np.ndarray]:
    # yours: begin
    return x / np.sqrt(abar), score(eps, abar) * np.sqrt(abar)
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "The score points against the noise, and is divided by its standard deviation, not by its variance.",
    "Tweedie: sqrt(abar) * picture = x + (1 - abar) * score.",
    "y = x / sqrt(abar). The gradient by y is the gradient by x times dx/dy.",
]
DERIVATION = """
score = E[(sqrt(abar) x0 - x) / (1 - abar) | x] = -E[noise | x] / sqrt(1 - abar), since sqrt(abar) x0 - x = -sqrt(1 - abar) noise.
Solved for x0, the first equation is Tweedie's formula, sqrt(abar) E[x0 | x] = x + (1 - abar) score.
With x = sqrt(abar) y, log q(y) = log p(sqrt(abar) y) + const, so grad_y log q = sqrt(abar) grad_x log p. It is -eps / lam again,
lam = sqrt(1 - abar) / sqrt(abar). Song et al. 2021, arXiv:2011.13456; Efron 2011.
"""
WRONG = {
    "towards the noise": ("return -eps / np.sqrt(1 - abar)", "return eps / np.sqrt(1 - abar)"),
    "divided by the variance": ("return -eps / np.sqrt(1 - abar)", "return -eps / (1 - abar)"),
    "the picture is not scaled back": ("score(eps, abar)) / np.sqrt(abar)", "score(eps, abar))"),
    "the chain rule forgotten": ("score(eps, abar) * np.sqrt(abar)", "score(eps, abar)"),
}


def check(yours, check: Check) -> None:
    for abar in (0.9, 0.4, 0.03):
        m, v = check.normal(3), 0.25  # one bell for the pictures
        x = check.normal(4, 3)
        spread = abar * v + 1 - abar
        eps = np.sqrt(1 - abar) * (x - np.sqrt(abar) * m) / spread
        where = f" at abar = {abar}"
        check.equal("score" + where, yours.score(eps, abar), (np.sqrt(abar) * m - x) / spread)
        behind = m + np.sqrt(abar) * v / spread * (x - np.sqrt(abar) * m)
        check.equal("picture" + where, yours.picture(x, eps, abar), behind)
        y, found = yours.exploding(x, eps, abar)
        check.equal("y" + where, y, x / np.sqrt(abar))
        check.equal("the score at y" + where, found, (m - y) / (v + (1 - abar) / abar))
