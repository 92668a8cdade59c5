"""What the two schedulers of score-based models share: continuous times, and no noise schedule by betas."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NoReturn

import numpy as np

from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.config import checked_integer, checked_positive
from hcrot.schedulers.sde import SDE

__all__ = ["ScoreSdeScheduler"]


def _checked_end(what: str, value: Any) -> float:
    if checked_positive(what, value) >= 1:
        raise ValueError(f"{what} is {value}, expected less than 1, where sampling begins")
    return float(value)


class ScoreSdeScheduler(NoiseScheduler):
    """A walk through the times of an SDE of hcrot/schedulers/sde.py, from 1 down to sampling_eps.

    Subclasses have a step_pred in place of `step`. They have none of the tables of `NoiseScheduler` (betas, alphas, alphas_cumprod).

    Attributes:
        sde: the process that is reversed.
        timesteps: the times to visit, (N,) float32.
        num_inference_steps: N, or None before `set_timesteps`.
    """

    checks: ClassVar = {
        "num_train_timesteps": partial(checked_integer, minimum=1),
        "snr": checked_positive,
        "sigma_min": checked_positive,
        "sigma_max": checked_positive,
        "beta_min": checked_positive,
        "beta_max": checked_positive,
        "sampling_eps": _checked_end,
        "correct_steps": partial(checked_integer, minimum=0),
    }

    def __init__(self, sde: SDE) -> None:
        self.sde = sde
        self.num_inference_steps: int | None = None
        self.timesteps = self._times(len(self), self.config["sampling_eps"])

    def step(self, *arguments: Any, **options: Any) -> NoReturn:
        """There is none, as in diffusers."""
        raise NotImplementedError(f"{self._name}.step: expected a call of step_pred, which these schedulers have in its place")

    def _times(self, count: Any, sampling_eps: float) -> np.ndarray:
        """N times from 1 to sampling_eps, equally spaced, (N,) float32."""
        count = checked_integer(f"{self._name}.set_timesteps: num_inference_steps", count, minimum=1)
        return np.linspace(1, _checked_end(f"{self._name}.set_timesteps: sampling_eps", sampling_eps), count, dtype=np.float32)

    def _checked_time(self, method: str, t: Any, sample: np.ndarray) -> np.ndarray:
        """One time for all or one for each image, float64: () or (1,) or (B,), within 0 .. 1."""
        where, times = f"{self._name}.{method}", np.asarray(t)
        if times.dtype.kind not in "iuf":
            raise TypeError(f"{where}: timestep has dtype {times.dtype}, expected numbers from 0 to 1")
        if times.shape not in ((), (1,), sample.shape[:1]):
            raise ValueError(f"{where}: timestep has shape {times.shape}, expected one number or {sample.shape[:1]}")
        if not np.all((times >= 0) & (times <= 1)):
            raise ValueError(f"{where}: timestep ranges from {times.min()} to {times.max()}, expected numbers from 0 to 1")
        return times.astype(np.float64)
