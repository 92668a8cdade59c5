"""Flow matching with straight paths, solved by Euler's method.

Lipman et al. 2023, arXiv:2210.02747; Liu, Gong & Liu 2023, arXiv:2209.03003 (rectified flow); Esser et al. 2024,
arXiv:2403.03206 (Stable Diffusion 3), whose time runs as here: sigma = 0 is the image, sigma = 1 the noise eps ~ N(0, I).

    (a)  x = (1 - sigma) x_0 + sigma eps                                           (Esser et al., eq. 13)

Along the straight line from x_0 to eps the velocity is constant, and the model is to learn it:

    (b)  dx/dsigma = eps - x_0,  L = E |m(x, t) - (eps - x_0)|^2,  t = T sigma

The best it can learn is the mean over all lines through x, v(x, sigma) = E[eps - x_0 | x], and dx/dsigma = v carries the
distribution of (a) at one sigma into that at another (Lipman et al., theorem 1). Euler's method from 1 down to 0:

    (c)  x' = x + (sigma' - sigma) m

or, with stochastic_sampling, the image that m points to, and noise anew:

    (d)  x' = (1 - sigma') x_0 + sigma' z,  x_0 = x - sigma m,  z ~ N(0, I)

which is for models distilled to point to an image of their own (Song et al. 2023, arXiv:2303.01469, algorithm 1). One that
has learned (b) points to the mean of all images that x may come from, and samples of (d) spread too little, however many
the steps.

Where in between the sigmas lie is a matter of the images' size, since noise of one level hides less of a larger image
(Esser et al., section 5.3.2). A shift s of equally spaced ones, with dynamic shifting chosen for every image by mu:

    (e)  sigma <- s sigma/(1 + (s - 1) sigma)                                                    (their eq. 23)
         sigma <- w/(w + 1/sigma - 1),  w = e^mu ("exponential") or mu ("linear"): the same with s = w
    (f)  sigma <- 1 - (1 - sigma) (1 - shift_terminal)/(1 - sigma_{N-1}), stretched so that the last is shift_terminal
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal, overload

import numpy as np

from hcrot.schedulers.base import SchedulerOutput, Timesteps
from hcrot.schedulers.by_image import one_timestep_per_image
from hcrot.schedulers.config import (
    checked_boolean,
    checked_choice,
    checked_fraction,
    checked_integer,
    checked_optional,
    checked_positive,
    register_to_config,
)
from hcrot.schedulers.sigmas import SigmaScheduler, shift_of, shifted, stretched

__all__ = ["FlowMatchEulerDiscreteScheduler"]


class FlowMatchEulerDiscreteScheduler(SigmaScheduler):
    """The steps (c) and (d), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps: T; the timesteps are T sigma, so that those of training are T, T-1 .. 1, shifted.
        shift: s of (e). The sigmas that `set_timesteps` shifts end at the smallest of the T, which is shifted already; so
            the last one is shifted twice, as in diffusers.
        use_dynamic_shifting, time_shift_type: whether `set_timesteps` takes mu in place of shift, and what it means: (e).
        base_shift, max_shift, base_image_seq_len, max_image_seq_len: kept for whoever works out mu from an image's size.
        invert_sigmas: whether the walk goes from 0 to 1, for models whose sigma = 1 is the image.
        shift_terminal: the last sigma before 0, see (f).
        use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: at most one, how the sigmas are spaced between the
            first and the last of (e) and (f), see hcrot/schedulers/sigmas.py.
        stochastic_sampling: whether steps are (d).

    Attributes:
        timesteps: what `step` is to be called with, in order, (N,) float32: T sigma.
        sigmas: the level at each of them and the one after the last, (N + 1,) float32. All T until `set_timesteps`.
        Further those of `SigmaScheduler`, without betas, alphas and alphas_cumprod.

    Raises: see `SigmaScheduler`.

    Example:
        >>> scheduler = hcrot.FlowMatchEulerDiscreteScheduler(shift=3.0)
        >>> scheduler.set_timesteps(4)
        >>> [round(float(sigma), 2) for sigma in scheduler.sigmas]             # the shift keeps the walk longer where there is much noise
        [1.0, 0.86, 0.6, 0.01, 0.0]
    """

    checks: ClassVar = {
        **SigmaScheduler.checks,
        "shift": checked_positive,
        "use_dynamic_shifting": checked_boolean,
        "base_shift": partial(checked_optional, check=checked_positive),
        "max_shift": partial(checked_optional, check=checked_positive),
        "base_image_seq_len": partial(checked_integer, minimum=1),
        "max_image_seq_len": partial(checked_integer, minimum=1),
        "invert_sigmas": checked_boolean,
        "shift_terminal": partial(checked_optional, check=checked_fraction),
        "time_shift_type": partial(checked_choice, choices=("exponential", "linear")),
        "stochastic_sampling": checked_boolean,
    }

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float | None = 0.5,
        max_shift: float | None = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        invert_sigmas: bool = False,
        shift_terminal: float | None = None,
        use_karras_sigmas: bool | None = False,
        use_exponential_sigmas: bool | None = False,
        use_beta_sigmas: bool | None = False,
        time_shift_type: str = "exponential",
        stochastic_sampling: bool = False,
    ) -> None:
        if invert_sigmas and stochastic_sampling:
            raise ValueError(f"{self._name}: stochastic_sampling ends at sigma = 0, expected invert_sigmas=False")
        count = np.float32(num_train_timesteps)
        levels = np.arange(num_train_timesteps, 0, -1, dtype=np.float32) / count
        if not use_dynamic_shifting:
            levels = shifted(levels, shift)
        self._sigma_spacing = self._checked_sigma_spacing()
        self._set_levels(levels * count, levels, last=0.0)
        self._ends = float(levels[0]), float(levels[-1])
        self.num_inference_steps = None

    # training -----------------------------------------------------------------------------------------------------

    def scale_noise(self, sample: np.ndarray, timestep: Timesteps, noise: np.ndarray) -> np.ndarray:
        """(1 - sigma) x_0 + sigma eps, line (a): `add_noise` with diffusers' order of arguments.

        Args:
            sample: x_0, (B, ...) float32 or float64.
            timestep: one of `timesteps` for each image, (B,), or one for all: (1,) or a number.
            noise: eps, of the same shape and dtype.

        Returns:
            (B, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a timestep that is not among `timesteps`.
        """
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: np.ndarray, noise: np.ndarray, timesteps: Timesteps) -> np.ndarray:
        """eps - x_0, line (b), which the model is to learn, whatever the timesteps (x_0 - eps with invert_sigmas).

        Arguments and errors are those of `scale_noise`.
        """
        self._check_arrays("get_velocity", sample=sample, noise=noise)
        self._sigmas_of_images("get_velocity", sample, timesteps)
        return sample - noise if self.config["invert_sigmas"] else np.subtract(noise, sample, out=np.empty_like(sample))

    def _levels_of_images(
        self, method: str, sample: np.ndarray, timesteps: Timesteps
    ) -> tuple[np.ndarray, np.ndarray]:
        """1 - sigma and sigma of each image, or with invert_sigmas the other way round (diffusers does not)."""
        sigma = self._sigmas_of_images(method, sample, timesteps)
        return (sigma, 1 - sigma) if self.config["invert_sigmas"] else (1 - sigma, sigma)

    def _signal_and_sigma_at(self, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (level, 1 - level) if self.config["invert_sigmas"] else (1 - level, level)

    # sampling -----------------------------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Choose the levels that sampling visits: a number of them, or a list, which (e) and (f) then change.

        Args:
            num_inference_steps: N, at least 1.
            timesteps: instead, strictly descending numbers above 0, at most T, each T times a sigma.
            sigmas: instead, strictly descending numbers above 0, at most 1; without the final 0.
            mu: of (e), with use_dynamic_shifting; positive if time_shift_type is "linear".

        Raises:
            TypeError, ValueError: both or neither of num_inference_steps and sigmas given, mu missing or not wanted, a
                list that is not as described.
        """
        where = f"{self._name}.set_timesteps"
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps, sigmas=sigmas)
        if timesteps is not None:
            sigmas = (self._checked_list("timesteps", timesteps, highest=len(self)) / len(self)).tolist()
        if (mu is not None) != self.config["use_dynamic_shifting"]:
            raise ValueError(f"{where}: mu is {mu} with use_dynamic_shifting={self.config['use_dynamic_shifting']}")
        if sigmas is None:
            count = checked_integer(f"{where}: num_inference_steps", num_inference_steps, minimum=1)
            levels = np.linspace(*self._ends, count)
        else:
            levels = self._checked_list("sigmas", sigmas, highest=1).astype(np.float32)
            if levels[-1] == 0:
                raise ValueError(f"{where}: sigmas {sigmas} end with 0, expected the ones before it")
        levels = shifted(levels, self.config["shift"] if mu is None else shift_of(where, self.config, mu))
        if self.config["shift_terminal"]:
            if levels[-1] == 1:
                raise ValueError(f"{where}: with shift_terminal expected sigmas that end below 1")
            levels = stretched(levels, self.config["shift_terminal"])
        spaced = self._spaced_sigmas(levels, len(levels))
        levels = (levels if spaced is None else spaced).astype(np.float32)
        if self.config["invert_sigmas"]:
            levels = 1 - levels
        self._set_levels(levels * np.float32(len(self)), levels, last=float(self.config["invert_sigmas"]))

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
        """One step of (c), or with stochastic_sampling of (d).

        Args:
            model_output: m, of the model at sample and timestep; (B, ...) float32 or float64.
            timestep: the one of `timesteps` that is due; or one for each image, (B,), which ends a walk.
            sample: x, of the same shape and dtype.
            generator: draws z of (d); not touched in (c), nor in the last step.
            noise: instead of a generator z itself, of the shape and dtype of sample.
            return_dict: False returns the tuple (prev_sample,).

        Returns:
            x', (B, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called or a timestep that is not
                due; generator and noise both given, or neither where (d) adds noise.
        """
        index = self._step_index("step", timestep)
        self._check_arrays("step", sample=sample, model_output=model_output, noise=noise)
        self._check_source_of_noise(generator, noise)
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        anew = self.config["stochastic_sampling"] and sigma_next > 0
        z = self._drawn_noise(timestep, sample, generator, noise) if anew else None
        prev_sample = np.multiply(model_output, (0.0 if anew else sigma_next) - sigma, out=np.empty_like(sample))
        prev_sample += sample
        if z is not None:
            prev_sample *= 1 - sigma_next
            prev_sample += sigma_next * z
        self._advance(index)
        return SchedulerOutput(prev_sample).returned(return_dict)
