"""A whole sampling loop of DDPM, over any list of levels.

`model(x, t)` returns the noise that it sees in x at the level t. `timesteps` are descending; the last step leads to the picture. Write
`sample`: it begins with x, calls the model once at each timestep, estimates x0, and draws from the posterior between t and the level s
that is visited next. `draw()` returns noise of the shape of x; at the last step nothing is drawn.

abar (T,) are the products of the alphas; the picture has abar = 1.
"""

from collections.abc import Callable, Sequence

import numpy as np


def sample(model: Callable, x: np.ndarray, timesteps: Sequence[int], abar: np.ndarray, draw: Callable[[], np.ndarray]) -> np.ndarray:
    for index, t in enumerate(timesteps):
        # yours: begin
        last = index + 1 == len(timesteps)
        abar_t, abar_s = abar[t], 1.0 if last else abar[timesteps[index + 1]]
        alpha = abar_t / abar_s
        beta = 1 - alpha
        x0 = (x - np.sqrt(1 - abar_t) * model(x, t)) / np.sqrt(abar_t)
        x = np.sqrt(abar_s) * beta / (1 - abar_t) * x0 + np.sqrt(alpha) * (1 - abar_s) / (1 - abar_t) * x
        if not last:
            x = x + np.sqrt((1 - abar_s) / (1 - abar_t) * beta) * draw()
        # yours: end
    return x


# kept back: the learner's file ends here

import hcrot  # noqa: E402
from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "First find abar_t and abar_s. s is timesteps[index + 1], and after the last one abar_s is 1.",
    "Between t and s, alpha is abar_t / abar_s, not 1 - beta_t: the steps in between are one step.",
    "x0 = (x - sqrt(1 - abar_t) eps) / sqrt(abar_t), then the posterior of chapter 14. No noise where s is the picture.",
]
DERIVATION = """
From s to t the forward process is one step with alpha = abar_t / abar_s (exercise 13-3), and the posterior q(x_s | x_t, x_0) has

    mean      sqrt(abar_s) beta / (1 - abar_t) x_0 + sqrt(alpha) (1 - abar_s) / (1 - abar_t) x_t
    variance  (1 - abar_s) / (1 - abar_t) beta

(exercise 14-1). The network's estimate stands in for x_0. With s = t - 1 in the place of the level that comes next, each step would remove
the noise of one level while the network is told that it is many levels further: with ten steps the noise stays in the picture.
Ho et al. 2020, arXiv:2006.11239, algorithm 2; Nichol & Dhariwal 2021, arXiv:2102.09672, section 4.
"""
WRONG = {
    "one timestep lower, whatever comes next": ("abar[timesteps[index + 1]]", "abar[t - 1]"),
    "noise at the last step, too": ("if not last:", "if True:"),
    "beta of the forward step as variance": ("np.sqrt((1 - abar_s) / (1 - abar_t) * beta)", "np.sqrt(beta)"),
}


def check(yours, check: Check) -> None:
    abar = np.cumprod(1 - np.linspace(1e-3, 0.08, 60))

    calls = []

    def model(x, t):
        calls.append(t)
        return np.tanh(x) * np.sqrt(1 - abar[t])

    for timesteps in ([59], [50, 40, 20, 3], [30, 29, 10, 0]):
        x, noises = check.normal(3, 4), [check.normal(3, 4) for _ in timesteps]
        scheduler = hcrot.DDPMScheduler(num_train_timesteps=60, trained_betas=np.linspace(1e-3, 0.08, 60), clip_sample=False)
        scheduler.set_timesteps(timesteps=timesteps)
        queue, expected = list(noises), x
        for t, noise in zip(timesteps, noises, strict=True):
            expected = scheduler.step(model(expected, t), t, expected, noise=noise).prev_sample

        def draw(queue=queue):
            check.that(bool(queue), "noise is drawn more than once in a step")
            return queue.pop(0)

        calls.clear()
        found = yours.sample(model, x, timesteps, abar, draw)
        check.that(calls == timesteps, f"the model was called at {calls}, expected one call at each of {timesteps}")
        left = len(queue)
        check.that(left == 1, f"timesteps {timesteps}: noise was drawn {len(noises) - left} times, expected {len(noises) - 1}")
        check.equal(f"what comes out with the timesteps {timesteps}", found, expected, tolerance=1e-4)
