"""Which times are visited.

Of the T times of training, ``steps`` are visited, evenly spaced from high to low. Sampling begins with pure noise.
"""

import numpy as np


def timesteps(num_train_timesteps: int, steps: int) -> np.ndarray:
    """The times to visit, (steps,) integers, falling.

    Args:
        num_train_timesteps: T. At T - 1 an image is noise, and nothing else.
        steps: how many, from 1 to T.
    """
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(f"timesteps: steps must be from 1 to {num_train_timesteps}, got {steps}")
    # bug: begin
    stride = num_train_timesteps // steps
    return stride * np.arange(steps)[::-1]
    # bug: mended
    return num_train_timesteps - 1 - (np.arange(steps) * num_train_timesteps) // steps
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
With 800 of 1000 steps the samples are worse than with 500: all of them are of a medium brightness, while with 500 there are dark ones and
bright ones. 1000 steps are fine.
"""

HINTS = [
    "Print the first and the last three times for 500, 800 and 1000 steps.",
    "Sampling begins with pure noise. At which time does the model believe that it gets it?",
    "1000 // 800 is 1. Count from the noisy end, so that whatever is left over is left at the clean one.",
]

EXPLANATION = """
The stride was rounded down to 1, so 800 steps visited the times 799 to 0, and the noisiest fifth was left out. The first x is pure noise,
but the model was told t = 799, where it has learned to find some signal: it finds signal in pure noise. With 500 it began at 998, which
nobody sees. This spacing is called "leading", and diffusers has it, too. "trailing" begins at T - 1 always; Lin et al. 2024
(arXiv:2305.08891) show pictures of the difference.
"""


def check(yours, check) -> None:
    for steps in (1000, 800, 500, 300, 7, 1):
        found = np.asarray(yours.timesteps(1000, steps))
        check.equal("how many times are visited", len(found), steps)
        inside = found.min() >= 0 and found.max() < 1000 and bool((np.diff(found) < 0).all())
        check.that(inside, f"the times for {steps} steps do not fall from at most 999 to at least 0")
        check.that(found[0] == 999, f"{steps} steps begin with pure noise, which the model is told is x_t at t = {found[0]} of 999")
        largest, farthest = int(np.ceil(1000 / max(1, steps - 1))), int(-np.diff(found).min(initial=0))
        check.that(farthest <= largest, f"{steps} steps once go {farthest} times down at once, expected {largest} at most")
