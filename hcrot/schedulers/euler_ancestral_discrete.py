"""Ancestral sampling by Euler's method: Euler steps that go further down than asked, and noise that makes up for it.

(a) .. (d) are lines of hcrot/schedulers/sigmas.py, whose notation holds: the sample is x = x_0 + sigma eps, D = D(x; sigma)
the estimate of x_0. A step from sigma to sigma' divides the new level into two parts,

    (g)  sigma'^2 = sigma_down^2 + sigma_up^2

goes by Euler's method down to sigma_down and adds noise of the other part:

    (h)  x' = D + (sigma_down/sigma) (x - D) + sigma_up z,  z ~ N(0, I)

How they are divided is that of DDPM (Ho et al. 2020, arXiv:2006.11239, eq. 7; ddpm.py, lines (d) and (e)): with line (b)
its posterior variance beta_tilde, divided by abar_s, is sigma_up^2, and its mean is that of (h):

    (i)  sigma_up^2 = sigma'^2 (sigma^2 - sigma'^2)/sigma^2,  sigma_down = sigma'^2/sigma

So these are the steps of DDPM with "fixed_small" in the variance exploding form, without rounding the timesteps of
"linspace". (The division goes back to k-diffusion's sample_euler_ancestral; diffusers takes sigma_down from (g), where
float32 loses digits if sigma' is much smaller than sigma.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from hcrot.schedulers.base import SchedulerOutput, Timesteps
from hcrot.schedulers.by_image import one_timestep_per_image
from hcrot.schedulers.config import register_to_config
from hcrot.schedulers.sigmas import VarianceExplodingScheduler, euler_step

__all__ = ["EulerAncestralDiscreteScheduler"]


class EulerAncestralDiscreteScheduler(VarianceExplodingScheduler):
    """The step (h) with (i), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: the levels that
            the model is trained on, see `DDPMScheduler`.
        prediction_type: what the model predicts, "epsilon", "v_prediction" or, which diffusers lacks, "sample"; see (d).
        timestep_spacing, steps_offset: the timesteps `set_timesteps` visits. "linspace" does not round them.

    Attributes, errors: those of `VarianceExplodingScheduler`.

    Example:
        >>> scheduler = hcrot.EulerAncestralDiscreteScheduler()
        >>> scheduler.set_timesteps(4)
        >>> scheduler.timesteps.tolist(), round(float(scheduler.init_noise_sigma), 1)      # noise of this size is begun with
        ([999.0, 666.0, 333.0, 0.0], 157.4)
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        super().__init__()

    def set_timesteps(self, num_inference_steps: int | None = None, *, timesteps: Sequence[float] | None = None) -> None:
        """Choose the levels that sampling visits, a number of them, spaced by timestep_spacing, or a list; the walk ends at 0.

        Args:
            num_inference_steps: N in 1 .. T.
            timesteps: instead, strictly descending numbers within 0 .. T-1.

        Raises:
            TypeError, ValueError: both or neither given, N is no integer or out of range, or a list that is not as described.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if timesteps is None:
            visited = self._timesteps_by_spacing(num_inference_steps)
        else:
            visited = self._checked_list("timesteps", timesteps, highest=len(self) - 1).astype(np.float32)
        self._set_levels(*self._spaced_levels(visited), last=0.0)

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps | float, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        noise: np.ndarray | None = ..., return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps | float, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        noise: np.ndarray | None = ..., return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    @one_timestep_per_image
    def step(
        self,
        model_output: np.ndarray,
        timestep: float,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        *,
        noise: np.ndarray | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """One step of (h).

        Args:
            model_output: m, of the model at `scale_model_input(sample, timestep)`; (B, ...) float32 or float64.
            timestep: the one of `timesteps` that is due; or one for each image, (B,), which ends a walk.
            sample: x, of the same shape and dtype.
            generator: draws z; not touched in the last step, which ends at 0 (diffusers draws there and adds nothing).
            noise: instead of a generator z itself, of the shape and dtype of sample.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).

        Returns:
            x' and D, (B, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called or a timestep that is not
                due; generator and noise both given, or neither before the last step.
        """
        index = self._step_index("step", timestep)
        self._check_arrays("step", sample=sample, model_output=model_output, noise=noise)
        self._check_source_of_noise(generator, noise)
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        sigma_up = sigma_next * math.sqrt(sigma**2 - sigma_next**2) / sigma
        sigma_down = sigma_next**2 / sigma
        z = self._drawn_noise(timestep, sample, generator, noise) if sigma_up > 0 else None

        x0 = self._denoised(model_output, sample, sigma)
        prev_sample = euler_step(sample, x0, sigma_down / sigma)
        if z is not None:
            prev_sample += z * sigma_up
        self._advance(index)
        return SchedulerOutput(prev_sample, x0).returned(return_dict)
