"""The variance preserving SDE run backward: Song et al. 2021, arXiv:2011.13456, with the names of diffusers' ScoreSdeVpScheduler.

(b) and (c) are lines of hcrot/schedulers/sde.py; its line VP has beta(t), m(t) and s(t). The model predicts the noise, so that

    (e)  score = -model_output/s(t)

and one step of Euler-Maruyama goes along (c), with dt = 1/N for N times:

    (f)  mean = x - (f(x, t) - g^2 score) dt = x + (beta x/2 + beta score) dt,  x' = mean + sqrt(beta dt) z,  z ~ N(0, I)

The corrector, which diffusers' class lacks, is algorithm 5 there, with |.| as in hcrot/schedulers/score_sde_ve.py and, for the paper's
1 - beta dt, alpha = e^{-beta dt}, which is above 0 for long steps too:

    (g)  x' = x + eps score + sqrt(2 eps) z,  eps = 2 alpha (snr |z|/|score|)^2
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hcrot.schedulers.base import Timesteps
from hcrot.schedulers.config import checked_positive, register_to_config
from hcrot.schedulers.score_sde import ScoreSdeScheduler
from hcrot.schedulers.score_sde_ve import langevin_step_size
from hcrot.schedulers.sde import VPSDE

__all__ = ["ScoreSdeVpScheduler"]

OWN_SNR = 0.16  # the paper's, appendix G


class ScoreSdeVpScheduler(ScoreSdeScheduler):
    """The step (f), with the arguments, defaults and numbers of diffusers' class, and (g).

    `add_noise` and `get_velocity`, which diffusers' class lacks, take continuous times from 0 to 1.

    Args:
        num_train_timesteps: as many times as `timesteps` has before `set_timesteps` is called.
        beta_min, beta_max: beta(0) and beta(1).
        sampling_eps: the last time, above 0, where s(t) vanishes.

    Attributes: those of `ScoreSdeScheduler`; sde is a `VPSDE`.

    Example:
        >>> scheduler = hcrot.ScoreSdeVpScheduler()
        >>> scheduler.set_timesteps(4)
        >>> scheduler.timesteps.round(3)                         # continuous times, from noise to almost none
        array([1.   , 0.667, 0.334, 0.001], dtype=float32)
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 2000, beta_min: float = 0.1, beta_max: float = 20.0, sampling_eps: float = 1e-3
    ) -> None:
        super().__init__(VPSDE(beta_min, beta_max))

    def set_timesteps(
        self, num_inference_steps: int | None = None, *, timesteps: Sequence[float] | np.ndarray | None = None
    ) -> None:
        """Choose N equally spaced times, from 1 to sampling_eps, or a list.

        Args:
            num_inference_steps: N, at least 1.
            timesteps: instead, strictly descending times above 0, at most 1. The dt of (f) is then the way to the next time, from the
                last one to 0, in place of 1/N.

        Raises:
            TypeError, ValueError: both or neither given, an argument that is not as described.
        """
        self._visit_times(num_inference_steps, timesteps, self.config["sampling_eps"])

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
        count = self._check_timesteps_are_set("step_pred")
        self._check_arrays("step_pred", x=x, score=score, noise=noise)
        self._check_source_of_noise(generator, noise)
        times = self._checked_time("step_pred", t, x)
        if np.any(times == 0):
            raise ValueError(f"{self._name}.step_pred: t is 0, where there is no noise to predict, expected a time above 0")
        z = self._drawn_noise(float(times.flat[0]), x, generator, noise)
        column = (-1, *(1,) * (x.ndim - 1))
        std, diffusion = (level.astype(x.dtype).reshape(column) for level in (self.sde.std(times), self.sde.diffusion(times)))
        drift = self.sde.reverse_drift(x, times, -score / std)
        if not self.follow_timesteps:
            mean = x - drift / count
            return mean + diffusion / x.dtype.type(math.sqrt(count)) * z, mean
        dt = self._way("step_pred", times).astype(x.dtype).reshape(column)
        mean = x - drift * dt
        return mean + diffusion * np.sqrt(dt) * z, mean

    def step_correct(
        self,
        score: np.ndarray,
        x: np.ndarray,
        t: float,
        generator: np.random.Generator | None = None,
        *,
        noise: np.ndarray | None = None,
        snr: float = OWN_SNR,
    ) -> np.ndarray:
        """One step of (g), which stays at time t.

        Args:
            score, x, generator, noise: those of `step_pred`; the noise that the model says must not be zero everywhere.
            t: one time for all, above 0 and at most 1.
            snr: how large the step is, the ratio of its parts with the score and with noise.

        Returns:
            x', (B, ...) of the dtype of x.

        Raises:
            TypeError, ValueError: those of `step_pred`; a score of zero.
        """
        where, count = f"{self._name}.step_correct", self._check_timesteps_are_set("step_correct")
        self._check_arrays("step_correct", x=x, score=score, noise=noise)
        self._check_source_of_noise(generator, noise)
        if np.ndim(t) > 0:
            raise ValueError(f"{where}: t has shape {np.shape(t)}, expected one number: the step is as long for all images")
        time = float(self._checked_time("step_correct", t, x))
        slope, z = self.score(score, time), self._drawn_noise(time, x, generator, noise)
        dt = float(self._way("step_correct", time)) if self.follow_timesteps else 1 / count
        alpha = math.exp(2 * float(self.sde.drift_rate(time)) * dt)
        size = alpha * langevin_step_size(where, slope, z, checked_positive(f"{where}: snr", snr))
        return x + size * slope + math.sqrt(2 * size) * z

    def _way(self, method: str, times: np.ndarray | float) -> np.ndarray:
        """How far the next time of the list is, from the last one 0, for each of these."""
        return -np.diff(self.timesteps, append=np.float32(0))[self._places(method, times)]

    def score(self, model_output: np.ndarray, timestep: float) -> np.ndarray:
        std = float(self.sde.std(timestep))
        if std == 0:
            raise ValueError(f"{self._name}.score: t is 0, where there is no noise, expected a time above 0")
        return -model_output / model_output.dtype.type(std)

    def predicted(
        self, model_output: np.ndarray, timestep: float, sample: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.step_pred(model_output, sample, timestep, generator)

    def corrected(
        self, model_output: np.ndarray, timestep: float, sample: np.ndarray, generator: np.random.Generator, snr: float | None = None
    ) -> np.ndarray:
        return self.step_correct(model_output, sample, timestep, generator, snr=OWN_SNR if snr is None else snr)

    def _levels_of_images(self, method: str, sample: np.ndarray, timesteps: Timesteps) -> tuple[np.ndarray, np.ndarray]:
        """m(t) and s(t) of (b), for `add_noise` and `get_velocity`."""
        times = self._checked_time(method, timesteps, sample)
        column = (-1, *(1,) * (sample.ndim - 1))
        signal, std = self.sde.signal(times), self.sde.std(times)
        return signal.astype(sample.dtype).reshape(column), std.astype(sample.dtype).reshape(column)
