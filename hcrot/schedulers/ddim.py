"""Denoising diffusion implicit models: Song, Meng & Ermon 2020, arXiv:2010.02502; [n] is their equation n.

Notation as in `hcrot.schedulers.ddpm`, whose (b), (f) and (g) hold here too: t is a timestep and s < t the one that the
step leads to; z, eps ~ N(0, I); abar_t = alpha_0 .. alpha_t (the paper writes alpha_t for it), abar = 1 at s = -1.

The training loss knows of a noisy image only x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, so any process with these
marginals is one that the trained network can undo. Such is, for each sigma from 0 to sqrt(1 - abar_s),

    (a)  q(x_s | x_t, x_0) = N(sqrt(abar_s) x_0 + sqrt(1 - abar_s - sigma^2) eps, sigma^2 I),
         eps = (x_t - sqrt(abar_t) x_0) / sqrt(1 - abar_t)                                                         [7]

for eps is N(0, I), so x_s has the mean sqrt(abar_s) x_0 and the variance (1 - abar_s - sigma^2) + sigma^2 = 1 - abar_s.
A step estimates x_0 and eps from the prediction m(x_t, t), m being either or the velocity v, and draws from (a):

    (b)  x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s - sigma^2) eps + sigma z                                        [12]
    (c)  sigma = eta sqrt((1 - abar_s)/(1 - abar_t)) sqrt(1 - abar_t/abar_s)                                      [16]
    (d)  epsilon:       eps = m                                    x_0 = (x_t - sqrt(1 - abar_t) m) / sqrt(abar_t)
         sample:        eps = (x_t - sqrt(abar_t) m) / sqrt(1 - abar_t)                                     x_0 = m
         v_prediction:  eps = sqrt(abar_t) m + sqrt(1 - abar_t) x_t    x_0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) m

eta = 1 gives sigma^2 = beta_tilde, the step of DDPM: in (a) the coefficient of x_t is then sqrt(1 - abar_s - sigma^2) /
sqrt(1 - abar_t) = sqrt(abar_t/abar_s) (1 - abar_s)/(1 - abar_t), that of mu_tilde. eta = 0 draws nothing: the image is a
function of the noise sampling started from. Divided by sqrt(abar_s), and with lambda = sqrt((1 - abar)/abar), (b) is

    (e)  x_s/sqrt(abar_s) = x_t/sqrt(abar_t) + (lambda_s - lambda_t) eps                                          [13]

which is Euler's method for the ordinary differential equation d(x/sqrt(abar)) = eps(x, t) d(lambda) [14]. Its solutions,
the probability flow, carry N(0, I) to the distribution of the images without drawing anything; few steps follow it well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from hcrot.schedulers.base import NoiseScheduler, SchedulerOutput, Timesteps
from hcrot.schedulers.config import register_to_config

__all__ = ["DDIMScheduler"]


class DDIMScheduler(NoiseScheduler):
    """The step (b), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps, beta_start, beta_end, trained_betas, rescale_betas_zero_snr: as in `DDPMScheduler`.
        beta_schedule: as in `DDPMScheduler`, so that whatever was trained can be sampled; diffusers' class knows "linear",
            "scaled_linear" and "squaredcos_cap_v2" only.
        clip_sample, clip_sample_range, thresholding, dynamic_thresholding_ratio, sample_max_value: limit the estimate of
            x_0, as in `DDPMScheduler`.
        set_alpha_to_one: whether abar = 1 at s = -1, so that sampling ends at the image, or abar_0.
        steps_offset, timestep_spacing: as in `DDPMScheduler`; see `set_timesteps` for where the steps lead.
        prediction_type: what m is in (d): "epsilon", "sample" or "v_prediction".

    Attributes beside those of `NoiseScheduler`:
        final_alpha_cumprod: abar at s = -1, a float32.

    Example:
        >>> scheduler = hcrot.DDIMScheduler()
        >>> scheduler.set_timesteps(4)
        >>> x_0, noise = np.full((1, 1, 1, 2), 0.5, np.float32), np.ones((1, 1, 1, 2), np.float32)
        >>> x_t = scheduler.add_noise(x_0, noise, np.array([500]))
        >>> scheduler.step(noise, 500, x_t).pred_original_sample.round(3)     # a network that knows the noise finds the image
        array([[[[0.5, 0.5]]]], dtype=float32)
    """

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
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        super().__init__()
        self.final_alpha_cumprod = np.float32(1) if set_alpha_to_one else self.alphas_cumprod[0]
        self.follow_timesteps = False

    def set_timesteps(
        self, num_inference_steps: int | None = None, *, timesteps: Sequence[int] | None = None, follow_timesteps: bool = False
    ) -> None:
        """Choose the timesteps that sampling visits, a number of them, spaced by timestep_spacing, or a list, and where each step leads.

        Args:
            num_inference_steps: N in 1 .. T.
            timesteps: instead, strictly descending integers in 0 .. T-1, each of which leads to the next.
            follow_timesteps: False as in diffusers: each step leads T // N lower. With the spacings "linspace" and
                "trailing" that is often not the next entry of `timesteps` (T = 1000, N = 7, "linspace": from 999 to 857,
                which the model is then told is 832). True: it leads to the next entry, and from the last to the image.

        Raises:
            TypeError, ValueError: both or neither given, N is no integer or out of range, or a list that is not as described; "epsilon"
                where abar_t = 0 would be visited.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if num_inference_steps is not None:
            super().set_timesteps(num_inference_steps)
        elif timesteps is not None:
            self._visit(self._chosen_timesteps(timesteps))
        self.follow_timesteps = follow_timesteps or timesteps is not None

    def previous_timestep(self, timestep: int) -> int:
        """s, where `step` leads from t, see `set_timesteps`; -1 is the image itself.

        Raises:
            ValueError: set_timesteps was not called, or the timestep is not among `timesteps`.
        """
        count = self._check_timesteps_are_set("previous_timestep")
        following = self._entry_beside(timestep, 1)
        return following if self.follow_timesteps else max(int(timestep) - len(self) // count, -1)

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps, sample: np.ndarray, eta: float = ..., use_clipped_model_output: bool = ...,
        generator: np.random.Generator | None = ..., *, noise: np.ndarray | None = ..., return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps, sample: np.ndarray, eta: float = ..., use_clipped_model_output: bool = ...,
        generator: np.random.Generator | None = ..., *, noise: np.ndarray | None = ..., return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    def step(
        self,
        model_output: np.ndarray,
        timestep: Timesteps,
        sample: np.ndarray,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: np.random.Generator | None = None,
        *,
        noise: np.ndarray | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """One step x_t -> x_s: estimate x_0 and eps by (d), limit x_0, return (b) with the sigma of (c).

        Args:
            model_output: m(x_t, t), (B, ...) float32 or float64.
            timestep: t, one integer out of `timesteps`, or one for each image, (B,): the same numbers as image by image.
            sample: x_t, of the same shape and dtype.
            eta: of (c), from 0, which draws nothing, to 1, DDPM. (At eta = 1 and abar_t near 0 rounding may make the
                radicand in (b) negative: NaN in diffusers, 0 here.)
            use_clipped_model_output: whether eps is taken from the limited x_0, eps = (x_t - sqrt(abar_t) x_0) /
                sqrt(1 - abar_t), rather than from the prediction.
            generator: draws z, the same whatever the memory order of sample; not touched where sigma = 0 for all images.
            noise: instead of a generator z itself, of the shape and dtype of sample (variance_noise in diffusers).
            return_dict: False returns the tuple (prev_sample, pred_original_sample).

        Returns:
            x_s and the (limited) estimate of x_0, (B, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called; a timestep that is not
                one integer out of `timesteps` or (B,) of them; eta outside 0 .. 1; generator and noise both given, or neither where
                sigma > 0; "epsilon" at abar_t = 0.
        """
        self._check_timesteps_are_set("step")
        t, s = self._timesteps_of_step(timestep, sample)
        self._check_arrays("step", sample=sample, model_output=model_output, noise=noise)
        self._check_source_of_noise(generator, noise)
        if not 0 <= eta <= 1:
            raise ValueError(f"DDIMScheduler.step: eta is {eta}, expected a number from 0 to 1")

        abar_t, abar_s = (self._abar(which, self.final_alpha_cumprod, sample) for which in (t, s))
        levels = np.sqrt(abar_t), np.sqrt(1 - abar_t)
        sigma = np.float32(eta) * np.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))

        x0 = self._limit(self._estimate_x0(model_output, sample, *levels))
        eps = self._estimate_noise(model_output, sample, *levels)
        if use_clipped_model_output:
            eps = self._noise_behind(x0, sample, *levels)
        prev_sample = x0 * np.sqrt(abar_s)
        prev_sample += eps * np.sqrt(np.maximum(1 - abar_s - sigma**2, np.float32(0)))
        if np.any(sigma > 0):
            prev_sample += sigma * self._drawn_noise(t, sample, generator, noise)

        return SchedulerOutput(prev_sample, x0).returned(return_dict)
