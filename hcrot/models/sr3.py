"""SR3, super-resolution by repeated refinement: a small image becomes a large one by diffusion (Saharia et al. 2021, arXiv:2104.07636).

The network sees the small image, enlarged, beside the noisy one, and is told how much of the image is left instead of the time. With
abar_t = alpha_0 .. alpha_t (the paper's gamma), alpha_t = 1 - beta_t, y the small image enlarged, and a = sqrt(abar) the noise level:

    training (algorithm 1)     a ~ U(sqrt(abar_t), sqrt(abar_{t-1})),  t uniform in 0 .. T-1,  abar_{-1} = 1       section 2.4
                               L = |eps - f(y, a x_0 + sqrt(1 - a^2) eps, a)|_1 / (B C H W),    eps ~ N(0, I)       eq. 6, p = 1

    sampling (algorithm 2)     x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) f(y, x_t, sqrt(abar_t))) / sqrt(alpha_t) + sqrt(beta_t) z
                               z ~ N(0, I), but z = 0 at the last step

Since the network knows levels and not times, sampling may follow other betas than training, fewer ones above all (Chen et al. 2020,
WaveGrad, arXiv:2009.00713, where levels come from). The schedules have the names, and the network the form, of
github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement: the U-Net of DDPM, the level embedded by sinusoids as a time is.

Notation: B images, C channels, H x W pixels.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hcrot.files.pretrained import Pretrained
from hcrot.init import check_positive, default_generator, is_int, is_real
from hcrot.kernels.channels import concatenate, split
from hcrot.layers.conv import check_images
from hcrot.models.unet_2d import UNet2dModel
from hcrot.module import Module, check_gradient, describe_shape

__all__ = ["BETA_SCHEDULES", "SR3Diffusion", "SR3UNet", "make_beta_schedule"]


# ---------------------------------------------------------------- schedules


def quad(n: int, start: float, end: float, s: float) -> np.ndarray:
    """sqrt(beta) is linear in t from sqrt(start) to sqrt(end)."""
    return np.linspace(start**0.5, end**0.5, n) ** 2


def linear(n: int, start: float, end: float, s: float) -> np.ndarray:
    """beta is linear in t from start to end."""
    return np.linspace(start, end, n)


def warmup10(n: int, start: float, end: float, s: float) -> np.ndarray:
    """linear from start to end in the first tenth of the steps, end in the others."""
    return np.append(np.linspace(start, end, n // 10), np.full(n - n // 10, end))


def warmup50(n: int, start: float, end: float, s: float) -> np.ndarray:
    """linear from start to end in the first half of the steps, end in the others."""
    return np.append(np.linspace(start, end, n // 2), np.full(n - n // 2, end))


def const(n: int, start: float, end: float, s: float) -> np.ndarray:
    """end, throughout."""
    return np.full(n, float(end))


def jsd(n: int, start: float, end: float, s: float) -> np.ndarray:
    """1/n, 1/(n-1), .. 1/2, 1, so abar falls linearly to 0 (Sohl-Dickstein et al. 2015, section 2.4.1)."""
    return 1 / np.linspace(n, 1, n)


def cosine(n: int, start: float, end: float, s: float) -> np.ndarray:
    """abar = cos^2((u + s)/(1 + s) pi/2), but beta at most 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    f = np.cos((np.arange(n + 1) / n + s) / (1 + s) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


BETA_SCHEDULES: dict[str, Callable[[int, float, float, float], np.ndarray]] = {
    schedule.__name__: schedule for schedule in (quad, linear, warmup10, warmup50, const, jsd, cosine)
}


def make_beta_schedule(
    schedule: str, n_timestep: int, linear_start: float = 1e-4, linear_end: float = 2e-2, cosine_s: float = 8e-3
) -> np.ndarray:
    """beta_0 .. beta_{n-1}, (n_timestep,) float64.

    Args:
        schedule: a key of ``BETA_SCHEDULES``, whose functions say what each is.
        n_timestep: n, at least 1. SR3 has 2000 from 1e-6 to 1e-2 in training, "linear".
        linear_start, linear_end: strictly between 0 and 1; "jsd" and "cosine" have none, and "const" has no start.
        cosine_s: > 0, of "cosine" alone.

    Raises:
        ValueError: an argument out of range.
    """
    owner = "make_beta_schedule"
    if schedule not in BETA_SCHEDULES:
        raise ValueError(f"{owner}: schedule must be one of {', '.join(BETA_SCHEDULES)}, got {schedule!r}")
    (n_timestep,) = check_positive(owner, n_timestep=n_timestep)
    for name, value in (("linear_start", linear_start), ("linear_end", linear_end)):
        if not is_real(value) or not 0 < value < 1:
            raise ValueError(f"{owner}: {name} must be a number strictly between 0 and 1, got {value!r}")
    if not is_real(cosine_s) or not 0 < cosine_s < np.inf:
        raise ValueError(f"{owner}: cosine_s must be a finite number > 0, got {cosine_s!r}")
    return BETA_SCHEDULES[schedule](n_timestep, linear_start, linear_end, cosine_s)


# ---------------------------------------------------------------- network


class SR3UNet(Pretrained):
    """``eps = unet([condition, x], scale level)``: :class:`UNet2dModel` of both images side by side, with a level in place of the time.

    Backward: the gradient that the U-Net gives its input is split into those of the condition and of x. A level has none.

    Args:
        image_channels: C.
        block_out_channels: width of each level of the U-Net. The defaults are those of the 16 -> 128 network in the repository above.
        attention_levels: which of them have attention, 0 being the first. The middle block always has it.
        layers_per_block: residual blocks of a level.
        dropout: in residual blocks.
        norm_num_groups: divides every width.
        noise_level_scale: what the level is multiplied by before its sinusoids are taken, whose fastest has a period of 2 pi. 1 in the
            repository above, where all of them are slow; with 1000 a level is embedded as finely as a time of DDPM's.
        generator: source of initial values and of dropout's noise, or its seed.

    Shapes:
        x and condition (B, C, H, W), noise_level a number or (B,), from 0 to 1 -> (B, C, H, W), all of the weights' dtype but the level.
        ``backward(dout) -> dx, dcondition``. Parameters: those of ``unet``.

    Raises:
        ValueError: in the constructor, an argument out of range; in forward, images or levels that are not as described.

    Example:
        >>> model = hcrot.SR3UNet(1, block_out_channels=(8, 8), attention_levels=(), layers_per_block=1, norm_num_groups=4)
        >>> x = np.ones((2, 1, 8, 8), np.float32)
        >>> model(x, x, 0.5).shape, [gradient.shape for gradient in model.backward(x)]
        ((2, 1, 8, 8), [(2, 1, 8, 8), (2, 1, 8, 8)])
    """

    class_name = "SR3UNet"

    def __init__(
        self,
        image_channels: int = 3,
        block_out_channels: Sequence[int] = (64, 128, 256, 512, 512),
        attention_levels: Sequence[int] = (3,),
        layers_per_block: int = 2,
        dropout: float = 0.2,
        norm_num_groups: int = 32,
        noise_level_scale: float = 1.0,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        (image_channels,) = check_positive("SR3UNet", image_channels=image_channels)
        levels = range(len(block_out_channels))
        for level in attention_levels:
            if not is_int(level) or level not in levels:
                raise ValueError(f"SR3UNet: attention_levels {attention_levels!r} has {level!r}, expected ints from 0 to {len(levels) - 1}")
        if not is_real(noise_level_scale) or not 0 < noise_level_scale < np.inf:
            raise ValueError(f"SR3UNet: noise_level_scale must be a finite number > 0, got {noise_level_scale!r}")
        attends = [level in attention_levels for level in levels]
        self.unet = UNet2dModel(
            in_channels=2 * image_channels,
            out_channels=image_channels,
            flip_sin_to_cos=False,
            block_out_channels=block_out_channels,
            down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
            up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
            layers_per_block=layers_per_block,
            dropout=dropout,
            norm_num_groups=norm_num_groups,
            attention_head_dim=None,
            generator=generator,
        )
        self.image_channels, self.noise_level_scale = image_channels, float(noise_level_scale)
        network = {name: self.unet.config[name] for name in ("block_out_channels", "layers_per_block", "dropout", "norm_num_groups")}
        own = {"image_channels": image_channels, "attention_levels": [int(level) for level in attention_levels]}
        self.config: dict[str, Any] = {**own, **network, "noise_level_scale": self.noise_level_scale}

    def forward(self, x: np.ndarray, condition: np.ndarray, noise_level: float | np.ndarray) -> np.ndarray:
        dtype = self.unet.conv_in.weight.data.dtype
        check_images("SR3UNet: x", x, self.image_channels, dtype)
        check_images("SR3UNet: condition", condition, self.image_channels, dtype)
        if condition.shape != x.shape:
            raise ValueError(f"SR3UNet: condition must have the shape of x, {x.shape}, got {condition.shape}: enlarge it first")
        levels = checked_levels("SR3UNet", noise_level, len(x))
        y = self.unet(concatenate(condition, x), self.noise_level_scale * levels)
        self.save(y.shape)
        return y

    def backward(self, dout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_gradient("SR3UNet", dout, self.saved(), self.unet.conv_in.weight.data.dtype)
        dinput = self.unet.backward(dout)
        assert isinstance(dinput, np.ndarray)  # there are no class embeddings, whose gradient would stand beside it
        dcondition, dx = split(dinput, self.image_channels)
        return dx, dcondition

    def describe(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.config.items())


# ---------------------------------------------------------------- training and sampling


class SR3Diffusion:
    """Algorithms 1 and 2 of the paper around a network.

    A step of training, and then images, of which the second call takes 100 steps instead of all::

        sr3 = SR3Diffusion(model, make_beta_schedule("linear", 2000, 1e-6, 1e-2), make_beta_schedule("linear", 100, 1e-4, 0.1))
        loss, dout = sr3.loss(images, condition)
        model.backward(dout)
        optimizer.step(ema=ema, zero_grad=True)
        ...
        enlarged = sr3.sample(condition)

    Shapes: images and condition (B, C, H, W), float32 or float64 of the same dtype, in [-1, 1]; the condition is the small image, enlarged
    to the size of the large one, such as by :func:`hcrot.data.resize`.

    Args:
        model: called as ``model(x, condition, noise_level)`` with levels (B,) float64; returns the noise, of the shape of x.
        train_betas: (T,), above 0 and at most 1. At 1, where "jsd" ends, nothing of the image is left.
        sample_betas: (N,), strictly between 0 and 1. None: train_betas.
        generator: source of all noise, or its seed; None: a new one, seeded by the operating system.

    Attributes:
        train_levels, sample_levels: sqrt(abar_{-1}) = 1, sqrt(abar_0), ..; (T + 1,) and (N + 1,) float64.

    Raises:
        TypeError, ValueError: an argument that is not as described; in every method, images of another shape or dtype.

    Example:
        >>> sr3 = hcrot.SR3Diffusion(hcrot.Identity(), np.array([0.19, 0.36]))
        >>> sr3.train_levels.round(3)                             # 1, sqrt(0.81), sqrt(0.81 * 0.64)
        array([1.  , 0.9 , 0.72])
    """

    def __init__(
        self,
        model: Module,
        train_betas: np.ndarray,
        sample_betas: np.ndarray | None = None,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        if not isinstance(model, Module):
            raise TypeError(f"SR3Diffusion: model must be a hcrot.Module, got {type(model).__name__}")
        self.model: Any = model  # what its forward takes is not known here
        self.train_levels = levels_of("train_betas", train_betas, may_be_one=True)
        which = "sample_betas (None: train_betas)"
        self.sample_levels = levels_of(which, train_betas if sample_betas is None else sample_betas, may_be_one=False)
        self.generator = default_generator("SR3Diffusion", generator)

    def __repr__(self) -> str:
        levels = f"{len(self.train_levels) - 1:,} levels in training, {len(self.sample_levels) - 1:,} in sampling"
        return f"SR3Diffusion({type(self.model).__name__}, {levels})"

    def noise_levels(self, batch_size: int) -> np.ndarray:
        """Levels a as in algorithm 1, (batch_size,) float64: uniform between two neighbours that are drawn."""
        (batch_size,) = check_positive("SR3Diffusion.noise_levels", batch_size=batch_size)
        t = self.generator.integers(len(self.train_levels) - 1, size=batch_size)
        return self.generator.uniform(self.train_levels[t + 1], self.train_levels[t])

    def loss(
        self, images: np.ndarray, condition: np.ndarray, noise: np.ndarray | None = None, noise_level: float | np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """The loss L of algorithm 1, and where backward begins.

        Args:
            images: x_0, the large images.
            noise: eps, like images; None: it is drawn.
            noise_level: a, a number or (B,) from 0 to 1; None: as `noise_levels` draws it.

        Returns:
            the mean absolute error, and its gradient with respect to the model's output, (B, C, H, W). ``model.backward`` takes it.
        """
        self._check("loss", images=images, condition=condition, **({} if noise is None else {"noise": noise}))
        levels = self.noise_levels(len(images)) if noise_level is None else checked_levels("SR3Diffusion.loss", noise_level, len(images))
        if noise is None:
            noise = self.generator.standard_normal(images.shape, dtype=images.dtype)
        signal, sigma = (factor.astype(images.dtype).reshape(-1, 1, 1, 1) for factor in (levels, np.sqrt(1 - levels**2)))
        difference = self._predicted(signal * images + sigma * noise, condition, levels) - noise
        return float(np.abs(difference).mean(dtype=np.float64)), np.sign(difference) / images.dtype.type(difference.size)

    def sample(self, condition: np.ndarray, *, eta: float | None = None, clip: bool = True) -> np.ndarray:
        """Large images (B, C, H, W) for these conditions: the last of :meth:`steps`, whose arguments and errors these are."""
        return deque(self.steps(condition, eta=eta, clip=clip), maxlen=1).pop()

    def steps(self, condition: np.ndarray, *, eta: float | None = None, clip: bool = True) -> Iterator[np.ndarray]:
        """Yield noise x_N, and what each of the N steps makes of it, N + 1 arrays (B, C, H, W).

        With x0 = (x - sqrt(1 - abar_t) f)/sqrt(abar_t), clipped to [-1, 1] if asked, and the noise e that x then has beside it,

            algorithm 2    x <- (sqrt(abar_{t-1}) beta_t x0 + sqrt(alpha_t) (1 - abar_{t-1}) x) / (1 - abar_t) + sqrt(beta_t) z
            with eta       x <- sqrt(abar_{t-1}) x0 + sqrt(1 - abar_{t-1} - s^2) e + s z
                           s^2 = eta^2 (1 - abar_{t-1}) / (1 - abar_t) beta_t

        The first is the formula above, in terms of x0, which does not leave the images' range. The second is DDIM (Song et al. 2021, eq. 12
        and 16): at eta 0 it adds no noise, and needs fewer steps.

        Args:
            condition: the small images, enlarged.
            eta: None: algorithm 2. From 0 to 1: DDIM.
            clip: whether x0 is clipped.
        """
        self._check("sample", condition=condition)
        if eta is not None and (not is_real(eta) or not 0 <= eta <= 1):
            raise ValueError(f"SR3Diffusion.sample: eta must be None or a number from 0 to 1, got {eta!r}")
        return self._steps(condition, eta, clip)

    def _steps(self, condition: np.ndarray, eta: float | None, clip: bool) -> Iterator[np.ndarray]:
        kind, abar = condition.dtype.type, self.sample_levels**2
        x = self.generator.standard_normal(condition.shape, dtype=kind)
        yield x
        for t in reversed(range(1, len(abar))):  # entry t of the levels is sqrt(abar_{t-1}) above
            now, before, beta = abar[t], abar[t - 1], 1 - abar[t] / abar[t - 1]
            with self.model.inference():
                eps = self._predicted(x, condition, np.full(len(x), self.sample_levels[t]))
            x0 = (x - kind(np.sqrt(1 - now)) * eps) / kind(np.sqrt(now))
            if clip:
                x0 = np.clip(x0, -1, 1)
            if eta is None:
                sigma = np.sqrt(beta) if t > 1 else 0.0
                x = kind(np.sqrt(before) * beta / (1 - now)) * x0 + kind(np.sqrt(1 - beta) * (1 - before) / (1 - now)) * x
            else:
                sigma = eta * np.sqrt((1 - before) / (1 - now) * beta)  # 0 at the last step, where before is 1
                e = (x - kind(np.sqrt(now)) * x0) / kind(np.sqrt(1 - now))
                x = kind(np.sqrt(before)) * x0 + kind(np.sqrt(1 - before - sigma**2)) * e
            if sigma > 0:
                x = x + kind(sigma) * self.generator.standard_normal(x.shape, dtype=kind)
            yield x

    def _predicted(self, x: np.ndarray, condition: np.ndarray, levels: np.ndarray) -> np.ndarray:
        eps = self.model(x, condition, levels)
        if not isinstance(eps, np.ndarray) or eps.shape != x.shape:
            raise ValueError(f"SR3Diffusion: the model must return shape {x.shape}, as it received, got {describe_shape(eps)}")
        return eps

    def _check(self, method: str, **arrays: np.ndarray) -> None:
        """Raise an error unless all are images of one shape and dtype."""
        owner, (first, like) = f"SR3Diffusion.{method}", next(iter(arrays.items()))
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.ndim != 4 or array.size == 0:
                raise ValueError(f"{owner}: {name} must be images of shape (batch, channels, height, width), got {describe_shape(array)}")
            if array.dtype not in (np.float32, np.float64):
                raise TypeError(f"{owner}: {name} must be float32 or float64, got {array.dtype}")
            if array.shape != like.shape or array.dtype != like.dtype:
                wanted = f"{like.dtype} of shape {like.shape}, as {first}"
                raise ValueError(f"{owner}: {name} must be {wanted}, got {array.dtype} of shape {array.shape}")


def levels_of(name: str, betas: np.ndarray, may_be_one: bool) -> np.ndarray:
    """1 and sqrt(abar_t) of these betas, (T + 1,) float64, after a look at them."""
    if not isinstance(betas, np.ndarray) or betas.dtype not in (np.float32, np.float64) or betas.ndim != 1 or betas.size == 0:
        raise TypeError(f"SR3Diffusion: {name} must be an array of floats of shape (T,), not empty, got {describe_shape(betas)}")
    betas = betas.astype(np.float64)
    if not (np.all(betas > 0) and np.all(betas <= 1 if may_be_one else betas < 1)):
        bounds = "above 0 and at most 1" if may_be_one else "strictly between 0 and 1"
        raise ValueError(f"SR3Diffusion: {name} must be {bounds}, got numbers from {betas.min():g} to {betas.max():g}")
    levels = np.sqrt(np.append(1.0, np.cumprod(1 - betas)))
    if not may_be_one and levels[-1] < np.finfo(np.float32).tiny:
        raise ValueError(f"SR3Diffusion: {name} leave nothing of the image, expected fewer or smaller betas")
    return levels


def checked_levels(owner: str, noise_level: float | np.ndarray, batch: int) -> np.ndarray:
    """Noise levels as (B,) float64, each from 0 to 1."""
    levels = np.asarray(noise_level)
    if levels.dtype.kind not in "iuf" or levels.shape not in ((), (batch,)):
        expected = f"noise_level must be a number, or one for each of {batch} images"
        raise ValueError(f"{owner}: {expected}, got {levels.dtype} of shape {levels.shape}")
    levels = np.broadcast_to(levels, (batch,)).astype(np.float64)
    if not np.all((levels >= 0) & (levels <= 1)):
        raise ValueError(f"{owner}: noise_level must be from 0 to 1, got numbers from {levels.min():g} to {levels.max():g}")
    return levels
