"""DPM-Solver and DPM-Solver++, multistep: Lu et al. 2022, arXiv:2206.00927 and arXiv:2211.01095.

(a) .. (g) are lines of hcrot/schedulers/sigmas.py and multistep.py, whose notation holds: a step goes from s to t,
h = lambda_t - lambda_s, and m_0, m_1, m_2 are the estimates, of x_0 for the "++" and of eps for the others, at s and the
two steps before, h_0 and h_1 the lengths of these. By Newton's divided differences the polynomial through them is

    (h)  m(tau) = m_0 + D_1 (tau/h) + D_2 (tau/h)^2
         order 2:  D_1 = (h/h_0)(m_0 - m_1),  D_2 = 0
         order 3:  D_2 = h^2 ((m_0 - m_1)/h_0 - (m_1 - m_2)/h_1)/(h_0 + h_1),  D_1 = (h/h_0)(m_0 - m_1) + (h_0/h) D_2

and integrated as in (e), (f):

    (i)  x_t = (b_t/b_s) x_s + a_t (W_0(h) m_0 + W_1(h) D_1 + W_2(h) D_2)                                "dpmsolver++"
         x_t = (a_t/a_s) x_s + b_t (W_0(-h) m_0 + W_1(-h) D_1 + W_2(-h) D_2)                               "dpmsolver"

At order 2 solver_type "heun" is (i); "midpoint" (algorithm 2 of DPM-Solver++) takes W_0/2 for W_1, as good to that order.

The reverse process can be solved in the same way with its noise (SDE-DPM-Solver++ there). It contracts twice as fast:

    (j)  x_t = (b_t/b_s) e^{-h} x_s + a_t (W_0(2h) m_0 + W_1(2h) D_1 + W_2(2h) D_2)
               + b_t sqrt(1 - e^{-2h}) z,  z ~ N(0, I)                                               "sde-dpmsolver++"
         x_t = (a_t/a_s) x_s + 2 b_t (W_0(-h) m_0 + W_1(-h) D_1 + W_2(-h) D_2)
               + b_t sqrt(e^{2h} - 1) z                                                                "sde-dpmsolver"

Order 3 in diffusers takes W_2/2 for W_2, so that its walks converge with order 2 and not 3, if with a third of order 2's
error. That is kept here, for the pictures to agree; `UniPCMultistepScheduler` has the true order 3. In "sde-dpmsolver++"
diffusers' weight has a wrong sign besides, and tends to -1 with h instead of to 0; here it is W_2(2h)/2. For
"sde-dpmsolver", which has no order 3 in diffusers, it is W_2(-h)/2 likewise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, overload

import numpy as np

from hcrot.schedulers.base import SchedulerOutput
from hcrot.schedulers.config import checked_boolean, checked_choice, checked_integer, checked_optional, register_to_config
from hcrot.schedulers.ddpm import LEARNED_VARIANCE_TYPES, VARIANCE_TYPES
from hcrot.schedulers.multistep import MultistepScheduler, exponential_weight
from hcrot.schedulers.sigmas import shifted

__all__ = ["ALGORITHM_TYPES", "DPMSolverMultistepScheduler"]

ALGORITHM_TYPES = ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++")


def _checked_algorithm_type(what: str, value: Any) -> str:
    """ "deis", of diffusers' DEISMultistepScheduler, is read as "dpmsolver++", as diffusers does."""
    return checked_choice(what, "dpmsolver++" if value == "deis" else value, ALGORITHM_TYPES)


def _checked_solver_type(what: str, value: Any) -> str:
    """Those of other solvers are read as "midpoint", as diffusers does."""
    return checked_choice(what, "midpoint" if value in ("logrho", "bh1", "bh2") else value, ("midpoint", "heun"))


def _checked_solver_order(what: str, value: Any) -> int:
    if checked_integer(what, value, minimum=1) > 3:
        raise ValueError(f"{what} is {value}, expected 1, 2 or 3")
    return int(value)


def _checked_lambda(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{what} is {value!r}, expected a number")
    if not -math.inf <= value < math.inf:
        raise ValueError(f"{what} is {value}, expected a number or -infinity")
    return float(value)


class DPMSolverMultistepScheduler(MultistepScheduler):
    """The steps (i) and (j), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: the levels that
            the model is trained on, see `DDPMScheduler`.
        solver_order: 1, 2 or 3, see (h); the first steps, which have less behind them, are of lower order.
        prediction_type: what the model predicts, "epsilon", "sample" or "v_prediction", see (d), or with use_flow_sigmas
            "epsilon", "sample" or "flow_prediction".
        thresholding, dynamic_thresholding_ratio, sample_max_value: whether the estimate of x_0 is thresholded, see
            `DDPMScheduler`.
        algorithm_type, solver_type: see (i) and (j).
        lower_order_final: whether a walk of less than 15 steps ends with steps of order at most 2 and 1.
        euler_at_final: whether the last step is of order 1. One that ends at sigma = 0 always is.
        use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, use_lu_lambdas: at most one, how the sigmas are spaced
            in place of those of the timesteps, see hcrot/schedulers/sigmas.py.
        final_sigmas_type: where the walk ends, at "zero" or, which "dpmsolver" and "sde-dpmsolver" need, at "sigma_min",
            the smallest level of training.
        lambda_min_clipped: the timesteps begin where lambda is at least that.
        variance_type: with "learned" and "learned_range" the model has twice the sample's channels, the second half of
            which is left alone; others say nothing here.
        timestep_spacing, steps_offset: the timesteps `set_timesteps` visits.
        use_flow_sigmas: whether the model and the samples are those of flow matching, (h) and (i) of
            hcrot/schedulers/multistep.py. `sigmas` are then the levels s, and the timesteps T s. timestep_spacing and
            lambda_min_clipped are not used. A spacing such as use_karras_sigmas gives levels sigma/(1 + sigma).
            (In diffusers such a walk is NaN.)
        flow_shift: shift of the levels s by (e) of hcrot/schedulers/flow_match_euler_discrete.py; without use_flow_sigmas
            or with a spacing such as use_karras_sigmas it is not used.
        use_dynamic_shifting, time_shift_type: whether `set_timesteps` takes mu in place of flow_shift, which is then e^mu:
            "exponential".

    Attributes, errors: those of `SigmaScheduler`. (In diffusers `add_noise` before `set_timesteps` has the levels in
    reverse.)

    Example:
        >>> trained = hcrot.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        >>> scheduler = hcrot.DPMSolverMultistepScheduler.from_config(
        ...     trained.config, algorithm_type="sde-dpmsolver++", timestep_spacing="trailing"
        ... )
        >>> scheduler.set_timesteps(4)
        >>> scheduler.timesteps.tolist()
        [999, 749, 499, 249]
    """

    checks: ClassVar = {
        **MultistepScheduler.checks,
        "solver_order": _checked_solver_order,
        "algorithm_type": _checked_algorithm_type,
        "solver_type": _checked_solver_type,
        "euler_at_final": checked_boolean,
        "lambda_min_clipped": _checked_lambda,
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
        solver_order: int = 2,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        algorithm_type: str = "dpmsolver++",
        solver_type: str = "midpoint",
        lower_order_final: bool = True,
        euler_at_final: bool = False,
        use_karras_sigmas: bool | None = False,
        use_exponential_sigmas: bool | None = False,
        use_beta_sigmas: bool | None = False,
        use_lu_lambdas: bool | None = False,
        use_flow_sigmas: bool = False,
        flow_shift: float = 1.0,
        final_sigmas_type: str = "zero",
        lambda_min_clipped: float = -math.inf,
        variance_type: str | None = None,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
    ) -> None:
        super().__init__()
        if not self._to_image and self._ends_at_zero:
            raise ValueError(
                f"{self._name}: algorithm_type {algorithm_type!r} cannot end at final_sigmas_type 'zero', "
                "expected final_sigmas_type 'sigma_min'"
            )

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[int] | None = None,
        mu: float | None = None,
    ) -> None:
        """Choose the levels that sampling visits: a number of them, spaced as the scheduler's arguments say, or a list.

        Args:
            num_inference_steps: N in 1 .. T, with "leading" spacing below T.
            timesteps: instead, strictly descending integers in 0 .. T-1.
            mu: with use_dynamic_shifting, the shift of the levels s is e^mu.

        Raises:
            TypeError, ValueError: both or neither of N and timesteps given, N out of range, a list that is not as
                described, or a list where the scheduler's arguments fix the spacing; mu missing or not wanted.
        """
        shift = self._flow_shift(mu)
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        if timesteps is not None:
            self._set_by_list(timesteps)
            return
        if self._flow and self._sigma_spacing is None:
            levels = 1 - np.linspace(1, 1 / len(self), self._checked_count(num_inference_steps) + 1)
            self._set_flow_levels(shifted(levels, shift)[:0:-1], self._training_sigmas[0])
            return
        clipped = np.count_nonzero(-np.log(self._training_sigmas) < self.config["lambda_min_clipped"])
        if clipped == len(self):
            raise ValueError(
                f"{self._name}.set_timesteps: lambda_min_clipped {self.config['lambda_min_clipped']} leaves no timestep"
            )
        to_nearest = self._sigma_spacing in ("use_karras_sigmas", "use_lu_lambdas")
        rounded = to_nearest and self.config["beta_schedule"] != "squaredcos_cap_v2"
        self._set_by_number(num_inference_steps, highest=len(self) - 1 - clipped, rounded=rounded)

    @overload
    def step(
        self, model_output: np.ndarray, timestep: int, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        noise: np.ndarray | None = ..., return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: int, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        noise: np.ndarray | None = ..., return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    def step(
        self,
        model_output: np.ndarray,
        timestep: int,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        *,
        noise: np.ndarray | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """One step of (i) or (j).

        Args:
            model_output: m(x_s, s), (B, C, ...) float32 or float64; with a learned variance (B, 2 C, ...).
            timestep: the one of `timesteps` that is due.
            sample: x_s, (B, C, ...) of the same dtype.
            generator: draws z of (j); not touched in (i), nor where the walk ends at 0.
            noise: instead of a generator z itself, of the shape and dtype of sample.
            return_dict: False returns the tuple (prev_sample,).

        Returns:
            x_t, (B, C, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called or a timestep that is not
                due; generator and noise both given, or neither where (j) adds noise.
        """
        index = self._step_index("step", timestep)
        channels = np.shape(sample)[1:2]
        learned = self.config.get("variance_type") in LEARNED_VARIANCE_TYPES
        if learned and channels and np.shape(model_output)[1:2] == (2 * channels[0],):
            model_output = model_output[:, : channels[0]]
        kept = self._history[0][1] if self._history else None
        self._check_arrays("step", sample=sample, model_output=model_output, noise=noise, **{"an earlier sample": kept})
        self._check_source_of_noise(generator, noise)
        sigma, sigma_next = self._ratio(index), self._ratio(index + 1)
        z = self._drawn_noise(timestep, sample, generator, noise) if self._stochastic and sigma_next > 0 else None

        self._remember(sigma, self._converted(model_output, sample, sigma, self._to_image))
        of_sample, of_first, of_further, of_noise = self._coefficients(sigma, sigma_next)
        prev_sample = of_sample * sample
        prev_sample += of_first * self._history[0][1]
        order = self._order(index)
        if order > 1:
            prev_sample += of_further * self._further_terms(order, math.log(sigma / sigma_next))
        if z is not None:
            prev_sample += of_noise * z
        self._advance(index)
        return SchedulerOutput(prev_sample).returned(return_dict)

    @property
    def _to_image(self) -> bool:
        return self.config["algorithm_type"].endswith("++")

    @property
    def _stochastic(self) -> bool:
        return self.config["algorithm_type"].startswith("sde")

    def _order(self, index: int) -> int:
        """That of the step: solver_order, but no more than there are estimates, and less at the end of a walk."""
        steps_left, sigma_next = len(self.timesteps) - index, self.sigmas[index + 1]
        if sigma_next == self.sigmas[index]:
            return 1
        cautious = self.config["lower_order_final"] and len(self.timesteps) < 15
        if steps_left == 1 and (self.config["euler_at_final"] or cautious or sigma_next == 0):
            return 1
        return min(len(self._history), 2 if steps_left == 2 and cautious else 3)

    def _coefficients(self, sigma: float, sigma_next: float) -> tuple[float, float, float, float]:
        """What (i) or (j) multiplies x_s, m_0, the sum of W_k D_k for k > 0, and z with; without exponentials as in (g)."""
        of_sample, of_first, of_further = self._first_order(sigma, sigma_next, self._to_image)
        signal, ratio = self._signal_and_noise(sigma_next)[0], sigma_next / sigma
        if not self._stochastic:
            return of_sample, of_first, of_further, 0.0
        if self._to_image:
            return of_sample * ratio, of_first * (1 + ratio), of_further, signal * sigma_next * math.sqrt(1 - ratio**2)
        return of_sample, 2 * of_first, 2 * of_further, signal * math.sqrt(sigma**2 - sigma_next**2)

    def _further_terms(self, order: int, h: float) -> np.ndarray:
        """W_1 D_1 + W_2/2 D_2 of (h) and (i) or (j)."""
        argument = (2 * h if self._stochastic else h) if self._to_image else -h
        (lambda_0, m_0), (lambda_1, m_1), *older = self._history
        slope = (m_0 - m_1) * (h / (lambda_0 - lambda_1))
        if order == 2:
            midpoint = self.config["solver_type"] == "midpoint"
            return slope * (exponential_weight(0, argument) / 2 if midpoint else exponential_weight(1, argument))
        (lambda_2, m_2) = older[0]
        curvature = slope - (m_1 - m_2) * (h / (lambda_1 - lambda_2))
        curvature *= h / (lambda_0 - lambda_2)
        slope += curvature * ((lambda_0 - lambda_1) / h)
        return slope * exponential_weight(1, argument) + curvature * (exponential_weight(2, argument) / 2)
