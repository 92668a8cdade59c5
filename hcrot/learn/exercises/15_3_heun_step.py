"""A second-order step.

y follows the equation dy/dlam = slope(y, lam), which for a diffusion model is the noise that the network sees. Write `heun_step`, which
goes from y at lam to next_lam: along the slope at the start first, then along the mean of that slope and the one found there. It calls
slope twice. Where next_lam is 0 a network cannot be asked: take Euler's step, with one call.
"""

from collections.abc import Callable

import numpy as np


def heun_step(slope: Callable[[np.ndarray, float], np.ndarray], y: np.ndarray, lam: float, next_lam: float) -> np.ndarray:
    # yours: begin
    first = slope(y, lam)
    euler = y + (next_lam - lam) * first
    if next_lam == 0:
        return euler
    return y + (next_lam - lam) * (first + slope(euler, next_lam)) / 2
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Euler's step is y + (next_lam - lam) * slope(y, lam). Keep the slope, it is needed again.",
    "The second slope is taken at the end of Euler's step, at next_lam, but the final step starts from the old y.",
    "y + (next_lam - lam) * (first + second) / 2; return Euler's step where next_lam is 0, before slope is called again.",
]
DERIVATION = """
With h = next_lam - lam, the solution is y + h f + h^2/2 f' + O(h^3), f the slope at the start and f' its derivative along the path. Euler
has the first two terms. The slope at the end of Euler's step is f + h f' + O(h^2), so y + h (f + f + h f') / 2 = y + h f + h^2/2 f': it
agrees with the solution up to O(h^3) in a step, and O(h^2) over the whole way. Half the step, a quarter of the error.
Karras et al. 2022, arXiv:2206.00364, algorithm 1, which also ends with Euler's step.
"""
WRONG = {
    "the final step starts from Euler's": ("return y + (next_lam - lam) * (first +", "return euler + (next_lam - lam) * (first +"),
    "a sum in place of the mean": ("next_lam)) / 2", "next_lam))"),
    "the second slope at the old level": ("slope(euler, next_lam)", "slope(euler, lam)"),
    "the network is asked at 0": ("if next_lam == 0:", "if next_lam < 0:"),
}


def check(yours, check: Check) -> None:
    y, calls = check.normal(4), []

    def slope(y, lam):
        calls.append(lam)
        check.that(lam > 0, "slope is called at lam = 0, where a network sees no noise")
        return lam * y / (0.25 + lam**2) + 0.1 * np.sin(y)

    for lam, following in ((3.0, 2.0), (1.0, 0.4)):
        calls.clear()
        found = yours.heun_step(slope, y, lam, following)
        check.that(len(calls) == 2, f"slope is called {len(calls)} times in a step, expected 2")
        first = slope(y, lam)
        second = slope(y + (following - lam) * first, following)
        check.equal(f"the step from {lam} to {following}", found, y + (following - lam) * (first + second) / 2)
    check.equal("the step from 0.5 to 0", yours.heun_step(slope, y, 0.5, 0.0), y - 0.5 * slope(y, 0.5))
    found = []
    for count in (40, 80):
        place = np.array([2.0])
        levels = np.linspace(3, 1, count + 1)
        for lam, following in zip(levels[:-1], levels[1:], strict=True):
            place = yours.heun_step(lambda y, lam: lam * y / (0.25 + lam**2), place, lam, following)
        found.append(abs(place[0] - 2 * np.sqrt(1.25 / 9.25)))
    ratio = found[0] / found[1]
    check.that(3.5 < ratio < 4.5, f"twice as many steps divide the error by {ratio:.2f}, expected 4 of a second-order step")
