"""The variational bound of diffusion models: bits per dimension, and the hybrid loss that learns the variances too.

H[n] is equation n of Ho, Jain & Abbeel 2020, arXiv:2006.11239, and N[n] of Nichol & Dhariwal 2021, arXiv:2102.09672. The
notation and lines (a) .. (g) are those of `hcrot.schedulers.ddpm`: timesteps t count from 0, s = t - 1, and the image x_0
stands at s = -1. Sampling draws x_{T-1} from N(0, I), then each x_s from N(mu_theta, sigma^2), and at last, at t = 0, a
picture of 256 levels. The negative log-likelihood of a picture is at most H[5]

    -log p(x_0) <= L_T + L_{T-1} + .. + L_1 + L_0

    L_T = KL(q(x_{T-1} | x_0) || N(0, I))                   the prior: what the forward process leaves of the image
    L_t = KL(q(x_s | x_t, x_0) || p(x_s | x_t))             t = 1 .. T-1
    L_0 = -log p(x_0 | x_t)                                 t = 0: the decoder

(T - 1 being the paper's T and t its t - 1, each L has its number there.) For each dimension, with l = log sigma^2, these
divergences of N(sqrt(abar) x_0, 1 - abar) at T - 1 and of N(mu_tilde, beta_tilde) at t are

    (A)  L_T = 1/2 [abar (x_0^2 - 1) - log(1 - abar)]
    (B)  L_t = 1/2 [D + beta_tilde exp(-l) - 1 - (log beta_tilde - l)],    dL_t/dl = 1/2 [1 - beta_tilde exp(-l) - D]
         D = (mu_tilde - mu_theta)^2 exp(-l)

By (e) the means differ by sqrt(abar_s) beta/(1 - abar_t) (x_0 - x_0'), where x_0' is the estimate of x_0 that (f) makes
of the model's prediction. As x_t is known, its error is that of the prediction times a factor:

    (C)  epsilon:       x_0 - x_0' = sqrt((1 - abar)/abar) (eps' - eps)
         sample:        x_0 - x_0' = -(x_0' - x_0)
         v_prediction:  x_0 - x_0' = sqrt(1 - abar) (v' - v)

At t = 0, where mu_theta is x_0', the decoder gives a level the mass of N(x_0', sigma^2) up to half a level around it, and
the two levels at the ends, -1 and 1, what lies beyond as well H[13].

sigma^2 is fixed, beta_tilde or beta, or the model learns it, as y in the second half of the channels of its output:

    (D)  learned:        sigma^2 = y, which has to be positive (as diffusers' schedulers take it; the paper's code: log)
         learned_range:  log sigma^2 = f log beta + (1 - f) log beta_tilde,    f = (y + 1)/2                     N[15]

At t = 0, where beta_tilde is 0, it has its value of t = 1 instead, and so has a fixed beta, as in the code of both
papers. Sampling does not use that variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from hcrot.init import as_generator
from hcrot.schedulers.base import PREDICTION_TYPES
from hcrot.schedulers.config import checked_choice, checked_positive
from hcrot.schedulers.ddpm import LEARNED_VARIANCE_TYPES, VARIANCE_TYPES
from hcrot.training.checks import SINGLE_OR_DOUBLE, check_floating, checked_alphas_cumprod, checked_timesteps

__all__ = ["VariationalBound", "bits_per_dimension", "hybrid_loss"]

HALF_LEVEL = 1 / 255  # half the distance between two of 256 levels from -1 to 1


@dataclass
class VariationalBound:
    """The bound of each image of a batch, in bits per dimension.

    Attributes:
        prior: L_T, (B,) float64.
        terms: L_t, (B, T) float64; column 0 is the decoder's.
    """

    prior: np.ndarray
    terms: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """The bound itself, (B,) float64; its mean over a data set is the figure that papers compare."""
        return self.prior + self.terms.sum(axis=1)


def bits_per_dimension(
    model: Callable[[np.ndarray, np.ndarray], np.ndarray],
    original_samples: np.ndarray,
    alphas_cumprod: np.ndarray,
    generator: np.random.Generator | int,
    prediction_type: str = "epsilon",
    variance_type: str = "fixed_small",
    clip_sample: bool = True,
) -> VariationalBound:
    """The variational bound of images, term by term, with one draw of x_t ~ q(x_t | x_0) for each t.

    Takes T evaluations of the model. Inside ``with model.inference():`` it keeps nothing; labels go in by
    ``lambda x, t: model(x, t, labels)``.

    Args:
        model: called with x_t, (B, C, ...) of the dtype of original_samples, and timesteps, (B,) int64; returns
            (B, C, ...), or (B, 2C, ...) if it learns the variance.
        original_samples: x_0, (B, C, ...) float32 or float64, images of 256 levels scaled to [-1, 1].
        alphas_cumprod: abar, (T,) as the scheduler has it.
        generator: draws the noise, or the seed of a new one; for t = 0, 1, .. T-1 in turn.
        prediction_type: what the model predicts, "epsilon", "sample" or "v_prediction".
        variance_type: sigma^2, by the names of DDPMScheduler, see (D).
        clip_sample: whether the estimate of x_0 is clipped to [-1, 1], as in sampling.

    Returns:
        the terms of each image, in bits per dimension.

    Raises:
        TypeError: an array that is not floating point, or neither a generator nor an int.
        ValueError: an argument of another shape or out of range, an unknown choice, or a model's output of another
            shape.

    Example:
        >>> abar = hcrot.DDPMScheduler(num_train_timesteps=50).alphas_cumprod
        >>> bound = hcrot.bits_per_dimension(lambda x, t: np.zeros_like(x), np.zeros((2, 1, 4, 4), np.float32), abar, generator=0)
        >>> bound.terms.shape, bound.prior.round(3)               # a term for each step; what 50 steps leave of x_0
        ((2, 50), array([0.231, 0.231]))
    """
    owner = "bits_per_dimension"
    steps = _Steps(owner, alphas_cumprod, prediction_type, variance_type)
    _check_images(owner, original_samples)
    generator = as_generator(owner, generator)

    x0, abar = original_samples.astype(np.float64), steps.abar[-1]
    prior = 0.5 * (abar * (x0**2 - 1) - math.log1p(-abar))
    terms = np.empty((len(x0), len(steps.abar)))
    for t, abar in enumerate(steps.abar):
        timesteps = np.full(len(x0), t)
        noise = generator.standard_normal(x0.shape, dtype=original_samples.dtype)
        noisy = (math.sqrt(abar) * x0 + math.sqrt(1 - abar) * noise).astype(original_samples.dtype)
        prediction, y = steps.split(model(noisy, timesteps), x0.shape)
        timesteps = _per_image(timesteps, x0)
        target, factor = steps.target(x0, noise, timesteps)
        error = factor * (prediction - target)
        if clip_sample:
            error = x0 - np.clip(x0 - error, -1, 1)
        log_variance, _ = steps.log_variance(y, timesteps)
        nats, _ = steps.term(x0, error, log_variance, timesteps)
        terms[:, t] = _bits(nats)
    return VariationalBound(_bits(prior), terms)


def hybrid_loss(
    model_output: np.ndarray,
    original_samples: np.ndarray,
    noise: np.ndarray,
    timesteps: np.ndarray | Sequence[int],
    alphas_cumprod: np.ndarray,
    prediction_type: str = "epsilon",
    variance_type: str = "learned_range",
    vlb_weight: float = 0.001,
) -> tuple[float, np.ndarray]:
    """L_simple + lambda L_vlb: the first teaches the model means, the second variances; N[16].

    The model's output is a prediction m and, in the second half of its channels, y. Over B images of n numbers,

        value = 1/(B n) sum |m - target|^2 + lambda T/(B n ln 2) sum L_t
        dout  = [ 2/(B n) (m - target),  lambda T/(B n ln 2) dL_t/dl dl/dy ]

    with L_t of (B) or, at t = 0, the decoder's, in bits per dimension as in the paper's code. T times the mean over
    uniformly drawn t is the sum over t. L_t depends on m too, but that gradient is left out ("stop-gradient"): the
    weight that L_vlb puts on each t serves the likelihood and hurts the pictures. x_0' is not clipped.

    Args:
        model_output: (B, 2C, ...) float32 or float64.
        original_samples: x_0, (B, C, ...) float32 or float64, images of 256 levels scaled to [-1, 1].
        noise: eps that x_t was made with, like original_samples.
        timesteps: t of each image, (B,) integers drawn uniformly from 0 .. T-1.
        alphas_cumprod: abar, (T,) as the scheduler has it.
        prediction_type: what m predicts, "epsilon", "sample" or "v_prediction".
        variance_type: what y means, "learned" or "learned_range", see (D).
        vlb_weight: lambda, > 0.

    Returns:
        the value, and its gradient with respect to model_output, of its dtype and memory order.

    Raises:
        TypeError: an array that is not floating point, or timesteps that are not integers.
        ValueError: an argument of another shape or out of range, an unknown choice, or a learned variance <= 0.

    Example:
        >>> abar, x_0 = hcrot.DDPMScheduler().alphas_cumprod, np.zeros((1, 1, 2, 2), np.float32)
        >>> output = np.zeros((1, 2, 2, 2), np.float32)                        # a prediction, and y in a second channel
        >>> value, dout = hcrot.hybrid_loss(output, x_0, np.ones_like(x_0), [500], abar)
        >>> round(value, 2), dout.shape                                        # 1 of the noise, and a thousandth of the bound
        (1.01, (1, 2, 2, 2))
    """
    owner = "hybrid_loss"
    checked_choice(f"{owner}: variance_type", variance_type, LEARNED_VARIANCE_TYPES)
    steps = _Steps(owner, alphas_cumprod, prediction_type, variance_type)
    _check_images(owner, original_samples)
    _check_array(owner, "noise", noise, original_samples.shape)
    timesteps = checked_timesteps(owner, timesteps, len(steps.abar))
    if timesteps.shape != original_samples.shape[:1]:
        raise ValueError(f"{owner}: {len(timesteps)} timesteps do not fit original_samples {original_samples.shape}")
    vlb_weight = checked_positive(f"{owner}: vlb_weight", vlb_weight)

    x0, timesteps = original_samples.astype(np.float64), _per_image(timesteps, original_samples)
    prediction, y = steps.split(model_output, x0.shape)
    target, factor = steps.target(x0, noise, timesteps)
    difference = prediction - target
    log_variance, dlog_variance = steps.log_variance(y, timesteps)
    nats, slope = steps.term(x0, factor * difference, log_variance, timesteps)

    scale = vlb_weight * len(steps.abar) / (x0.size * math.log(2))
    value = float(np.mean(difference**2) + scale * nats.sum())
    channels = x0.shape[1]
    dout = np.empty_like(model_output)
    dout[:, :channels] = 2 / x0.size * difference
    dout[:, channels:] = scale * slope * dlog_variance
    return value, dout


class _Steps:
    """What (A) .. (D) need to know of each timestep, computed from abar once: tables of (T,) float64.

    t, the timestep of each image, comes as (B, 1, ...), so that what is looked up fits the images.
    """

    def __init__(self, owner: str, alphas_cumprod: np.ndarray, prediction_type: str, variance_type: str) -> None:
        self.owner = owner
        self.prediction_type = checked_choice(f"{owner}: prediction_type", prediction_type, PREDICTION_TYPES)
        self.variance_type = checked_choice(f"{owner}: variance_type", variance_type, VARIANCE_TYPES)
        self.abar = checked_alphas_cumprod(owner, alphas_cumprod)
        if prediction_type == "epsilon" and self.abar[-1] == 0:
            raise ValueError(f"{owner}: alphas_cumprod ends with 0, and of nothing but noise epsilon does not tell x_0")
        before = np.append(1.0, self.abar[:-1])
        beta = 1 - self.abar / before
        beta_tilde = (1 - before) / (1 - self.abar) * beta
        beta_tilde[0] = beta_tilde[1] if len(beta) > 1 else beta[0]
        self.mean_factor = np.sqrt(before) * beta / (1 - self.abar)
        self.log_beta, self.log_beta_tilde = np.log(beta), np.log(beta_tilde)

    def split(self, output: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
        """The model's output as prediction and y, both (B, C, ...) float64; y is None where the variance is fixed."""
        learned = self.variance_type in LEARNED_VARIANCE_TYPES
        _check_array(self.owner, "the model's output", output, (shape[0], (1 + learned) * shape[1], *shape[2:]))
        output = output.astype(np.float64)
        return output[:, : shape[1]], output[:, shape[1] :] if learned else None

    def target(self, x0: np.ndarray, noise: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
        """What the prediction should be, and the factor of (C)."""
        abar = self.abar[t]
        if self.prediction_type == "epsilon":
            return noise, np.sqrt((1 - abar) / abar)
        if self.prediction_type == "sample":
            return x0, -1.0
        return np.sqrt(abar) * noise - np.sqrt(1 - abar) * x0, np.sqrt(1 - abar)

    def log_variance(self, y: np.ndarray | None, t: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
        """l and dl/dy of (D), which broadcast to (B, C, ...)."""
        small, large = self.log_beta_tilde[t], self.log_beta[t]
        if y is None:
            return (small if self.variance_type.startswith("fixed_small") else np.where(t == 0, small, large)), 0.0
        if self.variance_type == "learned":
            if np.any(y <= 0):
                raise ValueError(f'{self.owner}: for "learned" the model\'s second half is sigma^2 > 0, got {y.min():g}')
            return np.log(y), 1 / y
        return small + (y + 1) / 2 * (large - small), (large - small) / 2

    def term(
        self, x0: np.ndarray, error: np.ndarray, log_variance: np.ndarray, t: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """L_t in nats and dL_t/dl, each (B, C, ...), from x_0, its error x_0 - x_0' and l."""
        log_variance = np.broadcast_to(log_variance, x0.shape)
        nats, slope = np.empty_like(x0), np.empty_like(x0)
        first = t.ravel() == 0
        nats[first], slope[first] = _decoder(x0[first], error[first], log_variance[first])
        x0, error, log_variance, t = (array[~first] for array in (x0, error, log_variance, t))
        log_ratio = self.log_beta_tilde[t] - log_variance
        distance = (self.mean_factor[t] * error) ** 2 * np.exp(-log_variance)
        nats[~first] = 0.5 * (distance + np.expm1(log_ratio) - log_ratio)
        slope[~first] = -0.5 * (distance + np.expm1(log_ratio))
        return nats, slope


def _decoder(x: np.ndarray, error: np.ndarray, log_variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log P, P being the mass that N(x - error, sigma^2) has in the level of x, and d(-log P)/dl; of the shape of x.

    Measured in sigma from the mean, a level reaches from a = m - h to b = m + h. By symmetry m <= 0; the mass of a level
    at an end is all that lies below b, as with a = -infinity. Since dm/dl = -m/2 and dh/dl = -h/2,

        P = Phi(b) - Phi(a),    d(-log P)/dl = 1/2 (b phi(b) - a phi(a)) / P.

    Where P may be too small for a float, b <= 1, everything is divided by phi(b): with Mills' ratio R = Phi/phi, and
    decay = phi(a)/phi(b) = exp(-2 |m| h), P/phi(b) = R(b) - decay R(a) = [R(b) - R(a)] + (1 - decay) R(a). The difference
    in brackets is 2 h R'(m), R' = 1 + m R, for an h so small that it would drown in rounding errors.
    """
    scale = np.exp(-0.5 * log_variance)
    m, h = -np.abs(error * scale), HALF_LEVEL * scale
    end = np.abs(x) > 1 - HALF_LEVEL
    a, b = m - h, np.where(end, -np.sign(x) * error * scale, m) + h
    decay, loss = np.where(end, 0, np.exp(2 * m * h)), np.where(end, 1, -np.expm1(2 * m * h))
    moment = np.where(end, b, h * (1 + decay) + m * loss)  # (b phi(b) - a phi(a)) / phi(b)

    far = np.minimum(b, 1)
    difference = np.where((h < 1e-5) & ~end, 2 * h * (1 + m * _mills_ratio(m)), _mills_ratio(far) - _mills_ratio(a))
    ratio = difference + loss * _mills_ratio(a)
    near = np.maximum(b, 1)
    beyond = scipy.special.ndtr(-near) + np.where(end, 0, scipy.special.ndtr(a))
    density = np.exp(-0.5 * near**2) / math.sqrt(2 * math.pi)

    nats = np.where(b <= 1, 0.5 * (far**2 + math.log(2 * math.pi)) - np.log(ratio), -np.log1p(-beyond))
    slope = 0.5 * moment * np.where(b <= 1, 1 / ratio, density / (1 - beyond))
    return nats, slope


def _mills_ratio(u: np.ndarray) -> np.ndarray:
    """Phi(u)/phi(u), for u that are not large."""
    return math.sqrt(math.pi / 2) * scipy.special.erfcx(-u / math.sqrt(2))


def _per_image(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """(B,) -> (B, 1, ...), of as many axes as the images."""
    return values.reshape(-1, *(1,) * (images.ndim - 1))


def _bits(nats: np.ndarray) -> np.ndarray:
    """The mean over each image in bits, (B, ...) -> (B,)."""
    return nats.mean(axis=tuple(range(1, nats.ndim))) / math.log(2)


def _check_images(owner: str, images: np.ndarray) -> None:
    if not isinstance(images, np.ndarray) or images.ndim < 2 or images.size == 0:
        raise ValueError(f"{owner}: original_samples must be an array of (B, C, ...), not empty, got {np.shape(images)}")
    _check_array(owner, "original_samples", images, images.shape)
    if np.abs(images).max() > 1:
        raise ValueError(f"{owner}: original_samples must lie in [-1, 1], got {images.min():g} .. {images.max():g}")


def _check_array(owner: str, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    check_floating(owner, name, array, SINGLE_OR_DOUBLE)
    if array.shape != shape:
        raise ValueError(f"{owner}: {name} has shape {array.shape}, expected {shape}")
