"""From one noise level straight to a later one.

x_s is known, and s < t. Write `between(betas, s, t)`, which returns two numbers (factor, std) such that factor * x_s + std * z, z from
N(0, 1), is distributed as x_t after the steps s+1, s+2 .. t. s = -1 means the picture itself.
"""

import numpy as np


def between(betas: np.ndarray, s: int, t: int) -> tuple[float, float]:
    # yours: begin
    alpha = np.prod(1 - betas[s + 1 : t + 1])
    return np.sqrt(alpha), np.sqrt(1 - alpha)
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Several steps are one step, with the product of their alphas in the place of alpha.",
    "Which alphas? Those of the steps after s, up to and including t. Their product is abar_t / abar_s.",
    "betas[s + 1 : t + 1] are those of the steps; it is right for s = -1, too.",
]
DERIVATION = """
Two steps are a step with alpha = alpha_1 alpha_2, since the variances alpha_2 (1 - alpha_1) + (1 - alpha_2) add to 1 - alpha_1 alpha_2. By
induction the steps s+1 .. t are a step with alpha = alpha_{s+1} .. alpha_t = abar_t / abar_s:

    x_t = sqrt(abar_t / abar_s) x_s + sqrt(1 - abar_t / abar_s) z

It composes: from -1 to s and then from s to t is the same as from -1 to t. Ho et al. 2020, arXiv:2006.11239, equations 2 and 4; it is
line (c) in hcrot/schedulers/ddpm.py, on which sampling with fewer steps is built.
"""
WRONG = {
    "the step s is counted too": ("betas[s + 1 : t + 1]", "betas[max(s, 0) : t + 1]"),
    "the step t is left out": ("betas[s + 1 : t + 1]", "betas[s + 1 : t]"),
    "variance in place of standard deviation": ("np.sqrt(1 - alpha)", "1 - alpha"),
}


def check(yours, check: Check) -> None:
    betas = np.linspace(1e-3, 0.1, 40)
    for s, t in ((-1, 0), (3, 4), (-1, 39), (7, 30)):
        factor, variance = 1.0, 0.0
        for beta in betas[s + 1 : t + 1]:  # step by step
            factor, variance = np.sqrt(1 - beta) * factor, (1 - beta) * variance + beta
        found = yours.between(betas, s, t)
        check.equal(f"between(betas, {s}, {t})", np.array(found), np.array([factor, np.sqrt(variance)]))
