"""Normalisation of each channel over the whole batch, with averages of its mean and variance for inference."""

import numpy as np

from hcrot import init
from hcrot.kernels.im2col import channels_first, channels_last
from hcrot.kernels.norm import group_norm, group_norm_backward
from hcrot.layers.arguments import PLACE, without
from hcrot.layers.conv import check_images
from hcrot.module import Module, Parameter, check_gradient

__all__ = ["BatchNorm2d"]


class BatchNorm2d(Module):
    """Give each channel of a batch mean 0 and variance 1, then scale and shift it (Ioffe & Szegedy 2015), as ``torch.nn.BatchNorm2d``.

        xhat = (x - mean) / sqrt(var + eps),   y = weight xhat + bias         mean and var over the N = B H W pixels of a channel
        running_mean = (1 - m) running_mean + m mean,                         m = momentum
        running_var = (1 - m) running_var + m var N / (N - 1)

    In inference (:meth:`Module.eval` and :meth:`Module.inference`) the running ones take the place of mean and var. As everywhere in hcrot,
    inference keeps nothing, so backward follows forward in training only: ``dweight = sum dy xhat``, ``dbias = sum dy``, and with
    ``g = weight dy``, ``dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps)``.

    The kernels are those of GroupNorm: with all pixels of the batch in one image, each channel is a group. What is kept is x, and mean and
    1 / sqrt(var + eps) of each channel. var is computed back from that, which is exact to 1e-7 (var + eps) in float32.

    Every forward in training changes the running values, whether a backward follows or not. They are constants of the state: saved and
    loaded, not learned, and not averaged by EMA.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: m; None: the plain mean over all batches so far, ``m = 1 / num_batches_tracked``.
        affine: whether there are weight (1 at first) and bias (0 at first).
        bias: whether there is a bias, if affine.
        track_running_stats: whether there are running values; without, inference normalises by its own batch, too.

    Shapes:
        x (B, C, H, W) -> y of the same shape. ``weight``, ``bias`` (C,), or None; ``running_mean`` (C,), 0 at first, ``running_var`` (C,),
        1 at first, ``num_batches_tracked`` (), or None. Names and order are PyTorch's. The last is an int64 there, and a float here, as all
        of a state is: ``state["num_batches_tracked"].astype(np.float32)`` before it is loaded.

    Raises:
        ValueError: a number out of range; in forward, an x that is no (B, C, H, W), of another dtype or empty, or, in training, one of a
            single pixel, which has no variance.

    Example:
        >>> layer = hcrot.BatchNorm2d(1)
        >>> layer(np.array([1, 3], np.float32).reshape(2, 1, 1, 1)).round(3).ravel()       # over the two images
        array([-1.,  1.], dtype=float32)
        >>> layer.running_mean.data, layer.running_var.data                                # a tenth of the way from 0 and 1 to 2 and 2
        (array([0.2], dtype=float32), array([1.1], dtype=float32))
    """

    @without(**PLACE)
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
    ):
        (num_features,) = init.check_positive("BatchNorm2d", num_features=num_features)
        if not init.is_real(eps) or isinstance(eps, bool) or not 0 < eps < np.inf:
            raise ValueError(f"BatchNorm2d: eps must be a positive number, got {eps!r}")
        if momentum is not None and (not init.is_real(momentum) or isinstance(momentum, bool) or not 0 <= momentum <= 1):
            raise ValueError(f"BatchNorm2d: momentum must be None or a number from 0 to 1, got {momentum!r}")
        self.num_features, self.eps, self.momentum = num_features, float(eps), None if momentum is None else float(momentum)
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine and bias else None
        self.running_mean = Parameter(np.zeros(num_features, np.float32), trainable=False) if track_running_stats else None
        self.running_var = Parameter(np.ones(num_features, np.float32), trainable=False) if track_running_stats else None
        self.num_batches_tracked = Parameter(np.zeros((), np.float32), trainable=False) if track_running_stats else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        given = self.weight or self.running_mean
        if not given and getattr(x, "dtype", None) not in (np.float32, np.float64):
            raise ValueError(f"BatchNorm2d: expected a float32 or float64 array, got {getattr(x, 'dtype', type(x).__name__)}")
        check_images("BatchNorm2d", x, self.num_features, given.data.dtype if given else x.dtype)
        weight, bias = self.scale_and_shift(x.dtype)
        if self.running_mean and self.running_var and not self.training:
            scale = weight / np.sqrt(self.running_var.data + x.dtype.type(self.eps))
            return x * scale[:, None, None] + (bias - scale * self.running_mean.data)[:, None, None]
        pixels = x.size // self.num_features
        if self.training and pixels == 1:
            raise ValueError(f"BatchNorm2d: expected more than one pixel per channel in training, got shape {x.shape}")
        y, mean, rstd = group_norm(one_image(x), weight, bias, self.num_features, self.eps, False)
        if self.training:
            self.track(mean[0], rstd[0], pixels)
        self.save(x, mean, rstd)
        return many_images(y, x.shape)

    def track(self, mean: np.ndarray, rstd: np.ndarray, pixels: int) -> None:
        """Move the running values towards mean (C,), and the variance that belongs to rstd (C,), of so many pixels."""
        if not (self.running_mean and self.running_var and self.num_batches_tracked):
            return
        self.num_batches_tracked.data += 1
        m = 1 / float(self.num_batches_tracked.data) if self.momentum is None else self.momentum
        variance = np.maximum(1 / np.square(rstd, dtype=np.float64) - self.eps, 0) * pixels / (pixels - 1)
        self.running_mean.data += (m * (mean - self.running_mean.data)).astype(mean.dtype)
        self.running_var.data += (m * (variance - self.running_var.data)).astype(mean.dtype)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x, mean, rstd = self.saved()
        check_gradient("BatchNorm2d", dout, x.shape, x.dtype)
        dx, dweight, dbias = group_norm_backward(one_image(dout), one_image(x), mean, rstd, *self.scale_and_shift(x.dtype), False)
        if self.weight and self.weight.trainable:
            self.weight.grad += dweight
        if self.bias and self.bias.trainable:
            self.bias.grad += dbias
        return many_images(dx, x.shape)

    def scale_and_shift(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias, or, without, ones and zeros."""
        return (
            self.weight.data if self.weight else np.ones(self.num_features, dtype),
            self.bias.data if self.bias else np.zeros(self.num_features, dtype),
        )

    def describe(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}, "
            f"bias={self.bias is not None}, track_running_stats={self.running_mean is not None}"
        )


def one_image(x: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (1, C, B H, W), the images below each other: a view if memory is channels-last, else a copy."""
    batch, channels, height, width = x.shape
    return channels_first(channels_last(x).reshape(1, batch * height, width, channels))


def many_images(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The way back: (1, C, B H, W) -> (B, C, H, W), which is ``shape``."""
    batch, channels, height, width = shape
    return channels_first(channels_last(x).reshape(batch, height, width, channels))
