"""Pixels become channels and channels become pixels: resampling that loses nothing (Shi et al. 2016)."""

import numpy as np

from hcrot import init
from hcrot.layers.activation import check_floating
from hcrot.module import Module, check_gradient, describe_shape

__all__ = ["PixelShuffle", "PixelUnshuffle", "shuffle", "unshuffle"]


class PixelShuffle(Module):
    """Each pixel of ``C r^2`` channels becomes a square of r x r pixels of C channels, as ``torch.nn.PixelShuffle``.

        y[..., c, h r + i, w r + j] = x[..., c r^2 + i r + j, h, w]

    Backward: the numbers go back to where they came from, which is :class:`PixelUnshuffle`. Nothing but a shape is kept.

    Args:
        upscale_factor: r.

    Shapes:
        x (..., C r^2, H, W) -> y (..., C, H r, W r); a new array.

    Raises:
        TypeError: in forward, an x that is neither float32 nor float64. ValueError: a factor below 1; in forward, an x of fewer than three
            axes, an empty one, or one whose channels are no multiple of r^2.

    Example:
        >>> hcrot.PixelShuffle(2)(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1))
        array([[[[0., 1.],
                 [2., 3.]]]], dtype=float32)
    """

    def __init__(self, upscale_factor: int):
        (self.upscale_factor,) = init.check_positive("PixelShuffle", upscale_factor=upscale_factor)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_image_axes("PixelShuffle", x)
        square = self.upscale_factor**2
        if x.shape[-3] % square:
            raise ValueError(f"PixelShuffle: {x.shape[-3]} channels are not divisible by upscale_factor squared, {square}")
        y = shuffle(x, self.upscale_factor)
        self.save(y.shape, x.dtype)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        check_gradient("PixelShuffle", dout, *self.saved())
        return unshuffle(dout, self.upscale_factor)

    def describe(self) -> str:
        return str(self.upscale_factor)


class PixelUnshuffle(Module):
    """Each square of r x r pixels becomes one pixel of ``r^2`` times the channels, as ``torch.nn.PixelUnshuffle``.

        y[..., c r^2 + i r + j, h, w] = x[..., c, h r + i, w r + j]

    Backward: :class:`PixelShuffle`. Nothing but a shape is kept.

    Args:
        downscale_factor: r.

    Shapes:
        x (..., C, H r, W r) -> y (..., C r^2, H, W); a new array.

    Raises:
        TypeError: in forward, an x that is neither float32 nor float64. ValueError: a factor below 1; in forward, an x of fewer than three
            axes, an empty one, or one whose height or width is no multiple of r.

    Example:
        >>> hcrot.PixelUnshuffle(2)(np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4))[0, :, 0]       # four channels of 1 x 2 pixels
        array([[0., 2.],
               [1., 3.],
               [4., 6.],
               [5., 7.]], dtype=float32)
    """

    def __init__(self, downscale_factor: int):
        (self.downscale_factor,) = init.check_positive("PixelUnshuffle", downscale_factor=downscale_factor)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_image_axes("PixelUnshuffle", x)
        height, width = x.shape[-2:]
        if height % self.downscale_factor or width % self.downscale_factor:
            raise ValueError(f"PixelUnshuffle: a {height}x{width} image is not divisible by downscale_factor {self.downscale_factor}")
        y = unshuffle(x, self.downscale_factor)
        self.save(y.shape, x.dtype)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        check_gradient("PixelUnshuffle", dout, *self.saved())
        return shuffle(dout, self.downscale_factor)

    def describe(self) -> str:
        return str(self.downscale_factor)


def shuffle(x: np.ndarray, r: int) -> np.ndarray:
    """(..., C r^2, H, W) -> (..., C, H r, W r), a new array: the formula of :class:`PixelShuffle`."""
    *leading, channels, height, width = x.shape
    squares = x.reshape(*leading, channels // r**2, r, r, height, width)  # axes c, i, j, h, w
    squares = np.moveaxis(squares, (-4, -3), (-3, -1))  # c, h, i, w, j
    return np.array(squares, order="C").reshape(*leading, channels // r**2, height * r, width * r)


def unshuffle(x: np.ndarray, r: int) -> np.ndarray:
    """(..., C, H r, W r) -> (..., C r^2, H, W), a new array: the formula of :class:`PixelUnshuffle`."""
    *leading, channels, height, width = x.shape
    squares = x.reshape(*leading, channels, height // r, r, width // r, r)  # axes c, h, i, w, j
    squares = np.moveaxis(squares, (-3, -1), (-4, -3))  # c, i, j, h, w
    return np.array(squares, order="C").reshape(*leading, channels * r**2, height // r, width // r)


def check_image_axes(name: str, x: np.ndarray) -> None:
    """Raise an error that begins with ``name`` unless x is a floating-point (..., channels, height, width), not empty."""
    check_floating(name, x)
    if x.ndim < 3 or x.size == 0:
        raise ValueError(f"{name}: expected images of shape (..., channels, height, width), got {describe_shape(x)}")
