"""Heun's method for the probability flow equation: Karras et al. 2022, arXiv:2206.00364 (EDM), algorithm 1.

(a) .. (d) are lines of hcrot/schedulers/sigmas.py, whose notation holds: the sample is x = x_0 + sigma eps, D = D(x; sigma)
the estimate of x_0. The slope of (c) is taken at both ends of a step from sigma to sigma' and their mean followed:

    (g)  d = (x - D(x; sigma))/sigma,  x~ = x + (sigma' - sigma) d                               the Euler step
    (h)  d~ = (x~ - D(x~; sigma'))/sigma',  x' = x + (sigma' - sigma) (d + d~)/2

(the trapezium rule), here as x~ = D + (sigma'/sigma)(x - D) and x' = x~ + (sigma' - sigma) (d~ - d)/2, which lose fewer
digits where sigma falls far. The error of a step is of the order of its cube, that of the walk of its square, for two evaluations
of the model. At sigma' = 0 there is no second slope, and the last step is (g).

So each level but the first is visited twice, by (h) of the step that comes and by (g) of the one that leaves, and
timesteps and sigmas have it twice: t_0, t_1, t_1, t_2, t_2, ... One call of `step` is one evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from hcrot.schedulers.base import SchedulerOutput
from hcrot.schedulers.config import register_to_config
from hcrot.schedulers.sigmas import VarianceExplodingScheduler

__all__ = ["HeunDiscreteScheduler"]


class HeunDiscreteScheduler(VarianceExplodingScheduler):
    """The steps (g) and (h), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas: the levels that the model is trained on,
            see `DDPMScheduler`, but with other defaults.
        prediction_type: what the model predicts, "epsilon", "sample" or "v_prediction", see (d).
        use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: at most one, how the sigmas are spaced in place of
            those of the timesteps, see hcrot/schedulers/sigmas.py.
        clip_sample, clip_sample_range: whether the estimate of x_0 is clipped to +-clip_sample_range.
        timestep_spacing, steps_offset: the timesteps `set_timesteps` visits. "linspace" does not round them.

    Attributes, errors: those of `VarianceExplodingScheduler`; timesteps are (2N - 1,), sigmas (2N,).

    Example:
        >>> scheduler = hcrot.HeunDiscreteScheduler()
        >>> scheduler.set_timesteps(3)
        >>> [round(float(t), 1) for t in scheduler.timesteps]                  # each level but the first is visited twice
        [999.0, 499.5, 499.5, 0.0, 0.0]
    """

    order = 2

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        use_karras_sigmas: bool | None = False,
        use_exponential_sigmas: bool | None = False,
        use_beta_sigmas: bool | None = False,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
    ) -> None:
        super().__init__()

    def set_timesteps(self, num_inference_steps: int | None = None, *, timesteps: Sequence[float] | None = None) -> None:
        """Choose the levels that sampling visits: a number of them, spaced as the scheduler's arguments say, or a list.

        Args:
            num_inference_steps: N in 1 .. T. The model is evaluated 2N - 1 times.
            timesteps: instead, strictly descending numbers within 0 .. T-1.

        Raises:
            TypeError, ValueError: both or neither given, N out of range, a list that is not as described, or a list
                where the scheduler's arguments fix the spacing.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if timesteps is None:
            visited = self._timesteps_by_spacing(num_inference_steps)
        else:
            visited = self._checked_list("timesteps", timesteps, highest=len(self) - 1).astype(np.float32)
        chosen, sigmas = self._spaced_levels(visited)
        self._set_levels(np.repeat(chosen, 2)[1:], np.repeat(sigmas, 2)[1:], last=0.0)
        self.num_inference_steps = len(chosen)

    @overload
    def step(
        self, model_output: np.ndarray, timestep: float, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: float, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    def step(
        self,
        model_output: np.ndarray,
        timestep: float,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        *,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """The step (g), or (h) where (g) was the last one.

        Args:
            model_output: m, of the model at `scale_model_input(sample, timestep)`; (B, ...) float32 or float64.
            timestep: the one of `timesteps` that is due.
            sample: x, or x~ in (h); of the same shape and dtype.
            generator: not touched.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).

        Returns:
            x~, or x' in (h), and D, (B, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called or a timestep that is not
                due.
        """
        index = self._step_index("step", timestep)
        self._check_arrays("step", sample=sample, model_output=model_output)
        self._check_source_of_noise(generator)
        sigma = float(self.sigmas[index])
        x0 = self._limit(self._denoised(model_output, sample, sigma))
        slope = sample - x0
        if not self._history:
            sigma_next = float(self.sigmas[index + 1])
            prev_sample = slope * (sigma_next / sigma)
            prev_sample += x0
            slope /= sigma
            self._history = [np.array(prev_sample), slope, sigma_next - sigma]
        else:
            predicted, first_slope, stride = self._history
            self._check_arrays("step", sample=sample, **{"sample of the step before": predicted})
            slope /= sigma
            prev_sample = slope - first_slope
            prev_sample *= stride / 2
            prev_sample += predicted
            self._history = []
        self._advance(index)
        return SchedulerOutput(prev_sample, x0).returned(return_dict)
