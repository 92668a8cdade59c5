"""The time as a network sees it.

Time t in 0 .. T-1 becomes [cos(t f_0), ..., cos(t f_(h-1)), sin(t f_0), ..., sin(t f_(h-1))] with f_i = 10000^(-i/h), so that near times
look similar and far ones different.
"""

import numpy as np


def embedding(t: np.ndarray, channels: int) -> np.ndarray:
    """(N,) -> (N, channels)."""
    if channels % 2:
        raise ValueError(f"embedding: channels must be even, got {channels}")
    half = channels // 2
    frequencies = 10000.0 ** (-np.arange(half) / half)
    angles = t[:, None] * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def time_input(t: np.ndarray, num_train_timesteps: int, channels: int) -> np.ndarray:
    """What the network gets for the times t (N,), integers below num_train_timesteps."""
    if t.min() < 0 or t.max() >= num_train_timesteps:
        raise ValueError(f"time_input: t ranges from {t.min()} to {t.max()}, expected 0 .. {num_train_timesteps - 1}")
    # bug: begin
    return embedding(t / num_train_timesteps, channels)
    # bug: mended
    return embedding(t, channels)
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
The network treats all times nearly alike: its predictions are too strong for nearly clean images and too weak for noisy ones. The
gradients of the layers behind the time's embedding are small, but they are right.
"""

HINTS = [
    "Draw the embeddings of all times as a picture, one row for each time. What do you expect, and what do you see?",
    "Compute the distance between the embeddings of t = 0 and t = T-1, and between t = 0 and t = 1.",
    "The frequencies go from 1 down to 1/10000: they are made for t from 0 to a thousand. Which t does `embedding` get?",
]

EXPLANATION = """
t was divided by T first, so it ran from 0 to 1. The fastest of the waves then makes a sixth of a turn over all times, and the others
stand still: all times have nearly the same embedding. Models that take a t in [0, 1] multiply it by 1000 first, or have other
frequencies. When you take over an embedding, take over the unit of time with it.
"""


def check(yours, check) -> None:
    waves = yours.time_input(np.arange(1000), 1000, 32)
    check.equal("the shape for a thousand times", np.shape(waves), (1000, 32))
    nearest = np.linalg.norm(np.diff(waves, axis=0), axis=1).min()
    farthest = np.linalg.norm(waves[:, None, ::2] - waves[None, ::50, ::2], axis=2).max()
    check.that(nearest > 0.1, f"two neighbouring times differ by {nearest:.2g} only, beside numbers of size 1")
    check.that(farthest > 2, f"no two times differ by more than {farthest:.2g}")
    check.equal("the first and the last wave of t = 999", waves[999, [0, 31]], [np.cos(999), np.sin(999 * 10000 ** (-15 / 16))])
