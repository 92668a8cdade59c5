"""Denoising diffusion in one object: the forward process, the loss and the reverse process, with the names of two well-known codes.

With abar_t = alpha_0 .. alpha_t and alpha_t = 1 - beta_t (Ho, Jain & Abbeel 2020, arXiv:2006.11239; times count from 0):

    (a)  q(x_t | x_0)  =  N(sqrt(abar_t) x_0, (1 - abar_t) I)                                               eq. 4
    (b)  x_t  =  sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,    eps ~ N(0, I)                                  (a), reparameterised
    (c)  L  =  E |eps - eps_theta(x_t, t)|^2,    t uniform in 0 .. T-1                                      eq. 14
    (d)  x_{t-1}  =  (x_t - beta_t / sqrt(1 - abar_t) eps_theta(x_t, t)) / sqrt(alpha_t) + sigma_t z        eq. 11
         sigma_t^2 = beta_t or beta_tilde_t = (1 - abar_{t-1})/(1 - abar_t) beta_t,    z ~ N(0, I), but z = 0 at t = 0

The method names are those of the annotated DDPM of nn.labml.ai (``q_xt_x0``, ``q_sample``, ``p_sample``, ``loss_simple``) and of
github.com/abarankab/DDPM (``perturb_x``, ``get_losses``, ``remove_noise``, ``sample``, ``sample_sequence``, and the arrays of constants).
hcrot's own way is a scheduler and the user's loop (`hcrot.DDPMScheduler`, examples/mnist_ddpm.py). This class takes all T steps.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from hcrot.init import check_positive, default_generator, is_int, is_real
from hcrot.module import Module, describe_shape
from hcrot.schedulers.ddpm import DDPMScheduler
from hcrot.training.checks import checked_timesteps
from hcrot.training.ema import EMA
from hcrot.training.losses import l1_loss, mse_loss

__all__ = ["GaussianDiffusion", "generate_cosine_schedule", "generate_linear_schedule"]

LOSSES = ("l1", "l2")


def generate_linear_schedule(T: int, low: float, high: float) -> np.ndarray:  # noqa: N803, its name in the source
    """beta_t = low + t/(T-1) (high - low), (T,) float64; Ho et al. 2020, section 4. It may also descend: low above high.

    Args:
        T: number of steps, at least 1.
        low, high: the first and the last beta, strictly between 0 and 1.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> hcrot.generate_linear_schedule(3, 0.1, 0.2)
        array([0.1 , 0.15, 0.2 ])
    """
    check_positive("generate_linear_schedule", T=T)
    for name, value in (("low", low), ("high", high)):
        if not is_real(value) or not 0 < value < 1:
            raise ValueError(f"generate_linear_schedule: {name} must be a number strictly between 0 and 1, got {value!r}")
    return np.linspace(low, high, int(T))


def generate_cosine_schedule(T: int, s: float = 0.008) -> np.ndarray:  # noqa: N803
    """beta_t = min(1 - f(t+1)/f(t), 0.999) with f(t) = cos^2((t/T + s)/(1 + s) pi/2), (T,) float64; Nichol & Dhariwal 2021, eq. 17.

    Args:
        T: number of steps, at least 1.
        s: offset > 0, which keeps the first betas from being too small. Raises: as :func:`generate_linear_schedule`.

    Example:
        >>> hcrot.generate_cosine_schedule(4).round(3)
        array([0.153, 0.417, 0.708, 0.999])
    """
    check_positive("generate_cosine_schedule", T=T)
    if not is_real(s) or not 0 < s < np.inf:
        raise ValueError(f"generate_cosine_schedule: s must be a finite number > 0, got {s!r}")
    f = np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


class GaussianDiffusion:
    """The process (a) to (d) around a network that predicts the noise.

    The ``DDPM`` of the paper-with-code posts (after labml), without labels, is in the example below. abarankab's class has labels, an
    average of the weights to sample from, and sizes that are checked, here with the lecture's T = 2000::

        betas, ema = generate_linear_schedule(2000, 2e-4, 1e-2), hcrot.EMA(model.parameters(), 0.9999)
        ddpm = GaussianDiffusion(model, betas, loss="l1", ema=ema, image_size=(32, 32), num_classes=10)

    (That class's ``ema_start`` is `EMA`'s ``update_after_step``; the average takes a step where the optimizer does.) A step of training
    is the same for both::

        loss, dout = ddpm.loss_simple(images, y=labels)
        model.backward(dout)
        optimizer.step(ema=ema, zero_grad=True)

    Shapes, everywhere: x, x_0, x_t and noise (B, C, H, W), float32 or float64, images in [-1, 1]; t an integer in 0 .. T-1, for all
    images, or (B,), one for each; y (B,) integers in 0 .. num_classes-1, or None without classes. Results have the dtype of x.

    Args:
        model: called as ``model(x, t, y)``, or ``model(x, t)`` without classes, with t (B,) int64; returns the noise, of x's shape.
        scheduler: beta_0 .. beta_{T-1}, (T,) strictly between 0 and 1, in any order: then sigma_t^2 = beta_t, as in both sources, and
            nothing is clipped. Or a DDPMScheduler, whose betas, variance_type ("fixed_large" or "fixed_small") and clip_sample hold.
        loss: "l2", the mean of squared errors, or "l1", that of absolute ones.
        ema: an average of all parameters of the model. None: the model itself is sampled from.
        image_size: H = W, or (H, W), which images must have. None: any, but then `sample` has no size and raises.
        num_classes: None: no labels are taken; else they must be given.
        image_channels: C of what `sample` draws. None: ``in_channels`` of the model's config.
        generator: source of t, eps and z, or its seed; None: a new one, seeded by the operating system.

    Attributes:
        betas, alphas, alphas_cumprod, sqrt_alphas_cumprod, sqrt_one_minus_alphas_cumprod: what their names say, each (T,).
        reciprocal_sqrt_alphas: 1 / sqrt(alpha_t). remove_noise_coeff: beta_t / sqrt(1 - abar_t). sigma: sigma_t.
            All (T,) are computed in float64 and kept in float32.

    Raises:
        TypeError, ValueError: in the constructor, an argument that is not as described. In every method: images of another size, dtype or
            number of axes, t out of range, labels that are missing, not wanted, of a wrong number or out of range.

    Example:
        >>> ddpm = hcrot.GaussianDiffusion(hcrot.Identity(), hcrot.generate_linear_schedule(1000, 1e-4, 0.02), loss="l2")
        >>> mean, variance = ddpm.q_xt_x0(np.ones((1, 1, 1, 1), np.float32), 999)
        >>> round(float(mean.item()), 3), round(float(variance.item()), 3)     # of the image nothing is left
        (0.006, 1.0)
    """

    def __init__(
        self,
        model: Module,
        scheduler: DDPMScheduler | np.ndarray,
        loss: str = "l2",
        ema: EMA | None = None,
        image_size: int | tuple[int, int] | None = None,
        num_classes: int | None = None,
        *,
        image_channels: int | None = None,
        generator: np.random.Generator | int | None = None,
    ):
        owner = "GaussianDiffusion"
        if not isinstance(model, Module):
            raise TypeError(f"{owner}: model must be a hcrot.Module, got {type(model).__name__}")
        if loss not in LOSSES:
            raise ValueError(f"{owner}: loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        if ema is not None:
            check_average(model, ema)
        if num_classes is not None:
            (num_classes,) = check_positive(owner, num_classes=num_classes)
        size: tuple[int, int] | None = None
        if image_size is not None:
            size = checked_size(image_size)
        if image_channels is None:
            image_channels = getattr(model, "config", {}).get("in_channels")
        else:
            (image_channels,) = check_positive(owner, image_channels=image_channels)
        betas, variance_type, self.clip_range = settings_of(scheduler)

        self.model, self.loss, self.ema = model, loss, ema
        self.image_size, self.num_classes, self.image_channels = size, num_classes, image_channels
        self.generator = default_generator(owner, generator)

        alphas = 1 - betas
        abar = np.cumprod(alphas)
        before = np.append(1.0, abar[:-1])  # abar_{t-1}
        variance = betas if variance_type == "fixed_large" else (1 - before) / (1 - abar) * betas
        self.betas, self.alphas, self.alphas_cumprod = np.float32(betas), np.float32(alphas), np.float32(abar)
        self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod = np.float32(np.sqrt(abar)), np.float32(np.sqrt(1 - abar))
        self.reciprocal_sqrt_alphas = np.float32(1 / np.sqrt(alphas))
        self.remove_noise_coeff = np.float32(betas / np.sqrt(1 - abar))
        self.sigma = np.float32(np.sqrt(variance))
        # mu_tilde = first x_0 + second x_t, eq. 7: the mean of (d) where x_0 is clipped
        self._first, self._second = np.sqrt(before) * betas / (1 - abar), np.sqrt(alphas) * (1 - before) / (1 - abar)

    def __len__(self) -> int:
        """T."""
        return len(self.betas)

    def __repr__(self) -> str:
        shown = f"T={len(self)}, loss={self.loss!r}, image_size={self.image_size}, num_classes={self.num_classes}"
        return f"GaussianDiffusion({type(self.model).__name__}, {shown}, ema={self.ema is not None})"

    # forward process ------------------------------------------------------------------------------------------

    def q_xt_x0(self, x0: np.ndarray, t: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean (B, C, H, W) and the variance (B, 1, 1, 1) of q(x_t | x_0), by (a)."""
        t = self._checked("q_xt_x0", x0, t)
        return extract(self.sqrt_alphas_cumprod, t, x0) * x0, extract(self.sqrt_one_minus_alphas_cumprod, t, x0) ** 2

    def q_sample(self, x0: np.ndarray, t: int | np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """x_t by (b); eps is drawn if ``noise`` is None."""
        t = self._checked("q_sample", x0, t)
        return self._noised("q_sample", x0, t, noise)[0]

    def perturb_x(self, x: np.ndarray, t: int | np.ndarray, noise: np.ndarray) -> np.ndarray:
        """x_t by (b), with this noise: abarankab's name of `q_sample`."""
        t = self._checked("perturb_x", x, t)
        return self._noised("perturb_x", x, t, noise)[0]

    # loss -----------------------------------------------------------------------------------------------------

    def get_losses(
        self, x: np.ndarray, t: int | np.ndarray, y: np.ndarray | None = None, noise: np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """The loss (c) of images x at times t, and where backward begins.

        Args:
            x: x_0.
            noise: eps; None: it is drawn.

        Returns:
            the mean error over all pixels, and its gradient with respect to the model's output, (B, C, H, W). ``model.backward`` takes it.
        """
        t = self._checked("get_losses", x, t, y)
        noisy, noise = self._noised("get_losses", x, t, noise)
        loss = l1_loss if self.loss == "l1" else mse_loss
        return loss(self._predicted(noisy, t, y), noise)

    def loss_simple(self, x0: np.ndarray, noise: np.ndarray | None = None, y: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """:meth:`get_losses` at times that are drawn, one for each image, uniformly from 0 .. T-1."""
        self._checked("loss_simple", x0, 0, y)
        return self.get_losses(x0, self.generator.integers(len(self), size=len(x0)), y, noise)

    def loss_and_backward(self, x0: np.ndarray, y: np.ndarray | None = None, noise: np.ndarray | None = None) -> float:
        """The value of :meth:`loss_simple`; its gradient has been added to that of each parameter of the model."""
        value, dout = self.loss_simple(x0, noise, y)
        self.model.backward(dout)
        return value

    # reverse process ------------------------------------------------------------------------------------------

    def remove_noise(self, x: np.ndarray, t: int | np.ndarray, y: np.ndarray | None = None, use_ema: bool = True) -> np.ndarray:
        """The mean of x_{t-1}: (d) without its noise.

        Args:
            x: x_t.
            use_ema: whether the averages predict instead of the parameters, if there is an ``ema``.
        """
        t = self._checked("remove_noise", x, t, y)
        with self._weights(use_ema):
            return self._mean(x, t, y)

    def p_sample(self, x_t: np.ndarray, t: int | np.ndarray, y: np.ndarray | None = None, use_ema: bool = True) -> np.ndarray:
        """x_{t-1} by (d), z drawn; images whose t is 0 get no noise. Arguments are those of `remove_noise`."""
        t = self._checked("p_sample", x_t, t, y)
        with self._weights(use_ema):
            return self._step(x_t, t, y)

    def sample(self, batch_size: int, y: np.ndarray | None = None, use_ema: bool = True) -> np.ndarray:
        """Draw images: from x_T ~ N(0, I), all T steps of `p_sample`. What comes out is not clipped.

        Args:
            batch_size: B; as many as there are labels in y.
            use_ema: as in `remove_noise`.

        Returns:
            (B, C, H, W) of the dtype of the model's parameters, float32 if it has none.

        Raises:
            ValueError: no image_size, or no channels, are known; further as every method.
        """
        return deque(self._chain("sample", batch_size, y, use_ema), maxlen=1).pop()

    def sample_sequence(self, batch_size: int, y: np.ndarray | None = None, use_ema: bool = True) -> list[np.ndarray]:
        """:meth:`sample`, and all that led to it: a list of T + 1 arrays, pure noise first, the images last."""
        return list(self._chain("sample_sequence", batch_size, y, use_ema))

    # what they share ------------------------------------------------------------------------------------------

    def _noised(self, method: str, x0: np.ndarray, t: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """x_t, and eps, which is drawn unless it is given."""
        if noise is None:
            noise = self.generator.standard_normal(x0.shape, dtype=x0.dtype)
        elif not isinstance(noise, np.ndarray) or noise.shape != x0.shape or noise.dtype != x0.dtype:
            expected = f"an array like the images, {x0.dtype} of shape {x0.shape}"
            raise ValueError(f"GaussianDiffusion.{method}: noise must be {expected}, got {describe_shape(noise)}")
        signal, level = extract(self.sqrt_alphas_cumprod, t, x0), extract(self.sqrt_one_minus_alphas_cumprod, t, x0)
        return signal * x0 + level * noise, noise

    def _predicted(self, x: np.ndarray, t: np.ndarray, y: np.ndarray | None) -> np.ndarray:
        """eps_theta(x_t, t), with labels if there are classes."""
        model: Any = self.model  # what its forward takes is not known here
        eps = model(x, t) if self.num_classes is None else model(x, t, y)
        if not isinstance(eps, np.ndarray) or eps.shape != x.shape:
            raise ValueError(f"GaussianDiffusion: the model must return shape {x.shape}, as it received, got {describe_shape(eps)}")
        return eps

    def _mean(self, x: np.ndarray, t: np.ndarray, y: np.ndarray | None) -> np.ndarray:
        with self.model.inference():
            eps = self._predicted(x, t, y)
        if self.clip_range is None:
            return (x - extract(self.remove_noise_coeff, t, x) * eps) * extract(self.reciprocal_sqrt_alphas, t, x)
        x0 = (x - extract(self.sqrt_one_minus_alphas_cumprod, t, x) * eps) / extract(self.sqrt_alphas_cumprod, t, x)
        x0 = np.clip(x0, -self.clip_range, self.clip_range)
        return extract(self._first, t, x) * x0 + extract(self._second, t, x) * x

    def _step(self, x: np.ndarray, t: np.ndarray, y: np.ndarray | None) -> np.ndarray:
        mean = self._mean(x, t, y)
        if not t.any():
            return mean
        z = self.generator.standard_normal(x.shape, dtype=x.dtype)
        z[t == 0] = 0
        return mean + extract(self.sigma, t, x) * z

    def _chain(self, method: str, batch_size: int, y: np.ndarray | None, use_ema: bool) -> Iterator[np.ndarray]:
        """x_T, x_{T-1}, .. x_0: noise, and what each step makes of it."""
        (batch_size,) = check_positive(f"GaussianDiffusion.{method}", batch_size=batch_size)
        if self.image_size is None or self.image_channels is None:
            missing = "image_size" if self.image_size is None else "image_channels"
            raise ValueError(f"GaussianDiffusion.{method}: {missing} is None, expected it in the constructor")
        self._check_labels(method, y, batch_size, "batch_size")
        parameters = self.model.parameters()
        dtype = parameters[0].data.dtype if parameters else np.dtype(np.float32)
        x = self.generator.standard_normal((batch_size, self.image_channels, *self.image_size), dtype=dtype.type)
        yield x
        with self._weights(use_ema):
            for t in reversed(range(len(self))):
                x = self._step(x, np.full(batch_size, t), y)
                yield x

    def _weights(self, use_ema: bool) -> AbstractContextManager[None]:
        """Within it the model's parameters are the averages, if these are wanted."""
        return self.ema.swapped_in() if use_ema and self.ema is not None else nullcontext()

    def _checked(self, method: str, x: np.ndarray, t: int | np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """t as (B,) int64, after a look at everything that came. Labels are looked at where the network is used."""
        owner = f"GaussianDiffusion.{method}"
        if not isinstance(x, np.ndarray) or x.ndim != 4 or x.size == 0:
            raise ValueError(f"{owner}: expected images of shape (batch, channels, height, width), got {describe_shape(x)}")
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"{owner}: images must be float32 or float64, got {x.dtype}")
        for axis, name in ((2, "height"), (3, "width")):
            if self.image_size is not None and x.shape[axis] != self.image_size[axis - 2]:
                raise ValueError(f"{owner}: {name} of the images is {x.shape[axis]}, expected {self.image_size[axis - 2]} (image_size)")
        if method not in ("q_xt_x0", "q_sample", "perturb_x"):
            self._check_labels(method, y, len(x), "the number of images")
        t = checked_timesteps(owner, np.full(len(x), t) if np.ndim(t) == 0 else np.asarray(t), len(self))
        if len(t) != len(x):
            raise ValueError(f"{owner}: expected one t for all, or one for each of {len(x)} images, got {len(t)}")
        return t

    def _check_labels(self, method: str, y: np.ndarray | None, batch: int, whose: str) -> None:
        owner = f"GaussianDiffusion.{method}"
        if self.num_classes is None:
            if y is not None:
                raise ValueError(f"{owner}: y was given, but num_classes is None")
            return
        if y is None:
            raise ValueError(f"{owner}: y is missing, expected a label for each image (num_classes is {self.num_classes})")
        if not isinstance(y, np.ndarray) or y.dtype.kind not in "iu":
            got = f"an array of {y.dtype}" if isinstance(y, np.ndarray) else type(y).__name__
            raise TypeError(f"{owner}: y must be an array of integers, got {got}")
        if y.shape != (batch,):
            raise ValueError(f"{owner}: y must have the shape ({batch},), as {whose} is {batch}, got {y.shape}")
        if y.min() < 0 or y.max() >= self.num_classes:
            raise ValueError(f"{owner}: y ranges from {y.min()} to {y.max()}, expected 0 .. {self.num_classes - 1}")


def extract(values: np.ndarray, t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """values[t], (B, 1, 1, 1), of the dtype of x: a factor for each image."""
    return values[t].astype(x.dtype).reshape(-1, 1, 1, 1)


def settings_of(scheduler: DDPMScheduler | np.ndarray) -> tuple[np.ndarray, str, float | None]:
    """betas (T,) float64, the kind of variance, and to what an estimate of x_0 is clipped (None: it is not).

    Raises:
        TypeError, ValueError: neither of the two, or one that asks for what (d) is not.
    """
    owner = "GaussianDiffusion"
    if isinstance(scheduler, DDPMScheduler):
        config = scheduler.config
        wanted = {"prediction_type": ("epsilon",), "variance_type": ("fixed_large", "fixed_small"), "thresholding": (False,)}
        for name, possible in wanted.items():
            if config[name] not in possible:
                raise ValueError(f"{owner}: the scheduler's {name} is {config[name]!r}, expected {' or '.join(map(repr, possible))}")
        if scheduler.num_inference_steps not in (None, len(scheduler)):
            raise ValueError(f"{owner}: the scheduler visits {scheduler.num_inference_steps} timesteps, expected all {len(scheduler)}")
        betas, variance_type = scheduler.betas, config["variance_type"]
        limit = config["clip_sample_range"] if config["clip_sample"] else None
    else:
        betas, variance_type, limit = scheduler, "fixed_large", None
    if not isinstance(betas, np.ndarray) or betas.dtype not in (np.float32, np.float64):
        raise TypeError(f"{owner}: scheduler must be a DDPMScheduler or an array of floats, the betas, got {describe_shape(betas)}")
    if betas.ndim != 1 or betas.size == 0 or not np.all((betas < 1) & (1 - betas.astype(np.float64) < 1)):
        expected = "the betas must have the shape (T,) and be strictly between 0 and 1"
        raise ValueError(f"{owner}: {expected}, got shape {betas.shape}" + (f", {betas.min():g} to {betas.max():g}" if betas.size else ""))
    return betas.astype(np.float64), variance_type, limit


def checked_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(H, W), or a ValueError."""
    pair = (image_size, image_size) if is_int(image_size) else image_size
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(is_int(length) and length > 0 for length in pair):
        raise ValueError(f"GaussianDiffusion: image_size must be an int of at least 1 or (height, width), got {image_size!r}")
    return int(pair[0]), int(pair[1])


def check_average(model: Module, ema: EMA) -> None:
    """Raise an error unless ``ema`` averages all parameters of the model and no others."""
    if not isinstance(ema, EMA):
        raise TypeError(f"GaussianDiffusion: ema must be a hcrot.EMA, got {type(ema).__name__}")
    ours, averaged = {id(parameter) for parameter in model.parameters()}, {id(parameter) for parameter in ema.parameters}
    if ours != averaged:
        raise ValueError(
            f"GaussianDiffusion: ema must average the parameters of the model, got {len(averaged)} parameters, "
            f"of which {len(ours & averaged)} are among the model's {len(ours)}"
        )
