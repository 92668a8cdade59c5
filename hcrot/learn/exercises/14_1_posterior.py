"""The posterior between two noise levels.

x_t and the picture x_0 are known; what was x_s, at a level s with less noise? Write `posterior(abar_s, abar_t)`, which returns three
numbers (on_x0, on_xt, variance): x_s is normal with the mean on_x0 * x_0 + on_xt * x_t and this variance. abar_s = 1 is the picture itself.
"""

import numpy as np


def posterior(abar_s: float, abar_t: float) -> tuple[float, float, float]:
    # yours: begin
    alpha = abar_t / abar_s
    beta = 1 - alpha
    on_x0 = np.sqrt(abar_s) * beta / (1 - abar_t)
    on_xt = np.sqrt(alpha) * (1 - abar_s) / (1 - abar_t)
    variance = (1 - abar_s) / (1 - abar_t) * beta
    return on_x0, on_xt, variance
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "From s to t is one step with alpha = abar_t / abar_s and beta = 1 - alpha.",
    "The exponent is (x_t - sqrt(alpha) x_s)^2 / beta + (x_s - sqrt(abar_s) x_0)^2 / (1 - abar_s): collect x_s^2 (P) and -2 x_s (Q).",
    "The mean is Q/P, the variance 1/P, and P = (1 - abar_t) / (beta (1 - abar_s)). The factors of x_0 and of x_t both have a root.",
]
DERIVATION = """
q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0). The exponent, without -1/2, is

    (x_t - sqrt(alpha) x_s)^2 / beta + (x_s - sqrt(abar_s) x_0)^2 / (1 - abar_s) = P x_s^2 - 2 Q x_s + ...
    P = alpha/beta + 1/(1 - abar_s) = (1 - abar_t) / (beta (1 - abar_s))
    Q = sqrt(alpha)/beta x_t + sqrt(abar_s)/(1 - abar_s) x_0

so the variance is 1/P and the mean Q/P. For abar_s = 1 the variance is 0 and the mean x_0: the formulas need no exception, while P itself
would divide by zero. Ho et al. 2020, arXiv:2006.11239, equations 6 and 7.
"""
WRONG = {
    "the root over abar_s is missing": ("np.sqrt(abar_s) * beta", "abar_s * beta"),
    "the root over alpha is missing": ("np.sqrt(alpha) *", "alpha *"),
    "the variance of the forward step": ("(1 - abar_s) / (1 - abar_t) * beta\n    return", "beta\n    return"),
}


def check(yours, check: Check) -> None:
    for abar_s, abar_t in ((0.7, 0.45), (0.999, 0.99), (0.5, 1e-4)):
        alpha, found = abar_t / abar_s, np.array(yours.posterior(abar_s, abar_t))
        precision = alpha / (1 - alpha) + 1 / (1 - abar_s)
        on_x0, on_xt = np.sqrt(abar_s) / (1 - abar_s) / precision, np.sqrt(alpha) / (1 - alpha) / precision
        for what, one, other in zip(("on_x0", "on_xt", "variance"), found, (on_x0, on_xt, 1 / precision), strict=True):
            check.equal(f"{what} of posterior({abar_s}, {abar_t})", one, other, tolerance=1e-9)
    check.equal("posterior(1, 0.8), which leads to the picture,", np.array(yours.posterior(1.0, 0.8)), np.array([1.0, 0.0, 0.0]))
