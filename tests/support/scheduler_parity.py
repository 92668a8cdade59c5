"""A scheduler beside diffusers' own: what the comparisons share."""

import numpy as np
import torch

SHAPE = (2, 3, 4, 5)
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("linspace", "leading", "trailing")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def difference(ours, theirs, least=0.0):
    """Largest difference, relative to the largest entry where that exceeds ``least``."""
    theirs = theirs.numpy()
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    return np.max(np.abs(ours - theirs)) / max(least, np.max(np.abs(theirs)))


def toy_model(sample, t):
    """Elementary operations only, so NumPy and PyTorch agree in all but the last bit; it depends on x and on t."""
    return 0.9 * sample / (1 + 0.1 * sample * sample) + 1e-4 * float(t)


def trajectories(ours, theirs, steps, rng):
    """The samples (ours, theirs) after each step of a walk without noise, each by its own steps, from the same start."""
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    mine = rng.standard_normal(SHAPE, dtype=np.float32)
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        mine = ours.step(toy_model(mine, t), t, mine).prev_sample
        yours = theirs.step(toy_model(yours, their_t), int(their_t), yours).prev_sample
        yield mine, yours
