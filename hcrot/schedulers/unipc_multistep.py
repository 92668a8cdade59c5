"""UniPC, a predictor and a corrector of any order: Zhao, Bai, Rao, Zhou & Lu 2023, arXiv:2302.04867.

(a) .. (g) are lines of hcrot/schedulers/sigmas.py and multistep.py, whose notation holds: a step goes from s to t,
h = lambda_t - lambda_s; m_0, m_1, .. are the estimates, of x_0 or (predict_x0=False) of eps, at s and at the steps before.
With H = h for the image and H = -h for the noise, what is known is line (e) with W_k(H). For the rest let the way back to
m_k be r_k = (lambda_k - lambda_s)/h < 0. The polynomial through all of them,

    (h)  m(tau) = m_0 + sum_j c_j (tau/h)^j  with  m_k - m_0 = sum_j c_j r_k^j,  j = 1 .. n

is integrated to sum_j c_j W_j(H). Written as a sum over the estimates, sum_k q_k (m_k - m_0)/r_k, this is so for every
polynomial of that degree if

    (i)  sum_k q_k r_k^{j-1} = W_j(H),  j = 1 .. n            (their R rho = b, with q = -B(h) rho: B is gone)

UniP-p, the predictor, takes the p - 1 estimates before m_0. UniC-p, the corrector, is called when the model has been
evaluated at the predicted x_t, and takes that estimate too, with r = 1; x_t is calculated anew, and the next step starts
from there. No evaluation is added, and the walk converges with order p + 1.

For n = 1, that is in UniP-2 and UniC-1, (i) is not solved but rho = 1/2 taken, as good to that order. So B matters
there and only there:

    (j)  bh1: q = H/2,  bh2: q = W_0(H)/2

A step that ends at sigma = 0 is of order 1 and taken by (g). In diffusers it is NaN with bh1, with predict_x0=False, and
without lower_order_final.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, overload

import numpy as np

from hcrot.schedulers.base import SchedulerOutput
from hcrot.schedulers.config import (
    checked_boolean,
    checked_choice,
    checked_fraction,
    checked_integer,
    checked_optional,
    register_to_config,
)
from hcrot.schedulers.multistep import MultistepScheduler, exponential_weight
from hcrot.schedulers.sigmas import checked_left_out, shifted, stretched

__all__ = ["NEARLY_ONE", "UniPCMultistepScheduler"]

NEARLY_ONE = 1e-6  # how far diffusers keeps the first level s below 1


def _checked_solver_type(what: str, value: Any) -> str:
    """Those of other solvers are read as "bh2", as diffusers does."""
    return checked_choice(what, "bh2" if value in ("midpoint", "heun", "logrho") else value, ("bh1", "bh2"))


def _checked_indices(what: str, value: Any) -> list[int]:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise TypeError(f"{what} is {value!r}, expected a list of integers")
    return [checked_integer(what, index, minimum=0) for index in value]


class UniPCMultistepScheduler(MultistepScheduler):
    """Predictor and corrector by (i) and (j), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: the levels that
            the model is trained on, see `DDPMScheduler`.
        solver_order: p of UniP-p and UniC-p; the first steps, which have less behind them, are of lower order.
        prediction_type: what the model predicts, "epsilon", "sample" or "v_prediction", see (d), or with use_flow_sigmas
            "epsilon", "sample" or "flow_prediction".
        thresholding, dynamic_thresholding_ratio, sample_max_value: whether the estimate of x_0 is thresholded, see
            `DDPMScheduler`. (With predict_x0=False diffusers does not.)
        predict_x0: whether the polynomial (h) is of x_0 or of the noise.
        solver_type: "bh1" or "bh2", see (j).
        lower_order_final: whether the order falls to 1 towards the end of the walk.
        disable_corrector: the numbers, from 0, of the steps whose x_t is not corrected.
        use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: at most one, how the sigmas are spaced in place of
            those of the timesteps, see hcrot/schedulers/sigmas.py.
        sigma_min, sigma_max: ends of such a spacing; None takes those of training.
        timestep_spacing, steps_offset: the timesteps `set_timesteps` visits.
        final_sigmas_type: where the walk ends, at "zero" or at "sigma_min", the smallest level of training.
        use_flow_sigmas: whether the model and the samples are those of flow matching, (h) and (i) of
            hcrot/schedulers/multistep.py. `sigmas` are then the levels s, and the timesteps T s. timestep_spacing is
            not used. A spacing such as use_karras_sigmas gives levels sigma/(1 + sigma).
            (In diffusers use_exponential_sigmas and use_beta_sigmas then make NaN.)
        flow_shift: shift of the levels s by (e) of hcrot/schedulers/flow_match_euler_discrete.py; without use_flow_sigmas
            or with a spacing such as use_karras_sigmas it is not used.
        use_dynamic_shifting, time_shift_type: whether `set_timesteps` takes mu in place of flow_shift, and whether the shift
            is e^mu ("exponential") or mu ("linear").
        shift_terminal: with use_flow_sigmas, the last level s before the end, see (f) there.
        solver_p: another scheduler for the predictor; raises NotImplementedError.

    Attributes, errors: those of `SigmaScheduler`. (In diffusers `add_noise` before `set_timesteps` has the levels in
    reverse.)

    Example:
        >>> scheduler = hcrot.UniPCMultistepScheduler()
        >>> scheduler.set_timesteps(4)
        >>> scheduler.timesteps.tolist(), [round(float(sigma), 2) for sigma in scheduler.sigmas]
        ([999, 749, 500, 250], [157.41, 17.25, 3.44, 0.96, 0.0])
    """

    checks: ClassVar = {
        **MultistepScheduler.checks,
        "predict_x0": checked_boolean,
        "solver_type": _checked_solver_type,
        "disable_corrector": _checked_indices,
        "solver_p": partial(checked_left_out, default=None),
        "time_shift_type": partial(checked_choice, choices=("exponential", "linear")),
        "shift_terminal": partial(checked_optional, check=checked_fraction),
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
        predict_x0: bool = True,
        solver_type: str = "bh2",
        lower_order_final: bool = True,
        disable_corrector: Sequence[int] = (),
        solver_p: None = None,
        use_karras_sigmas: bool | None = False,
        use_exponential_sigmas: bool | None = False,
        use_beta_sigmas: bool | None = False,
        use_flow_sigmas: bool = False,
        flow_shift: float = 1.0,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        final_sigmas_type: str = "zero",
        rescale_betas_zero_snr: bool = False,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        shift_terminal: float | None = None,
    ) -> None:
        super().__init__()
        if shift_terminal is not None and not use_flow_sigmas:
            raise ValueError(f"{self._name}: shift_terminal expected use_flow_sigmas=True, got use_flow_sigmas=False")

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Choose the levels that sampling visits: a number of them, spaced as the scheduler's arguments say, or a list.

        Args:
            num_inference_steps: N in 1 .. T, with "leading" spacing below T.
            timesteps: instead, without use_flow_sigmas, strictly descending integers in 0 .. T-1.
            sigmas: instead, with use_flow_sigmas, strictly descending levels s above 0, at most 1, which are then shifted;
                without the one where the walk ends.
            mu: with use_dynamic_shifting, what the shift of the levels s is made of.

        Raises:
            TypeError, ValueError: both or neither of N and sigmas given, N out of range, a list that is not as described,
                or a list where the scheduler's arguments fix the levels; mu missing or not wanted.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps, sigmas=sigmas)
        shift = self._flow_shift(mu)
        if timesteps is not None:
            self._set_by_list(timesteps)
            return
        if self._flow and self._sigma_spacing is None:
            if sigmas is None:
                levels = np.linspace(1, 1 / len(self), self._checked_count(num_inference_steps) + 1)[:-1]
            else:
                levels = self._checked_list("sigmas", sigmas, highest=1).astype(np.float64)
            self._set_shifted(levels, shift)
            return
        if sigmas is not None:
            raise ValueError(
                f"{self._name}.set_timesteps: sigmas can be chosen with use_flow_sigmas=True only, and without "
                "use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas"
            )
        rounded = self._sigma_spacing == "use_karras_sigmas"
        self._set_by_number(num_inference_steps, highest=len(self) - 1, rounded=rounded)

    def _set_shifted(self, levels: np.ndarray, shift: float) -> None:
        """Walk these levels s, (N,), once they are shifted and stretched; none is 1, where lambda would be infinite."""
        where, terminal = f"{self._name}.set_timesteps", self.config["shift_terminal"]
        if levels[-1] == 0:
            raise ValueError(f"{where}: sigmas end with 0, expected the ones before it")
        levels = shifted(levels, shift)
        if terminal is not None:
            if levels[-1] == 1:
                raise ValueError(f"{where}: with shift_terminal expected sigmas that end below 1")
            levels = stretched(levels, terminal)
        if abs(levels[0] - 1) < NEARLY_ONE:
            levels[0] -= NEARLY_ONE
        self._set_flow_levels(levels, levels[-1])

    def _restart(self) -> None:
        super()._restart()
        self._predicted_from: tuple[np.ndarray, int] | None = None  # x_s and the order of the last predictor

    @overload
    def step(
        self, model_output: np.ndarray, timestep: int, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: int, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    def step(
        self,
        model_output: np.ndarray,
        timestep: int,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        *,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """Correct x_s, which the step before has predicted, and predict x_t from there.

        Args:
            model_output: m(x_s, s), (B, ...) float32 or float64.
            timestep: the one of `timesteps` that is due.
            sample: x_s, of the same shape and dtype.
            generator: not touched.
            return_dict: False returns the tuple (prev_sample,).

        Returns:
            x_t, (B, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called or a timestep that is not
                due.
        """
        index = self._step_index("step", timestep)
        kept = self._history[0][1] if self._history else None
        self._check_arrays("step", sample=sample, model_output=model_output, **{"an earlier sample": kept})
        self._check_source_of_noise(generator)
        sigma, sigma_next = self._ratio(index), self._ratio(index + 1)
        estimate = self._converted(model_output, sample, sigma, self.config["predict_x0"])
        before = self._predicted_from if self.sigmas[index - 1] != self.sigmas[index] else None
        if before is not None and index - 1 not in self.config["disable_corrector"]:
            start, order = before
            sample = self._taken(start, self._ratio(index - 1), sigma, order, reached=estimate)

        self._remember(sigma, estimate)
        order = self._order(index)
        prev_sample = self._taken(sample, sigma, sigma_next, order)
        self._predicted_from = np.array(sample), order
        self._advance(index)
        return SchedulerOutput(prev_sample).returned(return_dict)

    def _order(self, index: int) -> int:
        """That of the step: solver_order, but no more than there are estimates, and less at the end of a walk."""
        if self.sigmas[index + 1] in (0, self.sigmas[index]):
            return 1
        steps_left = len(self.timesteps) - index
        return min(len(self._history), steps_left) if self.config["lower_order_final"] else len(self._history)

    def _taken(
        self, sample: np.ndarray, sigma: float, sigma_next: float, order: int, reached: np.ndarray | None = None
    ) -> np.ndarray:
        """x_t from x_s by (e) and (i): predicted with the estimates of `_history`, or corrected with that reached at x_t."""
        to_image = self.config["predict_x0"]
        of_sample, of_first, of_further = self._first_order(sigma, sigma_next, to_image)
        (lambda_s, m_0), *older = self._history[:order]
        taken = of_sample * sample
        taken += of_first * m_0
        h = math.log(sigma / sigma_next) if sigma_next > 0 else math.inf
        others = [((lambda_k - lambda_s) / h, m_k) for lambda_k, m_k in older]
        if reached is not None:
            others.append((1.0, reached))
        if others:
            ways = np.array([way for way, _ in others])
            weights = self._weights(ways, h if to_image else -h) / ways
            for weight, (_, m_k) in zip(of_further * weights, others, strict=True):
                taken += float(weight) * (m_k - m_0)
        return taken

    def _weights(self, ways: np.ndarray, argument: float) -> np.ndarray:
        """q of (i) or (j) for the r_k in ways and H as argument, (n,)."""
        if len(ways) == 1:
            return np.array([argument if self.config["solver_type"] == "bh1" else exponential_weight(0, argument)]) / 2
        powers = np.arange(len(ways))
        moments = [exponential_weight(int(power) + 1, argument) for power in powers]
        return np.linalg.solve(ways ** powers[:, None], moments)
