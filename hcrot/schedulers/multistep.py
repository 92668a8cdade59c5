"""What the multistep solvers share: the probability flow equation solved but for one integral, and its weights.

(a) .. (d) are lines of hcrot/schedulers/sigmas.py. Here the sample is x = a x_0 + b eps with a^2 + b^2 = 1, as in DDPM.

In lambda = log(a/b) = -log sigma the equation (c) is linear but for the model: d(x/b)/dlambda = e^lambda x_0, and the
other way round d(x/a)/dlambda = -e^{-lambda} eps. So a step from s to t, with h = lambda_t - lambda_s and tau the way
since s, is known but for an integral of what the model says of the image or of the noise (Lu et al. 2022: DPM-Solver++,
arXiv:2211.01095, proposition 4.1, and DPM-Solver, arXiv:2206.00927, proposition 3.1):

    (e)  x_t = (b_t/b_s) x_s + a_t int_0^h e^{-(h - tau)} x_0(tau) dtau
         x_t = (a_t/a_s) x_s - b_t int_0^h e^{h - tau} eps(tau) dtau

The estimates m_0, m_1, .. made at s and at the steps before give a polynomial in tau/h to integrate. Its weights are

    (f)  W_k(h) = int_0^h e^{-(h - tau)} (tau/h)^k dtau,  and for the noise  int_0^h e^{h - tau} (tau/h)^k dtau = -W_k(-h)
         W_0(h) = 1 - e^{-h},  W_k(h) = 1 - k W_{k-1}(h)/h  by parts

The constant alone is exact to first order, and the step of DDIM; with e^{-h} = sigma_t/sigma_s it needs no exponential:

    (g)  a_t W_0(h) = a_t (1 - sigma_t/sigma_s),  b_t W_0(-h) = a_t (sigma_t - sigma_s)

which holds at sigma_t = 0 too, where h is infinite, b_t = 0 and x_t the estimate of x_0.

Nothing in (e), (f) and (g) needs a^2 + b^2 = 1. With use_flow_sigmas the samples are those of flow matching
(hcrot/schedulers/flow_match_euler_discrete.py, lines (a) and (b)): s is the level that `sigmas` holds, and

    (h)  x = (1 - s) x_0 + s eps,  so a = 1 - s, b = s, sigma = b/a = s/(1 - s), a = 1/(1 + sigma)
    (i)  flow_prediction:  m = eps - x_0,  x_0 = x - b m,  eps = x + a m
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import scipy

from hcrot.schedulers.base import PREDICTION_TYPES, Timesteps
from hcrot.schedulers.config import checked_boolean, checked_choice, checked_integer, checked_positive
from hcrot.schedulers.estimates import Level
from hcrot.schedulers.schedules import spaced_timesteps
from hcrot.schedulers.sigmas import SigmaScheduler, shift_of, signal_and_noise, timesteps_of_sigmas

__all__ = ["MultistepScheduler", "exponential_weight"]


def exponential_weight(power: int, h: float) -> float:
    """W_k(h) of line (f) for k = power and h of either sign, by Kummer's function: h/(k + 1) M(1, k + 2, -h).

    The recursion of (f) says the same and loses its digits at small h: W_3(1e-3) is off by 2e-6, W_3(1e-4) by 2e-3.
    """
    return h / (power + 1) * float(scipy.special.hyp1f1(1, power + 2, -h))


class MultistepScheduler(SigmaScheduler):
    """A walk with samples x = a x_0 + b eps, whose steps remember what the model said in the steps before."""

    checks: ClassVar = {
        **SigmaScheduler.checks,
        "solver_order": partial(checked_integer, minimum=1),
        "prediction_type": partial(checked_choice, choices=(*PREDICTION_TYPES, "flow_prediction")),
        "lower_order_final": checked_boolean,
        "use_flow_sigmas": checked_boolean,
        "flow_shift": checked_positive,
        "use_dynamic_shifting": checked_boolean,
        "time_shift_type": partial(checked_choice, choices=("exponential",)),
    }

    def __init__(self) -> None:
        super().__init__()
        prediction_type = self.config["prediction_type"]
        if self._flow and prediction_type == "v_prediction":
            raise ValueError(
                f"{self._name}: prediction_type 'v_prediction' cannot go with use_flow_sigmas=True, for v is defined by levels "
                "with a^2 + b^2 = 1; expected 'flow_prediction', 'epsilon' or 'sample'"
            )
        for name, needs_flow in (
            ("prediction_type 'flow_prediction'", prediction_type == "flow_prediction"),
            ("use_dynamic_shifting=True", self.config["use_dynamic_shifting"]),
        ):
            if needs_flow and not self._flow:
                raise ValueError(f"{self._name}: {name} expected use_flow_sigmas=True, got use_flow_sigmas=False")

    # levels of noise ---------------------------------------------------------------------------------------------

    @property
    def _flow(self) -> bool:
        return self.config["use_flow_sigmas"]

    def _ratio(self, index: int) -> float:
        """sigma = b/a at this entry of `sigmas`, which with use_flow_sigmas are s of (h)."""
        sigma = float(self.sigmas[index])
        return sigma / (1 - sigma) if self._flow else sigma

    def _signal_and_noise(self, ratio: float) -> tuple[float, float]:
        """a and b at sigma = b/a: by (h), or with a^2 + b^2 = 1."""
        return (1 / (1 + ratio), ratio / (1 + ratio)) if self._flow else signal_and_noise(ratio)

    def _levels_of_images(
        self, method: str, sample: np.ndarray, timesteps: Timesteps
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self._flow:
            return super()._levels_of_images(method, sample, timesteps)
        self._check_timesteps_are_set(method)
        sigma = self._sigmas_of_images(method, sample, timesteps)
        return 1 - sigma, sigma

    def _signal_and_sigma_at(self, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (1 - level, level) if self._flow else super()._signal_and_sigma_at(level)

    def get_velocity(self, sample: np.ndarray, noise: np.ndarray, timesteps: Timesteps) -> np.ndarray:
        """v of `NoiseScheduler.get_velocity`, or with use_flow_sigmas eps - x_0, line (i), with x_0 called sample.

        Arguments, result and errors are those of `add_noise`.
        """
        if not self._flow:
            return super().get_velocity(sample, noise, timesteps)
        self._check_arrays("get_velocity", sample=sample, noise=noise)
        self._levels_of_images("get_velocity", sample, timesteps)
        return np.subtract(noise, sample, out=np.empty_like(sample))

    # choosing the levels -----------------------------------------------------------------------------------------

    def _set_by_number(self, num_inference_steps: int | None, highest: int, rounded: bool) -> None:
        """Walk N levels, spaced as the scheduler's arguments say; of timesteps those up to highest.

        Spaced sigmas lie between timesteps, of which the model gets the nearest one (rounded) or the one below.
        """
        count = self._checked_count(num_inference_steps)
        sigmas = self._spaced_sigmas(self._training_sigmas[::-1], count)
        if sigmas is not None and self._flow:
            levels = sigmas / (1 + sigmas)
            self._set_flow_levels(levels, levels[-1])
            return
        if sigmas is None:
            self._set_by_timesteps(self._solver_timesteps(count, highest))
            return
        timesteps = timesteps_of_sigmas(sigmas, self._training_sigmas)
        timesteps = (timesteps.round() if rounded else timesteps).astype(np.int64)
        self._set_levels(timesteps, sigmas, 0.0 if self._ends_at_zero else sigmas[-1])

    def _set_flow_levels(self, levels: np.ndarray, smallest: float) -> None:
        """Walk these levels s, (N,), and end at 0 or at the smallest; the model is told T s, cut to an integer."""
        self._set_levels((levels * len(self)).astype(np.int64), levels, 0.0 if self._ends_at_zero else smallest)

    def _flow_shift(self, mu: float | None) -> float:
        """flow_shift, or with use_dynamic_shifting the shift that mu stands for."""
        dynamic = self.config["use_dynamic_shifting"]
        if (mu is not None) != dynamic:
            raise ValueError(f"{self._name}.set_timesteps: mu is {mu} with use_dynamic_shifting={dynamic}")
        return self.config["flow_shift"] if mu is None else shift_of(f"{self._name}.set_timesteps", self.config, mu)

    def _set_by_list(self, timesteps: Sequence[int]) -> None:
        """Walk the levels of timesteps that somebody has listed."""
        if self._flow:
            raise ValueError(f"{self._name}.set_timesteps: timesteps cannot be chosen with use_flow_sigmas=True")
        visited = self._checked_timesteps("set_timesteps", timesteps)
        self._set_by_timesteps(self._checked_list("timesteps", visited, highest=len(self) - 1))

    def _set_by_timesteps(self, timesteps: np.ndarray) -> None:
        last = 0.0 if self._ends_at_zero else self._training_sigmas[0]
        self._set_levels(timesteps, self._training_sigmas[timesteps], last)

    @property
    def _ends_at_zero(self) -> bool:
        return self.config["final_sigmas_type"] == "zero"

    def _solver_timesteps(self, count: int, highest: int) -> np.ndarray:
        """The N of N + 1 timesteps from highest to 0 that come before 0; (N,) int64, descending.

        "trailing", which does not visit 0, has strides of T/N from highest. "linspace" rounds, and where N > highest some
        timesteps come twice: a step between equal levels leaves the sample as it is.
        """
        spacing = self.config["timestep_spacing"]
        if spacing == "trailing":
            timesteps = np.round(np.arange(highest + 1, 0, -len(self) / count)) - 1
            return timesteps[timesteps >= 0].astype(np.int64)
        if count > highest and spacing == "leading":
            raise ValueError(
                f"{self._name}.set_timesteps: num_inference_steps {count} is more than the {highest} timesteps that "
                f"timestep_spacing {spacing!r} has to choose from"
            )
        return spaced_timesteps(spacing, highest + 1, count + 1, self.config["steps_offset"])[:-1]

    def _converted(self, model_output: np.ndarray, sample: np.ndarray, sigma: float, to_image: bool) -> np.ndarray:
        """The estimate of x_0 by line (d), thresholded if asked for, or of the noise that goes with it; a new array."""
        signal, noise = self._signal_and_noise(sigma)
        if to_image:
            return self._limit(self._estimate_x0(model_output, sample, signal, noise))
        if self.config["thresholding"]:
            x0 = self._limit(self._estimate_x0(model_output, sample, signal, noise))
            return self._noise_behind(x0, sample, signal, noise)
        return np.array(self._estimate_noise(model_output, sample, signal, noise))

    def _estimate_x0(self, model_output: np.ndarray, sample: np.ndarray, signal: Level, sigma: Level) -> np.ndarray:
        if self.config["prediction_type"] != "flow_prediction":
            return super()._estimate_x0(model_output, sample, signal, sigma)
        x0 = np.multiply(model_output, -sigma, out=np.empty_like(sample))
        x0 += sample
        return x0

    def _estimate_noise(self, model_output: np.ndarray, sample: np.ndarray, signal: Level, sigma: Level) -> np.ndarray:
        if self.config["prediction_type"] != "flow_prediction":
            return super()._estimate_noise(model_output, sample, signal, sigma)
        eps = np.multiply(model_output, signal, out=np.empty_like(sample))
        eps += sample
        return eps

    def _remember(self, sigma: float, estimate: np.ndarray) -> None:
        """Put (lambda, estimate) in front of `_history`, which has as many as the order, the latest first.

        An estimate at the level of the one before takes its place, for no polynomial goes through both.
        """
        now = -np.log(sigma)
        earlier = self._history[1:] if self._history and self._history[0][0] == now else self._history
        self._history = [(now, estimate), *earlier][: self.config["solver_order"]]

    def _first_order(self, sigma: float, sigma_next: float, to_image: bool) -> tuple[float, float, float]:
        """What (e) and (g) multiply x_s with, m_0 with, and W_k(h) or W_k(-h) of the further terms with."""
        (a_s, b_s), (a_t, b_t) = self._signal_and_noise(sigma), self._signal_and_noise(sigma_next)
        if to_image:
            return b_t / b_s, a_t * (1 - sigma_next / sigma), a_t
        return a_t / a_s, a_t * (sigma_next - sigma), b_t
