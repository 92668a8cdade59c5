"""The likelihood of images under a trained network, by the probability flow: Song et al. 2021, arXiv:2011.13456, section 4.3.

A network of DDPM's knows the levels abar_0 > .. > abar_{T-1} only. They lie on a process in continuous time, the SDE VP of
`hcrot.schedulers.sde` with the clock set so that L, the logarithm of the signal-to-noise ratio, falls evenly (Kingma et al. 2021,
arXiv:2107.00630: in continuous time nothing depends on the clock but the error of the solver):

    (a)  L(t) = L_0 + t (L_{T-1} - L_0),  L_k = log(abar_k/(1 - abar_k)),  t from 0 to 1
    (b)  m^2 = abar = 1/(1 + e^{-L}),  s^2 = 1 - abar,  beta = -d log abar/dt = (L_0 - L_{T-1}) s^2

The network's timestep k is found from L by straight lines between its own levels. So the flow passes through all that it was trained on.

Images have 256 levels, each as wide as w = 2/255 in [-1, 1]; the flow gives a density. **Uniform dequantization** connects them (Theis et
al. 2016, arXiv:1511.01844, section 3.1): with u uniform in [-w/2, w/2] for each of D pixels, by Jensen's inequality

    (c)  -log P(x) <= E[-log p(x + u)] - D log w

The right side, over D log 2, is in bits per dimension, as is `hcrot.training.variational_bound`, which bounds P of another process: the one
in which sampling adds noise at each step. As the network approaches the true score, and the steps become many, both come to the same.
"""

from typing import Any

import numpy as np

from hcrot.init import as_generator
from hcrot.module import Module
from hcrot.pipelines.guidance import differentiable
from hcrot.pipelines.sde import log_likelihood
from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.sde import SDE, Times
from hcrot.schedulers.sigmas import timesteps_of_sigmas, training_sigmas

__all__ = ["LevelsSDE", "ScoreOfLevels", "bits_per_dimension_by_flow"]

WIDTH = 2 / 255  # of one of 256 levels
FIRST = 1e-9  # where the flow begins: at the first level, but the solver's times are above 0


class LevelsSDE(SDE):
    """The SDE (a), (b) through the noise levels of a scheduler.

    Args:
        alphas_cumprod: abar, (T,) strictly falling within 0 .. 1, both exclusive, T >= 2.

    Raises:
        ValueError: levels that are not as described.
    """

    def __init__(self, alphas_cumprod: np.ndarray) -> None:
        abar = np.asarray(alphas_cumprod, dtype=np.float64)
        if abar.ndim != 1 or len(abar) < 2 or not np.all(np.diff(abar) < 0) or not 0 < abar[-1] < abar[0] < 1:
            expected = "expected two or more that fall strictly within 0 .. 1, both exclusive"
            raise ValueError(f"LevelsSDE: alphas_cumprod has shape {abar.shape} and goes from {abar.max()} to {abar.min()}, {expected}")
        self.sigmas = training_sigmas(abar)
        self.first, self.last = (float(np.log(abar[k] / (1 - abar[k]))) for k in (0, -1))

    def __repr__(self) -> str:
        return f"LevelsSDE({len(self.sigmas)} levels, log SNR from {self.first:g} to {self.last:g})"

    def log_snr(self, t: Times) -> np.ndarray:
        """L(t), float64 of the shape of t."""
        return self.first + self._times(t) * (self.last - self.first)

    def timestep(self, t: Times) -> np.ndarray:
        """The network's k at t, 0 .. T-1 and between whole ones, float64 of the shape of t."""
        return timesteps_of_sigmas(np.exp(-0.5 * self.log_snr(t)), self.sigmas)

    def signal(self, t: Times) -> np.ndarray:
        return np.exp(-0.5 * np.logaddexp(0, -self.log_snr(t)))

    def std(self, t: Times) -> np.ndarray:
        return np.exp(-0.5 * np.logaddexp(0, self.log_snr(t)))

    def diffusion(self, t: Times) -> np.ndarray:
        return np.sqrt(self.first - self.last) * self.std(t)

    def drift_rate(self, t: Times) -> np.ndarray:
        return -0.5 * self.diffusion(t) ** 2


class ScoreOfLevels(Module):
    """``score(x, t) = -m(x, k(t), labels)/s(t)`` of a network m that predicts the noise at the timesteps k of a :class:`LevelsSDE`.

    Backward: ``dx = model.backward(-dout/s(t))``.

    Args:
        model: called model(x, k), or model(x, k, class_labels); its backward returns dx.
        sde: whose levels the model was trained at.
        class_labels: (B,) integers; None for a model without classes.

    Shapes:
        x (n B, ...), t (n B,) -> (n B, ...): n times the same B images, as `log_likelihood` has them with n probes.
    """

    def __init__(self, model: Module, sde: LevelsSDE, class_labels: np.ndarray | None = None):
        self.model, self.sde = model, sde
        self.labels = () if class_labels is None else (np.asarray(class_labels),)

    def forward(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        per_noise = (-1 / self.sde.std(t)).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        self.save(per_noise)
        labels = (np.tile(array, len(x) // len(array)) for array in self.labels)
        return self.model(x, self.sde.timestep(t), *labels) * per_noise

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return self.model.backward(dout * self.saved())


def bits_per_dimension_by_flow(
    model: Module,
    scheduler: NoiseScheduler,
    images: np.ndarray,
    *,
    generator: np.random.Generator | int,
    class_labels: np.ndarray | None = None,
    num_probes: int = 1,
    rtol: float = 1e-3,
    atol: float = 1e-3,
) -> np.ndarray:
    """The right side of (c) for each image, with one draw of u, and Hutchinson's estimate of the divergence: see `log_likelihood`.

    The density is that of x(0), which is data with the noise of the first level, abar_0.

    Args:
        model: predicts the noise, called model(x, k), or with labels model(x, k, class_labels); k (B,) float64, between whole timesteps.
            In either mode; dropout drops nothing meanwhile, and the gradients of the parameters are afterwards what they were.
        scheduler: that it was trained with, of prediction_type "epsilon".
        images: (B, C, ...) float32 or float64 of 256 levels, scaled to [-1, 1].
        generator: draws u and the probes; an int to seed one with.
        class_labels: (B,) integers, for a model with classes.
        num_probes: e of Hutchinson's mean; each is another image for the model.
        rtol, atol: how exact each step of the solver is to be.

    Returns:
        (B,) float64, in bits per dimension.

    Raises:
        TypeError, ValueError: a scheduler of another prediction_type, or without the levels; further what `log_likelihood` raises.
        RuntimeError: the solver gave up.
    """
    owner = "bits_per_dimension_by_flow"
    rng = as_generator(owner, generator)
    if not isinstance(scheduler, NoiseScheduler) or not hasattr(scheduler, "alphas_cumprod"):
        raise TypeError(f"{owner}: scheduler is a {type(scheduler).__name__}, expected one with alphas_cumprod, such as DDPMScheduler")
    prediction_type = scheduler.config["prediction_type"]
    if prediction_type != "epsilon":
        raise ValueError(f"{owner}: prediction_type is {prediction_type!r}, expected 'epsilon': the score is made of the predicted noise")
    if not isinstance(images, np.ndarray) or images.dtype not in (np.float32, np.float64) or images.ndim < 2 or images.size == 0:
        came: Any = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{owner}: images is {came}, expected (B, C, ...) float32 or float64, and not empty")
    if class_labels is not None and np.shape(class_labels) != images.shape[:1]:
        raise ValueError(f"{owner}: class_labels has shape {np.shape(class_labels)}, expected {images.shape[:1]}, one for each image")
    sde = LevelsSDE(scheduler.alphas_cumprod)
    spread = (images + rng.uniform(-WIDTH / 2, WIDTH / 2, images.shape)).astype(images.dtype)
    score = ScoreOfLevels(model, sde, class_labels)
    options: dict[str, Any] = {"generator": rng, "num_probes": num_probes, "rtol": rtol, "atol": atol}
    with differentiable(score):
        found, _ = log_likelihood(score, sde, spread, sampling_eps=FIRST, **options)
    return -(found / images[0].size + np.log(WIDTH)) / np.log(2)
