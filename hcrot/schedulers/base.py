"""What the schedulers share: the noise levels, x_0 noised to x_t, x_0 and the noise found in a prediction, the checks.

Notation: x_t = signal x_0 + sigma eps with eps ~ N(0, I). In the variance-preserving process of Ho et al. 2020
(arXiv:2006.11239) signal = sqrt(abar_t) and sigma = sqrt(1 - abar_t), where abar_t = alpha_0 .. alpha_t and
alpha_t = 1 - beta_t; B is the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from hcrot.init import is_int
from hcrot.schedulers.config import (
    checked_betas,
    checked_boolean,
    checked_choice,
    checked_integer,
    checked_positive,
    checked_ratio,
)
from hcrot.schedulers.estimates import Estimates
from hcrot.schedulers.schedules import (
    BETA_SCHEDULES,
    TIMESTEP_SPACINGS,
    cumulative_alphas,
    rescaled_to_zero_snr,
    spaced_timesteps,
)

__all__ = ["PREDICTION_TYPES", "NoiseScheduler", "SchedulerOutput", "Timesteps"]

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
Timesteps = int | Sequence[int] | np.ndarray


@dataclass
class SchedulerOutput:
    """What `step` returns: x_s, and where the scheduler has it the estimate of x_0, each of the sample's shape."""

    prev_sample: np.ndarray
    pred_original_sample: np.ndarray | None = None

    def returned(self, return_dict: bool) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """Itself, or the tuple of what it holds."""
        if return_dict:
            return self
        return tuple(array for array in (self.prev_sample, self.pred_original_sample) if array is not None)


class NoiseScheduler(Estimates):
    """The noise levels of the forward process, and what every reverse step begins with.

    A scheduler decorates its constructor with `register_to_config`, names checks for arguments that are not in `checks`
    here, calls super().__init__() and defines `step(model_output, timestep, sample, ..., generator=None, *,
    return_dict=True)`. Those that never draw noise take the generator too, so that each fits into the same loop.

    Attributes:
        betas, alphas, alphas_cumprod: beta_t, alpha_t and abar_t, each (T,) float32.
        timesteps: what `step` is to be called with, in order, (N,) int64; T-1 .. 0 until `set_timesteps` is called.
        num_inference_steps: N, or None before `set_timesteps`.
        init_noise_sigma: standard deviation of the noise that sampling starts from.
        order: model evaluations per step.

    Raises:
        ValueError: betas that are not strictly between 0 and 1, too many or too few, or that leave abar_t = 0.
    """

    order = 1
    init_noise_sigma = 1.0
    _highest_level = 1.0  # of `add_noise_at`
    checks: ClassVar = {
        "num_train_timesteps": partial(checked_integer, minimum=1),
        "beta_start": checked_positive,
        "beta_end": checked_positive,
        "beta_schedule": partial(checked_choice, choices=BETA_SCHEDULES),
        "trained_betas": checked_betas,
        "clip_sample": checked_boolean,
        "prediction_type": partial(checked_choice, choices=PREDICTION_TYPES),
        "thresholding": checked_boolean,
        "dynamic_thresholding_ratio": checked_ratio,
        "clip_sample_range": checked_positive,
        "sample_max_value": checked_positive,
        "set_alpha_to_one": checked_boolean,
        "timestep_spacing": partial(checked_choice, choices=TIMESTEP_SPACINGS),
        "steps_offset": partial(checked_integer, minimum=0),
        "rescale_betas_zero_snr": checked_boolean,
    }

    def __init__(self) -> None:
        self.betas = self._checked_betas()
        if self._arguments.get("rescale_betas_zero_snr"):
            if len(self) == 1:
                raise ValueError(f"{self._name}: rescale_betas_zero_snr needs num_train_timesteps of at least 2, got 1")
            self.betas = rescaled_to_zero_snr(self.betas)
        self.alphas = np.float32(1) - self.betas
        self.alphas_cumprod = cumulative_alphas(self.alphas)
        self.num_inference_steps: int | None = None
        self.timesteps = np.arange(len(self))[::-1].copy()

    def __len__(self) -> int:
        """T, the number of timesteps the model is trained on."""
        return self.config["num_train_timesteps"]

    def __repr__(self) -> str:
        """The class and the arguments that differ from its defaults, and once they are chosen the number of steps.

        Before `set_timesteps` it is an expression that makes the scheduler again, but that long lists are shortened.
        """
        options = self._changed_arguments()
        if self.num_inference_steps is not None:
            options["num_inference_steps"] = str(self.num_inference_steps)
        return f"{self._name}({', '.join(f'{name}={value}' for name, value in options.items())})"

    # training: x_0 to x_t -------------------------------------------------------------------------------------

    def add_noise(self, original_samples: np.ndarray, noise: np.ndarray, timesteps: Timesteps) -> np.ndarray:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps; Ho et al. 2020, eq. 4.

        Args:
            original_samples: x_0, (B, ...) float32 or float64, images scaled to [-1, 1].
            noise: eps, of the same shape and dtype.
            timesteps: t of each image, (B,) integers in 0 .. T-1, or one for all: (1,) or an int.

        Returns:
            (B, ...) of the dtype and memory order of original_samples.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a timestep that is no integer in 0 .. T-1.
        """
        self._check_arrays("add_noise", original_samples=original_samples, noise=noise)
        return _mixed(original_samples, noise, *self._levels_of_images("add_noise", original_samples, timesteps))

    def add_noise_at(self, original_samples: np.ndarray, noise: np.ndarray, level: float | Sequence[float] | np.ndarray) -> np.ndarray:
        """x = sqrt(level) x_0 + sqrt(1 - level) eps at any level of noise, also between those of the timesteps.

        From such x learns a network that is told the level in place of the time: Chen et al. 2020 (WaveGrad), arXiv:2009.00713,
        section 3, and Saharia et al. 2021 (SR3), arXiv:2104.07636.

        Args:
            original_samples: x_0, (B, ...) float32 or float64.
            noise: eps, of the same shape and dtype.
            level: abar, what `alphas_cumprod` holds, from 0 (noise) to 1 (image); one for each image, (B,), or a number for all. Where
                `sigmas` holds the levels it is such a sigma instead: at least 0, x = x_0 + sigma eps (Euler, Heun, EDM, ScoreSdeVe), or
                with flow matching from 0 to 1, x = (1 - sigma) x_0 + sigma eps.

        Returns:
            (B, ...) of the dtype and memory order of original_samples; the factors are computed in float64.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a level that is no number, or out of range.
        """
        self._check_arrays("add_noise_at", original_samples=original_samples, noise=noise)
        where, levels = f"{self._name}.add_noise_at", np.asarray(level)
        if levels.dtype.kind not in "iuf":
            raise TypeError(f"{where}: level has dtype {levels.dtype} and shape {levels.shape}, expected numbers")
        if levels.shape not in ((), (1,), original_samples.shape[:1]):
            raise ValueError(f"{where}: level has shape {levels.shape}, expected one number or {original_samples.shape[:1]}")
        if not np.all((levels >= 0) & (levels <= self._highest_level) & (levels < np.inf)):
            raise ValueError(f"{where}: level ranges from {levels.min()} to {levels.max()}, expected 0 .. {self._highest_level:g}")
        columns = levels.astype(np.float64).reshape(-1, *(1,) * (original_samples.ndim - 1))
        signal, sigma = (factor.astype(original_samples.dtype) for factor in self._signal_and_sigma_at(columns))
        return _mixed(original_samples, noise, signal, sigma)

    def get_velocity(self, sample: np.ndarray, noise: np.ndarray, timesteps: Timesteps) -> np.ndarray:
        """v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0, which a model of type "v_prediction" is to learn.

        Salimans & Ho 2022, arXiv:2202.00512. Arguments, result and errors are those of `add_noise`, with x_0 called
        sample.
        """
        self._check_arrays("get_velocity", sample=sample, noise=noise)
        signal, sigma = self._levels_of_images("get_velocity", sample, timesteps)
        velocity = np.multiply(sample, -sigma, out=np.empty_like(sample))
        velocity += signal * noise
        return velocity

    # sampling: x_t to x_s -------------------------------------------------------------------------------------

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Choose how many timesteps sampling visits, spaced by timestep_spacing.

        Args:
            num_inference_steps: N in 1 .. T.

        Raises:
            TypeError, ValueError: N is no integer or out of range; "epsilon" where abar_t = 0 would be visited.
        """
        self._visit(self._spaced_timesteps(num_inference_steps))

    def scale_model_input(self, sample: np.ndarray, timestep: float | None = None) -> np.ndarray:
        """The sample as the model wants it: the sample itself, but for schedulers that scale it."""
        return sample

    def step(self, *arguments: Any, **options: Any) -> Any:
        """x_t -> x_s; each scheduler says what it takes beside `model_output`, `timestep` and `sample`."""
        raise NotImplementedError(f"{self._name} has no step")

    def _visit(self, timesteps: np.ndarray) -> None:
        """Let sampling visit these timesteps, (N,) int64.

        Raises:
            ValueError: steps from there would need the x_0 that `_estimate_x0` has not.
        """
        if self.config["prediction_type"] == "epsilon" and np.any(self.alphas_cumprod[timesteps] == 0):
            raise ValueError(self._no_signal("set_timesteps"))
        self.timesteps = timesteps
        self.num_inference_steps = len(timesteps)

    # what a step needs ----------------------------------------------------------------------------------------

    def _chosen_timesteps(self, timesteps: Sequence[int] | np.ndarray) -> np.ndarray:
        """Timesteps that somebody has listed, (N,) int64: strictly descending integers in 0 .. T-1."""
        chosen = self._checked_timesteps("set_timesteps", timesteps)
        if chosen.ndim != 1 or chosen.size == 0 or np.any(np.diff(chosen) >= 0):
            raise ValueError(f"{self._name}.set_timesteps: timesteps {timesteps} is not a strictly descending list")
        return chosen

    def _check_one_given(self, **choices: Any) -> None:
        """Exactly one of these arguments of set_timesteps is given, the others are None."""
        given = [name for name, value in choices.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"{self._name}.set_timesteps: expected one of {', '.join(choices)}, got {' and '.join(given) or 'none'}")

    def previous_timestep(self, timestep: int) -> int:
        """s, where `step` leads from t: the next entry of `timesteps`, and -1, the image itself, after the last.

        Raises:
            ValueError: the timestep is not among `timesteps`.
        """
        return self._entry_beside(timestep, 1)

    def _entry_beside(self, timestep: int, offset: int) -> int:
        """The timestep that stands `offset` entries after this one in `timesteps`; -1 where there is none.

        Raises:
            ValueError: the timestep is not among `timesteps`.
        """
        t = self._scalar_timestep("previous_timestep", timestep)
        (positions,) = np.nonzero(self.timesteps == t)
        if positions.size == 0:
            raise ValueError(f"{self._name}: timestep {t} is not one of the {len(self.timesteps)} timesteps set by set_timesteps")
        beside = positions[0] + offset
        return int(self.timesteps[beside]) if 0 <= beside < len(self.timesteps) else -1

    def _drawn_noise(
        self, timestep: float, sample: np.ndarray, generator: np.random.Generator | None, noise: np.ndarray | None
    ) -> np.ndarray:
        """z ~ N(0, I) of the sample's shape and dtype: the noise handed in, or drawn."""
        if noise is not None:
            return noise
        if generator is None:
            raise ValueError(f"{self._name}.step: timestep {timestep} adds noise, expected a numpy.random.Generator as generator")
        return generator.standard_normal(sample.shape, dtype=sample.dtype)

    # checks ---------------------------------------------------------------------------------------------------

    def _check_timesteps_are_set(self, method: str) -> int:
        """N, if there is one."""
        if self.num_inference_steps is None:
            raise ValueError(f"{self._name}.{method}: set_timesteps was not called, expected it before sampling")
        return self.num_inference_steps

    def _checked_betas(self) -> np.ndarray:
        """The betas that the configuration asks for, (T,) float32, before they are rescaled."""
        trained, schedule = self.config["trained_betas"], self.config["beta_schedule"]
        if trained is None:
            betas = BETA_SCHEDULES[schedule](len(self), self.config["beta_start"], self.config["beta_end"])
        elif len(trained) == len(self):
            betas = np.array(trained, dtype=np.float32)
        else:
            expected = f"expected one number for each of {len(self)} num_train_timesteps"
            raise ValueError(f"{self._name}: trained_betas has shape ({len(trained)},), {expected}")
        alphas = np.float32(1) - betas
        if not np.all((alphas > 0) & (alphas < 1)):
            expected = "expected all strictly between 0 and 1 in float32 (beta_start, beta_end or trained_betas)"
            raise ValueError(f"{self._name}: betas range from {betas.min():g} to {betas.max():g}, {expected}")
        alphas_cumprod = cumulative_alphas(alphas)
        if alphas_cumprod[-1] == 0:
            place = f"at timestep {np.argmin(alphas_cumprod)}"
            raise ValueError(f"{self._name}: alphas_cumprod underflows to 0 {place}, expected fewer timesteps or smaller betas")
        return betas

    def _checked_count(self, num_inference_steps: int | None) -> int:
        """N as an int in 1 .. T."""
        what = f"{self._name}.set_timesteps: num_inference_steps"
        count = checked_integer(what, num_inference_steps, minimum=1)
        if count > len(self):
            raise ValueError(f"{what} {count} is more than the {len(self)} trained timesteps")
        return count

    def _spaced_timesteps(self, num_inference_steps: int | None) -> np.ndarray:
        """N timesteps, strictly descending, (N,) int64."""
        count = self._checked_count(num_inference_steps)
        return spaced_timesteps(self.config["timestep_spacing"], len(self), count, self.config["steps_offset"])

    def _levels_of_images(self, method: str, sample: np.ndarray, timesteps: Timesteps) -> tuple[np.ndarray, np.ndarray]:
        """sqrt(abar_t) and sqrt(1 - abar_t) in the sample's dtype, each (B, 1, 1, ...) or (1, 1, 1, ...)."""
        t = self._checked_timesteps(method, timesteps)
        if t.ndim > 1 or (t.size != 1 and t.shape != sample.shape[:1]):
            raise ValueError(f"{self._name}.{method}: timesteps has shape {t.shape}, expected one integer or {sample.shape[:1]}")
        abar = self.alphas_cumprod[t].astype(sample.dtype).reshape(-1, *(1,) * (sample.ndim - 1))
        return np.sqrt(abar), np.sqrt(1 - abar)

    def _signal_and_sigma_at(self, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What multiplies x_0 and eps at these levels of `add_noise_at`."""
        return np.sqrt(level), np.sqrt(1 - level)

    def _timesteps_of_step(self, timestep: Timesteps, sample: np.ndarray) -> tuple[Any, Any]:
        """t and s, between which `step` leads: an int each, or where each image has its own t both (B,) int64."""
        t = self._checked_timesteps("step", timestep)
        if t.ndim == 0:
            return int(t), self.previous_timestep(int(t))
        if t.shape != np.shape(sample)[:1]:
            raise ValueError(f"{self._name}.step: timestep has shape {t.shape}, expected one integer or {np.shape(sample)[:1]}")
        return t, np.array([self.previous_timestep(int(own)) for own in t], np.int64)

    def _abar(self, timestep: Any, at_image: np.float32, sample: np.ndarray) -> Any:
        """abar of an int, a float32, or of (B,) timesteps, (B, 1, 1, ...) float32; that of -1 is at_image."""
        if isinstance(timestep, int):
            return self.alphas_cumprod[timestep] if timestep >= 0 else at_image
        return np.where(timestep >= 0, self.alphas_cumprod[timestep], at_image).reshape(-1, *(1,) * (sample.ndim - 1))

    def _scalar_timestep(self, method: str, timestep: int) -> int:
        """The timestep as an int in 0 .. T-1."""
        t = self._checked_timesteps(method, timestep)
        if t.ndim > 0:
            raise ValueError(f"{self._name}.{method}: timestep has shape {t.shape}, expected one integer: a batch is denoised as a whole")
        return int(t)

    def _checked_timesteps(self, method: str, timesteps: Timesteps | None) -> np.ndarray:
        """The timesteps as an int64 array of their shape, all in 0 .. T-1."""
        where, t = f"{self._name}.{method}", np.asarray(timesteps)
        if t.dtype.kind not in "iu":
            raise TypeError(f"{where}: timesteps have dtype {t.dtype} and shape {t.shape}, expected integers")
        if np.any((t < 0) | (t >= len(self))):
            raise ValueError(f"{where}: timesteps range from {t.min()} to {t.max()}, expected 0 .. {len(self) - 1}")
        return t.astype(np.int64)

    def _check_arrays(self, method: str, **arrays: np.ndarray | None) -> None:
        """All that are given are float32 or all are float64 arrays, and of the first one's shape."""
        where = f"{self._name}.{method}"
        first: Any  # is always given
        first_name, first = next(iter(arrays.items()))
        for name, array in arrays.items():
            if array is None:
                continue
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{where}: {name} is a {type(array).__name__}, expected a NumPy array")
            if array.dtype not in (np.float32, np.float64):
                raise TypeError(f"{where}: {name} has dtype {array.dtype}, expected float32 or float64 (images in [-1, 1])")
            if array.dtype != first.dtype:
                raise TypeError(f"{where}: {name} has dtype {array.dtype}, expected {first.dtype} as {first_name}")
            if array.shape != first.shape:
                raise ValueError(f"{where}: {name} has shape {array.shape}, expected {first.shape} as {first_name}")

    def _check_source_of_noise(self, generator: np.random.Generator | None, noise: np.ndarray | None = None) -> None:
        if is_int(generator):
            raise TypeError(
                f"{self._name}.step: generator is the int {generator}, which would draw the same noise at every step, expected a "
                f"numpy.random.Generator: make rng = np.random.default_rng({generator}) once, before the loop, and say generator=rng"
            )
        if generator is not None and not isinstance(generator, np.random.Generator):
            raise TypeError(f"{self._name}.step: generator is a {type(generator).__name__}, expected a numpy.random.Generator")
        if generator is not None and noise is not None:
            raise ValueError(f"{self._name}.step: expected either a generator or noise, got both")


def _mixed(original_samples: np.ndarray, noise: np.ndarray, signal: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """signal x_0 + sigma eps, in the dtype and memory order of x_0."""
    noisy = np.multiply(original_samples, signal, out=np.empty_like(original_samples))
    noisy += sigma * noise
    return noisy
