"""Between what a network says and what it means: x_0, the noise, and back.

With x_t = signal x_0 + sigma eps, signal = sqrt(abar_t) and sigma = sqrt(1 - abar_t) (Ho et al. 2020, eq. 4), a network m says

    prediction_type        m                          x_0                          eps
    "epsilon"              eps                        (x_t - sigma m) / signal     m
    "sample"               x_0                        m                            (x_t - signal m) / sigma
    "v_prediction"         signal eps - sigma x_0     signal x_t - sigma m         signal m + sigma x_t

x_0 is linear in m and in x_t: ``x_0 = a x_t + b m``. That is what the chain rule through a network needs (:func:`slopes`).
"""

import numpy as np

from hcrot.schedulers.base import NoiseScheduler

__all__ = ["levels", "prediction_of", "predicted_original_sample", "slopes"]


def levels(scheduler: NoiseScheduler, timestep: int) -> tuple[float, float]:
    """signal and sigma at a timestep of the variance-preserving process.

    Raises:
        TypeError, ValueError: the timestep is no integer in 0 .. T-1.
    """
    abar = float(scheduler.alphas_cumprod[_checked(scheduler, timestep)])
    return abar**0.5, (1 - abar) ** 0.5


def slopes(scheduler: NoiseScheduler, timestep: int) -> tuple[float, float]:
    """a and b of ``x_0 = a x_t + b m``.

    Raises:
        ValueError: "epsilon" where abar_t = 0: pure noise says nothing of x_0.
    """
    signal, sigma = levels(scheduler, timestep)
    kind = scheduler.config["prediction_type"]
    if kind == "epsilon":
        if signal == 0:
            raise ValueError(f"slopes: alphas_cumprod is 0 at timestep {timestep}: the noise says nothing of x_0 there")
        return 1 / signal, -sigma / signal
    return (0.0, 1.0) if kind == "sample" else (signal, -sigma)


def predicted_original_sample(scheduler: NoiseScheduler, prediction: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
    """x_0 by a network's prediction m at x_t, (B, ...) like both; not clipped."""
    a, b = slopes(scheduler, timestep)
    return (a * sample + b * prediction).astype(sample.dtype, copy=False)


def prediction_of(scheduler: NoiseScheduler, original_sample: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
    """What a network would have to say at x_t for its x_0 to be this one: the inverse of :func:`predicted_original_sample`."""
    a, b = slopes(scheduler, timestep)
    return ((original_sample - a * sample) / b).astype(sample.dtype, copy=False)


def _checked(scheduler: NoiseScheduler, timestep: int) -> int:
    if isinstance(timestep, bool) or int(timestep) != timestep:
        raise TypeError(f"timestep must be an integer, got {timestep!r}")
    if not 0 <= timestep < len(scheduler):
        raise ValueError(f"timestep must be in 0 .. {len(scheduler) - 1}, got {timestep}")
    return int(timestep)
