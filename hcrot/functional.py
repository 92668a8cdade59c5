"""Parts without parameters for blocks of one's own: to join, split, add and sum image arrays, on all threads.

They are plain functions, so they keep nothing for a backward pass. The backward of each is another one of them, and a block's ``backward``
calls it. With c for what one multiplies outputs by, the gradient of ``<c, f(x)>`` is:

    forward                  backward
    y = concatenate(a, b)    da, db = split(dy, a.shape[1])
    a, b = split(x, width)   dx = concatenate(da, db)
    y = plus(a, b)           da = db = dy        (an array that two places receive gets plus(d1, d2) back)
    s = pixel_sums(x)        dx[b, c, h, w] = ds[b, c]
    y = x + s[:, :, None, None]    dx = dy, ds = pixel_sums(dy)

NumPy has all of them, too, on one thread. Here is a block that uses a skip connection:

    class Skip(hcrot.Module):
        def __init__(self, channels):
            self.conv = hcrot.Conv2d(channels, channels, 3, padding=1)

        def forward(self, x):
            return concatenate(x, self.conv(x))

        def backward(self, dout):
            dx, dh = split(dout, dout.shape[1] // 2)
            return plus(dx, self.conv.backward(dh))
"""

import numpy as np

from hcrot.init import is_int
from hcrot.kernels import channels
from hcrot.module import describe_shape

__all__ = ["concatenate", "pixel_sums", "plus", "split"]


def check_images(name: str, argument: str, x: np.ndarray) -> None:
    """Raise a ValueError that begins with ``name`` unless x is an image array (batch, channels, height, width) of floats, not empty."""
    if not isinstance(x, np.ndarray) or x.ndim != 4 or x.size == 0:
        raise ValueError(f"{name}: {argument} must be images of shape (batch, channels, height, width), got {describe_shape(x)}")
    if x.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: {argument} must be float32 or float64, got {x.dtype}")


def concatenate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two image arrays side by side along channels.

    Args:
        a, b: (batch, channels of each, height, width), float32 or float64, of the same dtype.

    Returns:
        (batch, channels of a + channels of b, height, width), in the same dtype; a new array whose memory is channels-last.

    Raises:
        ValueError: a or b is no image array, or they differ in dtype, batch, height or width.
    """
    check_images("concatenate", "a", a)
    check_images("concatenate", "b", b)
    if a.dtype != b.dtype or a.shape[0] != b.shape[0] or a.shape[2:] != b.shape[2:]:
        raise ValueError(
            "concatenate: a and b must have the same dtype, batch, height and width, "
            f"got {a.dtype} of shape {a.shape} and {b.dtype} of shape {b.shape}"
        )
    return channels.concatenate(a, b)


def split(x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``width`` channels, and the others: the inverse of :func:`concatenate`.

    Args:
        x: (batch, channels, height, width), float32 or float64.
        width: from 1 to channels - 1.

    Returns:
        two new arrays whose memory is channels-last, (batch, width, height, width of x) and (batch, channels - width, height, width of x).

    Raises:
        ValueError: x is no image array, or ``width`` leaves nothing on one side.
    """
    check_images("split", "x", x)
    if not is_int(width) or not 0 < width < x.shape[1]:
        raise ValueError(f"split: width must be an int from 1 to {x.shape[1] - 1}, for images with {x.shape[1]} channels, got {width!r}")
    return channels.split(x, int(width))


def plus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a + b`` for two image arrays of the same shape and dtype.

    Args:
        a, b: (batch, channels, height, width), float32 or float64. Nothing is broadcast.

    Returns:
        the sum, of the same shape and dtype; a new array whose memory is channels-last.

    Raises:
        ValueError: a or b is no image array, or they differ in shape or dtype.
    """
    check_images("plus", "a", a)
    check_images("plus", "b", b)
    if a.dtype != b.dtype or a.shape != b.shape:
        raise ValueError(f"plus: a and b must have the same shape and dtype, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    return channels.plus(a, b)


def pixel_sums(x: np.ndarray) -> np.ndarray:
    """``s[b, c] = sum over h, w of x[b, c, h, w]``: the backward of adding one number to all pixels of a channel.

    Args:
        x: (batch, channels, height, width), float32 or float64. The sums are taken in float64.

    Returns:
        (batch, channels), in x's dtype.

    Raises:
        ValueError: x is no image array.
    """
    check_images("pixel_sums", "x", x)
    return channels.pixel_sums(x)
