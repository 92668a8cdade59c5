"""The variance exploding SDE run backward, with corrections: Song et al. 2021, arXiv:2011.13456, and diffusers' ScoreSdeVeScheduler.

Line VE of hcrot/schedulers/sde.py has sigma(t). Here there are N levels of it, sigma_0 = sigma_min .. sigma_{N-1} = sigma_max, with
equally spaced logarithms, sigma_{-1} = 0, and a time t belongs to level i = floor(t (N - 1)). z ~ N(0, I), and the model's output is
the score itself. The predictor is algorithm 2 there, the corrector algorithm 4:

    (e)  mean = x + (sigma_i^2 - sigma_{i-1}^2) score,  x' = mean + sqrt(sigma_i^2 - sigma_{i-1}^2) z
    (f)  x' = x + eps score + sqrt(2 eps) z,  eps = 2 (snr |z|/|score|)^2

with |.| the norm over an image, averaged over the batch. (f) is a step of Langevin's dynamics: it leaves the level of noise and
mends the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np

from hcrot.schedulers.base import SchedulerOutput, Timesteps
from hcrot.schedulers.config import checked_positive, register_to_config
from hcrot.schedulers.score_sde import ScoreSdeScheduler
from hcrot.schedulers.sde import VESDE

__all__ = ["ScoreSdeVeScheduler", "SdeVeOutput", "langevin_step_size"]


@dataclass
class SdeVeOutput:
    """What `step_pred` returns: x' and its mean, each of the sample's shape."""

    prev_sample: np.ndarray
    prev_sample_mean: np.ndarray


def langevin_step_size(where: str, score: np.ndarray, noise: np.ndarray, snr: float) -> float:
    """eps of (f), for a score and z (noise) of shape (B, ...).

    Raises:
        ValueError: the score is zero everywhere, or not finite; where begins the message.
    """
    noise_norm, score_norm = (float(np.linalg.norm(array.reshape(len(array), -1), axis=1).mean()) for array in (noise, score))
    if not 0 < score_norm < math.inf:
        raise ValueError(f"{where}: the mean norm of the score is {score_norm}, expected a positive number")
    return 2 * (snr * noise_norm / score_norm) ** 2


class ScoreSdeVeScheduler(ScoreSdeScheduler):
    """The steps (e) and (f), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps: N before `set_timesteps` and `set_sigmas` are called.
        snr: how large the step of (f) is, the ratio of its parts with the score and with noise.
        sigma_min, sigma_max: sigma_0 and sigma_{N-1}; the second one is the larger.
        sampling_eps: the last time.
        correct_steps: how often `step_correct` is to be called at each time: the loop's to see to, as in diffusers.

    Attributes:
        sigmas: sigma(t) at each of `timesteps`, (N,) float32, which models of this kind are told in place of t.
        discrete_sigmas: sigma_0 .. sigma_{N-1}, (N,) float32.
        init_noise_sigma: sigma_max.
        Further those of `ScoreSdeScheduler`; sde is a `VESDE`.

    Example:
        >>> scheduler = hcrot.ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=100.0)
        >>> scheduler.set_timesteps(5)
        >>> scheduler.set_sigmas(5)
        >>> [round(float(sigma), 2) for sigma in scheduler.sigmas]             # each a tenth of the one before
        [100.0, 10.0, 1.0, 0.1, 0.01]
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 2000,
        snr: float = 0.15,
        sigma_min: float = 0.01,
        sigma_max: float = 1348.0,
        sampling_eps: float = 1e-5,
        correct_steps: int = 1,
    ) -> None:
        super().__init__(VESDE(sigma_min, sigma_max))
        self.init_noise_sigma = sigma_max
        self.set_sigmas(num_train_timesteps)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        sampling_eps: float | None = None,
        *,
        timesteps: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        """Choose N equally spaced times, from 1 to sampling_eps; `set_sigmas` with the same N has to follow. Or a list of times.

        Args:
            num_inference_steps: N, at least 1.
            sampling_eps: in place of the scheduler's own.
            timesteps: instead, strictly descending times above 0, at most 1. The levels sigma_i are then sigma(t) of these times, so
                that each step of (e) leads to the next time, and the last one to sigma_{-1} = 0. `set_sigmas` need not follow.

        Raises:
            TypeError, ValueError: an argument that is not as described; not one of N and timesteps given.
        """
        self._visit_times(num_inference_steps, timesteps, self.config["sampling_eps"] if sampling_eps is None else sampling_eps)
        if timesteps is not None:
            self.set_sigmas(len(self.timesteps))

    def set_sigmas(
        self,
        num_inference_steps: int,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        """Choose the N levels.

        Args:
            num_inference_steps: N, the number of `timesteps`.
            sigma_min, sigma_max: in place of the scheduler's own. (diffusers has a sampling_eps, too, which does nothing after
                `set_timesteps`.)

        Raises:
            TypeError, ValueError: N is not the number of timesteps; a sigma that is no positive number, or the first not the smaller.
        """
        where = f"{self._name}.set_sigmas"
        if num_inference_steps != len(self.timesteps):
            raise ValueError(
                f"{where}: num_inference_steps is {num_inference_steps}, expected {len(self.timesteps)} as there are timesteps"
            )
        low, high = (
            self.config[name] if value is None else checked_positive(f"{where}: {name}", value)
            for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max))
        )
        self.sde = VESDE(low, high)
        logarithms = np.linspace(math.log(low), math.log(high), num_inference_steps, dtype=np.float32)
        self.sigmas = (low * (high / low) ** self.timesteps).astype(np.float32)
        self.discrete_sigmas = self.sigmas[::-1].copy() if self.follow_timesteps else np.exp(logarithms)

    @overload
    def step_pred(
        self, model_output: np.ndarray, timestep: Timesteps | float, sample: np.ndarray, generator: np.random.Generator | None = ...,
        return_dict: Literal[True] = ..., *, noise: np.ndarray | None = ...
    ) -> SdeVeOutput: ...

    @overload
    def step_pred(
        self, model_output: np.ndarray, timestep: Timesteps | float, sample: np.ndarray, generator: np.random.Generator | None = ...,
        *, return_dict: Literal[False], noise: np.ndarray | None = ...
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def step_pred(
        self,
        model_output: np.ndarray,
        timestep: Timesteps | float,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        return_dict: bool = True,
        *,
        noise: np.ndarray | None = None,
    ) -> SdeVeOutput | tuple[np.ndarray, np.ndarray]:
        """One step of (e), from the level of this time to the one below.

        Args:
            model_output: the score at (sample, timestep), (B, ...) float32 or float64.
            timestep: t, one for all or (B,), within 0 .. 1.
            sample: x, of the same shape and dtype.
            generator: draws z.
            return_dict: False returns the tuple (prev_sample, prev_sample_mean).
            noise: instead of a generator z itself, of the shape and dtype of sample.

        Returns:
            x' and its mean, (B, ...) of the dtype of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a time out of range; set_timesteps not called, or set_sigmas
                not after it; not one of generator and noise given.
        """
        self._check_ready("step_pred")
        self._check_arrays("step_pred", sample=sample, model_output=model_output, noise=noise)
        self._check_source_of_noise(generator, noise)
        times = self._checked_time("step_pred", timestep, sample)
        last = len(self.timesteps) - 1
        if self.follow_timesteps:
            level = np.atleast_1d(last - self._places("step_pred", times))
        else:  # in float32, as in diffusers: it decides which level a time belongs to
            level = np.atleast_1d(times.astype(np.float32) * np.float32(last)).astype(np.int64)
        z = self._drawn_noise(float(times.flat[0]), sample, generator, noise)
        below = np.where(level == 0, np.float32(0), self.discrete_sigmas[level - 1])
        diffusion = np.sqrt(self.discrete_sigmas[level] ** 2 - below**2).astype(sample.dtype)
        diffusion = diffusion.reshape(-1, *(1,) * (sample.ndim - 1))
        mean = sample + diffusion**2 * model_output
        prev_sample = mean + diffusion * z
        return SdeVeOutput(prev_sample, mean) if return_dict else (prev_sample, mean)

    @overload
    def step_correct(
        self, model_output: np.ndarray, sample: np.ndarray, generator: np.random.Generator | None = ..., return_dict: Literal[True] = ...,
        *, noise: np.ndarray | None = ..., snr: float | None = ...
    ) -> SchedulerOutput: ...

    @overload
    def step_correct(
        self, model_output: np.ndarray, sample: np.ndarray, generator: np.random.Generator | None = ...,
        *, return_dict: Literal[False], noise: np.ndarray | None = ..., snr: float | None = ...
    ) -> tuple[np.ndarray, ...]: ...

    def step_correct(
        self,
        model_output: np.ndarray,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        return_dict: bool = True,
        *,
        noise: np.ndarray | None = None,
        snr: float | None = None,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """One step of (f).

        Args:
            model_output: the score at (sample, timestep), (B, ...) float32 or float64, not all of it zero.
            sample: x, of the same shape and dtype.
            generator: draws z.
            return_dict: False returns the tuple (prev_sample,).
            noise: instead of a generator z itself, of the shape and dtype of sample.
            snr: in place of the scheduler's own.

        Returns:
            x', (B, ...) of the dtype of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a score of zero; set_timesteps not called; not one of generator
                and noise given.
        """
        self._check_ready("step_correct")
        self._check_arrays("step_correct", sample=sample, model_output=model_output, noise=noise)
        self._check_source_of_noise(generator, noise)
        z = self._drawn_noise(0, sample, generator, noise)
        ratio = self.config["snr"] if snr is None else checked_positive(f"{self._name}.step_correct: snr", snr)
        size = langevin_step_size(f"{self._name}.step_correct", model_output, z, ratio)
        prev_sample = sample + size * model_output
        prev_sample += math.sqrt(2 * size) * z
        return SchedulerOutput(prev_sample).returned(return_dict)

    def noise_conditioning(self, timestep: float) -> float:
        return float(self.sigmas[self._places("noise_conditioning", timestep)])

    def score(self, model_output: np.ndarray, timestep: float) -> np.ndarray:
        return model_output

    def predicted(
        self, model_output: np.ndarray, timestep: float, sample: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.step_pred(model_output, timestep, sample, generator, return_dict=False)

    def corrected(
        self, model_output: np.ndarray, timestep: float, sample: np.ndarray, generator: np.random.Generator, snr: float | None = None
    ) -> np.ndarray:
        return self.step_correct(model_output, sample, generator, snr=snr).prev_sample

    def _check_ready(self, method: str) -> None:
        """That there are timesteps, and as many levels as those."""
        count = self._check_timesteps_are_set(method)
        if count != len(self.discrete_sigmas):
            raise ValueError(
                f"{self._name}.{method}: there are {count} timesteps and {len(self.discrete_sigmas)} sigmas, "
                f"expected set_sigmas({count}) after set_timesteps({count})"
            )

    def _levels_of_images(self, method: str, sample: np.ndarray, timesteps: Timesteps) -> tuple[np.ndarray, np.ndarray]:
        """1 and sigma_i of these levels i, for `add_noise`, whose timesteps are levels as in diffusers: integers in 0 .. N-1."""
        level, where = np.asarray(timesteps), f"{self._name}.{method}"
        if level.dtype.kind not in "iu":
            raise TypeError(f"{where}: timesteps have dtype {level.dtype}, expected integers, the numbers of levels")
        if level.shape not in ((), (1,), sample.shape[:1]):
            raise ValueError(f"{where}: timesteps has shape {level.shape}, expected one integer or {sample.shape[:1]}")
        if np.any((level < 0) | (level >= len(self.discrete_sigmas))):
            raise ValueError(f"{where}: timesteps range from {level.min()} to {level.max()}, expected 0 .. {len(self.discrete_sigmas) - 1}")
        sigma = self.discrete_sigmas[level].astype(sample.dtype).reshape(-1, *(1,) * (sample.ndim - 1))
        return np.ones_like(sigma), sigma

    _highest_level = math.inf

    def _signal_and_sigma_at(self, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ones_like(level), level

    def get_velocity(self, sample: np.ndarray, noise: np.ndarray, timesteps: Timesteps) -> np.ndarray:
        """There is none: the velocity is defined for processes that preserve the variance."""
        raise NotImplementedError(f"{self._name}.get_velocity: expected a scheduler that preserves the variance")
