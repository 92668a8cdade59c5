"""Denoising diffusion probabilistic models: Ho, Jain & Abbeel 2020, arXiv:2006.11239; [n] is their equation n.

Notation: t is a timestep and s < t the one that sampling visits after it; z, eps ~ N(0, I); alpha_t = 1 - beta_t and
abar_t = alpha_0 alpha_1 .. alpha_t. Timesteps count from 0, the paper's from 1; the image itself stands at s = -1,
where abar = 1.

The forward process destroys an image x_0 step by step; Gaussians compose, so any x_t is one draw away from x_0:

    (a)  q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I)                                                    [2]
    (b)  q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I),  i.e.  x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps [4]

Sampling may skip steps. From s straight to t, (a) holds with abar_t / abar_s in the place of alpha_t, so from here on

    (c)  alpha = abar_t / abar_s,  beta = 1 - alpha                  (these are alpha_t and beta_t when s = t - 1)

The posterior is Gaussian: q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0), whose exponent is

    -1/2 [ |x_t - sqrt(alpha) x_s|^2 / beta + |x_s - sqrt(abar_s) x_0|^2 / (1 - abar_s) ].

The precision is the coefficient of |x_s|^2, alpha/beta + 1/(1 - abar_s) = (1 - abar_t) / (beta (1 - abar_s)). The
mean is the coefficient of x_s, sqrt(alpha)/beta x_t + sqrt(abar_s)/(1 - abar_s) x_0, divided by the precision:

    (d)  beta_tilde = (1 - abar_s)/(1 - abar_t) beta                                                              [7]
    (e)  mu_tilde = sqrt(abar_s) beta/(1 - abar_t) x_0 + sqrt(alpha) (1 - abar_s)/(1 - abar_t) x_t                [7]

The reverse step draws from this posterior with an estimate in the place of x_0. The network m(x_t, t) predicts the
noise, the image, or the velocity v of Salimans & Ho 2022 (arXiv:2202.00512). Solving (b) and (g) for x_0,

    (f)  epsilon:       x_0 = (x_t - sqrt(1 - abar_t) m) / sqrt(abar_t)                                          [15]
         sample:        x_0 = m
         v_prediction:  x_0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) m
    (g)  v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0
    (h)  x_s = mu_tilde(x_t, x_0) + sigma z,  sigma^2 = beta_tilde ("small") or beta ("large"),  z = 0 at t = 0

For s = t - 1 and a noise prediction eps_theta, (f) put into (e) is the line of the paper's algorithm 2:

    (i)  x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps_theta) / sqrt(alpha_t) + sigma_t z                       [11]

The loss: the variational bound [3] is a sum of divergences between the posterior and the reverse step [5], two
Gaussians of one variance, so each of them is a distance of means and, by (i), of noises:

    (j)  L = E |mu_tilde - mu_theta|^2 / (2 sigma_t^2)                                                            [8]
           = E beta_t^2 / (2 sigma_t^2 alpha_t (1 - abar_t)) |eps - eps_theta(x_t, t)|^2                         [12]

Training drops the weight, which gives the better pictures, and draws t uniformly, eps ~ N(0, I) and x_t by (b):

    (k)  L_simple = E |eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t)|^2                            [14]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hcrot.schedulers.config import (
    SchedulerConfig,
    checked_betas,
    checked_boolean,
    checked_choice,
    checked_integer,
    checked_positive,
)
from hcrot.schedulers.schedules import BETA_SCHEDULES, TIMESTEP_SPACINGS, cumulative_alphas, spaced_timesteps

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
MIN_VARIANCE = np.float32(1e-20)  # in diffusers beta_tilde, which is 0 for s = -1, is kept above this
Timesteps = int | Sequence[int] | np.ndarray


@dataclass
class DDPMSchedulerOutput:
    """What `DDPMScheduler.step` returns: x_s and the estimate of x_0 it was made from, both of the sample's shape."""

    prev_sample: np.ndarray
    pred_original_sample: np.ndarray


class DDPMScheduler(SchedulerConfig):
    """The forward process (b) and the reverse step (h), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps: T, the number of noise levels the model is trained on.
        beta_start, beta_end: ends of the schedules linear, scaled_linear and sigmoid.
        beta_schedule: "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid" or "laplace".
        trained_betas: the T betas themselves, in place of a schedule.
        variance_type: sigma^2 of (h): beta_tilde for "fixed_small" and "fixed_small_log", beta for "fixed_large" and
            "fixed_large_log". The _log names are the same values by way of the logarithm; in diffusers
            "fixed_large_log" misses the way back and gives NaN.
        clip_sample, clip_sample_range: whether the estimate of x_0 is clipped to +-clip_sample_range.
        prediction_type: what the model predicts, "epsilon", "sample" or "v_prediction", see (f).
        timestep_spacing, steps_offset: the timesteps `set_timesteps` visits: "linspace", "leading" or "trailing".
        thresholding, dynamic_thresholding_ratio, sample_max_value, rescale_betas_zero_snr: fields of diffusers'
            configuration. thresholding=True, rescale_betas_zero_snr=True and the variance types "learned" and
            "learned_range" raise NotImplementedError.

    Attributes:
        betas, alphas, alphas_cumprod: beta_t, alpha_t and abar_t, each (T,) float32.
        timesteps: what `step` is to be called with, in order, (N,) int64; T-1 .. 0 until `set_timesteps` is called.
        num_inference_steps: N, or None before `set_timesteps`.
        init_noise_sigma: standard deviation of the noise that sampling starts from.
        order: model evaluations per step.
        config: the arguments by name, as `save_pretrained` writes them.

    Raises:
        TypeError, ValueError: an argument of the wrong type, out of range, or not among its choices.
        NotImplementedError: see thresholding above.
    """

    order = 1

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        variance_type: str = "fixed_small",
        clip_sample: bool = True,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        if thresholding:
            raise NotImplementedError("DDPMScheduler: thresholding=True is not implemented")
        if rescale_betas_zero_snr:
            raise NotImplementedError("DDPMScheduler: rescale_betas_zero_snr=True is not implemented")
        if variance_type in ("learned", "learned_range"):
            raise NotImplementedError(f"DDPMScheduler: variance_type={variance_type!r} is not implemented")
        num_train_timesteps = checked_integer("DDPMScheduler: num_train_timesteps", num_train_timesteps, minimum=1)
        ratio = checked_positive("DDPMScheduler: dynamic_thresholding_ratio", dynamic_thresholding_ratio)
        self.config = {
            "num_train_timesteps": num_train_timesteps,
            "beta_start": checked_positive("DDPMScheduler: beta_start", beta_start),
            "beta_end": checked_positive("DDPMScheduler: beta_end", beta_end),
            "beta_schedule": checked_choice("DDPMScheduler: beta_schedule", beta_schedule, BETA_SCHEDULES),
            "trained_betas": checked_betas("DDPMScheduler: trained_betas", trained_betas, num_train_timesteps),
            "variance_type": checked_choice("DDPMScheduler: variance_type", variance_type, VARIANCE_TYPES),
            "clip_sample": checked_boolean("DDPMScheduler: clip_sample", clip_sample),
            "prediction_type": checked_choice("DDPMScheduler: prediction_type", prediction_type, PREDICTION_TYPES),
            "thresholding": checked_boolean("DDPMScheduler: thresholding", thresholding),
            "dynamic_thresholding_ratio": ratio,
            "clip_sample_range": checked_positive("DDPMScheduler: clip_sample_range", clip_sample_range),
            "sample_max_value": checked_positive("DDPMScheduler: sample_max_value", sample_max_value),
            "timestep_spacing": checked_choice("DDPMScheduler: timestep_spacing", timestep_spacing, TIMESTEP_SPACINGS),
            "steps_offset": checked_integer("DDPMScheduler: steps_offset", steps_offset, minimum=0),
            "rescale_betas_zero_snr": checked_boolean("DDPMScheduler: rescale_betas_zero_snr", rescale_betas_zero_snr),
        }
        if trained_betas is None:
            self.betas = BETA_SCHEDULES[beta_schedule](num_train_timesteps, float(beta_start), float(beta_end))
        else:
            self.betas = np.array(trained_betas, dtype=np.float32)
        self.alphas = np.float32(1) - self.betas
        self.alphas_cumprod = cumulative_alphas(self.alphas)
        if not np.all((self.alphas > 0) & (self.alphas < 1)):
            raise ValueError(
                f"DDPMScheduler: betas range from {self.betas.min():g} to {self.betas.max():g}, "
                "expected all strictly between 0 and 1 in float32 (beta_start, beta_end or trained_betas)"
            )
        if self.alphas_cumprod[-1] == 0:
            raise ValueError(
                f"DDPMScheduler: alphas_cumprod underflows to 0 at timestep {np.argmin(self.alphas_cumprod)}, "
                "expected fewer timesteps or smaller betas"
            )
        self.init_noise_sigma = 1.0
        self.num_inference_steps: int | None = None
        self.timesteps = np.arange(len(self))[::-1].copy()

    def __len__(self) -> int:
        """T, the number of timesteps the model is trained on."""
        return self.config["num_train_timesteps"]

    # training: x_0 to x_t -------------------------------------------------------------------------------------

    def add_noise(self, original_samples: np.ndarray, noise: np.ndarray, timesteps: Timesteps) -> np.ndarray:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, line (b).

        Args:
            original_samples: x_0, (B, ...) float32 or float64, images scaled to [-1, 1].
            noise: eps, of the same shape and dtype.
            timesteps: t of each image, (B,) integers in 0 .. T-1, or one for all: (1,) or an int.

        Returns:
            (B, ...) of the dtype and memory order of original_samples.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a timestep that is no integer in 0 .. T-1.
        """
        _check_arrays("DDPMScheduler.add_noise", original_samples=original_samples, noise=noise)
        signal, sigma = self._signal_and_noise("DDPMScheduler.add_noise", original_samples, timesteps)
        noisy = np.multiply(original_samples, signal, out=np.empty_like(original_samples))
        noisy += sigma * noise
        return noisy

    def get_velocity(self, sample: np.ndarray, noise: np.ndarray, timesteps: Timesteps) -> np.ndarray:
        """v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0, line (g), which a model of type "v_prediction" is to learn.

        Arguments, result and errors are those of `add_noise`, with x_0 called sample.
        """
        _check_arrays("DDPMScheduler.get_velocity", sample=sample, noise=noise)
        signal, sigma = self._signal_and_noise("DDPMScheduler.get_velocity", sample, timesteps)
        velocity = np.multiply(sample, -sigma, out=np.empty_like(sample))
        velocity += signal * noise
        return velocity

    # sampling: x_t to x_s -------------------------------------------------------------------------------------

    def set_timesteps(self, num_inference_steps: int | None = None, *, timesteps: Sequence[int] | None = None) -> None:
        """Choose the timesteps that sampling visits: a number of them, spaced by timestep_spacing, or a list.

        Args:
            num_inference_steps: N in 1 .. T.
            timesteps: instead, strictly descending integers in 0 .. T-1.

        Raises:
            TypeError, ValueError: both or neither given, N out of range, or a list that is not as described.
        """
        where = "DDPMScheduler.set_timesteps"
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError(f"{where}: expected either num_inference_steps or timesteps, got both or neither")
        if timesteps is not None:
            chosen = self._checked_timesteps(where, timesteps)
            if chosen.ndim != 1 or chosen.size == 0 or np.any(np.diff(chosen) >= 0):
                raise ValueError(f"{where}: timesteps {timesteps} is not a strictly descending list")
        else:
            count = checked_integer(f"{where}: num_inference_steps", num_inference_steps, minimum=1)
            if count > len(self):
                raise ValueError(f"{where}: num_inference_steps {count} is more than the {len(self)} trained timesteps")
            spacing, offset = self.config["timestep_spacing"], self.config["steps_offset"]
            chosen = spaced_timesteps(spacing, len(self), count, offset)
        self.timesteps = chosen
        self.num_inference_steps = len(chosen)

    def previous_timestep(self, timestep: int) -> int:
        """s, where `step` leads from t: the next entry of `timesteps`, and -1, the image itself, after the last.

        Raises:
            ValueError: the timestep is not among `timesteps`.
        """
        t = self._scalar_timestep("DDPMScheduler.previous_timestep", timestep)
        (position,) = np.nonzero(self.timesteps == t)
        if position.size == 0:
            raise ValueError(
                f"DDPMScheduler: timestep {t} is not one of the {len(self.timesteps)} timesteps set by set_timesteps"
            )
        return int(self.timesteps[position[0] + 1]) if position[0] + 1 < len(self.timesteps) else -1

    def scale_model_input(self, sample: np.ndarray, timestep: int | None = None) -> np.ndarray:
        """The sample as the model wants it, which in DDPM is the sample itself; other schedulers scale it."""
        return sample

    def step(
        self,
        model_output: np.ndarray,
        timestep: int,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        *,
        noise: np.ndarray | None = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple[np.ndarray, np.ndarray]:
        """One reverse step x_t -> x_s: estimate x_0 by (f), clip it, return mu_tilde + sigma z by (e) and (h).

        As in diffusers the noise is left out at t = 0 only. So a chain that ends above 0 ("trailing" spacing, "leading"
        with a steps_offset) ends with sigma z: 1e-10 z with "fixed_small", visible noise with "fixed_large".

        Args:
            model_output: m(x_t, t), (B, ...) float32 or float64.
            timestep: t, one integer out of `timesteps`.
            sample: x_t, of the same shape and dtype.
            generator: draws z, the same whatever the memory order of sample; not touched at t = 0.
            noise: instead of a generator z itself, of the shape and dtype of sample.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).

        Returns:
            x_s and the (clipped) estimate of x_0, (B, ...) of the dtype and memory order of sample.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; a timestep that is not one integer out of
                `timesteps`; generator and noise both given, or neither at t > 0.
        """
        t = self._scalar_timestep("DDPMScheduler.step", timestep)
        s = self.previous_timestep(t)
        injected = {} if noise is None else {"noise": noise}
        _check_arrays("DDPMScheduler.step", sample=sample, model_output=model_output, **injected)
        _check_source_of_noise(t, generator, noise)

        # Float32 as in diffusers: near t = 0 beta cancels, and float64 coefficients would differ from its by 1e-4.
        abar_t = self.alphas_cumprod[t]
        abar_s = self.alphas_cumprod[s] if s >= 0 else np.float32(1)
        alpha = abar_t / abar_s
        beta = 1 - alpha
        beta_tilde = (1 - abar_s) / (1 - abar_t) * beta

        x0 = self._estimate_x0(model_output, sample, abar_t)
        prev_sample = x0 * (np.sqrt(abar_s) * beta / (1 - abar_t))
        prev_sample += sample * (np.sqrt(alpha) * (1 - abar_s) / (1 - abar_t))
        if t > 0:
            small = self.config["variance_type"] in ("fixed_small", "fixed_small_log")
            sigma = np.sqrt(max(beta_tilde, MIN_VARIANCE) if small else beta)
            z = generator.standard_normal(sample.shape, dtype=sample.dtype) if noise is None else noise
            prev_sample += z * sigma

        return DDPMSchedulerOutput(prev_sample, x0) if return_dict else (prev_sample, x0)

    def _estimate_x0(self, model_output: np.ndarray, sample: np.ndarray, abar_t: np.float32) -> np.ndarray:
        """Line (f), clipped; a new array in the memory order of sample."""
        prediction_type = self.config["prediction_type"]
        x0 = np.empty_like(sample)
        if prediction_type == "epsilon":
            np.multiply(model_output, -np.sqrt(1 - abar_t), out=x0)
            x0 += sample
            x0 /= np.sqrt(abar_t)
        elif prediction_type == "sample":
            x0[...] = model_output
        else:
            np.multiply(model_output, -np.sqrt(1 - abar_t), out=x0)
            x0 += sample * np.sqrt(abar_t)
        if self.config["clip_sample"]:
            limit = self.config["clip_sample_range"]
            np.clip(x0, -limit, limit, out=x0)
        return x0

    # helpers --------------------------------------------------------------------------------------------------

    def _signal_and_noise(self, where: str, sample: np.ndarray, timesteps: Timesteps) -> tuple[np.ndarray, np.ndarray]:
        """sqrt(abar_t) and sqrt(1 - abar_t) of (b) in the sample's dtype, each (B, 1, 1, ...) or (1, 1, 1, ...)."""
        t = self._checked_timesteps(where, timesteps)
        if t.ndim > 1 or (t.size != 1 and t.shape != sample.shape[:1]):
            raise ValueError(f"{where}: timesteps has shape {t.shape}, expected one integer or {sample.shape[:1]}")
        abar = self.alphas_cumprod[t].astype(sample.dtype).reshape(-1, *(1,) * (sample.ndim - 1))
        return np.sqrt(abar), np.sqrt(1 - abar)

    def _scalar_timestep(self, where: str, timestep: int) -> int:
        """The timestep as an int in 0 .. T-1."""
        t = self._checked_timesteps(where, timestep)
        if t.ndim > 0:
            raise ValueError(
                f"{where}: timestep has shape {t.shape}, expected one integer: a batch is denoised as a whole"
            )
        return int(t)

    def _checked_timesteps(self, where: str, timesteps: Timesteps) -> np.ndarray:
        """The timesteps as an int64 array of their shape, all in 0 .. T-1."""
        t = np.asarray(timesteps)
        if t.dtype.kind not in "iu":
            raise TypeError(f"{where}: timesteps have dtype {t.dtype} and shape {t.shape}, expected integers")
        if np.any((t < 0) | (t >= len(self))):
            raise ValueError(f"{where}: timesteps range from {t.min()} to {t.max()}, expected 0 .. {len(self) - 1}")
        return t.astype(np.int64)


def _check_arrays(where: str, **arrays: np.ndarray) -> None:
    """All are float32 or all are float64 arrays, and of the first one's shape."""
    first_name, first = next(iter(arrays.items()))
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{where}: {name} is a {type(array).__name__}, expected a NumPy array")
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"{where}: {name} has dtype {array.dtype}, expected float32 or float64 (images in [-1, 1])")
        if array.dtype != first.dtype:
            raise TypeError(f"{where}: {name} has dtype {array.dtype}, expected {first.dtype} as {first_name}")
        if array.shape != first.shape:
            raise ValueError(f"{where}: {name} has shape {array.shape}, expected {first.shape} as {first_name}")


def _check_source_of_noise(t: int, generator: np.random.Generator | None, noise: np.ndarray | None) -> None:
    if generator is not None and not isinstance(generator, np.random.Generator):
        raise TypeError(
            f"DDPMScheduler.step: generator is a {type(generator).__name__}, expected a numpy.random.Generator"
        )
    if generator is not None and noise is not None:
        raise ValueError("DDPMScheduler.step: expected either a generator or noise, got both")
    if t > 0 and generator is None and noise is None:
        raise ValueError(f"DDPMScheduler.step: timestep {t} adds noise, expected a numpy.random.Generator as generator")
