"""Denoising diffusion probabilistic models: Ho, Jain & Abbeel 2020, arXiv:2006.11239; [n] is their equation n.

Notation: t is a timestep and s < t the one that sampling visits after it; z, eps ~ N(0, I); alpha_t = 1 - beta_t and
abar_t = alpha_0 alpha_1 .. alpha_t. Timesteps count from 0, the paper's from 1; the image itself stands at s = -1,
where abar = 1.

The forward process destroys an image x_0 step by step; Gaussians compose, so any x_t is one draw away from x_0:

    (a)  q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I)                                                    [2]
    (b)  q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I),  i.e.  x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps [4]

Sampling may skip steps. From s straight to t, (a) holds with abar_t / abar_s in the place of alpha_t, so from here on

    (c)  alpha = abar_t / abar_s,  beta = 1 - alpha                  (these are alpha_t and beta_t when s = t - 1)

The posterior is Gaussian: q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0), whose exponent is

    -1/2 [ |x_t - sqrt(alpha) x_s|^2 / beta + |x_s - sqrt(abar_s) x_0|^2 / (1 - abar_s) ].

The precision is the coefficient of |x_s|^2, alpha/beta + 1/(1 - abar_s) = (1 - abar_t) / (beta (1 - abar_s)). The
mean is the coefficient of x_s, sqrt(alpha)/beta x_t + sqrt(abar_s)/(1 - abar_s) x_0, divided by the precision:

    (d)  beta_tilde = (1 - abar_s)/(1 - abar_t) beta                                                              [7]
    (e)  mu_tilde = sqrt(abar_s) beta/(1 - abar_t) x_0 + sqrt(alpha) (1 - abar_s)/(1 - abar_t) x_t                [7]

The reverse step draws from this posterior with an estimate in the place of x_0. The network m(x_t, t) predicts the
noise, the image, or the velocity v of Salimans & Ho 2022 (arXiv:2202.00512). Solving (b) and (g) for x_0,

    (f)  epsilon:       x_0 = (x_t - sqrt(1 - abar_t) m) / sqrt(abar_t)                                          [15]
         sample:        x_0 = m
         v_prediction:  x_0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) m
    (g)  v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0
    (h)  x_s = mu_tilde(x_t, x_0) + sigma z,  sigma^2 = beta_tilde ("small") or beta ("large"),  z = 0 at t = 0

For s = t - 1 and a noise prediction eps_theta, (f) put into (e) is the line of the paper's algorithm 2:

    (i)  x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps_theta) / sqrt(alpha_t) + sigma_t z                       [11]

The loss: the variational bound [3] is a sum of divergences between the posterior and the reverse step [5], two
Gaussians of one variance, so each of them is a distance of means and, by (i), of noises:

    (j)  L = E |mu_tilde - mu_theta|^2 / (2 sigma_t^2)                                                            [8]
           = E beta_t^2 / (2 sigma_t^2 alpha_t (1 - abar_t)) |eps - eps_theta(x_t, t)|^2                         [12]

Training drops the weight, which gives the better pictures, and draws t uniformly, eps ~ N(0, I) and x_t by (b):

    (k)  L_simple = E |eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t)|^2                            [14]

The variance can be learned too (Nichol & Dhariwal 2021, arXiv:2102.09672): beta_tilde and beta are its extremes, so
half of the output's channels, v in [-1, 1], say where between them it lies, in logarithms:

    (l)  sigma^2 = exp(u log beta + (1 - u) log beta_tilde),  u = (v + 1)/2      (their eq. 15, which has u itself)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal, overload

import numpy as np

from hcrot.schedulers.base import NoiseScheduler, SchedulerOutput, Timesteps
from hcrot.schedulers.config import checked_choice, checked_optional, register_to_config

__all__ = ["LEARNED_VARIANCE_TYPES", "MIN_VARIANCE", "VARIANCE_TYPES", "DDPMScheduler"]

LEARNED_VARIANCE_TYPES = ("learned", "learned_range")
VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", *LEARNED_VARIANCE_TYPES)
MIN_VARIANCE = np.float32(1e-20)  # in diffusers beta_tilde, which is 0 for s = -1, is kept above this


class DDPMScheduler(NoiseScheduler):
    """The forward process (b) and the reverse step (h), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps: T, the number of noise levels the model is trained on.
        beta_start, beta_end: ends of the schedules linear, scaled_linear and sigmoid.
        beta_schedule: "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace" or "exp", which in diffusers only
            `HeunDiscreteScheduler` knows.
        trained_betas: the T betas themselves, in place of a schedule.
        variance_type: sigma^2 of (h): beta_tilde for "fixed_small" and "fixed_small_log", beta for "fixed_large" and
            "fixed_large_log". The _log names are the same values by way of the logarithm; in diffusers
            "fixed_large_log" misses the way back and gives NaN. For "learned" and "learned_range" the model has twice
            the sample's channels: the prediction, then sigma^2 itself or v of (l). None, which configurations of
            `DPMSolverMultistepScheduler` have, does what "fixed_small" does.
        clip_sample, clip_sample_range: whether the estimate of x_0 is clipped to +-clip_sample_range.
        prediction_type: what the model predicts, "epsilon", "sample" or "v_prediction", see (f).
        thresholding, dynamic_thresholding_ratio, sample_max_value: whether instead each image's estimate of x_0 is
            clipped to that quantile s of its absolute values (s from 1 to sample_max_value), and divided by s.
        timestep_spacing, steps_offset: the timesteps `set_timesteps` visits: "linspace", "leading" or "trailing". In
            diffusers "trailing" goes on to -1 for 62 of the N <= T = 1000, and an offset may lead past T-1; not here.
        rescale_betas_zero_snr: whether the betas are rescaled so that abar_{T-1} = 0 (Lin et al. 2023). A prediction
            of the noise then raises at T-1, where diffusers divides by zero.

    Attributes, errors: those of `NoiseScheduler`; `config` has the arguments by name, as `save_pretrained` writes them.

    Example:
        >>> scheduler = hcrot.DDPMScheduler()
        >>> x_0, noise = np.full((1, 1, 1, 2), 0.5, np.float32), np.ones((1, 1, 1, 2), np.float32)
        >>> scheduler.add_noise(x_0, noise, np.array([999])).round(3)         # almost nothing is left of x_0
        array([[[[1.003, 1.003]]]], dtype=float32)
        >>> scheduler.set_timesteps(4)
        >>> scheduler.timesteps.tolist()
        [750, 500, 250, 0]
    """

    checks: ClassVar = {
        **NoiseScheduler.checks,
        "variance_type": partial(checked_optional, check=partial(checked_choice, choices=VARIANCE_TYPES)),
    }

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        variance_type: str | None = "fixed_small",
        clip_sample: bool = True,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        super().__init__()

    def set_timesteps(self, num_inference_steps: int | None = None, *, timesteps: Sequence[int] | None = None) -> None:
        """Choose the timesteps that sampling visits: a number of them, spaced by timestep_spacing, or a list.

        Args:
            num_inference_steps: N in 1 .. T.
            timesteps: instead, strictly descending integers in 0 .. T-1.

        Raises:
            TypeError, ValueError: both or neither given, N out of range, or a list that is not as described;
                "epsilon" where abar_t = 0 would be visited.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if num_inference_steps is not None:
            super().set_timesteps(num_inference_steps)
        elif timesteps is not None:
            self._visit(self._chosen_timesteps(timesteps))

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        noise: np.ndarray | None = ..., return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: Timesteps, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        noise: np.ndarray | None = ..., return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    def step(
        self,
        model_output: np.ndarray,
        timestep: Timesteps,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        *,
        noise: np.ndarray | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """One reverse step x_t -> x_s: estimate x_0 by (f), clip it, return mu_tilde + sigma z by (e) and (h).

        As in diffusers the noise is left out at t = 0 only. So a chain that ends above 0 ("trailing" spacing, "leading"
        with a steps_offset) ends with sigma z: 1e-10 z with "fixed_small", visible noise with "fixed_large".

        Args:
            model_output: m(x_t, t), (B, C, ...) float32 or float64; with a learned variance (B, 2 C, ...).
            timestep: t, one integer out of `timesteps`, or one for each image, (B,): the same numbers as image by image.
            sample: x_t, (B, C, ...) of the same dtype.
            generator: draws z, the same whatever the memory order of sample; not touched where t = 0 for all images.
            noise: instead of a generator z itself, of the shape and dtype of sample.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).

        Returns:
            x_s and the (clipped) estimate of x_0, (B, C, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a timestep that is not one integer out of
                `timesteps` or (B,) of them; generator and noise both given, or neither at t > 0.
        """
        t, s = self._timesteps_of_step(timestep, sample)
        model_output, learned = self._split(model_output, sample)
        self._check_arrays("step", sample=sample, model_output=model_output, noise=noise)
        self._check_source_of_noise(generator, noise)

        # Float32 as in diffusers: near t = 0 beta cancels, and float64 coefficients would differ from its by 1e-4.
        abar_t, abar_s = (self._abar(which, np.float32(1), sample) for which in (t, s))
        alpha = abar_t / abar_s
        beta = 1 - alpha
        beta_tilde = (1 - abar_s) / (1 - abar_t) * beta

        x0 = self._limit(self._estimate_x0(model_output, sample, np.sqrt(abar_t), np.sqrt(1 - abar_t)))
        prev_sample = x0 * (np.sqrt(abar_s) * beta / (1 - abar_t))
        prev_sample += sample * (np.sqrt(alpha) * (1 - abar_s) / (1 - abar_t))
        if np.any(t > 0):
            sigma = self._sigma(beta, np.maximum(beta_tilde, MIN_VARIANCE), learned)
            if not isinstance(t, int):
                sigma = sigma * (t > 0).reshape(abar_t.shape)
            prev_sample += self._drawn_noise(t, sample, generator, noise) * sigma

        return SchedulerOutput(prev_sample, x0).returned(return_dict)

    def _sigma(
        self, beta: np.float32 | np.ndarray, beta_tilde: np.float32 | np.ndarray, learned: np.ndarray | None
    ) -> np.float32 | np.ndarray:
        """sigma of (h) or (l); a learned variance below 1e-20 counts as that much (in diffusers a negative one is NaN)."""
        variance_type = self.config["variance_type"]
        if learned is None:
            return np.sqrt(beta if variance_type in ("fixed_large", "fixed_large_log") else beta_tilde)
        if variance_type == "learned":
            return np.sqrt(np.maximum(learned, MIN_VARIANCE))
        u = (learned + 1) / 2
        return np.exp((u * np.log(beta) + (1 - u) * np.log(beta_tilde)) / 2)

    def _split(self, model_output: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The model's prediction, and what it says of the variance if that is learned."""
        variance_type = self.config["variance_type"]
        if variance_type not in LEARNED_VARIANCE_TYPES:
            return model_output, None
        shape, channels = np.shape(model_output), np.shape(sample)[1:2]
        if not channels or shape[1:2] != (2 * channels[0],):
            raise ValueError(
                f"DDPMScheduler.step: variance_type {variance_type!r} needs twice the channels of the sample "
                f"{np.shape(sample)} as model_output, got shape {shape}"
            )
        return model_output[:, : channels[0]], model_output[:, channels[0] :]
