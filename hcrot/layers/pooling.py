"""Pooling: each output pixel is the largest, or the mean, of a window of input pixels, channel by channel.

Notation: B images, C channels, KH x KW window, OH x OW output pixels. The loops run over the KH KW places in the window; a *tap* is the
(B, OH, OW, C) view of what all windows have at one such place.
"""

from collections.abc import Iterator

import numpy as np

from hcrot.kernels.im2col import channels_first, channels_last, make_geometry, output_size, pair
from hcrot.layers.activation import check_floating, zero_unless
from hcrot.module import Module, check_gradient


class Pool2d(Module):
    """What both kinds of pooling share: the geometry. Use :class:`MaxPool2d` or :class:`AvgPool2d`.

    Args:
        kernel_size: KH and KW, an int or ``(h, w)``.
        stride: distance between windows, an int or ``(h, w)``; by default the kernel's size, so that windows tile the image.
        padding: rows and columns added on each side, an int or ``(h, w)``, at most half the kernel.

    Shapes:
        x (B, C, H, W) -> y (B, C, OH, OW) with ``OH = (H + 2 padding - KH) // stride + 1``, memory channels-last.

    Raises:
        TypeError: in forward, an x that is neither float32 nor float64.
        ValueError: an argument out of range; in forward, an x that is not (B, C, H, W), or smaller than a window.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ):
        name = type(self).__name__
        pads = pair(padding, f"{name}: padding", minimum=0)
        self.geometry = make_geometry(kernel_size, kernel_size if stride is None else stride, pads, 1, name)
        kernel = self.geometry[:2]
        if 2 * pads[0] > kernel[0] or 2 * pads[1] > kernel[1]:
            raise ValueError(f"{name}: padding {pads} must be at most half of kernel_size {kernel}")

    def padded(self, x: np.ndarray, fill: float) -> np.ndarray:
        """x as (B, H, W, C) with its padding, of value ``fill``, around it."""
        name = type(self).__name__
        check_floating(name, x)
        if x.ndim != 4:
            raise ValueError(f"{name}: expected images of shape (batch, channels, height, width), got {x.shape}")
        batch, channels, height, width = x.shape
        if min(output_size(height, width, self.geometry)) < 1:
            raise ValueError(f"{name}: a {height}x{width} image is too small for kernel_size {self.geometry[:2]}")
        top, bottom, left, right = self.geometry[4:8]
        if not any(self.geometry[4:8]):
            return channels_last(x)
        images = np.full((batch, height + top + bottom, width + left + right, channels), fill, x.dtype)
        self.cropped(images)[...] = channels_last(x)
        return images

    def cropped(self, images: np.ndarray) -> np.ndarray:
        """The part of padded images that is not padding, a view."""
        top, bottom, left, right = self.geometry[4:8]
        return images[:, top : images.shape[1] - bottom, left : images.shape[2] - right]

    def taps(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """The taps of padded images (B, H, W, C), row by row: KH KW views (B, OH, OW, C)."""
        kernel_h, kernel_w, stride_h, stride_w = self.geometry[:4]
        height, width = images.shape[1:3]
        for i in range(kernel_h):
            for j in range(kernel_w):
                yield images[:, i : height - kernel_h + i + 1 : stride_h, j : width - kernel_w + j + 1 : stride_w]

    def describe(self) -> str:
        kernel_h, kernel_w, stride_h, stride_w, top, _, left, _ = self.geometry[:8]
        return f"kernel_size={(kernel_h, kernel_w)}, stride={(stride_h, stride_w)}, padding={(top, left)}"


class MaxPool2d(Pool2d):
    """The largest number of each window, as ``torch.nn.MaxPool2d``; padding counts as -inf. A window with a NaN gives NaN.

    Backward: each dout goes to the place its y came from, of several equal ones to the first, row by row, of several NaN to the last; never
    to padding. Kept is the number of that place within the window.

    Arguments, shapes and errors: :class:`Pool2d`.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        images = self.padded(x, -np.inf)
        taps = self.taps(images)
        y = next(taps).copy()
        places = self.first_places(y.shape) if self.training else None
        for place, tap in enumerate(taps, 1):
            if places is not None:
                better = (tap > y) | np.isnan(tap)
                # places only grow, so that the maximum is the last one that was better
                np.maximum(places, better * places.dtype.type(place), out=places)
            np.maximum(y, tap, out=y)
        self.save(images.shape, y.dtype, places)
        return channels_first(y)

    def first_places(self, shape: tuple[int, ...]) -> np.ndarray:
        """The first place of each window that is not padding, (B, OH, OW, C), of the smallest dtype that holds them all."""
        kernel_h, kernel_w, stride_h, stride_w, top, _, left, _ = self.geometry[:8]
        rows = np.maximum(top - stride_h * np.arange(shape[1]), 0)
        columns = np.maximum(left - stride_w * np.arange(shape[2]), 0)
        places = np.empty(shape, np.min_scalar_type(kernel_h * kernel_w - 1))
        places[...] = (rows[:, None] * kernel_w + columns)[..., None]
        return places

    def backward(self, dout: np.ndarray) -> np.ndarray:
        padded_shape, dtype, places = self.saved()
        check_gradient("MaxPool2d", dout, channels_first(places).shape, dtype)
        dimages, dy = np.zeros(padded_shape, dtype), channels_last(dout)
        for place, dtap in enumerate(self.taps(dimages)):
            dtap += zero_unless(places == place, dy)
        return channels_first(self.cropped(dimages))


class AvgPool2d(Pool2d):
    """The mean of each window, as ``torch.nn.AvgPool2d``; padding counts as zeros that belong to the window.

    Backward: every pixel of a window gets ``dout / (KH KW)``.

    Arguments, shapes and errors: :class:`Pool2d`.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        images = self.padded(x, 0)
        taps = self.taps(images)
        y = next(taps).copy()
        for tap in taps:
            y += tap
        y /= self.geometry[0] * self.geometry[1]
        self.save(images.shape, channels_first(y).shape, y.dtype)
        return channels_first(y)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        padded_shape, shape, dtype = self.saved()
        check_gradient("AvgPool2d", dout, shape, dtype)
        dimages = np.zeros(padded_shape, dtype)
        share = channels_last(dout) / (self.geometry[0] * self.geometry[1])
        for dtap in self.taps(dimages):
            dtap += share
        return channels_first(self.cropped(dimages))
