"""DDIM backwards, from an image to its noise: Song, Meng & Ermon 2020, arXiv:2010.02502, section 4.3; [n] their equation n.

Notation as in `hcrot.schedulers.ddim`: with eta = 0 its step t -> s is Euler's method for the differential equation [14]

    (a)  d(x/sqrt(abar)) = eps(x, t) d(lambda),  lambda = sqrt((1 - abar)/abar)

and an equation can be followed either way. Here s stands at the lower level, t > s at the higher one, and a step adds noise:

    (b)  x_t/sqrt(abar_t) = x_s/sqrt(abar_s) + (lambda_t - lambda_s) eps,  i.e.  x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps
    (c)  eps and x_0 from the prediction m by (d) of `hcrot.schedulers.ddim`, with abar_s

The noise found, DDIM with eta = 0 makes of it the image again, nearly: the two differ in where m is evaluated. DDIM asks
for m(x_t, t) to go from t to s. The way back would have to ask the same, but x_t is what it is looking for; so it asks for
m(x_s, t), an error of the second order in the step. The timesteps ascend, and `step` is called with the t it leads to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from hcrot.schedulers.base import NoiseScheduler, SchedulerOutput, Timesteps
from hcrot.schedulers.config import register_to_config

__all__ = ["DDIMInverseScheduler"]


class DDIMInverseScheduler(NoiseScheduler):
    """The step (b), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps, beta_start, beta_end, trained_betas, rescale_betas_zero_snr: as in `DDPMScheduler`.
        beta_schedule: as in `DDPMScheduler`; diffusers' class knows "linear", "scaled_linear" and "squaredcos_cap_v2".
        clip_sample, clip_sample_range: whether the estimate of x_0 is clipped to +-clip_sample_range. Where clipping changes it, the way
            back cannot find what was lost: `hcrot.pipelines.editing.invert` turns it off, whatever the configuration says.
        thresholding, dynamic_thresholding_ratio, sample_max_value: whether it is thresholded instead, as in
            `DDPMScheduler`, so that the way back limits x_0 as `DDIMScheduler` does. diffusers' class takes these names
            and does nothing; `config` has those that were chosen.
        set_alpha_to_one: whether abar = 1 at s = -1, where the inversion begins: the image itself; or abar_0.
        steps_offset: as in `DDPMScheduler`.
        prediction_type: what m is: "epsilon", "sample" or "v_prediction". With "sample" set_alpha_to_one must be False,
            for an image without noise says nothing of its noise (diffusers divides by zero there).
        timestep_spacing: "leading", "trailing" or "linspace", which diffusers' class does not know.

    Attributes beside those of `NoiseScheduler`:
        timesteps: the t that steps lead to, ascending.
        initial_alpha_cumprod: abar at s = -1, a float32.

    Example:
        >>> scheduler = hcrot.DDIMInverseScheduler()
        >>> scheduler.set_timesteps(4)
        >>> scheduler.timesteps.tolist()                          # from the image to its noise
        [0, 250, 500, 750]
    """

    beyond_diffusers = frozenset({"thresholding", "dynamic_thresholding_ratio", "sample_max_value"})

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        clip_sample: bool = True,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        clip_sample_range: float = 1.0,
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
    ) -> None:
        super().__init__()
        self.initial_alpha_cumprod = np.float32(1) if set_alpha_to_one else self.alphas_cumprod[0]
        self.timesteps = np.arange(len(self))
        self.follow_timesteps = False

    def set_timesteps(
        self, num_inference_steps: int | None = None, *, timesteps: Sequence[int] | None = None, follow_timesteps: bool = False
    ) -> None:
        """Choose the timesteps that the inversion visits, a number of them, spaced by timestep_spacing, or a list, and where each step
        comes from.

        Args:
            num_inference_steps: N in 1 .. T.
            timesteps: instead, those that DDIM would visit: strictly descending integers in 0 .. T-1. They are followed upwards, from the
                image to the first of them, each step from one to the next.
            follow_timesteps: False as in diffusers: the step to t starts T // N lower. True: it starts at the entry of
                `timesteps` before t, and the first one at the image; so it undoes DDIM with follow_timesteps=True.

        Raises:
            TypeError, ValueError: both or neither given, N is no integer or out of range, or a list that is not as described;
                prediction_type "sample" where the first step would come from abar_s = 1.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        follow_timesteps = follow_timesteps or timesteps is not None
        visited = self._spaced_timesteps(num_inference_steps) if timesteps is None else self._chosen_timesteps(timesteps)
        ascending = visited[::-1].copy()
        from_image = follow_timesteps or ascending[0] < len(self) // len(ascending)
        if from_image and self.config["prediction_type"] == "sample" and self.initial_alpha_cumprod == 1:
            raise ValueError(
                f"{self._name}.set_timesteps: x_0 says nothing of the noise where alphas_cumprod is 1, expected prediction_type "
                "'epsilon' or 'v_prediction', or set_alpha_to_one=False"
            )
        self.timesteps, self.num_inference_steps = ascending, len(ascending)
        self.follow_timesteps = follow_timesteps

    def previous_timestep(self, timestep: int) -> int:
        """s, where the step to t comes from, see `set_timesteps`; -1 is the image itself.

        Raises:
            ValueError: set_timesteps was not called, or the timestep is not among `timesteps`.
        """
        count = self._check_timesteps_are_set("previous_timestep")
        before = self._entry_beside(timestep, -1)
        return before if self.follow_timesteps else max(int(timestep) - len(self) // count, -1)

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    def step(
        self,
        model_output: np.ndarray,
        timestep: Timesteps,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        *,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """One step x_s -> x_t, which adds noise: estimate x_0 and eps by (c), limit x_0, return (b).

        Args:
            model_output: m(x_s, t), (B, ...) float32 or float64.
            timestep: t, one integer out of `timesteps`, or one for each image, (B,).
            sample: x_s, of the same shape and dtype.
            generator: not touched, nothing is drawn; taken so that the scheduler fits into the loop of the others.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).

        Returns:
            x_t, which diffusers too calls prev_sample, and the (limited) estimate of x_0, (B, ...) of the dtype and memory
            order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called; a timestep that is not
                one integer out of `timesteps` or (B,) of them.
        """
        self._check_timesteps_are_set("step")
        t, s = self._timesteps_of_step(timestep, sample)
        self._check_arrays("step", sample=sample, model_output=model_output)
        self._check_source_of_noise(generator)

        abar_t, abar_s = (self._abar(which, self.initial_alpha_cumprod, sample) for which in (t, s))
        levels = np.sqrt(abar_s), np.sqrt(1 - abar_s)
        x0 = self._limit(self._estimate_x0(model_output, sample, *levels))
        noisier = x0 * np.sqrt(abar_t)
        noisier += self._estimate_noise(model_output, sample, *levels) * np.sqrt(1 - abar_t)
        return SchedulerOutput(noisier, x0).returned(return_dict)
