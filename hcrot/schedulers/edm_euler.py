"""Euler's method with EDM's preconditioning: Karras et al. 2022, arXiv:2206.00364, algorithm 2 without its second evaluation.

(e) .. (g) are lines of hcrot/schedulers/edm.py. The step is (g) and the churn (h) of hcrot/schedulers/euler_discrete.py:

    x_hat = x + sqrt(sigma_hat^2 - sigma^2) S_noise z,  sigma_hat = (1 + gamma) sigma
    x' = D + (sigma'/sigma_hat) (x_hat - D),  D = c_skip x_hat + c_out F with the c of sigma_hat

F is what the model said of x at sigma, before the churn, as in diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from hcrot.schedulers.base import SchedulerOutput, Timesteps
from hcrot.schedulers.by_image import one_timestep_per_image
from hcrot.schedulers.config import register_to_config
from hcrot.schedulers.edm import EDMScheduler
from hcrot.schedulers.sigmas import euler_step

__all__ = ["EDMEulerScheduler"]


class EDMEulerScheduler(EDMScheduler):
    """The step above, with the arguments, defaults and numbers of diffusers' class.

    Args:
        sigma_min, sigma_max: the ends of the levels, the second one is the larger.
        sigma_data: the standard deviation of the data, see (e).
        sigma_schedule: "karras" or "exponential", see (g).
        num_train_timesteps: one less than the levels before `set_timesteps` is called.
        prediction_type: "epsilon" or "v_prediction", see (e).
        rho: of "karras"; the larger, the more of the levels are small.
        final_sigmas_type: where the walk ends, at "zero" or at the last level, "sigma_min".

    Attributes, errors: those of `EDMScheduler` and `VarianceExplodingScheduler`.

    Example:
        >>> scheduler = hcrot.EDMEulerScheduler()
        >>> scheduler.set_timesteps(4)
        >>> [round(float(sigma), 3) for sigma in scheduler.sigmas]             # most of the way in the first step
        [80.0, 9.723, 0.47, 0.002, 0.0]
    """

    @register_to_config
    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 0.5,
        sigma_schedule: str = "karras",
        num_train_timesteps: int = 1000,
        prediction_type: str = "epsilon",
        rho: float = 7.0,
        final_sigmas_type: str = "zero",
    ) -> None:
        super().__init__(num_train_timesteps + 1)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | np.ndarray | None = None,
        sigmas: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        """Walk N levels spaced by (g), or those of a list.

        Args:
            num_inference_steps: N, at least 1.
            timesteps: instead, strictly descending c_noise = log(sigma)/4, with sigma from sigma_max to sigma_min.
            sigmas: instead, strictly ascending numbers r within 0 .. 1 that (g) makes levels of: not sigmas, but as in diffusers.
                "exponential" needs none but their number, so there they are refused.

        Raises:
            TypeError, ValueError: not one of the three given, an N that is no integer of at least 1, a list that is not as described.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps, sigmas=sigmas)
        if sigmas is None:
            super().set_timesteps(num_inference_steps, timesteps=timesteps)
            return
        where, ramp = f"{self._name}.set_timesteps", np.asarray(sigmas)
        if self.config["sigma_schedule"] == "exponential":
            raise ValueError(f"{where}: sigmas cannot be chosen with sigma_schedule 'exponential'")
        if ramp.dtype.kind not in "iuf" or ramp.ndim != 1 or ramp.size == 0 or not np.all(np.diff(ramp) > 0):
            raise ValueError(f"{where}: sigmas {sigmas} is not a strictly ascending list of numbers")
        if ramp[0] < 0 or ramp[-1] > 1:
            raise ValueError(f"{where}: sigmas range from {ramp[0]} to {ramp[-1]}, expected 0 .. 1: where between the ends a level lies")
        self._walk(ramp.astype(np.float64))

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps | float, sample: np.ndarray, s_churn: float = ..., s_tmin: float = ...,
        s_tmax: float = ..., s_noise: float = ..., generator: np.random.Generator | None = ..., *, noise: np.ndarray | None = ...,
        pred_original_sample: np.ndarray | None = ..., return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps | float, sample: np.ndarray, s_churn: float = ..., s_tmin: float = ...,
        s_tmax: float = ..., s_noise: float = ..., generator: np.random.Generator | None = ..., *, noise: np.ndarray | None = ...,
        pred_original_sample: np.ndarray | None = ..., return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    @one_timestep_per_image
    def step(
        self,
        model_output: np.ndarray,
        timestep: float,
        sample: np.ndarray,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = math.inf,
        s_noise: float = 1.0,
        generator: np.random.Generator | None = None,
        *,
        noise: np.ndarray | None = None,
        pred_original_sample: np.ndarray | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """One step, after the churn if s_churn > 0.

        Args:
            model_output: F, of the model at `scale_model_input(sample, timestep)`; (B, ...) float32 or float64.
            timestep: the one of `timesteps` that is due; or one for each image, (B,), which ends a walk.
            sample: x, of the same shape and dtype.
            s_churn, s_tmin, s_tmax, s_noise: S_churn, S_tmin, S_tmax and S_noise of line (h) of euler_discrete.py.
            generator: draws z; not touched where gamma = 0.
            noise: instead of a generator z itself, of the shape and dtype of sample.
            pred_original_sample: D, if it is known already, of the shape and dtype of sample; model_output is then not used.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).

        Returns:
            x' and D, (B, ...) of the dtype of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called or a timestep that is not
                due; s_churn below 0; generator and noise both given, or neither where gamma > 0.
        """
        index = self._step_index("step", timestep)
        self._check_arrays("step", sample=sample, model_output=model_output, noise=noise, pred_original_sample=pred_original_sample)
        self._check_source_of_noise(generator, noise)
        if not s_churn >= 0:
            raise ValueError(f"{self._name}.step: s_churn is {s_churn}, expected a number of at least 0")
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        gamma = min(s_churn / (len(self.sigmas) - 1), math.sqrt(2) - 1) if s_tmin <= sigma <= s_tmax else 0.0
        sigma_hat = (1 + gamma) * sigma
        if gamma > 0:
            z = self._drawn_noise(timestep, sample, generator, noise)
            sample = sample + z * (s_noise * math.sqrt(sigma_hat**2 - sigma**2))
        x0 = self.precondition_outputs(sample, model_output, sigma_hat) if pred_original_sample is None else pred_original_sample
        prev_sample = euler_step(sample, x0, sigma_next / sigma_hat)
        self._advance(index)
        return SchedulerOutput(prev_sample, x0).returned(return_dict)
