"""A learning rate that warms up and then follows a cosine.

For steps 0, 1, ..., warmup - 1 it is lr (step + 1) / warmup; then lr (1 + cos(pi p)) / 2, where p goes from 0 to 1 over what is left.
"""

import math


def learning_rate(step: int, lr: float, warmup: int, steps: int) -> float:
    """The rate of this step.

    Args:
        step: counted from 0.
        lr: the highest rate.
        warmup: how many steps it takes to get there.
        steps: how many steps there are in all.
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"learning_rate: warmup must be from 0 to steps - 1, got {warmup} of {steps}")
    # bug: begin
    if step < warmup:
        return lr * step / warmup
    # bug: mended
    if step < warmup:
        return lr * (step + 1) / warmup
    # bug: end
    done = (step - warmup) / (steps - warmup)
    return lr * (1 + math.cos(math.pi * done)) / 2


# kept back: the learner's file ends here

import numpy as np

SYMPTOM = """
The first step of each run changes no weight at all. My quick test of two steps, one of them warm-up, makes only one. In long runs I see
nothing, but for Adam's averages: the first gradient is counted and never used.
"""

HINTS = [
    "Print the rates of a run of 10 steps, 4 of them warm-up.",
    "What is the rate of the very first step? And of the step just before the cosine begins?",
    "Steps are counted from 0. The formula above counts differently from the code.",
]

EXPLANATION = """
The first step had the rate 0 and was wasted, and the step before the cosine did not reach the top. An off-by-one in a schedule is nearly
harmless in a long run, and total in a short one. Both conventions are in use: PyTorch's LambdaLR with the usual lambda really begins at
0. So read what a schedule promises, and print its first and last values.
"""


def check(yours, check) -> None:
    rates = [yours.learning_rate(step, 1.0, 4, 10) for step in range(10)]
    check.that(rates[0] > 0, f"the first of ten steps, four of them warm-up, has the rate {rates[0]}, so it changes nothing")
    check.equal("the first four rates", rates[:4], [0.25, 0.5, 0.75, 1.0])
    check.equal("the others", rates[4:], [(1 + np.cos(np.pi * k / 6)) / 2 for k in range(6)])
    check.equal("the first rate without a warm-up", yours.learning_rate(0, 1.0, 0, 10), 1.0)
