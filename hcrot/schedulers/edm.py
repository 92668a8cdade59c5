"""What the schedulers of EDM share: Karras, Aittala, Aila & Laine 2022, arXiv:2206.00364, whose equations are [n] here.

Lines (a), (c) are those of hcrot/schedulers/sigmas.py: x = x_0 + sigma eps, and D(x; sigma) the estimate of x_0. The network F never
sees x as it is. With sigma_data the standard deviation of the data [7, and table 1]

    (e)  D(x; sigma) = c_skip x + c_out F(c_in x, c_noise)
         c_skip = sigma_data^2/(sigma^2 + sigma_data^2)      c_out = sigma sigma_data/sqrt(sigma^2 + sigma_data^2)
         c_in = 1/sqrt(sigma^2 + sigma_data^2)                c_noise = log(sigma)/4

so what F is given, and what it has to learn, has variance 1 at every sigma. prediction_type "epsilon" is (e); "v_prediction" has -c_out
for c_out, which at sigma_data = 1 makes of F the v of Salimans & Ho 2022 (arXiv:2202.00512, line (d) of sigmas.py). F then has to learn

    (f)  v = (c_skip x - x_0)/c_out = (sigma_data eps - (sigma/sigma_data) x_0)/sqrt(sigma^2 + sigma_data^2)

and for "epsilon" -v. The levels go from sigma_max to sigma_min, r from 0 to 1:

    (g)  "karras":       sigma = (sigma_max^{1/rho} + r (sigma_min^{1/rho} - sigma_max^{1/rho}))^rho                       [5]
         "exponential":  log sigma = log sigma_max + r (log sigma_min - log sigma_max)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from hcrot.schedulers.base import Timesteps
from hcrot.schedulers.config import checked_choice, checked_integer, checked_positive
from hcrot.schedulers.sigmas import VarianceExplodingScheduler, exponential_sigmas

__all__ = ["EDMScheduler"]

ROUNDING = 1e-6  # of timesteps, which are float32


class EDMScheduler(VarianceExplodingScheduler):
    """The preconditioning (e) and the levels (g), on which a solver walks.

    It has none of the tables of `NoiseScheduler` (betas, alphas, alphas_cumprod). Its timesteps are c_noise, float32.

    Attributes:
        sigmas: (N + 1,) float32; before `set_timesteps` those of num_train_timesteps and the end.
        init_noise_sigma: sqrt(sigma_max^2 + 1), as in diffusers; sigma_max stands for the noise, 1 for an image.
    """

    checks: ClassVar = {
        "sigma_min": checked_positive,
        "sigma_max": checked_positive,
        "sigma_data": checked_positive,
        "sigma_schedule": partial(checked_choice, choices=("karras", "exponential")),
        "num_train_timesteps": partial(checked_integer, minimum=1),
        "prediction_type": partial(checked_choice, choices=("epsilon", "v_prediction")),
        "rho": checked_positive,
        "final_sigmas_type": partial(checked_choice, choices=("zero", "sigma_min")),
    }

    def __init__(self, count: int) -> None:
        """count: how many levels there are before `set_timesteps` is called."""
        if self.config["sigma_max"] <= self.config["sigma_min"]:
            raise ValueError(
                f"{self._name}: sigma_max is {self.config['sigma_max']}, expected more than sigma_min {self.config['sigma_min']}"
            )
        self._sigma_spacing = None  # of `SigmaScheduler`, which has another name for it
        self._walk(np.linspace(0, 1, count))
        self.num_inference_steps = None

    @property
    def init_noise_sigma(self) -> float:  # type: ignore[override]  # it follows from sigma_max, so nobody sets it
        return math.hypot(self.config["sigma_max"], 1)

    # preconditioning ----------------------------------------------------------------------------------------------

    def precondition_inputs(self, sample: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
        """c_in x of (e), for one sigma or one that fits x, such as (B, 1, 1, 1); a new array of the dtype of sample."""
        sigma = self._checked_sigma("precondition_inputs", sigma).astype(np.float64)
        return sample * (1 / np.hypot(sigma, self.config["sigma_data"])).astype(sample.dtype)

    def precondition_noise(self, sigma: float | np.ndarray) -> np.ndarray:
        """c_noise of (e), of the shape of sigma, at least (1,), and its dtype if that is a floating one, else float32."""
        sigma = np.atleast_1d(self._checked_sigma("precondition_noise", sigma))
        return np.log(sigma) * sigma.dtype.type(0.25)

    def precondition_outputs(self, sample: np.ndarray, model_output: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
        """D(x; sigma) of (e).

        Args:
            sample: x, (B, ...) float32 or float64, not yet scaled.
            model_output: F, of the same shape and dtype.
            sigma: one number, or an array that fits x, such as (B, 1, 1, 1).

        Returns:
            the estimate of x_0, a new array of the shape and dtype of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a sigma of 0 or below.
        """
        self._check_arrays("precondition_outputs", sample=sample, model_output=model_output)
        sigma, data = self._checked_sigma("precondition_outputs", sigma).astype(np.float64), self.config["sigma_data"]
        skip, out = data**2 / (sigma**2 + data**2), sigma * data / np.hypot(sigma, data)
        if self.config["prediction_type"] == "v_prediction":
            out = -out
        return skip.astype(sample.dtype) * sample + out.astype(sample.dtype) * model_output

    # The timestep cannot be left out, for by it the sample is scaled.
    def scale_model_input(self, sample: np.ndarray, timestep: Timesteps | float) -> np.ndarray:  # type: ignore[override]
        """c_in x of (e): the sample as the model knows it, (B, ...) of the same dtype; timestep may be (B,)."""
        if np.ndim(timestep) > 0:
            self._check_arrays("scale_model_input", sample=sample)
            return self.precondition_inputs(sample, self._sigmas_of_images("scale_model_input", sample, timestep))
        index = self._step_index("scale_model_input", timestep)
        self._check_arrays("scale_model_input", sample=sample)
        return self.precondition_inputs(sample, self.sigmas[index])

    def _levels_of_images(self, method: str, sample: np.ndarray, timesteps: Timesteps) -> tuple[np.ndarray, np.ndarray]:
        """What (f) multiplies eps and x_0 with, so that `get_velocity` is the target of a network of type "v_prediction"."""
        sigma, data = self._sigmas_of_images(method, sample, timesteps), sample.dtype.type(self.config["sigma_data"])
        return data / np.hypot(sigma, data), sigma / data / np.hypot(sigma, data)

    # levels -------------------------------------------------------------------------------------------------------

    def set_timesteps(
        self, num_inference_steps: int | None = None, *, timesteps: Sequence[float] | np.ndarray | None = None
    ) -> None:
        """Walk N levels spaced by (g), from sigma_max to sigma_min, or those of a list, and end as final_sigmas_type says.

        Args:
            num_inference_steps: N, at least 1.
            timesteps: instead, strictly descending c_noise = log(sigma)/4, with sigma from sigma_max to sigma_min.

        Raises:
            TypeError, ValueError: both or neither given, an N that is no integer of at least 1, a list that is not as described.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if timesteps is not None:
            self._walk_to(timesteps)
            return
        count = checked_integer(f"{self._name}.set_timesteps: num_inference_steps", num_inference_steps, minimum=1)
        self._walk(np.linspace(0, 1, count))

    def _walk_to(self, timesteps: Sequence[float] | np.ndarray) -> None:
        """Let sampling visit the levels of these c_noise."""
        where, chosen = f"{self._name}.set_timesteps", np.asarray(timesteps)
        if chosen.dtype.kind not in "iuf" or chosen.ndim != 1 or chosen.size == 0 or not np.all(np.diff(chosen) < 0):
            raise ValueError(f"{where}: timesteps {timesteps} is not a strictly descending list of numbers")
        low, high = (math.log(self.config[name]) / 4 for name in ("sigma_min", "sigma_max"))
        if not low - ROUNDING <= chosen[-1] <= chosen[0] <= high + ROUNDING:
            raise ValueError(
                f"{where}: timesteps range from {chosen[-1]} to {chosen[0]}, expected log(sigma)/4 of levels from sigma_min to "
                f"sigma_max, {low:.6g} .. {high:.6g}"
            )
        sigmas = np.exp(4 * chosen.astype(np.float64)).astype(np.float32)
        self._set_levels(chosen.astype(np.float32), sigmas, self._last_sigma(sigmas))

    def _walk(self, ramp: np.ndarray) -> None:
        """Let sampling visit the levels of these r, (N,) from 0 to 1."""
        high, low, rho = (self.config[name] for name in ("sigma_max", "sigma_min", "rho"))
        if self.config["sigma_schedule"] == "karras":
            sigmas = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        else:
            sigmas = exponential_sigmas(high, low, len(ramp))
        sigmas = sigmas.astype(np.float32)
        self._set_levels(self.precondition_noise(sigmas), sigmas, self._last_sigma(sigmas))

    def _last_sigma(self, sigmas: np.ndarray) -> float:
        """Where a walk of these levels ends."""
        return 0.0 if self.config["final_sigmas_type"] == "zero" else float(sigmas[-1])

    def _checked_sigma(self, method: str, sigma: Any) -> np.ndarray:
        """Positive numbers, in their floating dtype or float32."""
        levels = np.asarray(sigma)
        if levels.dtype.kind not in "iuf" or not np.all(levels > 0):
            raise ValueError(f"{self._name}.{method}: sigma is {sigma}, expected positive numbers")
        return levels if isinstance(sigma, np.ndarray | np.floating) and levels.dtype.kind == "f" else levels.astype(np.float32)
