"""Noise as a stochastic differential equation: Song et al. 2021, arXiv:2011.13456 ("Score-Based Generative Modeling through SDEs").

[n] is equation n of that paper. Time t runs from 0 (data) to 1 (noise), w is a Wiener process, z ~ N(0, I).

    (a)  dx = f(x, t) dt + g(t) dw,  f(x, t) = c(t) x                                        [5]; all three here are linear in x
    (b)  x(t) = m(t) x_0 + s(t) z                                                              [29]: what (a) makes of x_0
    (c)  dx = (f(x, t) - g(t)^2 score(x, t)) dt + g(t) dw,  dt < 0                           [6]: the same process, backward in time
    (d)  dx = (f(x, t) - g(t)^2/2 score(x, t)) dt                                             [13]: the probability flow, without noise

with score(x, t) = grad_x log p_t(x), the only thing there is to learn. By (b) the score of x(t) given x_0 is -z/s(t).

    VE       c = 0            g^2 = 2 sigma^2 log(sigma_max/sigma_min)     m = 1             s = sigma(t)                          [30]
             sigma(t) = sigma_min (sigma_max/sigma_min)^t
    VP       c = -beta/2      g^2 = beta                                    m = e^{-b/2}      s = sqrt(1 - e^{-b})                   [32]
             beta(t) = beta_min + t (beta_max - beta_min),  b(t) = int_0^t beta = beta_min t + (beta_max - beta_min) t^2/2
    sub-VP   c = -beta/2      g^2 = beta (1 - e^{-2b})                      m = e^{-b/2}      s = 1 - e^{-b}                         [27]

In VE s(0) = sigma_min and not 0: as in the paper's own code, x(0) is data with that much noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hcrot.schedulers.config import checked_positive

__all__ = ["SDE", "SubVPSDE", "Times", "VESDE", "VPSDE"]

Times = float | Sequence[float] | np.ndarray


class SDE:
    """What the three have in common. A new one defines `drift_rate`, `diffusion`, `signal` and `std`, each of a time or of many.

    x is (B, ...) float32 or float64 everywhere; t is one time for all, or (B,), within 0 .. 1. Results are new arrays of the shape and
    dtype of x. Other arrays and times are refused with a TypeError or ValueError.

    Attributes:
        prior_std: standard deviation of x(1), from which sampling starts.
    """

    prior_std = 1.0

    # the four functions of time ---------------------------------------------------------------------------------

    def drift_rate(self, t: Times) -> np.ndarray:
        """c(t), float64 of the shape of t."""
        raise NotImplementedError(f"{self._name} has no drift_rate")

    def diffusion(self, t: Times) -> np.ndarray:
        """g(t), float64 of the shape of t."""
        raise NotImplementedError(f"{self._name} has no diffusion")

    def signal(self, t: Times) -> np.ndarray:
        """m(t), float64 of the shape of t."""
        raise NotImplementedError(f"{self._name} has no signal")

    def std(self, t: Times) -> np.ndarray:
        """s(t), float64 of the shape of t."""
        raise NotImplementedError(f"{self._name} has no std")

    # forward ----------------------------------------------------------------------------------------------------

    def drift(self, x: np.ndarray, t: Times) -> np.ndarray:
        """f(x, t) = c(t) x of (a)."""
        return self._column("drift", self.drift_rate(t), x) * x

    def marginal(self, x0: np.ndarray, t: Times) -> tuple[np.ndarray, np.ndarray]:
        """The mean m(t) x_0 of (b), like x_0, and its standard deviation s(t), in x_0's dtype: (B, 1, ...) or (1, 1, ...)."""
        return self._column("marginal", self.signal(t), x0) * x0, self._column("marginal", self.std(t), x0)

    def add_noise(self, original_samples: np.ndarray, noise: np.ndarray, t: Times) -> np.ndarray:
        """x(t) of (b), from x_0 (original_samples) and z (noise) of the same shape and dtype."""
        mean, std = self.marginal(original_samples, t)
        self._check_like("add_noise", "noise", noise, original_samples)
        mean += std * noise
        return mean

    def step_forward(self, t: float, dt: float) -> tuple[float, float]:
        """a and G of the step x(t) = a x(t - dt) + G z that stands for (a); here a = 1 + c dt, G = g sqrt(dt) (Euler-Maruyama).

        Args:
            t, dt: the time that the step ends at, and its length; 0 <= t - dt < t.
        """
        return 1 + float(self.drift_rate(t)) * dt, float(self.diffusion(t)) * math.sqrt(dt)

    # backward ---------------------------------------------------------------------------------------------------

    def reverse_drift(self, x: np.ndarray, t: Times, score: np.ndarray) -> np.ndarray:
        """f(x, t) - g(t)^2 score, the drift of (c); score is like x."""
        return self._against_score("reverse_drift", x, t, score, 1.0)

    def flow_drift(self, x: np.ndarray, t: Times, score: np.ndarray) -> np.ndarray:
        """f(x, t) - g(t)^2/2 score, the right side of (d); score is like x."""
        return self._against_score("flow_drift", x, t, score, 0.5)

    def denoised(self, x: np.ndarray, t: Times, score: np.ndarray) -> np.ndarray:
        """E[x_0 | x(t) = x] = (x + s^2 score)/m, like x (Tweedie's formula: Efron 2011, Journal of the ASA 106)."""
        self._check_like("denoised", "score", score, x)
        std = self._column("denoised", self.std(t), x)
        return (x + std**2 * score) / self._column("denoised", self.signal(t), x)

    # where sampling starts ----------------------------------------------------------------------------------------

    def prior_sample(self, shape: tuple[int, ...], generator: np.random.Generator, dtype: Any = np.float32) -> np.ndarray:
        """x(1) ~ N(0, prior_std^2 I), of this shape and dtype, float32 or float64."""
        return generator.standard_normal(shape, dtype=dtype) * np.dtype(dtype).type(self.prior_std)

    def prior_log_density(self, x: np.ndarray) -> np.ndarray:
        """log N(x; 0, prior_std^2 I) of each of B points, (B,) float64, in nats."""
        flat = np.asarray(x, np.float64).reshape(len(x), -1)
        return -0.5 * np.sum((flat / self.prior_std) ** 2, axis=1) - flat.shape[1] * math.log(self.prior_std * math.sqrt(2 * math.pi))

    # checks -------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _against_score(self, method: str, x: np.ndarray, t: Times, score: np.ndarray, share: float) -> np.ndarray:
        self._check_like(method, "score", score, x)
        moved = self._column(method, self.drift_rate(t), x) * x
        moved -= self._column(method, share * self.diffusion(t) ** 2, x) * score
        return moved

    def _times(self, t: Times) -> np.ndarray:
        times = np.asarray(t)
        if times.dtype.kind not in "iuf":
            raise TypeError(f"{self._name}: t has dtype {times.dtype}, expected numbers from 0 to 1")
        if not np.all((times >= 0) & (times <= 1)):
            raise ValueError(f"{self._name}: t ranges from {times.min()} to {times.max()}, expected numbers from 0 to 1")
        return times.astype(np.float64)

    def _column(self, method: str, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        """What belongs to each of B points, or to all, in the dtype of x and so that it multiplies x."""
        where = f"{self._name}.{method}"
        if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64) or x.ndim == 0:
            kind = f"an array of {x.dtype} and shape {x.shape}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
            raise TypeError(f"{where}: x is {kind}, expected (B, ...) float32 or float64")
        if values.shape not in ((), (1,), x.shape[:1]):
            raise ValueError(f"{where}: t has shape {values.shape}, expected one number or {x.shape[:1]}")
        return values.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))

    def _check_like(self, method: str, name: str, array: np.ndarray, x: np.ndarray) -> None:
        if not isinstance(array, np.ndarray) or array.dtype != x.dtype or array.shape != x.shape:
            kind = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{self._name}.{method}: {name} is {kind}, expected {x.dtype} of shape {x.shape} as the sample")


class VESDE(SDE):
    """The variance exploding SDE, line VE: noise is added to x_0, which stays as it is. SMLD (Song & Ermon 2019) has its levels.

    Args:
        sigma_min, sigma_max: s(0) and s(1), positive numbers, the second one the larger. s(1) should exceed the largest distance between
            two points of the data (Song & Ermon 2020, arXiv:2006.09011, technique 1), for N(0, s(1)^2) to stand for x(1).

    Example:
        >>> sde, t = hcrot.VESDE(sigma_min=0.01, sigma_max=100), np.array([0.0, 0.5, 1.0])
        >>> sde.signal(t).tolist(), sde.std(t).round(2).tolist()               # x_0 stays as it is
        ([1.0, 1.0, 1.0], [0.01, 1.0, 100.0])
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        self.sigma_min, self.sigma_max = (
            checked_positive(f"VESDE: {name}", value) for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max))
        )
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f"VESDE: sigma_max is {sigma_max}, expected more than sigma_min {sigma_min}")
        self.prior_std = self.sigma_max

    def __repr__(self) -> str:
        return f"VESDE(sigma_min={self.sigma_min:g}, sigma_max={self.sigma_max:g})"

    def drift_rate(self, t: Times) -> np.ndarray:
        return np.zeros_like(self._times(t))

    def diffusion(self, t: Times) -> np.ndarray:
        return self.std(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    def signal(self, t: Times) -> np.ndarray:
        return np.ones_like(self._times(t))

    def std(self, t: Times) -> np.ndarray:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** self._times(t)

    def time_of_std(self, sigma: Times) -> np.ndarray:
        """The t with s(t) = sigma, float64 of the shape of sigma."""
        return np.log(np.asarray(sigma, np.float64) / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)

    def step_forward(self, t: float, dt: float) -> tuple[float, float]:
        """a = 1 and G = sqrt(s(t)^2 - s(t - dt)^2), which is exact [31]."""
        return 1.0, math.sqrt(float(self.std(t)) ** 2 - float(self.std(t - dt)) ** 2)


class VPSDE(SDE):
    """The variance preserving SDE, line VP, whose steps are those of DDPM: with variance 1 at 0 it has variance 1 at all times.

    Args:
        beta_min, beta_max: beta(0) and beta(1), positive numbers, the second one not the smaller.

    Example:
        >>> sde, t = hcrot.VPSDE(), np.array([0.0, 0.5, 1.0])
        >>> sde.signal(t).round(3), (sde.signal(t) ** 2 + sde.std(t) ** 2).round(3)
        (array([1.   , 0.281, 0.007]), array([1., 1., 1.]))
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min, self.beta_max = (
            checked_positive(f"{self._name}: {name}", value) for name, value in (("beta_min", beta_min), ("beta_max", beta_max))
        )
        if self.beta_max < self.beta_min:
            raise ValueError(f"{self._name}: beta_max is {beta_max}, expected at least beta_min {beta_min}")

    def __repr__(self) -> str:
        return f"{self._name}(beta_min={self.beta_min:g}, beta_max={self.beta_max:g})"

    def beta(self, t: Times) -> np.ndarray:
        """beta(t), float64 of the shape of t."""
        return self.beta_min + self._times(t) * (self.beta_max - self.beta_min)

    def integral(self, t: Times) -> np.ndarray:
        """b(t), float64 of the shape of t."""
        times = self._times(t)
        return self.beta_min * times + 0.5 * (self.beta_max - self.beta_min) * times**2

    def drift_rate(self, t: Times) -> np.ndarray:
        return -0.5 * self.beta(t)

    def diffusion(self, t: Times) -> np.ndarray:
        return np.sqrt(self.beta(t))

    def signal(self, t: Times) -> np.ndarray:
        return np.exp(-0.5 * self.integral(t))

    def std(self, t: Times) -> np.ndarray:
        return np.sqrt(-np.expm1(-self.integral(t)))

    def step_forward(self, t: float, dt: float) -> tuple[float, float]:
        """a = sqrt(1 - beta dt) and G = sqrt(beta dt), a step of DDPM [10].

        Raises:
            ValueError: beta(t) dt is 1 or more.
        """
        beta = float(self.beta(t)) * dt
        if beta >= 1:
            raise ValueError(f"{self._name}.step_forward: beta(t) dt is {beta:g} at t = {t:g}, expected less than 1: take more steps")
        return math.sqrt(1 - beta), math.sqrt(beta)


class SubVPSDE(VPSDE):
    """The sub-VP SDE, line sub-VP: with less noise than VP at all times, and better likelihoods in the paper (table 2).

    Args:
        beta_min, beta_max: those of `VPSDE`.

    Example:
        >>> t = np.array([0.1, 0.5, 1.0])
        >>> hcrot.SubVPSDE().std(t).round(3), hcrot.VPSDE().std(t).round(3)    # less noise, the same signal
        (array([0.104, 0.921, 1.   ]), array([0.322, 0.96 , 1.   ]))
    """

    def diffusion(self, t: Times) -> np.ndarray:
        return np.sqrt(-self.beta(t) * np.expm1(-2 * self.integral(t)))

    def std(self, t: Times) -> np.ndarray:
        return -np.expm1(-self.integral(t))

    def step_forward(self, t: float, dt: float) -> tuple[float, float]:
        """a = 1 + c dt, G = g sqrt(dt), as in `SDE`: the paper has no discrete process for this one."""
        return SDE.step_forward(self, t, dt)
