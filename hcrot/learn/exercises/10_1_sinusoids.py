"""The sinusoidal embedding of times.

Make times (N,) into rows of ``width`` numbers, where width = 2 h is even: the cosines of t f_0, ..., t f_(h-1), then the sines of the same
angles, or the other way round with ``sines_first``. The frequencies are f_i = 10000^(-i / h).
"""

import numpy as np


def sinusoids(times: np.ndarray, width: int, sines_first: bool = False) -> np.ndarray:
    """(N,) -> (N, width)."""
    # yours: begin
    half = width // 2
    angles = times[:, None] * 10000.0 ** (-np.arange(half) / half)
    waves = [np.sin(angles), np.cos(angles)] if sines_first else [np.cos(angles), np.sin(angles)]
    return np.concatenate(waves, axis=1)
    # yours: end


# kept back: the learner's file ends here

import hcrot  # noqa: E402
from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Begin with the frequencies (h,): np.arange(h) / h is the exponent, and it is negative.",
    "times[:, None] has the shape (N, 1); times (h,) it becomes (N, h): all angles at once.",
    "np.concatenate([np.cos(angles), np.sin(angles)], axis=1): all cosines come before all sines, they do not alternate.",
]
DERIVATION = """
angle[n, i] = t_n f_i with f_i = 10000^(-i / h), i = 0 ... h - 1. Two arrays (N, h) side by side are (N, 2 h).
Each pair (cos, sin) is a point on a circle: the length of every row is sqrt(h), whatever t is. And

    <e(t), e(s)> = sum_i cos(t f_i) cos(s f_i) + sin(t f_i) sin(s f_i) = sum_i cos((t - s) f_i),

which depends on t - s alone. Source: Vaswani et al. 2017, section 3.5 (where sines and cosines alternate); Ho et al. 2020, appendix B.
"""
WRONG = {
    "divided by h - 1": ("-np.arange(half) / half", "-np.arange(half) / (half - 1)"),
    "frequencies grow": ("(-np.arange(half) / half)", "(np.arange(half) / half)"),
    "the order is ignored": (" if sines_first else [np.cos(angles), np.sin(angles)]", ""),
    "alternating": ("np.concatenate(waves, axis=1)", "np.stack(waves, axis=2).reshape(len(times), width)"),
}


def check(yours, check: Check) -> None:
    times = np.array([0, 1, 37, 999])
    for width, sines_first in ((8, False), (6, True), (4, False)):
        expected = hcrot.Timesteps(width, flip_sin_to_cos=not sines_first)(times, np.float64)
        what = f"the embedding of width {width}, {'sines' if sines_first else 'cosines'} first"
        check.equal(what, yours.sinusoids(times, width, sines_first), expected)
    check.equal("the embedding of one half", yours.sinusoids(np.array([0.5]), 4), hcrot.Timesteps(4)(np.array([0.5]), np.float64))
