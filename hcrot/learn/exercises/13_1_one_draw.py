"""From a picture to any noise level in one draw.

A schedule is an array of betas (T,). Write `alphas_cumprod`, which returns abar (T,): abar[t] is the product of 1 - beta[0] .. 1 - beta[t].
Then write `add_noise`, which makes x_t of pictures x0 (N, C, H, W) and noise of the same shape. Each picture has its own timestep:
t (N,) has integers from 0 to T-1.
"""

import numpy as np


def alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    # yours: begin
    return np.cumprod(1 - betas)
    # yours: end


def add_noise(x0: np.ndarray, noise: np.ndarray, t: np.ndarray, betas: np.ndarray) -> np.ndarray:
    # yours: begin
    abar = alphas_cumprod(betas)[t][:, None, None, None]
    return np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise
    # yours: end


# kept back: the learner's file ends here

import hcrot  # noqa: E402
from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "The product of the first numbers of an array, for every count of them, is one NumPy function: cumprod.",
    "Indexing with an array, abar[t], gives one number for each picture. To multiply pictures it needs the shape (N, 1, 1, 1).",
    "The factors are the square roots: abar and 1 - abar are variances.",
]
DERIVATION = """
One step is x_t = sqrt(alpha_t) x_{t-1} + sqrt(1 - alpha_t) z, alpha_t = 1 - beta_t. Put two steps into each other: the signal has the
factor sqrt(alpha_2 alpha_1), the two draws of noise have the variances alpha_2 (1 - alpha_1) and 1 - alpha_2, which add to
1 - alpha_2 alpha_1. So t + 1 steps are one step with the product abar_t:

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps                          Ho et al. 2020, arXiv:2006.11239, equation 4
"""
WRONG = {
    "the square root of the noise is missing": ("np.sqrt(1 - abar) * noise", "(1 - abar) * noise"),
    "a sum in place of the product": ("np.cumprod(1 - betas)", "1 - np.cumsum(betas)"),
    "one timestep for all": ("[t][:, None, None, None]", "[t[0]]"),
}


def check(yours, check: Check) -> None:
    betas = np.linspace(1e-3, 0.05, 60)
    check.equal("alphas_cumprod(betas)", yours.alphas_cumprod(betas), np.exp(np.cumsum(np.log1p(-betas))))
    scheduler = hcrot.DDPMScheduler(num_train_timesteps=60, trained_betas=betas)
    for shape in ((4, 1, 8, 8), (3, 2, 5, 3)):
        x0, noise, t = check.normal(*shape), check.normal(*shape), check.integers(60, shape[0])
        found = yours.add_noise(x0, noise, t, betas)
        check.equal(f"add_noise at t = {t}", found, scheduler.add_noise(x0, noise, t), tolerance=1e-5)
