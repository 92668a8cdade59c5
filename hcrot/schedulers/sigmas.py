"""Sampling by the noise level sigma: the equations, the tables and the walk from level to level that the solvers share.

[n] is equation n of Karras, Aittala, Aila & Laine 2022, arXiv:2206.00364 (EDM); m is the model's output, eps ~ N(0, I).

Every forward process here is x = a x_0 + b eps, with a the signal and b the noise. Divided by a it is

    (a)  x/a = x_0 + sigma eps,  sigma = b/a

the "variance exploding" form: nothing is left of the noise schedule but the names of the levels. The "variance
preserving" form of DDPM has a^2 + b^2 = 1, with abar_t the square of a (hcrot/schedulers/ddpm.py, line (b)), so

    (b)  sigma_t = sqrt((1 - abar_t)/abar_t),  a = 1/sqrt(1 + sigma^2),  b = sigma a

Images are drawn by solving the probability flow equation from the largest sigma to 0. Its solutions have at each sigma
the distribution of (a), and D(x; sigma) = E[x_0 | x] is the best estimate of the image [1, 3]:

    (c)  dx/dsigma = (x - D(x; sigma)) / sigma                                (x in the variance exploding form)

D comes from the model. Solving for x_0 the definitions of what it predicts, with v = a eps - b x_0 at a^2 + b^2 = 1:

    (d)  epsilon:       x_0 = (x - b m)/a
         sample:        x_0 = m
         v_prediction:  x_0 = a x - b m
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import scipy

from hcrot.schedulers.base import NoiseScheduler, Timesteps
from hcrot.schedulers.config import checked_boolean, checked_choice, checked_optional, checked_positive

__all__ = [
    "SIGMA_SPACINGS", "ZERO_SNR_ALPHA_BAR", "SigmaScheduler", "VarianceExplodingScheduler", "beta_sigmas", "checked_left_out", "euler_step",
    "exponential_sigmas", "karras_sigmas", "lu_sigmas", "shift_of", "shifted", "signal_and_noise", "stretched", "timesteps_of_sigmas",
    "training_sigmas",
]  # fmt: skip

ZERO_SNR_ALPHA_BAR = np.float32(2**-24)  # in place of abar = 0 at zero terminal signal, where sigma would be infinite


def training_sigmas(alphas_cumprod: np.ndarray) -> np.ndarray:
    """sigma_t = sqrt((1 - abar_t)/abar_t), line (b), of each training timestep: (T,) float32, ascending."""
    return np.sqrt((1 - alphas_cumprod) / alphas_cumprod)


def signal_and_noise(sigma: float) -> tuple[float, float]:
    """a = 1/sqrt(1 + sigma^2) and b = sigma a, line (b)."""
    signal = 1 / math.sqrt(1 + sigma**2)
    return signal, sigma * signal


def euler_step(sample: np.ndarray, x0: np.ndarray, ratio: float) -> np.ndarray:
    """D + ratio (x - D), Euler's method for (c) from sigma to ratio sigma; a new array like x (the sample) and D (x0)."""
    moved = sample - x0
    moved *= ratio
    moved += x0
    return moved


def shifted(sigmas: np.ndarray, shift: float) -> np.ndarray:
    """s sigma/(1 + (s - 1) sigma), line (e) of hcrot/schedulers/flow_match_euler_discrete.py, in the dtype of sigmas."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def shift_of(where: str, config: Mapping[str, Any], mu: float) -> float:
    """w of line (e) there: e^mu, or mu itself if time_shift_type is "linear"; where is the method that was given mu."""
    if config["time_shift_type"] == "linear":
        return checked_positive(f"{where}: mu", mu)
    return checked_positive(f"{where}: mu is {mu}, its exponential", math.exp(mu))


def stretched(sigmas: np.ndarray, terminal: float) -> np.ndarray:
    """1 - (1 - sigma)(1 - terminal)/(1 - sigma_{N-1}), line (f) there: the last sigma becomes the terminal one."""
    return 1 - (1 - sigmas) / ((1 - sigmas[-1]) / (1 - terminal))


# where to put N sigmas ----------------------------------------------------------------------------------------


def karras_sigmas(sigma_max: float, sigma_min: float, count: int) -> np.ndarray:
    """N sigmas whose 7th roots are equally spaced, from sigma_max to sigma_min; (N,) float64; [5] with rho = 7."""
    rho = 7.0
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (high + np.linspace(0, 1, count) * (low - high)) ** rho


def exponential_sigmas(sigma_max: float, sigma_min: float, count: int) -> np.ndarray:
    """N sigmas whose logarithms are equally spaced, from sigma_max to sigma_min; (N,) float64."""
    return np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), count))


def lu_sigmas(sigma_max: float, sigma_min: float, count: int) -> np.ndarray:
    """`exponential_sigmas` from float32 logarithms, as diffusers has it: lambda equally spaced, Lu et al. 2022."""
    high, low = (float(np.log(np.float32(sigma))) for sigma in (sigma_max, sigma_min))
    return np.exp(high + np.linspace(0, 1, count) * (low - high))


def beta_sigmas(sigma_max: float, sigma_min: float, count: int) -> np.ndarray:
    """N sigmas, from sigma_max to sigma_min, as the Beta(0.6, 0.6) distribution has its quantiles: dense at both ends.

    (N,) float64. Lee et al. 2024, arXiv:2407.12173; there the quantiles are those of the timesteps, here as in
    diffusers those of sigma.
    """
    return sigma_min + scipy.special.betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, count)) * (sigma_max - sigma_min)


SIGMA_SPACINGS: dict[str, Callable[[float, float, int], np.ndarray]] = {
    "use_karras_sigmas": karras_sigmas,
    "use_exponential_sigmas": exponential_sigmas,
    "use_beta_sigmas": beta_sigmas,
    "use_lu_lambdas": lu_sigmas,
}


def timesteps_of_sigmas(sigmas: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The timesteps, between whole ones, at which the training schedule has these sigmas: linear in log sigma.

    Args:
        sigmas: any positive numbers, (N,) float64.
        training: sigma_t of each training timestep, (T,) float32, ascending.

    Returns:
        (N,) float64 within 0 .. T-1. As in diffusers the logarithms of the table are float32, which counts where the
        result is then cut to a whole number.
    """
    log_training = np.log(training)
    log_sigmas = np.log(np.maximum(sigmas, 1e-10))
    below = np.clip(np.searchsorted(log_training, log_sigmas, side="right") - 1, 0, len(training) - 2)
    low, high = log_training[below], log_training[below + 1]
    weight = np.clip((low - log_sigmas) / (low - high), 0, 1)
    return (1 - weight) * below + weight * (below + 1)


# arguments ----------------------------------------------------------------------------------------------------


def checked_left_out(what: str, value: Any, default: Any) -> Any:
    """Of arguments of diffusers that are not implemented: only their default is taken."""
    if value != default:
        raise NotImplementedError(f"{what}={value!r} is not implemented")
    return default


# the walk -----------------------------------------------------------------------------------------------------


class SigmaScheduler(NoiseScheduler):
    """A walk down the levels sigma_0 > sigma_1 > .. > sigma_N, one `step` at a time.

    It starts at any of `timesteps` and goes on in their order to the last, after which another may start; set_timesteps
    starts it anew. What a solver keeps from step to step lies in `_history`, empty at a start.

    Attributes:
        timesteps: what `step` is to be called with, in order: (N,).
        sigmas: the level at each of them and the one after the last, (N + 1,) float32. Until `set_timesteps` is called
            these are all T of the training schedule and 0.
        Further those of `NoiseScheduler`. With rescale_betas_zero_snr, alphas_cumprod ends with 2^-24 in place of 0,
            as in diffusers, so that sigma is finite.
    """

    checks: ClassVar = {
        **NoiseScheduler.checks,
        "use_karras_sigmas": partial(checked_optional, check=checked_boolean),
        "use_exponential_sigmas": partial(checked_optional, check=checked_boolean),
        "use_beta_sigmas": partial(checked_optional, check=checked_boolean),
        "use_lu_lambdas": partial(checked_optional, check=checked_boolean),
        "final_sigmas_type": partial(checked_choice, choices=("zero", "sigma_min")),
        "sigma_min": partial(checked_optional, check=checked_positive),
        "sigma_max": partial(checked_optional, check=checked_positive),
    }

    def __init__(self) -> None:
        super().__init__()
        if self.config.get("rescale_betas_zero_snr"):
            self.alphas_cumprod[-1] = ZERO_SNR_ALPHA_BAR
        self._training_sigmas = training_sigmas(self.alphas_cumprod)
        self.sigmas = np.append(self._training_sigmas[::-1], np.float32(0))
        self._sigma_spacing = self._checked_sigma_spacing()
        self._restart()

    def _checked_sigma_spacing(self) -> str | None:
        """Which of SIGMA_SPACINGS is asked for, if one is."""
        asked = [name for name in SIGMA_SPACINGS if self.config.get(name)]
        if len(asked) > 1:
            raise ValueError(f"{self._name}: expected at most one of {', '.join(SIGMA_SPACINGS)}, got {', '.join(asked)}")
        return asked[0] if asked else None

    def previous_timestep(self, timestep: float) -> float:  # type: ignore[override]  # these may lie between integers
        """The timestep of the next level that `step` leads to, and -1, the image itself, after the last.

        Raises:
            ValueError: the timestep is not among `timesteps`.
        """
        (places,) = np.nonzero(self.timesteps == timestep)
        if places.size == 0:
            raise ValueError(f"{self._name}: timestep {timestep} is not one of the {len(self.timesteps)} timesteps set by set_timesteps")
        following = self.timesteps[places[-1] + 1 :]
        return following[0].item() if following.size else -1

    # choosing the levels ---------------------------------------------------------------------------------------

    def _set_levels(self, timesteps: np.ndarray, sigmas: np.ndarray, last: float) -> None:
        """Walk these timesteps, (N,), at these sigmas, (N,), and end at the level last."""
        self.timesteps = timesteps
        self.sigmas = np.append(sigmas, last).astype(np.float32)
        self.num_inference_steps = len(timesteps)
        self._restart()

    def _checked_list(self, name: str, values: Sequence[float] | np.ndarray, highest: float) -> np.ndarray:
        """Strictly descending numbers from highest to 0, (N,)."""
        chosen = np.asarray(values)
        if chosen.dtype.kind not in "iuf" or chosen.ndim != 1 or chosen.size == 0 or not np.all(np.diff(chosen) < 0):
            raise ValueError(f"{self._name}.set_timesteps: {name} {values} is not a strictly descending list of numbers")
        if not 0 <= chosen[-1] <= chosen[0] <= highest:
            raise ValueError(
                f"{self._name}.set_timesteps: {name} range from {chosen[-1]} to {chosen[0]}, expected 0 .. {highest}"
            )
        return chosen

    def _check_one_given(self, **choices: Any) -> None:
        super()._check_one_given(**choices)
        if self._sigma_spacing and choices.get("timesteps") is not None:
            raise ValueError(f"{self._name}.set_timesteps: timesteps cannot be chosen with {self._sigma_spacing}=True")

    def _spaced_sigmas(self, ends: np.ndarray, count: int) -> np.ndarray | None:
        """N sigmas by the spacing asked for, (N,) float64, or None.

        They go from ends[0] to ends[-1], or from sigma_max to sigma_min where these are arguments and given.
        """
        if self._sigma_spacing is None:
            return None
        high, low = self._arguments.get("sigma_max"), self._arguments.get("sigma_min")
        high, low = float(ends[0]) if high is None else high, float(ends[-1]) if low is None else low
        return SIGMA_SPACINGS[self._sigma_spacing](high, low, count)

    # walking -------------------------------------------------------------------------------------------------------

    def _restart(self) -> None:
        self._due: int | None = None  # where in `timesteps` the next step is, None before the first
        self._history: list[Any] = []

    def _advance(self, index: int) -> None:
        """The step at this index is done; after the last, another walk may start."""
        self._due = index + 1
        if self._due == len(self.timesteps):
            self._restart()

    def _step_index(self, method: str, timestep: Timesteps | float) -> int:
        """Where in `timesteps` the step is that is due, which has to have this timestep.

        Raises:
            ValueError: set_timesteps was not called; the timestep is not one number, or not the one whose turn it is.
        """
        where = f"{self._name}.{method}"
        self._check_timesteps_are_set(method)
        if np.ndim(timestep) > 0:
            raise ValueError(
                f"{where}: timestep has shape {np.shape(timestep)}, expected one number: a batch is denoised as a whole"
            )
        if self._due is None:
            return int(self._indices(method, timestep))
        if timestep != self.timesteps[self._due]:
            raise ValueError(
                f"{where}: timestep {timestep} is out of order, expected {self.timesteps[self._due]}, number {self._due} "
                f"of {len(self.timesteps)}; set_timesteps starts anew"
            )
        return self._due

    def _indices(self, method: str, timesteps: Timesteps | float) -> np.ndarray:
        """Where in `timesteps` these are: an array of their shape.

        Of one that occurs several times, the second, as in diffusers: a walk of `HeunDiscreteScheduler` that starts
        inside begins there with its first evaluation. But the very first is the first.
        """
        where, t = f"{self._name}.{method}", np.asarray(timesteps)
        if t.dtype.kind not in "iuf":
            raise TypeError(f"{where}: timesteps have dtype {t.dtype} and shape {t.shape}, expected numbers")
        found = t[..., None] == self.timesteps
        if not np.all(found.any(axis=-1)):
            missing = t[~found.any(axis=-1)].flat[0]
            raise ValueError(f"{where}: timestep {missing} is not one of the {len(self.timesteps)} of scheduler.timesteps")
        first = found.argmax(axis=-1)
        second = np.minimum(first + 1, len(self.timesteps) - 1)
        return np.where((first > 0) & (self.timesteps[first] == self.timesteps[second]), second, first)

    # levels of noise ---------------------------------------------------------------------------------------------

    def _sigmas_of_images(self, method: str, sample: np.ndarray, timesteps: Timesteps | float) -> np.ndarray:
        """The sigma of each image in the sample's dtype, (B, 1, 1, ...) or (1, 1, 1, ...)."""
        shape = np.shape(timesteps)
        if len(shape) > 1 or (shape not in ((), (1,)) and shape != sample.shape[:1]):
            raise ValueError(
                f"{self._name}.{method}: timesteps has shape {shape}, expected one number or {sample.shape[:1]}"
            )
        sigma = self.sigmas[self._indices(method, timesteps)].astype(sample.dtype)
        return sigma.reshape(-1, *(1,) * (sample.ndim - 1))

    def _levels_of_images(
        self, method: str, sample: np.ndarray, timesteps: Timesteps
    ) -> tuple[np.ndarray, np.ndarray]:
        """a and b of each image, line (b), at the levels of `timesteps`: also between those of the training schedule."""
        sigma = self._sigmas_of_images(method, sample, timesteps)
        signal = 1 / np.sqrt(1 + sigma**2)
        return signal, sigma * signal


class VarianceExplodingScheduler(SigmaScheduler):
    """A walk whose samples are x/a = x_0 + sigma eps, line (a); `scale_model_input` makes of them the x of the model.

    Attributes: timesteps are float32, and may lie between whole ones; further those of `SigmaScheduler`.
    """

    _highest_level = math.inf

    def __init__(self) -> None:
        super().__init__()
        self.timesteps = self.timesteps.astype(np.float32)

    @property
    def init_noise_sigma(self) -> float:  # type: ignore[override]  # it follows from sigmas, so nobody sets it
        """Standard deviation of the noise that sampling starts from: the largest sigma.

        With "leading" spacing, which begins below T-1, that of x/a with x ~ N(0, I): sqrt(sigma^2 + 1).
        """
        largest = float(self.sigmas.max())
        return math.hypot(largest, 1) if self.config["timestep_spacing"] == "leading" else largest

    # The timestep cannot be left out, for by it the sample is scaled.
    def scale_model_input(self, sample: np.ndarray, timestep: Timesteps | float) -> np.ndarray:  # type: ignore[override]
        """x = a (x/a), a = 1/sqrt(sigma^2 + 1): the sample as the model knows it, (B, ...) of the same dtype; timestep may be (B,)."""
        if np.ndim(timestep) > 0:
            self._check_arrays("scale_model_input", sample=sample)
            sigma = self._sigmas_of_images("scale_model_input", sample, timestep).astype(np.float64)
            return sample / np.hypot(sigma, 1).astype(sample.dtype)
        index = self._step_index("scale_model_input", timestep)
        self._check_arrays("scale_model_input", sample=sample)
        return sample / math.hypot(float(self.sigmas[index]), 1)

    def add_noise(self, original_samples: np.ndarray, noise: np.ndarray, timesteps: Timesteps) -> np.ndarray:
        """x_0 + sigma eps, line (a), as `step` takes it.

        Args:
            original_samples: x_0, (B, ...) float32 or float64.
            noise: eps, of the same shape and dtype.
            timesteps: one of `timesteps` for each image, (B,), or one for all: (1,) or a number.

        Returns:
            (B, ...) of the dtype and memory order of original_samples.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a timestep that is not among `timesteps`.
        """
        self._check_arrays("add_noise", original_samples=original_samples, noise=noise)
        noisy = np.multiply(
            noise, self._sigmas_of_images("add_noise", noise, timesteps), out=np.empty_like(original_samples)
        )
        noisy += original_samples
        return noisy

    def _signal_and_sigma_at(self, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ones_like(level), level

    def _spaced_levels(self, timesteps: np.ndarray, sigmas: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Timesteps and sigmas, (N,) each: these, or spaced between the first and the last sigma as asked for.

        sigmas that are not given are those of the timesteps.
        """
        if sigmas is None:
            sigmas = np.interp(timesteps, np.arange(len(self)), self._training_sigmas)
        spaced = self._spaced_sigmas(sigmas, len(timesteps))
        if spaced is None:
            return timesteps.astype(np.float32), sigmas
        return timesteps_of_sigmas(spaced, self._training_sigmas).astype(np.float32), spaced

    def _timesteps_by_spacing(self, num_inference_steps: int | None) -> np.ndarray:
        """N timesteps by timestep_spacing, (N,) float32: for "linspace", other than in DDPM, not rounded."""
        count = self._checked_count(num_inference_steps)
        if self.config["timestep_spacing"] == "linspace":
            return np.linspace(0, len(self) - 1, count, dtype=np.float32)[::-1]
        return self._spaced_timesteps(count).astype(np.float32)

    def _denoised(self, model_output: np.ndarray, sample: np.ndarray, sigma: float) -> np.ndarray:
        """x_0 by line (d) with x = a sample: sample - sigma m, or m, or a^2 sample - b m; a new array."""
        if self.config["prediction_type"] != "v_prediction":
            return self._estimate_x0(model_output, sample, 1.0, sigma)
        signal, noise = signal_and_noise(sigma)
        return self._estimate_x0(model_output, sample, signal**2, noise)
