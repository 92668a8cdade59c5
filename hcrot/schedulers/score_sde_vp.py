"""The variance preserving SDE run backward: Song et al. 2021, arXiv:2011.13456, with the names of diffusers' ScoreSdeVpScheduler.

(b) and (c) are lines of hcrot/schedulers/sde.py; its line VP has beta(t), m(t) and s(t). The model predicts the noise, so that

    (e)  score = -model_output/s(t)

and one step of Euler-Maruyama goes along (c), with dt = 1/N for N times:

    (f)  mean = x - (f(x, t) - g^2 score) dt = x + (beta x/2 + beta score) dt,  x' = mean + sqrt(beta dt) z,  z ~ N(0, I)
"""

from __future__ import annotations

import math

import numpy as np

from hcrot.schedulers.base import Timesteps
from hcrot.schedulers.config import register_to_config
from hcrot.schedulers.score_sde import ScoreSdeScheduler
from hcrot.schedulers.sde import VPSDE

__all__ = ["ScoreSdeVpScheduler"]


class ScoreSdeVpScheduler(ScoreSdeScheduler):
    """The step (f), with the arguments, defaults and numbers of diffusers' class.

    `add_noise` and `get_velocity`, which diffusers' class lacks, take continuous times from 0 to 1.

    Args:
        num_train_timesteps: as many times as `timesteps` has before `set_timesteps` is called.
        beta_min, beta_max: beta(0) and beta(1).
        sampling_eps: the last time, above 0, where s(t) vanishes.

    Attributes: those of `ScoreSdeScheduler`; sde is a `VPSDE`.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 2000, beta_min: float = 0.1, beta_max: float = 20.0, sampling_eps: float = 1e-3
    ) -> None:
        super().__init__(VPSDE(beta_min, beta_max))

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Choose N equally spaced times, from 1 to sampling_eps.

        Raises:
            TypeError, ValueError: N is no integer of at least 1.
        """
        self.timesteps = self._times(num_inference_steps, self.config["sampling_eps"])
        self.num_inference_steps = len(self.timesteps)

    def step_pred(
        self,
        score: np.ndarray,
        x: np.ndarray,
        t: Timesteps | float,
        generator: np.random.Generator | None = None,
        *,
        noise: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One step of (f).

        Args:
            score: what the model says at (x, t), the noise and not yet the score, see (e); (B, ...) float32 or float64.
            x: x(t), of the same shape and dtype.
            t: one time for all, or (B,), above 0 and at most 1.
            generator: draws z.
            noise: instead of a generator z itself, of the shape and dtype of x.

        Returns:
            x' and its mean, (B, ...) of the dtype of x.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a time out of range; set_timesteps not called; not one
                of generator and noise given.
        """
        steps = self._check_timesteps_are_set("step_pred")
        self._check_arrays("step_pred", x=x, score=score, noise=noise)
        self._check_source_of_noise(generator, noise)
        times = self._checked_time("step_pred", t, x)
        if np.any(times == 0):
            raise ValueError(f"{self._name}.step_pred: t is 0, where there is no noise to predict, expected a time above 0")
        z = self._drawn_noise(float(times.flat[0]), x, generator, noise)
        column = (-1, *(1,) * (x.ndim - 1))
        std, diffusion = (level.astype(x.dtype).reshape(column) for level in (self.sde.std(times), self.sde.diffusion(times)))
        mean = x - self.sde.reverse_drift(x, times, -score / std) / steps
        return mean + diffusion / x.dtype.type(math.sqrt(steps)) * z, mean

    def _levels_of_images(self, method: str, sample: np.ndarray, timesteps: Timesteps) -> tuple[np.ndarray, np.ndarray]:
        """m(t) and s(t) of (b), for `add_noise` and `get_velocity`."""
        times = self._checked_time(method, timesteps, sample)
        column = (-1, *(1,) * (sample.ndim - 1))
        signal, std = self.sde.signal(times), self.sde.std(times)
        return signal.astype(sample.dtype).reshape(column), std.astype(sample.dtype).reshape(column)
