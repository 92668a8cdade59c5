"""DPM-Solver++ with EDM's preconditioning: Lu et al. 2022, arXiv:2211.01095, and Karras et al. 2022, arXiv:2206.00364.

The steps are (i) and (j) of hcrot/schedulers/dpmsolver_multistep.py with x = x_0 + sigma eps, so a = 1 and b = sigma there, and the
estimates m_0, m_1, m_2 are the D of line (e) of hcrot/schedulers/edm.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from hcrot.schedulers.config import checked_boolean, checked_choice, checked_positive, checked_ratio, register_to_config
from hcrot.schedulers.dpmsolver_multistep import DPMSolverMultistepScheduler
from hcrot.schedulers.edm import EDMScheduler

__all__ = ["EDMDPMSolverMultistepScheduler"]


def _checked_algorithm_type(what: str, value: Any) -> str:
    """ "deis" is read as "dpmsolver++", as diffusers does."""
    return checked_choice(what, "dpmsolver++" if value == "deis" else value, ("dpmsolver++", "sde-dpmsolver++"))


class EDMDPMSolverMultistepScheduler(EDMScheduler, DPMSolverMultistepScheduler):
    """The steps above, with the arguments, defaults and numbers of diffusers' class.

    "sde-dpmsolver++" with solver_order 3, where diffusers has no step, is that of `DPMSolverMultistepScheduler`.

    Args:
        sigma_min, sigma_max: the ends of the levels, the second one is the larger.
        sigma_data: the standard deviation of the data, see (e).
        sigma_schedule: "karras" or "exponential", see (g) of hcrot/schedulers/edm.py.
        num_train_timesteps: the levels before `set_timesteps` is called.
        prediction_type: "epsilon" or "v_prediction", see (e). (diffusers' documentation has "sample", its code refuses it.)
        rho: of "karras"; the larger, the more of the levels are small.
        solver_order: 1, 2 or 3; the first steps, which have less behind them, are of lower order.
        thresholding, dynamic_thresholding_ratio, sample_max_value: whether D is thresholded, see `DDPMScheduler`.
        algorithm_type: "dpmsolver++" or, with noise in each step, "sde-dpmsolver++".
        solver_type, lower_order_final, euler_at_final: see `DPMSolverMultistepScheduler`.
        final_sigmas_type: where the walk ends, at "zero" or at "sigma_min".

    Attributes, errors: those of `EDMScheduler` and `DPMSolverMultistepScheduler`.

    Example:
        >>> scheduler = hcrot.EDMDPMSolverMultistepScheduler(sigma_schedule="exponential", sigma_max=2.0)
        >>> scheduler.set_timesteps(4)
        >>> [round(float(sigma), 3) for sigma in scheduler.sigmas]             # each a tenth of the one before
        [2.0, 0.2, 0.02, 0.002, 0.0]
    """

    checks: ClassVar = {
        **EDMScheduler.checks,
        **{name: DPMSolverMultistepScheduler.checks[name] for name in ("solver_order", "solver_type")},
        "thresholding": checked_boolean,
        "dynamic_thresholding_ratio": checked_ratio,
        "sample_max_value": checked_positive,
        "algorithm_type": _checked_algorithm_type,
        "lower_order_final": checked_boolean,
        "euler_at_final": checked_boolean,
    }

    @register_to_config
    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 0.5,
        sigma_schedule: str = "karras",
        num_train_timesteps: int = 1000,
        prediction_type: str = "epsilon",
        rho: float = 7.0,
        solver_order: int = 2,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        algorithm_type: str = "dpmsolver++",
        solver_type: str = "midpoint",
        lower_order_final: bool = True,
        euler_at_final: bool = False,
        final_sigmas_type: str = "zero",
    ) -> None:
        super().__init__(num_train_timesteps)

    def set_timesteps(  # type: ignore[override]  # there is no mu
        self, num_inference_steps: int | None = None, *, timesteps: Sequence[float] | np.ndarray | None = None
    ) -> None:
        """That of `EDMScheduler`."""
        EDMScheduler.set_timesteps(self, num_inference_steps, timesteps=timesteps)

    def _last_sigma(self, sigmas: np.ndarray) -> float:
        """0 or sigma_min, also if N = 1, where sigma_min is none of the levels; above the last of them by rounding it must not be."""
        return 0.0 if self._ends_at_zero else min(float(sigmas[-1]), self.config["sigma_min"])

    @property
    def _flow(self) -> bool:
        return False

    def _signal_and_noise(self, ratio: float) -> tuple[float, float]:
        """a and b of x = a x_0 + b eps."""
        return 1.0, ratio

    def _converted(self, model_output: np.ndarray, sample: np.ndarray, sigma: float, to_image: bool) -> np.ndarray:
        """D of (e), thresholded if asked for."""
        return self._limit(self.precondition_outputs(sample, model_output, sigma))
