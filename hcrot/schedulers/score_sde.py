"""What the two schedulers of score-based models share: continuous times, and no noise schedule by betas."""

from __future__ import annotations

from collections.abc import Sequence
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
        follow_timesteps: whether the times are those of a list, each of which leads to the next, and the last one to 0.
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
        self.follow_timesteps = False
        self.num_inference_steps: int | None = None
        self.timesteps = self._times(len(self), self.config["sampling_eps"])

    def step(self, *arguments: Any, **options: Any) -> NoReturn:
        """There is none, as in diffusers."""
        raise NotImplementedError(f"{self._name}.step: expected a call of step_pred, which these schedulers have in its place")

    # what a loop needs that knows neither of the two, such as hcrot.pipelines.sample -------------------------------------

    def noise_conditioning(self, timestep: float) -> float:
        """What a network of this kind is told: the time itself, or of VE the level sigma(t)."""
        return float(timestep)

    def score(self, model_output: np.ndarray, timestep: float) -> np.ndarray:
        """The score by what the network says at this time."""
        raise NotImplementedError(f"{self._name} has no score")

    def predicted(
        self, model_output: np.ndarray, timestep: float, sample: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """x' and its mean by `step_pred`."""
        raise NotImplementedError(f"{self._name} has no predicted")

    def corrected(
        self, model_output: np.ndarray, timestep: float, sample: np.ndarray, generator: np.random.Generator, snr: float | None = None
    ) -> np.ndarray:
        """x' by `step_correct`; an snr of None is the scheduler's own."""
        raise NotImplementedError(f"{self._name} has no corrected")

    def previous_timestep(self, timestep: float) -> float:  # type: ignore[override]  # times are no integers
        """The time after this one in `timesteps`, and -1, the data, after the last.

        Raises:
            ValueError: the time is not among `timesteps`.
        """
        place = int(self._places("previous_timestep", timestep))
        return self.timesteps[place + 1].item() if place + 1 < len(self.timesteps) else -1

    def _places(self, method: str, times: Any) -> np.ndarray:
        """Where in `timesteps` these are, an array of their shape."""
        found = np.asarray(times, np.float32)[..., None] == self.timesteps
        if not np.all(found.any(axis=-1)):
            raise ValueError(f"{self._name}.{method}: time {times} is not one of the {len(self.timesteps)} of scheduler.timesteps")
        return found.argmax(axis=-1)

    def _visit_times(self, count: int | None, timesteps: Sequence[float] | np.ndarray | None, sampling_eps: float) -> None:
        """Visit so many equally spaced times, or those of a list, of which one is given."""
        self._check_one_given(num_inference_steps=count, timesteps=timesteps)
        if timesteps is None:
            self.timesteps = self._times(count, sampling_eps)
        else:
            chosen = np.asarray(timesteps)
            if chosen.dtype.kind not in "iuf" or chosen.ndim != 1 or not chosen.size or not np.all(np.diff(chosen) < 0):
                raise ValueError(f"{self._name}.set_timesteps: timesteps {timesteps} is not a strictly descending list of numbers")
            if not 0 < chosen[-1] <= chosen[0] <= 1:
                found = f"range from {chosen[-1]} to {chosen[0]}"
                raise ValueError(f"{self._name}.set_timesteps: timesteps {found}, expected times of the SDE, above 0 and at most 1")
            self.timesteps = chosen.astype(np.float32)
        self.follow_timesteps, self.num_inference_steps = timesteps is not None, len(self.timesteps)

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
