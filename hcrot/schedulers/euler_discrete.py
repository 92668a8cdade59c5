"""Euler's method for the probability flow equation, with or without churn: Karras et al. 2022, arXiv:2206.00364 (EDM).

(a) .. (d) are lines of hcrot/schedulers/sigmas.py, whose notation holds: the sample is x = x_0 + sigma eps, D = D(x; sigma)
the estimate of x_0. From sigma to sigma' < sigma, with the slope of (c) held,

    (g)  x' = x + (sigma' - sigma) (x - D)/sigma = D + (sigma'/sigma) (x - D)

The error of a step is of the order of its square, that of the walk of the order of a step. In the variance preserving
form (g) is the step of DDIM with eta = 0 (Song, Meng & Ermon 2021, arXiv:2010.02502).

Churn (EDM, algorithm 2) first goes up to a larger level, so that new noise corrects old errors:

    (h)  sigma_hat = (1 + gamma) sigma,  gamma = min(S_churn/N, sqrt(2) - 1) if S_tmin <= sigma <= S_tmax, else 0
         x_hat = x + sqrt(sigma_hat^2 - sigma^2) S_noise z,  z ~ N(0, I)

and takes (g) from there. In algorithm 2 the model sees x_hat at sigma_hat; here, as in diffusers, it has been called
before, with x at sigma, and D comes of that output: x_hat - sigma_hat m for "epsilon", a^2 x_hat - b m (a and b those of
sigma) for "v_prediction". What this leaves too much of the noise vanishes with the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal, overload

import numpy as np

from hcrot.schedulers.base import SchedulerOutput, Timesteps
from hcrot.schedulers.by_image import one_timestep_per_image
from hcrot.schedulers.config import checked_choice, register_to_config
from hcrot.schedulers.schedules import linspace
from hcrot.schedulers.sigmas import VarianceExplodingScheduler, euler_step, timesteps_of_sigmas

__all__ = ["EulerDiscreteScheduler"]


class EulerDiscreteScheduler(VarianceExplodingScheduler):
    """The step (g) and its churn (h), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: the levels that
            the model is trained on, see `DDPMScheduler`.
        prediction_type: what the model predicts, "epsilon", "sample" or "v_prediction", see (d).
        interpolation_type: how `set_timesteps` finds the sigmas of N timesteps: "linear" takes those of the timesteps.
            "log_linear" takes N + 1 from the largest to the smallest level of training, their logarithms equally spaced.
            As in diffusers these are not the levels of the timesteps, and the walk ends at the last of them, above 0.
            use_exponential_sigmas spaces N sigmas likewise, with timesteps that belong to them.
        use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: at most one, how the sigmas are spaced in place of
            those of the timesteps, see hcrot/schedulers/sigmas.py.
        sigma_min, sigma_max: ends of such a spacing; None takes those of the timesteps.
        timestep_spacing, steps_offset: the timesteps `set_timesteps` visits. "linspace" does not round them.
        timestep_type: "continuous" gives a model of type "v_prediction" log(sigma)/4 for a timestep, EDM's c_noise;
            with other types it does nothing.
        final_sigmas_type: where the walk ends, at "zero" or at "sigma_min", the smallest level of training.

    Attributes, errors: those of `VarianceExplodingScheduler`; with "log_linear" sigmas are (N + 2,).

    Example:
        >>> scheduler = hcrot.EulerDiscreteScheduler()
        >>> scheduler.set_timesteps(4)
        >>> [round(float(sigma), 2) for sigma in scheduler.sigmas]
        [157.41, 9.49, 1.46, 0.01, 0.0]
        >>> x_0, noise = np.full((1, 1, 1, 2), 0.5, np.float32), np.ones((1, 1, 1, 2), np.float32)
        >>> x_t = scheduler.add_noise(x_0, noise, scheduler.timesteps[-1:])
        >>> scheduler.scale_model_input(x_t, scheduler.timesteps[-1]).round(2)     # what the network sees
        array([[[[0.51, 0.51]]]], dtype=float32)
    """

    checks: ClassVar = {
        **VarianceExplodingScheduler.checks,
        "interpolation_type": partial(checked_choice, choices=("linear", "log_linear")),
        "timestep_type": partial(checked_choice, choices=("discrete", "continuous")),
    }

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        interpolation_type: str = "linear",
        use_karras_sigmas: bool | None = False,
        use_exponential_sigmas: bool | None = False,
        use_beta_sigmas: bool | None = False,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        timestep_spacing: str = "linspace",
        timestep_type: str = "discrete",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        final_sigmas_type: str = "zero",
    ) -> None:
        super().__init__()
        if self._continuous:
            self.timesteps = _noise_conditioning(self.sigmas[:-1])

    @property
    def _continuous(self) -> bool:
        return self.config["timestep_type"] == "continuous" and self.config["prediction_type"] == "v_prediction"

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Choose the levels that sampling visits: a number of them, or a list of timesteps, or of sigmas.

        Args:
            num_inference_steps: N in 1 .. T, spaced as the scheduler's arguments say.
            timesteps: instead, strictly descending numbers within 0 .. T-1.
            sigmas: instead, descending numbers above 0, of which some may be equal, and last where the walk ends, 0 or more;
                so one more than steps.

        Raises:
            TypeError, ValueError: not exactly one given, N out of range, a list that is not as described, or a list
                where the scheduler's arguments fix the spacing.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps, sigmas=sigmas)
        if sigmas is not None:
            levels = self._checked_sigmas(sigmas)
            chosen, levels, last = timesteps_of_sigmas(levels[:-1], self._training_sigmas), levels[:-1], levels[-1]
        else:
            if timesteps is None:
                visited = self._timesteps_by_spacing(num_inference_steps)
            elif self._continuous:
                raise ValueError(f"{self._name}.set_timesteps: timesteps cannot be chosen with timestep_type 'continuous'")
            else:
                visited = self._checked_list("timesteps", timesteps, highest=len(self) - 1).astype(np.float32)
            between = None
            if self.config["interpolation_type"] == "log_linear":
                low, high = np.log(self._training_sigmas[[0, -1]])
                between = np.exp(linspace(high, low, 1 + (num_inference_steps or len(visited))))
            chosen, levels = self._spaced_levels(visited, between)
            last = 0.0 if self.config["final_sigmas_type"] == "zero" else self._training_sigmas[0]
        self._set_levels(chosen.astype(np.float32), levels, last)
        if self._continuous:
            self.timesteps = _noise_conditioning(self.sigmas[:-1])

    def _checked_sigmas(self, sigmas: Sequence[float]) -> np.ndarray:
        """Descending numbers above 0, and one of at least 0; (N + 1,) float32."""
        where, chosen = f"{self._name}.set_timesteps", np.asarray(sigmas)
        if chosen.dtype.kind not in "iuf" or chosen.ndim != 1 or not np.all(np.isfinite(chosen)):
            raise ValueError(f"{where}: sigmas {sigmas} is not a list of numbers")
        if len(chosen) < 2:
            raise ValueError(f"{where}: sigmas {sigmas} has {len(chosen)} numbers, expected two or more")
        if np.any(np.diff(chosen) > 0) or chosen[-2] <= 0 or chosen[-1] < 0:
            raise ValueError(f"{where}: sigmas {sigmas} do not descend, expected numbers above 0, then one of at least 0")
        return chosen.astype(np.float32)

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps | float, sample: np.ndarray, s_churn: float = ..., s_tmin: float = ...,
        s_tmax: float = ..., s_noise: float = ..., generator: np.random.Generator | None = ..., *, noise: np.ndarray | None = ...,
        return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps | float, sample: np.ndarray, s_churn: float = ..., s_tmin: float = ...,
        s_tmax: float = ..., s_noise: float = ..., generator: np.random.Generator | None = ..., *, noise: np.ndarray | None = ...,
        return_dict: Literal[False]
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
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """One step of (g), after the churn (h) if s_churn > 0.

        Args:
            model_output: m, of the model at `scale_model_input(sample, timestep)`; (B, ...) float32 or float64.
            timestep: the one of `timesteps` that is due; or one for each image, (B,), which ends a walk.
            sample: x, of the same shape and dtype.
            s_churn, s_tmin, s_tmax, s_noise: S_churn, S_tmin, S_tmax and S_noise of (h).
            generator: draws z; not touched where gamma = 0.
            noise: instead of a generator z itself, of the shape and dtype of sample.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).

        Returns:
            x' and D, (B, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called or a timestep that is not
                due; s_churn below 0; generator and noise both given, or neither where gamma > 0.
        """
        index = self._step_index("step", timestep)
        self._check_arrays("step", sample=sample, model_output=model_output, noise=noise)
        self._check_source_of_noise(generator, noise)
        if not s_churn >= 0:
            raise ValueError(f"{self._name}.step: s_churn is {s_churn}, expected a number of at least 0")
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        gamma = min(s_churn / (len(self.sigmas) - 1), math.sqrt(2) - 1) if s_tmin <= sigma <= s_tmax else 0.0
        sigma_hat = (1 + gamma) * sigma
        if gamma > 0:
            z = self._drawn_noise(timestep, sample, generator, noise)
            sample = sample + z * (s_noise * math.sqrt(sigma_hat**2 - sigma**2))
        x0 = self._denoised(model_output, sample, sigma if self.config["prediction_type"] == "v_prediction" else sigma_hat)
        prev_sample = euler_step(sample, x0, sigma_next / sigma_hat)
        self._advance(index)
        return SchedulerOutput(prev_sample, x0).returned(return_dict)


def _noise_conditioning(sigmas: np.ndarray) -> np.ndarray:
    """c_noise = log(sigma)/4 (EDM, table 1), float32."""
    return (0.25 * np.log(sigmas)).astype(np.float32)
