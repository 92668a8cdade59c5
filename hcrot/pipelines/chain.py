"""All steps of DDIM as one function with a backward: what the image changes by when the noise, or the network, does.

A step of DDIM without noise (Song et al. 2021, eq. 12) is linear in x_t and in the prediction m of the network:

    x_0 = a x_t + b m                                                (``schedulers/predictions.py``)
    eps = (x_t - signal_t x_0) / sigma_t
    x_s = signal_s x_0 + sigma_s eps = p x_t + q m                   p = signal_s a + sigma_s (1 - signal_t a) / sigma_t
                                                                     q = signal_s b - sigma_s signal_t b / sigma_t

so with dx the gradient by x_s, the one by x_t is ``p dx + J^T (q dx)``, J^T by the network's own backward, which adds to the gradients of
its parameters on the way. The network is used once for each step, and its backwards run in the opposite order of its forwards: Module's law
for layers that are used several times in one pass.

This is what DiffusionCLIP trains through (Kim, Kwon & Ye 2022, arXiv:2110.02711, section 3.2). All steps keep what their backward needs, so
memory grows with their number: a few steps serve.
"""

from collections.abc import Sequence

import numpy as np

from hcrot.module import Module, check_gradient
from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.predictions import levels, slopes

__all__ = ["DDIMChain"]


class DDIMChain(Module):
    """From noise, or from any level, to images, with a gradient.

    Args:
        model: called ``model(x, t)`` or ``model(x, t, class_labels)``; its parameters are the chain's.
        scheduler: of the variance-preserving process that the model was trained with.
        timesteps: strictly descending integers, the first being the level of x; from the last the step leads to the image.

    Shapes:
        x (B, C, H, W) -> x_0 of the same shape, not clipped. ``backward(dx_0) -> dx``.

    Raises:
        ValueError, TypeError: timesteps that are not as described, or none.
    """

    def __init__(self, model: Module, scheduler: NoiseScheduler, timesteps: Sequence[int]):
        chosen = np.asarray(timesteps)
        if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu" or np.any(np.diff(chosen) >= 0):
            raise ValueError(f"DDIMChain: timesteps must be a strictly descending list of integers, got {timesteps!r:.80}")
        self.model = model
        self.steps = tuple((int(t), *step_of(scheduler, int(t), int(s))) for t, s in zip(chosen, [*chosen[1:], -1], strict=True))

    def forward(self, x: np.ndarray, *labels: np.ndarray) -> np.ndarray:
        self.save(x.shape, x.dtype)
        for t, p, q in self.steps:
            x = x.dtype.type(p) * x + x.dtype.type(q) * self.model(x, t, *labels)
        return x

    def backward(self, dout: np.ndarray) -> np.ndarray:
        shape, dtype = self.saved()
        check_gradient("DDIMChain", dout, shape, dtype)
        dx = dout
        for _, p, q in reversed(self.steps):
            through = self.model.backward(dtype.type(q) * dx)
            dx = dtype.type(p) * dx + (through[0] if isinstance(through, tuple) else through)
        return dx


def step_of(scheduler: NoiseScheduler, timestep: int, following: int) -> tuple[float, float]:
    """p and q of the step from one timestep to the next; -1 is the image, where signal = 1 and sigma = 0."""
    (signal_t, sigma_t), (a, b) = levels(scheduler, timestep), slopes(scheduler, timestep)
    signal_s, sigma_s = (1.0, 0.0) if following < 0 else levels(scheduler, following)
    return signal_s * a + sigma_s * (1 - signal_t * a) / sigma_t, signal_s * b - sigma_s * signal_t * b / sigma_t
