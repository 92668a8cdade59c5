"""Pooling: each output pixel is the largest, or the mean, of a window of input pixels, channel by channel.

Notation: B images, C channels, KH x KW window, OH x OW output pixels. The loops run over the KH KW places in the window; a *tap* is the
(B, OH, OW, C) view of what all windows have at one such place.
"""

from collections.abc import Iterator

import numpy as np

from hcrot.init import is_int
from hcrot.kernels.im2col import channels_first, channels_last, make_geometry, pair
from hcrot.layers.activation import check_floating, zero_unless
from hcrot.layers.arguments import refuse
from hcrot.module import Module, check_gradient, describe_shape

__all__ = ["AvgPool2d", "MaxPool2d", "Pool2d"]


class Pool2d(Module):
    """What both kinds of pooling share: the geometry. Use :class:`MaxPool2d` or :class:`AvgPool2d`.

    Args:
        kernel_size: KH and KW, an int or ``(h, w)``.
        stride: distance between windows, an int or ``(h, w)``; by default the kernel's size, so that windows tile the image.
        padding: rows and columns added on each side, an int or ``(h, w)``, at most half the kernel.
        dilation: distance between the places of a window, an int or ``(h, w)``.
        ceil_mode: whether a last window is added at the bottom and at the right if pixels are left over there. It reaches over the edge of
            the padded image, but begins within the image or the padding before it.

    Shapes:
        x (B, C, H, W) -> y (B, C, OH, OW), memory channels-last, with ``OH = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1``,
        rounded down, or up with ceil_mode; x must be at least as large as a window. One image x (C, H, W) -> y (C, OH, OW).

    Raises:
        TypeError: in forward, an x that is neither float32 nor float64.
        ValueError: an argument out of range or not supported; in forward, an x of other axes, or smaller than a window.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None,
        padding: int | tuple[int, int],
        dilation: int | tuple[int, int],
        ceil_mode: bool,
    ):
        name = type(self).__name__
        pads = pair(padding, f"{name}: padding", minimum=0)
        self.geometry = make_geometry(kernel_size, kernel_size if stride is None else stride, pads, dilation, name)
        self.ceil_mode = bool(ceil_mode)
        kernel = self.geometry[:2]
        if 2 * pads[0] > kernel[0] or 2 * pads[1] > kernel[1]:
            raise ValueError(f"{name}: padding {pads} must be at most half of kernel_size {kernel}")

    def span(self) -> tuple[int, int]:
        """How many rows and columns a window reaches over."""
        kernel_h, kernel_w, *_, dilation_h, dilation_w = self.geometry
        return dilation_h * (kernel_h - 1) + 1, dilation_w * (kernel_w - 1) + 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """OH and OW."""
        _, _, stride_h, stride_w, top, bottom, left, right = self.geometry[:8]
        span_h, span_w = self.span()
        return (
            count_windows(height, top, bottom, span_h, stride_h, self.ceil_mode),
            count_windows(width, left, right, span_w, stride_w, self.ceil_mode),
        )

    def padded(self, x: np.ndarray, fill: float) -> np.ndarray:
        """x as (B, H, W, C) with its padding, of value ``fill``, around it, and below and to the right all that windows reach over."""
        name = type(self).__name__
        check_floating(name, x)
        if x.ndim not in (3, 4) or x.size == 0:
            raise ValueError(f"{name}: expected images of shape ([batch,] channels, height, width), got {describe_shape(x)}")
        batch, channels, height, width = x.shape if x.ndim == 4 else (1, *x.shape)
        out_h, out_w = self.output_size(height, width)
        if min(out_h, out_w) < 1:
            raise ValueError(f"{name}: a {height}x{width} image is too small for kernel_size {self.geometry[:2]}")
        images = channels_last(x if x.ndim == 4 else x[None])
        _, _, stride_h, stride_w, top, bottom, left, right = self.geometry[:8]
        span_h, span_w = self.span()
        full_h = max(top + height + bottom, (out_h - 1) * stride_h + span_h)
        full_w = max(left + width + right, (out_w - 1) * stride_w + span_w)
        if (full_h, full_w) == (height, width):
            return images
        full = np.full((batch, full_h, full_w, channels), fill, x.dtype)
        self.cropped(full, x.shape)[...] = images
        return full

    def cropped(self, images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The part of padded images that is not padding, a view; ``shape`` is x's."""
        top, left = self.geometry[4], self.geometry[6]
        return images[:, top : top + shape[-2], left : left + shape[-1]]

    def taps(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """The taps of padded images (B, H, W, C), row by row: KH KW views (B, OH, OW, C)."""
        kernel_h, kernel_w, stride_h, stride_w, *_, dilation_h, dilation_w = self.geometry
        span_h, span_w = self.span()
        last_h, last_w = images.shape[1] - span_h, images.shape[2] - span_w
        for i in range(0, span_h, dilation_h):
            for j in range(0, span_w, dilation_w):
                yield images[:, i : last_h + i + 1 : stride_h, j : last_w + j + 1 : stride_w]

    def describe(self) -> str:
        kernel_h, kernel_w, stride_h, stride_w, top, _, left, _ = self.geometry[:8]
        return f"kernel_size={(kernel_h, kernel_w)}, stride={(stride_h, stride_w)}, padding={(top, left)}"


class MaxPool2d(Pool2d):
    """The largest number of each window, as ``torch.nn.MaxPool2d``; padding counts as -inf. A window with a NaN gives NaN.

    Backward: each dout goes to the place that its y came from, never to padding. Of several equal numbers that is the first, row by row; of
    several NaN it is the last. Kept is the number of that place within the window.

    Arguments, shapes and errors: :class:`Pool2d`. ``return_indices`` is not supported: only False.

    Example:
        >>> hcrot.MaxPool2d(2)(np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4))
        array([[[[5., 7.]]]], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        refuse("MaxPool2d", "forward returns the maxima alone", return_indices=return_indices)
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)

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
        self.save(images.shape, x.shape, y.dtype, places)
        return as_given(channels_first(y), x.ndim)

    def first_places(self, shape: tuple[int, ...]) -> np.ndarray:
        """The first place of each window that is not padding, (B, OH, OW, C), of the smallest dtype that holds them all."""
        kernel_h, kernel_w, stride_h, stride_w, top, _, left, _, dilation_h, dilation_w = self.geometry
        rows = np.maximum(top - stride_h * np.arange(shape[1]) + dilation_h - 1, 0) // dilation_h
        columns = np.maximum(left - stride_w * np.arange(shape[2]) + dilation_w - 1, 0) // dilation_w
        places = np.empty(shape, np.min_scalar_type(kernel_h * kernel_w - 1))
        places[...] = (rows[:, None] * kernel_w + columns)[..., None]
        return places

    def backward(self, dout: np.ndarray) -> np.ndarray:
        padded_shape, shape, dtype, places = self.saved()
        check_gradient("MaxPool2d", dout, as_given(channels_first(places), len(shape)).shape, dtype)
        dimages, dy = np.zeros(padded_shape, dtype), channels_last(dout if dout.ndim == 4 else dout[None])
        for place, dtap in enumerate(self.taps(dimages)):
            dtap += zero_unless(places == place, dy)
        return as_given(channels_first(self.cropped(dimages, shape)), len(shape))

    def describe(self) -> str:
        return f"{super().describe()}, dilation={self.geometry[8:]}, ceil_mode={self.ceil_mode}"


class AvgPool2d(Pool2d):
    """The mean of each window, as ``torch.nn.AvgPool2d``; padding counts as zeros.

    Backward: every pixel of a window gets ``dout / D``, where D is what the window's sum was divided by.

    Further arguments, shapes and errors: :class:`Pool2d`.

    Args:
        count_include_pad: whether D counts the padding within a window, too; what ceil_mode adds beyond the padding never counts.
        divisor_override: D of every window, in place of its number of pixels.

    Example:
        >>> hcrot.AvgPool2d(2)(np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4))
        array([[[[2.5, 4.5]]]], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__(kernel_size, stride, padding, 1, ceil_mode)
        self.count_include_pad = bool(count_include_pad)
        if divisor_override is not None and (not is_int(divisor_override) or divisor_override == 0):
            raise ValueError(f"AvgPool2d: divisor_override must be None or an int other than 0, got {divisor_override!r}")
        self.divisor_override = None if divisor_override is None else int(divisor_override)

    def forward(self, x: np.ndarray) -> np.ndarray:
        images = self.padded(x, 0)
        taps = self.taps(images)
        y = next(taps).copy()
        for tap in taps:
            y += tap
        y /= self.divisor(x.shape, x.dtype)
        self.save(images.shape, x.shape, as_given(channels_first(y), x.ndim).shape, y.dtype)
        return as_given(channels_first(y), x.ndim)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        padded_shape, shape, out_shape, dtype = self.saved()
        check_gradient("AvgPool2d", dout, out_shape, dtype)
        dimages = np.zeros(padded_shape, dtype)
        share = channels_last(dout if dout.ndim == 4 else dout[None]) / self.divisor(shape, dtype)
        for dtap in self.taps(dimages):
            dtap += share
        return as_given(channels_first(self.cropped(dimages, shape)), len(shape))

    def divisor(self, shape: tuple[int, ...], dtype: np.dtype) -> int | np.ndarray:
        """D for images of this shape: one number, or (OH, OW, 1) where windows differ."""
        if self.divisor_override is not None:
            return self.divisor_override
        kernel_h, kernel_w, stride_h, stride_w, *sides = self.geometry[:8]
        whole = self.count_include_pad and not self.ceil_mode
        if whole or not (any(sides) or self.ceil_mode):
            return kernel_h * kernel_w
        counts = []
        for size, out, kernel, stride, pad in zip(
            shape[-2:], self.output_size(*shape[-2:]), (kernel_h, kernel_w), (stride_h, stride_w), (sides[0], sides[2]), strict=True
        ):
            first = np.arange(out) * stride - pad
            low, high = (-pad, size + pad) if self.count_include_pad else (0, size)
            counts.append(np.minimum(first + kernel, high) - np.maximum(first, low))
        return (counts[0][:, None] * counts[1])[..., None].astype(dtype)

    def describe(self) -> str:
        override = "" if self.divisor_override is None else f", divisor_override={self.divisor_override}"
        return f"{super().describe()}, ceil_mode={self.ceil_mode}, count_include_pad={self.count_include_pad}{override}"


def count_windows(size: int, before: int, after: int, span: int, stride: int, ceil_mode: bool) -> int:
    """How many windows find place along one axis; at most 0 if none."""
    left_over = size + before + after - span
    if not ceil_mode or left_over < 0:
        return left_over // stride + 1
    count = -(-left_over // stride) + 1
    # the last one must not begin in the padding after the image
    return count - ((count - 1) * stride >= size + before)


def as_given(images: np.ndarray, ndim: int) -> np.ndarray:
    """(B, C, H, W) as it is if ``ndim`` is 4; for 3, when a single image was given, (C, H, W)."""
    return images if ndim == 4 else images[0]
