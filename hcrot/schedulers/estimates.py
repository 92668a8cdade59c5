"""What a prediction says of x_0 and of the noise, and x_0 limited: what every reverse step begins with.

Notation as in hcrot/schedulers/base.py: x_t = signal x_0 + sigma eps, and m is the model's prediction.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from hcrot.schedulers.config import Scheduler, SchedulerConfig

__all__ = ["Estimates", "Level"]

Level = float | np.floating | np.ndarray  # an array has one for each image, (B, 1, 1, ...)


class Estimates(SchedulerConfig):
    """The part of `NoiseScheduler` that reads a prediction, by its prediction_type."""

    @classmethod
    def from_config(cls: type[Scheduler], config: Mapping[str, Any], **overrides: Any) -> Scheduler:
        """That of `SchedulerConfig`, but it chooses what works where the config's scheduler clips x_0 and this one would not.

        The first step divides by sqrt(abar_t), which is 5e-5 at T-1 of "squaredcos_cap_v2", and without clipping most of x_0 is error
        then. DDPM and DDIM clip by default; diffusers drops that where a class has no clip_sample. So of a config with
        clip_sample=True and prediction_type "epsilon" is made, unless the overrides say otherwise,

            DPM-Solver, UniPC    thresholding=True, sample_max_value=1: s of `_limit` is then 1 for every image, so it clips to +-1.
                                 (Not with a clip_sample_range other than 1, which thresholding cannot stand for.)
            Euler, Heun          the config's own timestep_spacing, even if nobody chose it: with "leading" they begin below T-1, where
                                 sigma is not yet some thousands.

        A config that says _class_name of this very class, or has solver_order as that of a multistep solver, means what it means in
        diffusers. The algorithm stays the default one, for "sde-dpmsolver++", whose pictures are better, needs a generator.
        """
        if isinstance(config, Mapping) and "thresholding" not in overrides:
            overrides = {**_as_it_clips(cls, config), **overrides}
        return super().from_config(config, **overrides)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _estimate_x0(self, model_output: np.ndarray, sample: np.ndarray, signal: Level, sigma: Level) -> np.ndarray:
        """x_0 by the model's prediction m, a new array in the dtype and memory order of sample.

            epsilon:       x_0 = (x_t - sigma m) / signal
            sample:        x_0 = m
            v_prediction:  x_0 = signal x_t - sigma m

        Raises:
            ValueError: epsilon at signal = 0, which rescale_betas_zero_snr makes of T-1: pure noise says nothing of x_0
                (diffusers divides by zero there, and clips the infinities).
        """
        prediction_type = self.config["prediction_type"]
        x0 = np.empty_like(sample)
        if prediction_type == "epsilon":
            if np.any(signal == 0):
                raise ValueError(self._no_signal("step"))
            np.multiply(model_output, -sigma, out=x0)
            x0 += sample
            x0 /= signal
        elif prediction_type == "sample":
            x0[...] = model_output
        else:
            np.multiply(model_output, -sigma, out=x0)
            x0 += sample * signal
        return x0

    def _no_signal(self, method: str) -> str:
        expected = "expected 'v_prediction' or 'sample', or another timestep_spacing"
        reason = "says nothing of x_0 where alphas_cumprod is 0 (rescale_betas_zero_snr)"
        return f"{self._name}.{method}: prediction_type 'epsilon' {reason}, {expected}"

    def _estimate_noise(self, model_output: np.ndarray, sample: np.ndarray, signal: Level, sigma: Level) -> np.ndarray:
        """eps by the model's prediction m, which may be m itself.

            epsilon:       eps = m
            sample:        eps = (x_t - signal m) / sigma
            v_prediction:  eps = signal m + sigma x_t
        """
        prediction_type = self.config["prediction_type"]
        if prediction_type == "epsilon":
            return model_output
        if prediction_type == "sample":
            return self._noise_behind(model_output, sample, signal, sigma)
        eps = np.multiply(model_output, signal, out=np.empty_like(sample))
        eps += sigma * sample
        return eps

    def _noise_behind(self, x0: np.ndarray, sample: np.ndarray, signal: Level, sigma: Level) -> np.ndarray:
        """eps = (x_t - signal x_0) / sigma with sigma > 0, a new array in the dtype and memory order of sample."""
        eps = np.multiply(x0, -signal, out=np.empty_like(sample))
        eps += sample
        eps /= sigma
        return eps

    def _limit(self, x0: np.ndarray) -> np.ndarray:
        """Written in place: an estimate of x_0 thresholded, or clipped to +-clip_sample_range, or left as it is.

        Dynamic thresholding (Saharia et al. 2022, arXiv:2205.11487, section 2.3): for each image s, the
        dynamic_thresholding_ratio quantile of |x_0|, but from 1 to sample_max_value; x_0 <- clip(x_0, -s, s) / s.
        """
        if self._arguments.get("thresholding"):
            ratio, largest = self._arguments["dynamic_thresholding_ratio"], self._arguments["sample_max_value"]
            s = np.quantile(np.abs(x0).reshape(len(x0), -1), ratio, axis=1)
            s = np.clip(s, 1, largest).astype(x0.dtype).reshape(-1, *(1,) * (x0.ndim - 1))
            np.clip(x0, -s, s, out=x0)
            x0 /= s
        elif self._arguments.get("clip_sample"):
            limit = self.config["clip_sample_range"]
            np.clip(x0, -limit, limit, out=x0)
        return x0


def _as_it_clips(cls: type[SchedulerConfig], config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `Estimates.from_config` adds for a scheduler of this class; none, if the config does not clip."""
    clips = config.get("clip_sample") is True and config.get("thresholding") is not True
    epsilon = config.get("prediction_type", "epsilon") == "epsilon"
    if not (clips and epsilon) or "solver_order" in config or config.get("_class_name") == cls.__name__:
        return {}
    parameters = inspect.signature(cls).parameters
    if "thresholding" in parameters and "clip_sample" not in parameters:
        return {"thresholding": True, "sample_max_value": 1.0} if config.get("clip_sample_range", 1) == 1 else {}
    spacing, own = config.get("timestep_spacing"), parameters.get("timestep_spacing")
    return {} if spacing is None or own is None or own.default == spacing else {"timestep_spacing": spacing}
