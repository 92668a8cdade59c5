"""The cosine schedule.

Write `cosine_betas(T)`, which returns the T betas of the schedule "squaredcos_cap_v2". With f(u) = cos^2((u + 0.008) / 1.008 * pi / 2),
beta[t] is 1 - f((t+1)/T) / f(t/T), but never more than 0.999.
"""

import numpy as np


def cosine_betas(T: int) -> np.ndarray:
    # yours: begin
    u = np.arange(T + 1) / T
    f = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)
    # yours: end


# kept back: the learner's file ends here

import hcrot  # noqa: E402
from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Compute f once, at all T + 1 edges 0, 1/T, .. 1.",
    "f[1:] / f[:-1] has the ratios of neighbours, T of them.",
    "np.minimum(values, 0.999) is the cap. Without it the last beta is 1 (f(1) = 0), and the last alpha 0.",
]
DERIVATION = """
abar(u) = f(u) / f(0) is chosen, and the betas follow from it: abar_t = abar_{t-1} (1 - beta_t), so beta_t = 1 - abar_t / abar_{t-1}, in
which f(0) cancels. abar_t belongs to the end of step t, u = (t + 1)/T, and abar_{t-1} to its beginning, u = t/T. At u = 1 the cosine is
0, so the last beta would be 1: nothing of x_{T-2} would be left, and solving for x_0 would divide by zero. Hence the cap.
Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17.
"""
WRONG = {
    "no cap": ("np.minimum(1 - f[1:] / f[:-1], 0.999)", "1 - f[1:] / f[:-1]"),
    "the square is missing": (") ** 2", ")"),
    "one step late": ("np.arange(T + 1) / T", "np.arange(1, T + 2) / (T + 1)"),
}


def check(yours, check: Check) -> None:
    for T in (1000, 50, 1):
        found = yours.cosine_betas(T)
        scheduler = hcrot.DDPMScheduler(num_train_timesteps=T, beta_schedule="squaredcos_cap_v2")
        check.equal(f"cosine_betas({T})", found, scheduler.betas)
