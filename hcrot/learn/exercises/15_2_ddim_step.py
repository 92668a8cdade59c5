"""The step of DDIM, with any amount of new noise.

Write `ddim_step`: x is x_t, eps the network's noise, z new noise. eta says how much of z is taken: sigma is eta times the standard
deviation of the posterior between t and s. With eta = 0 nothing is drawn, with eta = 1 it is the step of DDPM.
"""

import numpy as np


def ddim_step(x: np.ndarray, eps: np.ndarray, abar_t: float, abar_s: float, eta: float, z: np.ndarray) -> np.ndarray:
    # yours: begin
    sigma = eta * np.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))
    x0 = (x - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)
    return np.sqrt(abar_s) * x0 + np.sqrt(1 - abar_s - sigma**2) * eps + sigma * z
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Take the noise out: x0 = (x - sqrt(1 - abar_t) eps) / sqrt(abar_t). Then put noise back that is right for abar_s.",
    "The variance of all noise in x_s has to be 1 - abar_s: sigma^2 of it is new, so 1 - abar_s - sigma^2 is left for the old one.",
    "sigma^2 = eta^2 (1 - abar_s) / (1 - abar_t) (1 - abar_t / abar_s).",
]
DERIVATION = """
Training knows x_s only as sqrt(abar_s) x_0 + (noise of the variance 1 - abar_s). So any split of that variance between the old noise eps
and new noise z serves the same network:

    x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s - sigma^2) eps + sigma z

For sigma^2 = beta_tilde, sqrt(1 - abar_s - sigma^2) / sqrt(1 - abar_t) is sqrt(abar_t / abar_s) (1 - abar_s) / (1 - abar_t), the factor of
x_t in the posterior's mean: it is the step of DDPM. Song, Meng & Ermon 2020, arXiv:2010.02502, equations 12 and 16.
"""
WRONG = {
    "too much noise: the new is not taken off the old": ("np.sqrt(1 - abar_s - sigma**2)", "np.sqrt(1 - abar_s)"),
    "the old level's noise": ("np.sqrt(1 - abar_s - sigma**2) * eps", "np.sqrt(1 - abar_t - sigma**2) * eps"),
    "eta times the variance": ("sigma = eta * np.sqrt(", "sigma = eta * ("),
}


def check(yours, check: Check) -> None:
    for abar_t, abar_s in ((0.2, 0.6), (0.01, 0.05), (0.7, 1.0)):
        x, eps, z = check.normal(2, 5), check.normal(2, 5), check.normal(2, 5)
        x0, alpha = (x - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t), abar_t / abar_s
        where = f"from abar = {abar_t} to {abar_s}"
        found = yours.ddim_step(x, eps, abar_t, abar_s, 0.0, z)
        check.equal(f"with eta = 0, {where}, x_s", found, np.sqrt(abar_s) * x0 + np.sqrt(1 - abar_s) * eps)
        on_x0, on_xt = np.sqrt(abar_s) * (1 - alpha) / (1 - abar_t), np.sqrt(alpha) * (1 - abar_s) / (1 - abar_t)
        ddpm = on_x0 * x0 + on_xt * x + np.sqrt((1 - abar_s) / (1 - abar_t) * (1 - alpha)) * z
        check.equal(f"with eta = 1, {where}, x_s", yours.ddim_step(x, eps, abar_t, abar_s, 1.0, z), ddpm)
        sigma = 0.5 * np.sqrt((1 - abar_s) / (1 - abar_t) * (1 - alpha))
        half = np.sqrt(abar_s) * x0 + np.sqrt(1 - abar_s - sigma**2) * eps + sigma * z
        check.equal(f"with eta = 0.5, {where}, x_s", yours.ddim_step(x, eps, abar_t, abar_s, 0.5, z), half)
