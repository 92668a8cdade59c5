"""Noise, picture and velocity, each made of any other.

A network has seen x_t = signal * x0 + sigma * noise, where signal = sqrt(abar) and sigma = sqrt(1 - abar), and has made a prediction. What
it predicts is its kind: "epsilon" (the noise), "sample" (the picture) or "v_prediction" (v = signal * noise - sigma * x0). Write
`picture_and_noise`, which returns (x0, noise) in all three cases.
"""

import numpy as np


def picture_and_noise(x_t: np.ndarray, prediction: np.ndarray, abar: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
    signal, sigma = np.sqrt(abar), np.sqrt(1 - abar)
    # yours: begin
    if kind == "epsilon":
        return (x_t - sigma * prediction) / signal, prediction
    if kind == "sample":
        return prediction, (x_t - signal * prediction) / sigma
    return signal * x_t - sigma * prediction, sigma * x_t + signal * prediction
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "For the noise and for the picture, solve x_t = signal * x0 + sigma * noise for the one that is missing.",
    "For the velocity you have two equations, x_t = signal x0 + sigma noise and v = signal noise - sigma x0, and signal^2 + sigma^2 = 1.",
    "signal * x_t - sigma * v: multiply it out, and see what cancels.",
]
DERIVATION = """
The first two cases solve x_t = signal x0 + sigma noise. For the velocity, with signal^2 + sigma^2 = 1,

    signal x_t - sigma v = signal^2 x0 + signal sigma noise - signal sigma noise + sigma^2 x0 = x0
    sigma x_t + signal v = sigma signal x0 + sigma^2 noise + signal^2 noise - signal sigma x0 = noise

x_t and v are x0 and noise turned by an angle, and this turns them back. Salimans & Ho 2022, arXiv:2202.00512, appendix D.
"""
WRONG = {
    "alpha in the place of its root": ("(x_t - sigma * prediction) / signal", "(x_t - sigma * prediction) / abar"),
    "a sign of the velocity": ("signal * x_t - sigma * prediction", "signal * x_t + sigma * prediction"),
    "signal and sigma exchanged": ("(x_t - signal * prediction) / sigma", "(x_t - sigma * prediction) / signal"),
}


def check(yours, check: Check) -> None:
    for abar in (0.9, 0.3, 0.02):
        signal, sigma = np.sqrt(abar), np.sqrt(1 - abar)
        x0, noise = check.normal(2, 1, 3, 4), check.normal(2, 1, 3, 4)
        predictions = {"epsilon": noise, "sample": x0, "v_prediction": signal * noise - sigma * x0}
        for kind, prediction in predictions.items():
            found = yours.picture_and_noise(signal * x0 + sigma * noise, prediction, abar, kind)
            check.that(isinstance(found, tuple) and len(found) == 2, f"{kind}: expected two arrays, (x0, noise)")
            for what, one, other in zip(("x0", "noise"), found, (x0, noise), strict=True):
                check.equal(f"{what} from {kind} at abar = {abar}", one, other)
